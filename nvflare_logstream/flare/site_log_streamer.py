"""The site widget: sees to it that every job's logs are streamed, finished and closed."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.workspace import Workspace
from nvflare.widgets.widget import Widget

from nvflare_logstream.errors import ArgumentError, LinkError, LogStreamError
from nvflare_logstream.flare import runtime, runtime_stock
from nvflare_logstream.flare.cell_channel import CellLink
from nvflare_logstream.flare.fallback import ErrorLogs
from nvflare_logstream.flare.job_config import STOCK_PATH, STREAMER_PATH, JobConfig
from nvflare_logstream.flare.job_console import begin_console
from nvflare_logstream.flare.job_end import describe_exit
from nvflare_logstream.flare.job_log_streamer import DEFAULT_LIVENESS_INTERVAL, DEFAULT_POLL_INTERVAL
from nvflare_logstream.flare.kept_back import keep_for_good
from nvflare_logstream.flare.launched import Launched, why_not_injected
from nvflare_logstream.flare.launchers import Launcher, launcher_of
from nvflare_logstream.flare.over_jobs import NOTHING_LEFT, OverJob, OverJobs
from nvflare_logstream.flare.policy_watch import PolicyWatch, watch_policy
from nvflare_logstream.flare.restart import close_earlier, earlier_jobs
from nvflare_logstream.flare.shared import SiteEntry, shared
from nvflare_logstream.flare.site_policy import read_policy
from nvflare_logstream.names import DEFAULT_LOG_FILES, check_seconds, is_pattern, log_files_of
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import StreamId, Verdict, in_words
from nvflare_logstream.wire.upload import RequestWriter


class SiteLogStreamer(Widget):
    """Streams the logs of every job at this site; goes into the client's `local/resources.json`.

    Before a job is launched it puts a `JobLogStreamer` into the deployed client config or, where that cannot
    work, follows the files itself. When the job is over it sends what is left and closes the streams, also
    for jobs that an earlier life of this process left open. Several entries in one resources.json add up to
    one list of files.

    Args:
        log_file_name: one file name, as in the runtime's own widget; or
        log_files: a list of file names and patterns of such ("*.log"): what matches is followed when it
            appears. Default: log.txt and error_log.txt. console.txt is what the job's process and its
            children print; it is made where this list names it.
        poll_interval: most seconds until a new line is seen where the system does not tell of changes (0.01
            to 60).
        liveness_interval: seconds of silence after which a sign of life is sent (0.1 to 3600).
        job_has_package: whether the Python that runs the jobs has this package: true, false, or null to
            decide by the launcher (process: yes; container, Slurm, pod: not for certain). Where it has not,
            this process follows the logs itself, as far as it can see them.

    Raises:
        ArgumentError: naming the argument, the value and what is allowed.
    """

    def __init__(
        self,
        log_file_name: str | None = None,
        log_files: list[str] | None = None,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        liveness_interval: float = DEFAULT_LIVENESS_INTERVAL,
        job_has_package: bool | None = None,
    ):
        super().__init__()
        self.log_files = log_files_of(log_files, log_file_name)
        self.poll_interval = check_seconds("poll_interval", poll_interval, 0.01, 60)
        self.liveness_interval = check_seconds("liveness_interval", liveness_interval, 0.1, 3600)
        if not (job_has_package is None or isinstance(job_has_package, bool)):
            raise ArgumentError("job_has_package", job_has_package, "true, false or null")
        self.job_has_package = job_has_package
        self._handles: dict[str, Any] = {}  # by job id, of the processes that run now
        self._launchers: dict[str, Launcher] = {}  # by job id, of the jobs that run now
        self._kept_back: set[str] = set()  # jobs during which the site kept its logs
        self._to_follow: set[str] = set()  # jobs that are followed from here once they have been launched
        self._sender: Sender | None = None
        self._link: CellLink | None = None
        self._error_logs = ErrorLogs()
        self._over = OverJobs(self._error_logs, self._kept_back)
        self._lock = threading.RLock()  # events come from several threads
        # A job's process makes this component too, before the job's own: what the site wants holds there.
        shared.site_entries.add(
            SiteEntry(self.log_files, self.poll_interval, self.liveness_interval, job_has_package)
        )
        begin_console(self.log_files)
        runtime_stock.bound_stock_streamers(watch_policy)
        self.register_event_handler(EventType.SYSTEM_START, self._on_system_start)
        self.register_event_handler(EventType.BEFORE_JOB_LAUNCH, self._on_before_job_launch)
        self.register_event_handler(EventType.AFTER_JOB_LAUNCH, self._on_after_job_launch)
        self.register_event_handler(EventType.JOB_COMPLETED, self._on_job_completed)

    def _on_system_start(self, event_type: str, fl_ctx: FLContext) -> None:
        if not shared.site_entries.claim(self):
            return
        workspace = runtime.workspace_of(fl_ctx)
        policy = read_policy(workspace)
        for path in policy.stock_components:
            self.log_error(
                fl_ctx, f"resources.json also lists {path}: remove it, nvflare_logstream does its work"
            )
        if policy.logs.allowed:
            files = ", ".join(shared.site_entries.log_files)
            self.log_info(fl_ctx, f"streaming {files} of each job to the server ({runtime.versions()})")
            self._own_sender(fl_ctx)
            with suppress(RuntimeError):  # no thread is left: it is learned from the first request
                threading.Thread(target=self._ask, name="nvflare_logstream_ask", daemon=True).start()
        else:
            self.log_info(fl_ctx, f"job logs stay at this site: {policy.logs.reason} ({runtime.versions()})")
        if job_ids := earlier_jobs(workspace):
            arguments = self._own_sender(fl_ctx), workspace, job_ids, shared.site_entries.log_files
            where = {"launcher": launcher_of(fl_ctx), "engine": fl_ctx.get_engine()}
            close, name = partial(close_earlier, *arguments, **where), "nvflare_logstream_restart"
            threading.Thread(target=close, name=name, daemon=True).start()

    def _on_before_job_launch(self, event_type: str, fl_ctx: FLContext) -> None:
        if not shared.site_entries.claim(self):
            return
        job_id, workspace = runtime.job_id_of(fl_ctx), runtime.workspace_of(fl_ctx)
        policy = read_policy(workspace, "" if runtime.has_custom_code(fl_ctx) else STREAMER_PATH)
        if not policy.logs.allowed:
            if policy.logs.sure:
                self._kept_back.add(job_id)
            self._keep_back(job_id, workspace, policy.logs.reason, fl_ctx)
            return
        launcher = self._launchers[job_id] = launcher_of(fl_ctx)
        problem = "" if policy.job_class.allowed else policy.job_class.reason
        if not problem:
            try:
                config = JobConfig(Path(workspace.get_app_config_dir(job_id)))
                said = shared.site_entries.job_has_package
                problem = why_not_injected(launcher, said, bool(config.streamers()))
                if not problem:
                    config.put_streamer(shared.site_entries.streamer_args())
            except LogStreamError as error:
                problem = str(error)
        if not problem:
            self.log_info(fl_ctx, f"job {job_id}: streamer is in the deployed config")
            return
        self._follow_from_here(job_id, launcher, problem, workspace, fl_ctx)

    def _follow_from_here(
        self, job_id: str, launcher: Launcher, problem: str, workspace: Workspace, fl_ctx: FLContext
    ) -> None:
        """The job must neither fail nor lose its logs because of us: follow the files from this process."""
        with suppress(OSError):
            Launched(shared.site_entries.log_files).write(Path(workspace.get_run_dir(job_id)))
        if not launcher.sees_files:
            self.log_warning(
                fl_ctx,
                f"job {job_id}: its logs are not streamed while it runs: this process cannot see files in "
                f"{launcher.place}, and no streamer was put into the job's config ({problem})",
            )
            return
        self.log_warning(
            fl_ctx, f"job {job_id}: no streamer put into its config ({problem}); following its logs from here"
        )
        if self._link and self._link.has_receiver is False:
            self._put_stock(job_id, workspace, fl_ctx)
        self._to_follow.add(job_id)  # nothing tells of a launch that fails

    def _follow(self, job_id: str, fl_ctx: FLContext) -> None:
        workspace = runtime.workspace_of(fl_ctx)
        try:
            sender, directory = self._own_sender(fl_ctx), Path(workspace.get_log_root(job_id))
        except NOTHING_LEFT as error:
            self.log_warning(fl_ctx, f"job {job_id}: cannot follow its logs from here now: {error}")
            return
        for file in shared.site_entries.log_files:
            sender.follow(job_id, directory, file)

    def _put_stock(self, job_id: str, workspace: Workspace, fl_ctx: FLContext) -> None:
        """Put the runtime's own streamers into a job, if it can load them: else it would fail."""
        job_class = "" if runtime.has_custom_code(fl_ctx) else STOCK_PATH
        if runtime_stock.stock_names() is None or not read_policy(workspace, job_class).job_class.allowed:
            return
        with suppress(LogStreamError):  # where the config cannot be read, they cannot go in
            JobConfig(Path(workspace.get_app_config_dir(job_id))).put_stock(shared.site_entries.log_files)

    def _keep_back(self, job_id: str, workspace: Workspace, reason: str, fl_ctx: FLContext) -> None:
        """The site keeps its logs: take streamers out of the job's config, and tell the server why."""
        named = [file for file in shared.site_entries.log_files if not is_pattern(file)]
        self._own_sender(fl_ctx).refuse(job_id, named or DEFAULT_LOG_FILES[:1], reason)
        try:
            stripped = JobConfig(Path(workspace.get_app_config_dir(job_id))).strip_streamers()
        except LogStreamError as error:
            self.log_error(fl_ctx, f"job {job_id}: cannot take log streamers out of its config: {error}")
            return
        if stripped:
            self.log_warning(
                fl_ctx, f"job {job_id}: took {stripped} log streamer(s) out of its config: {reason}"
            )

    def _on_after_job_launch(self, event_type: str, fl_ctx: FLContext) -> None:
        if shared.site_entries.claim(self):
            job_id = runtime.job_id_of(fl_ctx)
            take = partial(self._handles.__setitem__, job_id)
            runtime.take_job_handle(fl_ctx.get_engine(), job_id, take)
            if job_id in self._launchers:  # its logs are let out
                with suppress(*NOTHING_LEFT):  # its own process asks the site too, if it sees what it says
                    self._own_sender(fl_ctx).watch(job_id, shared.site_entries.log_files)
            if job_id in self._to_follow:
                self._to_follow.discard(job_id)
                self._follow(job_id, fl_ctx)

    def _on_job_completed(self, event_type: str, fl_ctx: FLContext) -> None:
        if not shared.site_entries.claim(self):
            return
        job_id = runtime.job_id_of(fl_ctx)
        outcome, let_out = describe_exit(self._handles.pop(job_id, None)), self._launchers.pop(job_id, None)
        launcher = let_out or launcher_of(fl_ctx)
        if job_id in self._kept_back:  # whatever the site lets out by now: what was logged then stays
            self._kept_back.discard(job_id)
            return
        engine, workspace = fl_ctx.get_engine(), runtime.workspace_of(fl_ctx)
        sender = partial(self._own_sender, fl_ctx)
        self._over.add(OverJob(job_id, outcome, launcher, bool(let_out), engine, workspace, sender))

    def _own_sender(self, fl_ctx: FLContext) -> Sender:
        """The one sender of this process; it lives as long as the process does."""
        with self._lock:
            if self._sender is None:
                entries = shared.site_entries
                self._link = CellLink(fl_ctx.get_engine().get_cell(), on_change=self._on_receiver)
                intervals = entries.poll_interval, entries.liveness_interval
                workspace = runtime.workspace_of(fl_ctx)
                sender = Sender(
                    self._link,
                    *intervals,
                    self._on_verdict,
                    runtime=runtime.VERSION,
                    allowed=PolicyWatch(workspace),
                    on_kept_back=partial(self._on_kept_back, workspace),
                )
                sender.start()
                self._sender = sender
            return self._sender

    def _ask(self) -> None:
        """Ask ahead whether there is a receiver: no job's launch or end has to wait for the answer.

        The receiver learns from it that the site is there, and what it runs.
        """
        with suppress(LinkError):  # it is learned from the next request then
            if self._link:
                self._link.send(RequestWriter(time.time(), 0, runtime.VERSION).encode())

    def _on_receiver(self, is_there: bool) -> None:
        self._error_logs.receiver_found(is_there)
        if is_there:
            self.logger.info("the server has a log receiver of nvflare_logstream")
        else:
            self.logger.warning(
                "the server has no log receiver of nvflare_logstream; until it has one, jobs use the "
                "runtime's own streamer, and all logs wait here to be sent"
            )

    def _on_kept_back(self, workspace: Workspace, job_id: str, reason: str) -> None:
        """The site has said no while a job ran: nothing that this process does later lets its logs out."""
        self._kept_back.add(job_id)
        keep_for_good(workspace, job_id, reason)

    def _on_verdict(self, stream: StreamId, verdict: Verdict, reason: str) -> None:
        self._error_logs.taken(stream.job_id, stream.file)
        self.logger.info(f"{stream.job_id}/{stream.file}: {in_words(verdict, reason)}")
