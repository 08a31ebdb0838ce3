"""Where a job's process writes its own logs."""

from __future__ import annotations

import logging
from pathlib import Path

from nvflare.apis.workspace import Workspace

from nvflare_logstream.names import DEFAULT_LOG_FILES


def own_log_directory(workspace: Workspace, job_id: str) -> Path:
    """The directory this job process logs into: where its log.txt is open, else the job's log directory.

    The two differ in the simulator, whose processes log into the site's directory instead of the job's.
    """
    for handler in logging.getLogger().handlers:
        path = Path(getattr(handler, "baseFilename", ""))
        if path.name == DEFAULT_LOG_FILES[0]:
            return path.parent
    return Path(workspace.get_log_root(job_id))
