"""Closes what an earlier life of a client's parent process left open: streams of jobs that are on disk."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from nvflare.apis.workspace import Workspace

from nvflare_logstream.errors import LogStreamError
from nvflare_logstream.flare.job_config import JobConfig
from nvflare_logstream.flare.launched import Launched, doubt_of, read_launched
from nvflare_logstream.flare.launchers import HERE, Launcher
from nvflare_logstream.flare.runtime import running_jobs
from nvflare_logstream.names import is_pattern
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import END_UNSEEN

_SOON = 60.0  # seconds; the runtime ends a job's process within a few after its parent
_LOOK_INTERVAL, _LATER_INTERVAL = 1.0, 10.0  # seconds; each look is at all processes of the machine
_ASK_INTERVAL = 5.0  # seconds between two questions to a launcher
_QUIET = 60.0  # seconds without a new byte after which a job is over, where nobody can say
_MOST_ENTRIES = 1000  # of a log directory that are looked at
_OUTCOME = f"{END_UNSEEN}the site restarted"

_logger = logging.getLogger(__name__)


def earlier_jobs(workspace: Workspace) -> list[str]:
    """Ids of the jobs on disk that got a streamer of ours, or that the site followed itself.

    Logs of other jobs are not ours to send.
    """
    root = Path(workspace.get_root_dir())
    jobs = [entry for entry in root.iterdir() if (entry / f"app_{workspace.site_name}").is_dir()]
    return [job.name for job in jobs if _has_streamer(workspace, job.name) or read_launched(job)]


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
    launcher: Launcher = HERE,
    engine: Any = None,
    running: Callable[[Iterable[str]], set[str]] = running_jobs,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Close the streams of jobs that are over; one that outlived its parent may still write.

    Processes of this machine are looked for. A job elsewhere is asked of its launcher; where nobody can say,
    it is over when its logs have not grown for a minute.

    Args:
        sender: sends the rest and closes.
        workspace: the site's workspace.
        job_ids: the jobs.
        log_files: what the site streams now; what it streamed of each job then is closed too.
        launcher: runs the site's jobs.
        engine: of this process.
        running: those of some jobs that still have a process of this machine.
        clock: gives the time in seconds, from any beginning.
        sleep: waits some seconds.
    """
    began, waiting = clock(), set(job_ids)
    elsewhere = None if launcher.starts_here else _Elsewhere(launcher, engine, workspace, clock)
    followed = set[str]()
    while waiting:
        if elsewhere:
            alive = {job_id for job_id in sorted(waiting) if elsewhere.is_alive(job_id)}
        else:
            alive = running(waiting)
        for job_id in sorted(waiting - alive):
            _close(sender, workspace, job_id, log_files, launcher)
        waiting = alive
        for job_id in sorted(alive - followed if elsewhere and launcher.sees_files else ()):
            followed.add(job_id)
            for file in _all_files(workspace, job_id, log_files):
                sender.follow(job_id, Path(workspace.get_log_root(job_id)), file)
        if waiting:
            look_interval = _LOOK_INTERVAL if clock() - began < _SOON else _LATER_INTERVAL
            sleep(_ASK_INTERVAL if elsewhere else look_interval)


def refuse_earlier(
    sender: Sender, workspace: Workspace, job_ids: Iterable[str], log_files: tuple[str, ...], reason: str
) -> None:
    """Tell the server that the site keeps what it has not sent yet of earlier jobs, and why.

    Files that a pattern stands for are not named: which the site has sent of them only the server knows.
    """
    for job_id in job_ids:
        files = _all_files(workspace, job_id, log_files)
        sender.refuse(job_id, [file for file in files if not is_pattern(file)], reason)


def _all_files(workspace: Workspace, job_id: str, log_files: tuple[str, ...]) -> tuple[str, ...]:
    """What the site streams now, and what it streamed of a job when that was launched."""
    launched = read_launched(Path(workspace.get_run_dir(job_id)))
    files = (*log_files, *_files_of(workspace, job_id), *(launched.log_files if launched else ()))
    return tuple(dict.fromkeys(files))


def _close(
    sender: Sender, workspace: Workspace, job_id: str, log_files: tuple[str, ...], launcher: Launcher
) -> None:
    directory, files = Path(workspace.get_log_root(job_id)), _all_files(workspace, job_id, log_files)
    launched = read_launched(Path(workspace.get_run_dir(job_id)))
    outcome = (launched and launched.outcome) or _OUTCOME
    ended = Launched(files, outcome, launched.ended if launched else 0.0)
    doubt = doubt_of(launcher, directory, ended)
    sender.finish(job_id, directory, files, outcome, only_unclosed=True, doubt=doubt)


class _Elsewhere:
    """Finds out whether jobs still run that are no processes of this machine."""

    def __init__(self, launcher: Launcher, engine: Any, workspace: Workspace, clock: Callable[[], float]):
        self._launcher, self._engine, self._workspace, self._clock = launcher, engine, workspace, clock
        self._grew: dict[str, tuple[int, float]] = {}  # by job: bytes of its logs, and when that was new
        self._said: set[tuple[str, bool | None]] = set()

    def is_alive(self, job_id: str) -> bool:
        launched = read_launched(Path(self._workspace.get_run_dir(job_id)))
        if launched and launched.ended:
            return False
        answer = self._launcher.is_running(self._engine, job_id, self._workspace.site_name)
        alive = self._is_growing(job_id) if answer is None else answer
        if alive and (job_id, answer) not in self._said:
            self._said.add((job_id, answer))
            place = self._launcher.place
            if answer:
                _logger.info("job %s still runs in %s; its logs are closed when it ends", job_id, place)
            else:
                _logger.warning(
                    "nobody can say whether job %s still runs in %s; its logs are closed when they have not "
                    "grown for %g s",
                    job_id,
                    place,
                    _QUIET,
                )
        return alive

    def _is_growing(self, job_id: str) -> bool:
        size, now = 0, self._clock()
        with suppress(OSError), os.scandir(self._workspace.get_log_root(job_id)) as entries:
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in islice(entries, _MOST_ENTRIES))
        known = self._grew.get(job_id)
        if known is None or known[0] != size:
            known = self._grew[job_id] = (size, now)
        return now - known[1] < _QUIET
