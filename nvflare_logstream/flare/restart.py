"""Closes what an earlier life of a client's parent process left open: streams of jobs that are on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from nvflare.apis.workspace import Workspace

from nvflare_logstream.errors import LogStreamError
from nvflare_logstream.flare.job_config import JobConfig
from nvflare_logstream.flare.runtime import running_jobs
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import END_UNSEEN

_SOON = 60.0  # seconds; the runtime ends a job's process within a few after its parent
_LOOK_INTERVAL, _LATER_INTERVAL = 1.0, 10.0  # seconds; each look is at all processes of the machine
_OUTCOME = f"{END_UNSEEN}the site restarted"


def earlier_jobs(workspace: Workspace) -> list[str]:
    """Ids of the jobs on disk that got a streamer of ours; logs of other jobs are not ours to send."""
    root = Path(workspace.get_root_dir())
    job_ids = [entry.name for entry in root.iterdir() if (entry / f"app_{workspace.site_name}").is_dir()]
    return [job_id for job_id in job_ids if _has_streamer(workspace, job_id)]


def _files_of(workspace: Workspace, job_id: str) -> tuple[str, ...]:
    """What the site streamed of a job when it was launched; its list may have changed since."""
    try:
        return JobConfig(Path(workspace.get_app_config_dir(job_id))).log_files
    except LogStreamError:
        return ()


def _has_streamer(workspace: Workspace, job_id: str) -> bool:
    try:
        return bool(JobConfig(Path(workspace.get_app_config_dir(job_id))).streamers())
    except LogStreamError:
        return False


def close_earlier(
    sender: Sender,
    workspace: Workspace,
    job_ids: Iterable[str],
    log_files: tuple[str, ...],
    *,
    running: Callable[[Iterable[str]], set[str]] = running_jobs,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Close the streams of jobs whose process is gone; one that outlived its parent may still write.

    Args:
        sender: sends the rest and closes.
        workspace: the site's workspace.
        job_ids: the jobs.
        log_files: what the site streams now; what it streamed of each job then is closed too.
        running: those of some jobs that still have a process.
        clock: gives the time in seconds, from any beginning.
        sleep: waits some seconds.
    """
    began, waiting = clock(), set(job_ids)
    while waiting:
        alive = running(waiting)
        for job_id in sorted(waiting - alive):
            directory = Path(workspace.get_log_root(job_id))
            files = dict.fromkeys((*log_files, *_files_of(workspace, job_id)))
            sender.finish(job_id, directory, files, _OUTCOME, only_unclosed=True)
        waiting = alive
        if waiting:
            sleep(_LOOK_INTERVAL if clock() - began < _SOON else _LATER_INTERVAL)
