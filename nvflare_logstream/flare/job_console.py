"""The console of a client job's process as a log, where the site's or the job's `log_files` name console.txt.

It begins when the first of our components is made. A site's own is made before anything of the job is loaded;
one that only the job's config names comes after the job's executors.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from nvflare.apis.workspace import Workspace

from nvflare_logstream.flare.shared import shared
from nvflare_logstream.flare.site_policy import read_policy
from nvflare_logstream.names import CONSOLE_FILE

_JOB_PROCESS = "worker_process"  # the runtime's module that a client job's process runs
_OPTIONS = {"-m": "workspace", "-n": "job", "-c": "site"}  # of its command line, whatever launched it
_NOT_OURS = "this is no process of one job at one site (it is the simulator, say)"


def begin_console(log_files: Collection[str]) -> None:
    """Point what this process prints at its log, once, if that is wanted and the site lets logs out.

    Whatever goes wrong, nothing is raised: `shared.console` says why there is none.
    """
    if CONSOLE_FILE not in log_files or shared.console is not None:
        return
    try:
        shared.console = _begin()
    except Exception as error:  # no descriptor, no right to write there, another system: the job goes on
        shared.console = f"{type(error).__name__}: {error}"


def _begin() -> str:
    job = own_job(sys.argv)
    if job is None:
        return _NOT_OURS
    workspace, job_id = job
    logs = read_policy(workspace).logs
    if not logs.allowed:
        return logs.reason
    from nvflare_logstream.site.console import Console  # only here: most jobs do without

    Console(Path(workspace.get_log_root(job_id)) / CONSOLE_FILE)
    return ""


def own_job(command: list[str]) -> tuple[Workspace, str] | None:
    """The workspace and the id of the job whose process has this command line; None for other processes.

    Before the job's run begins, the runtime tells its components neither.
    """
    if not command or Path(command[0]).stem != _JOB_PROCESS:
        return None
    given = {_OPTIONS[name]: value for name, value in pairwise(command[1:]) if name in _OPTIONS}
    if len(given) < len(_OPTIONS):
        return None
    return Workspace(given["workspace"], site_name=given["site"]), given["job"]
