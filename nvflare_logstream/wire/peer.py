"""Who is at the other end of an upload."""

from __future__ import annotations

from typing import NamedTuple


class Peer(NamedTuple):
    """Who sent a request, as the transport authenticated it.

    Attributes:
        site: the site's name.
        job_id: the job whose process sent it; empty for the site's parent process.
    """

    site: str
    job_id: str = ""
