"""The site widget: sees to it that every job's logs are streamed, finished and closed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import psutil
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.workspace import Workspace
from nvflare.widgets.widget import Widget

from nvflare_logstream.errors import ArgumentError, LogStreamError
from nvflare_logstream.flare import site_policy
from nvflare_logstream.flare.cell_channel import CellLink
from nvflare_logstream.flare.job_config import STREAMER_PATH, JobConfig
from nvflare_logstream.flare.job_log_streamer import DEFAULT_LIVENESS_INTERVAL, DEFAULT_POLL_INTERVAL
from nvflare_logstream.names import DEFAULT_LOG_FILES, check_log_files, check_name, check_seconds
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import StreamId, Verdict, in_words

_ORPHAN_WAIT = 60.0  # seconds a job process may outlive its parent; the runtime ends it within a few


class SiteLogStreamer(Widget):
    """Streams the logs of every job at this site; goes into the client's `local/resources.json`.

    Before a job is launched it puts a `JobLogStreamer` into the deployed client config or, where that cannot work, follows the
    files itself. When the job is over it sends what is left and closes the streams, also for jobs that an earlier life of this
    process left open. Several entries in one resources.json add up to one list of files.

    Args:
        log_file_name: one file name, as in the runtime's own widget; or
        log_files: a list of file names. Default: log.txt and error_log.txt.
        poll_interval: most seconds until a new line is seen where the system does not tell of changes (0.01 to 60).
        liveness_interval: seconds of silence after which a sign of life is sent (0.1 to 3600).

    Raises:
        ArgumentError: naming the argument, the value and what is allowed.
    """

    def __init__(
        self,
        log_file_name: str | None = None,
        log_files: list[str] | None = None,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        liveness_interval: float = DEFAULT_LIVENESS_INTERVAL,
    ):
        super().__init__()
        if log_file_name is not None and log_files is not None:
            raise ArgumentError("log_files", log_files, "give either log_file_name or log_files, not both")
        if log_file_name is not None:
            self.log_files: tuple[str, ...] = (check_name("log_file_name", log_file_name),)
        else:
            self.log_files = (
                DEFAULT_LOG_FILES if log_files is None else check_log_files("log_files", log_files)
            )
        self.poll_interval = check_seconds("poll_interval", poll_interval, 0.01, 60)
        self.liveness_interval = check_seconds("liveness_interval", liveness_interval, 0.1, 3600)
        # The runtime gives events to only one of several components of a class, so whichever gets them acts for all.
        _site.entries.append(self)
        self.register_event_handler(EventType.SYSTEM_START, self._on_system_start)
        self.register_event_handler(EventType.BEFORE_JOB_LAUNCH, self._on_before_job_launch)
        self.register_event_handler(EventType.AFTER_JOB_LAUNCH, self._on_after_job_launch)
        self.register_event_handler(EventType.JOB_COMPLETED, self._on_job_completed)

    # -- events of the client parent ----------------------------------------------------------------------------

    def _on_system_start(self, event_type: str, fl_ctx: FLContext) -> None:
        if not _site.claim(self):
            return
        workspace = _workspace(fl_ctx)
        for path in site_policy.stock_components(workspace):
            self.log_error(
                fl_ctx, f"resources.json also lists {path}: remove it, nvflare_logstream does its work"
            )
        reason = site_policy.refusal(workspace)
        if reason:
            self.log_info(fl_ctx, f"job logs stay at this site: {reason}")
            return
        sender = _site.sender(fl_ctx)
        jobs = [job for job in _jobs_on_disk(workspace) if _is_ours(workspace, job)]
        if jobs:
            arguments = (sender, workspace, jobs)
            threading.Thread(
                target=_finish_earlier, args=arguments, name="nvflare_logstream_restart", daemon=True
            ).start()

    def _on_before_job_launch(self, event_type: str, fl_ctx: FLContext) -> None:
        if not _site.claim(self):
            return
        job, workspace = _job_of(fl_ctx), _workspace(fl_ctx)
        reason = site_policy.refusal(workspace)
        if reason:
            self._keep_back(job, workspace, reason, fl_ctx)
            return
        byoc = bool((fl_ctx.get_prop(FLContextKey.JOB_META) or {}).get("byoc"))
        problem = ""
        if not site_policy.class_allowed(workspace, STREAMER_PATH, byoc):
            problem = 'class_allow_list in resources.json lacks "nvflare_logstream."'
        else:
            try:
                JobConfig(Path(workspace.get_app_config_dir(job))).put_streamer(_site.streamer_args())
            except LogStreamError as error:
                problem = str(error)
        if problem:
            # The job must neither fail nor lose its logs because of us: follow the files from here.
            self.log_warning(
                fl_ctx,
                f"job {job}: no streamer put into its config ({problem}); following its logs from here",
            )
            for file in _site.files():
                _site.sender(fl_ctx).follow(job, Path(workspace.get_log_root(job)), file)
        else:
            self.log_info(fl_ctx, f"job {job}: streamer is in the deployed config")

    def _keep_back(self, job: str, workspace: Workspace, reason: str, fl_ctx: FLContext) -> None:
        """The site does not let logs out: take streamers out of the job's config, and tell the server why nothing comes."""
        _site.sender(fl_ctx).refuse(job, _site.files(), reason)
        try:
            stripped = JobConfig(Path(workspace.get_app_config_dir(job))).strip_streamers()
        except LogStreamError as error:
            self.log_error(fl_ctx, f"job {job}: cannot take log streamers out of its config: {error}")
            return
        if stripped:
            self.log_warning(
                fl_ctx, f"job {job}: took {stripped} log streamer(s) out of its config: {reason}"
            )

    def _on_after_job_launch(self, event_type: str, fl_ctx: FLContext) -> None:
        if not _site.claim(self):
            return
        job = _job_of(fl_ctx)
        processes = getattr(getattr(fl_ctx.get_engine(), "client_executor", None), "run_processes", {})
        _site.handles[job] = processes.get(job, {}).get(RunProcessKey.JOB_HANDLE)

    def _on_job_completed(self, event_type: str, fl_ctx: FLContext) -> None:
        if not _site.claim(self):
            return
        job, workspace = _job_of(fl_ctx), _workspace(fl_ctx)
        outcome = describe_exit(_site.handles.pop(job, None))
        if not site_policy.refusal(workspace):
            _site.sender(fl_ctx).finish(job, Path(workspace.get_log_root(job)), _site.files(), outcome)


class _Site:
    """What all SiteLogStreamer entries of this process have in common."""

    def __init__(self) -> None:
        self.entries: list[SiteLogStreamer] = []
        self.handles: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._actor: SiteLogStreamer | None = None
        self._sender: Sender | None = None

    def claim(self, entry: SiteLogStreamer) -> bool:
        """True for the one entry that acts: the first to get an event."""
        with self._lock:
            self._actor = self._actor or entry
            return self._actor is entry

    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file for entry in self.entries for file in entry.log_files))

    def streamer_args(self) -> dict[str, Any]:
        poll, liveness = self._intervals()
        return {"log_files": list(self.files()), "poll_interval": poll, "liveness_interval": liveness}

    def _intervals(self) -> tuple[float, float]:
        return min(e.poll_interval for e in self.entries), min(e.liveness_interval for e in self.entries)

    def sender(self, fl_ctx: FLContext) -> Sender:
        with self._lock:
            if self._sender is None:
                poll, liveness = self._intervals()
                logger = self.entries[0].logger

                def tell(stream: StreamId, verdict: Verdict, reason: str) -> None:
                    logger.info(f"{stream.job_id}/{stream.file}: {in_words(verdict, reason)}")

                self._sender = Sender(CellLink(fl_ctx.get_engine().get_cell()), poll, liveness, tell)
                self._sender.start()
            return self._sender


_site = _Site()


def _workspace(fl_ctx: FLContext) -> Workspace:
    found = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
    if isinstance(found, Workspace):
        return found
    return Workspace(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT), site_name=fl_ctx.get_identity_name())


def _job_of(fl_ctx: FLContext) -> str:
    meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
    return str(meta.get(JobMetaKey.JOB_ID.value) or fl_ctx.get_prop(FLContextKey.CURRENT_JOB_ID))


def describe_exit(handle: Any) -> str:
    """How the job's process ended, in words: "exit code 0", "signal 9", or the launcher's own code."""
    handle = getattr(
        handle, "_job_handle", handle
    )  # the launcher's own handle, which the runtime wraps since 2.9
    try:
        # A handle's poll() reduces the code to a few kinds; the process behind it, where there is one, tells it all.
        process = getattr(handle, "adapter", None) or getattr(handle, "process", None) or handle
        code = process.poll() if process is not None else None
    except Exception:  # a launcher of another kind: its handle may raise anything
        code = None
    if isinstance(code, int) and code < 0:
        return f"signal {-code}"
    return "exit code unknown" if code is None else f"exit code {code}"


# -- what an earlier life of this process left open -------------------------------------------------------------


def _jobs_on_disk(workspace: Workspace) -> list[str]:
    root = Path(workspace.get_root_dir())
    return [entry.name for entry in root.iterdir() if (entry / f"app_{workspace.site_name}").is_dir()]


def _is_ours(workspace: Workspace, job: str) -> bool:
    """Whether a streamer of ours was put into the job's config: logs of other jobs are not ours to send."""
    try:
        return bool(JobConfig(Path(workspace.get_app_config_dir(job))).streamers())
    except LogStreamError:
        return False


def _finish_earlier(sender: Sender, workspace: Workspace, jobs: list[str]) -> None:
    """Close the streams of jobs whose process is gone; one that outlived its parent is given time to end."""
    deadline = time.monotonic() + _ORPHAN_WAIT
    waiting = set(jobs)
    while waiting:
        running = _running_jobs(waiting) if time.monotonic() < deadline else set()
        for job in waiting - running:
            directory = Path(workspace.get_log_root(job))
            sender.finish(job, directory, _site.files(), "not known: the site restarted", only_unclosed=True)
        waiting = running
        if waiting:
            time.sleep(1.0)


def _running_jobs(jobs: set[str]) -> set[str]:
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any("worker_process" in word for word in words):
            found |= jobs.intersection(words)
    return found
