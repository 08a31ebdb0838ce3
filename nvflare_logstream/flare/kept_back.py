"""A job whose site has said no while it ran: none of the site's processes may send its logs, now or later.

That stands in a small file in the job's directory, since the parent process, the job's own and later lives of
both need not see a no that was taken back a moment later. The job's code can write there too: with that it
keeps back its own logs, and nothing else.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from nvflare.apis.workspace import Workspace

_FILE = "logstream_kept_back.txt"
_LONGEST = 2000  # bytes; what is said of it travels to the server
_UNKNOWN = "the site did not allow it while the job ran"

_logger = logging.getLogger(__name__)


def kept_file(workspace: Workspace, job_id: str) -> Path:
    """Where that stands, if it does; raises ValueError for what is no job's id."""
    return Path(workspace.get_run_dir(job_id)) / _FILE


def keep_for_good(workspace: Workspace, job_id: str, reason: str) -> None:
    """Note that a job's logs stay at the site, and why, whatever the site says later."""
    try:
        path = kept_file(workspace, job_id)
        # Nothing that stands there is written to: the job may have led it elsewhere.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(reason.encode(errors="replace"))
    except FileExistsError:
        pass  # it is noted already: whatever stands there counts
    except (OSError, ValueError) as error:
        _logger.warning("job %s: a later life of this site will not know that: %s", job_id, error)


def why_kept(workspace: Workspace, job_id: str) -> str:
    """Why a job's logs stay at the site for good; empty if they do not. It fails closed."""
    try:
        path = kept_file(workspace, job_id)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:  # by the system's own calls: whatever the job has put there, they give bytes or an OSError
            return os.read(descriptor, _LONGEST).decode(errors="replace") or _UNKNOWN
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return _UNKNOWN
