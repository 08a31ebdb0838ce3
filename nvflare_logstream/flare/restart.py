"""Closes what an earlier life of a client's parent process left open: streams of jobs that are on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nvflare.apis.workspace import Workspace

from nvflare_logstream.errors import LogStreamError
from nvflare_logstream.flare.elsewhere import Survivors
from nvflare_logstream.flare.job_config import CONFIG_FILE, JobConfig
from nvflare_logstream.flare.kept_back import keep_for_good, why_kept
from nvflare_logstream.flare.launched import Launched, doubt_of, launched_out_of_sight, read_launched
from nvflare_logstream.flare.launchers import HERE, Launcher
from nvflare_logstream.flare.runtime import running_jobs
from nvflare_logstream.flare.site_policy import read_policy
from nvflare_logstream.names import is_name
from nvflare_logstream.site.endings import Doubt
from nvflare_logstream.site.plain import look, owners
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import END_UNSEEN

_POLICY_INTERVAL = 5.0  # seconds between two looks at a policy that cannot be read
_LARGEST_CONFIG = 16 << 20  # bytes
_OUTCOME = f"{END_UNSEEN}the site restarted"


def earlier_jobs(workspace: Workspace) -> list[str]:
    """Ids of the jobs on disk that got a streamer of ours, or that the site followed itself.

    Logs of other jobs are not ours to send.
    """
    names = [entry.name for entry in Path(workspace.get_root_dir()).iterdir()]
    jobs = [name for name in names if is_name(name) and _is_job(workspace, name)]
    return [
        name
        for name in jobs
        if _has_streamer(workspace, name) or read_launched(Path(workspace.get_run_dir(name)))
    ]


def _is_job(workspace: Workspace, name: str) -> bool:
    """Whether the workspace holds a job's directory of this name, and not somebody's copy or a link."""
    try:
        return Path(workspace.get_app_dir(name)).is_dir()
    except ValueError:  # a name that the runtime gives no job
        return False


def _config_of(workspace: Workspace, job_id: str) -> JobConfig | None:
    """A job's client config as this site has written it; None where none stands there that can be read.

    The job's own code can write there. A pipe, a file without end or one that names itself a thousand times,
    as other formats allow, would hold up the site's start.
    """
    directory = Path(workspace.get_app_config_dir(job_id))
    try:
        file = look(directory / CONFIG_FILE, owners(directory))
        return JobConfig(directory) if file and file.size <= _LARGEST_CONFIG else None
    except (OSError, LogStreamError):
        return None


def _files_of(workspace: Workspace, job_id: str) -> tuple[str, ...]:
    """What the site streamed of a job when it was launched; its list may have changed since."""
    config = _config_of(workspace, job_id)
    return config.log_files if config else ()


def _has_streamer(workspace: Workspace, job_id: str) -> bool:
    config = _config_of(workspace, job_id)
    return bool(config and config.streamers())


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
    it is taken for over when its logs have not grown for a minute, and they are not complete.

    As long as it is not known whether logs may leave the site, nothing is closed. When they may not, the rest
    is refused: a job may run for hours, and its site may change its mind meanwhile. So it is for a job whose
    logs stay for good.

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
    waiting, watched, said = set(job_ids), set[str](), ""
    survivors = Survivors(launcher, engine, workspace, running, clock)
    may_follow = launcher.sees_files and not launcher.starts_here
    while waiting:
        alive = survivors.alive(waiting)
        logs = read_policy(workspace).logs
        if not logs.allowed:
            if logs.reason != said:
                said = logs.reason
                refuse_rest(sender, workspace, sorted(waiting), log_files, said)
            if logs.sure:
                for job_id in waiting:
                    keep_for_good(workspace, job_id, logs.reason)
                return
            sleep(_POLICY_INTERVAL)
            continue
        waiting -= _refuse_kept(sender, workspace, waiting, log_files)
        for job_id in sorted(waiting - alive):
            _close(sender, workspace, job_id, log_files, launcher, survivors.doubt(job_id))
        waiting &= alive
        for job_id in sorted(waiting - watched):
            watched.add(job_id)
            _watch(sender, workspace, job_id, log_files, may_follow)
        if waiting:
            sleep(survivors.interval)


def _refuse_kept(
    sender: Sender, workspace: Workspace, job_ids: Iterable[str], log_files: tuple[str, ...]
) -> set[str]:
    """Those of some jobs whose logs stay here for good; the server may not have heard of it."""
    kept = {job_id: why for job_id in sorted(job_ids) if (why := why_kept(workspace, job_id))}
    for job_id, why in kept.items():
        sender.watch(job_id, is_over=True)
        refuse_rest(sender, workspace, [job_id], log_files, why)
    return set(kept)


def _watch(
    sender: Sender, workspace: Workspace, job_id: str, log_files: tuple[str, ...], follow: bool
) -> None:
    files = _all_files(workspace, job_id, log_files)
    sender.watch(job_id, files)
    for file in files if follow else ():
        sender.follow(job_id, Path(workspace.get_log_root(job_id)), file)


def refuse_rest(
    sender: Sender, workspace: Workspace, job_ids: Iterable[str], log_files: tuple[str, ...], reason: str
) -> None:
    """Tell the server that the site keeps what it has not sent yet of jobs, and why."""
    for job_id in job_ids:
        sender.refuse(job_id, _all_files(workspace, job_id, log_files), reason)


def _all_files(workspace: Workspace, job_id: str, log_files: tuple[str, ...]) -> tuple[str, ...]:
    """What the site streams now, and what it streamed of a job when that was launched."""
    launched = read_launched(Path(workspace.get_run_dir(job_id)))
    files = (*log_files, *_files_of(workspace, job_id), *(launched.log_files if launched else ()))
    return tuple(dict.fromkeys(files))


def _close(
    sender: Sender,
    workspace: Workspace,
    job_id: str,
    log_files: tuple[str, ...],
    launcher: Launcher,
    doubt: Doubt | None,
) -> None:
    directory, files = Path(workspace.get_log_root(job_id)), _all_files(workspace, job_id, log_files)
    launched = launched_out_of_sight(launcher, Path(workspace.get_run_dir(job_id)))
    outcome = (launched and launched.outcome) or _OUTCOME
    ended = Launched(files, outcome, launched.ended if launched else 0.0)
    doubt = doubt_of(launcher, directory, ended) or doubt
    sender.finish(job_id, directory, files, outcome, only_unclosed=True, doubt=doubt)
