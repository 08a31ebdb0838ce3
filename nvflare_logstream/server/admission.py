"""Whether a site may write into a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nvflare_logstream.wire.upload_reply import Status


@dataclass(frozen=True)
class Admission:
    """Whether a site may write into a job.

    Attributes:
        status: OK, LATER (not known yet: the site is to try again) or REFUSED (final).
        reason: why, unless it is OK.
        by_policy: the site takes part in the job, but has said that it keeps its logs.
    """

    status: Status = Status.OK
    reason: str = ""
    by_policy: bool = False


Admit = Callable[[str, str], Admission]  # (site, job_id)
