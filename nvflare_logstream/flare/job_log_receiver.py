"""The server's component: takes logs from the sites into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.widgets.widget import Widget

from nvflare_logstream.errors import ArgumentError, ErrorCode, StoreError
from nvflare_logstream.flare.admin_command import LogCommands
from nvflare_logstream.flare.commands import register
from nvflare_logstream.flare.job_list_command import JobListCommand
from nvflare_logstream.flare.job_process import JobProcess, server_receives
from nvflare_logstream.flare.launchers import launcher_of
from nvflare_logstream.flare.receiver_settings import ReceiverSettings
from nvflare_logstream.flare.runtime import goes_on, job_id_of, started_jobs, versions
from nvflare_logstream.flare.server_process import ServerProcess
from nvflare_logstream.flare.site_policy import read_policy
from nvflare_logstream.flare.stock_channel import ComingReceiver, serve_stock
from nvflare_logstream.names import check_seconds
from nvflare_logstream.server.following import Push
from nvflare_logstream.store.store import Quotas
from nvflare_logstream.wire.job_list import ListedJob
from nvflare_logstream.wire.queries import ErrorReply

_GIB = 1 << 30
_DAY = 86400.0  # seconds
_NOT_READY = ErrorReply(ErrorCode.SYSTEM_NOT_READY, "the log receiver is not started yet; try again")
_CANNOT_START = ErrorReply(ErrorCode.NO_RECEIVER, "the server cannot open its log store; its log says why")


class JobLogReceiver(Widget):
    """Receives the sites' job logs and keeps them, with a verdict on each.

    Put it into the server's `local/resources.json` (for all jobs), or into a job's server config
    (`recipe.job.to_server(JobLogReceiver())`: for that job alone, where the server has none of its own; what
    a site writes after the server job's end is then not received, `dest_dir` must be inside the job's run
    directory, and no limit can be above its default).

    Args:
        dest_dir: directory of the store; default `logstream` in the server's workspace. A relative path is
            one inside of that workspace, or of the job's run directory where the receiver came with a job.
        idle_timeout: seconds without a sign of life after which a site counts as silent (0: never).
        max_stream_gib, max_job_gib, max_store_gib: quotas in GiB for one stream, one job and the whole store.
        keep_days: days after its last sign of life for which a job's logs are kept.
        max_site_gib: quota in GiB for one site, over all its jobs.
        max_site_files: most log files of one site in one job.
        min_free_percent: share of the disk that stays free (0: none); while less is free, the sites wait.

    Who is over a quota is refused; no logs are removed to make room.

    Raises:
        ArgumentError: naming the argument, the value and what is allowed.
    """

    def __init__(
        self,
        dest_dir: str | None = None,
        idle_timeout: float = 30.0,
        max_stream_gib: float = 16,
        max_job_gib: float = 64,
        max_store_gib: float = 256,
        keep_days: float = 90,
        max_site_gib: float = 32,
        max_site_files: int = 64,
        min_free_percent: float = 5,
    ):
        super().__init__()
        self.dest_dir = _directory("dest_dir", dest_dir)
        self.idle_timeout = check_seconds("idle_timeout", idle_timeout, 0, 86400)
        self.max_stream_gib = _positive("max_stream_gib", max_stream_gib)
        self.max_job_gib = _positive("max_job_gib", max_job_gib)
        self.max_store_gib = _positive("max_store_gib", max_store_gib)
        self.keep_days = _positive("keep_days", keep_days)
        self.max_site_gib = _positive("max_site_gib", max_site_gib)
        self.max_site_files = _count("max_site_files", max_site_files)
        self.min_free_percent = _percent("min_free_percent", min_free_percent)
        self._settings = ReceiverSettings(
            Path(dest_dir) if dest_dir else None,
            self.idle_timeout,
            self.keep_days * _DAY,
            Quotas(
                stream=int(self.max_stream_gib * _GIB),
                job=int(self.max_job_gib * _GIB),
                store=int(self.max_store_gib * _GIB),
                site=int(self.max_site_gib * _GIB),
                files=self.max_site_files,
                free_share=self.min_free_percent / 100,
            ),
        )
        self._server: ServerProcess | None = None
        self._job: JobProcess | None = None
        self._not_there = _NOT_READY
        register(LogCommands(self._answer, self._answer_status))
        register(JobListCommand(self._answer_jobs))
        self.register_event_handler(EventType.SYSTEM_START, self._on_system_start)
        self.register_event_handler(EventType.BEFORE_JOB_LAUNCH, self._on_before_job_launch)
        self.register_event_handler(EventType.JOB_STARTED, self._on_job_started)
        self.register_event_handler(EventType.JOB_COMPLETED, self._on_job_completed)
        self.register_event_handler(EventType.JOB_ABORTED, self._on_job_aborted)
        self.register_event_handler(EventType.SYSTEM_END, self._on_system_end)
        self.register_event_handler(EventType.START_RUN, self._on_start_run)
        self.register_event_handler(EventType.END_RUN, self._on_end_run)

    # -- in the server's parent process ----------------------------------------------------------------------

    def _on_system_start(self, event_type: str, fl_ctx: FLContext) -> None:
        engine = fl_ctx.get_engine()
        for path in read_policy(engine.get_workspace()).stock_components:
            self.log_error(
                fl_ctx, f"resources.json also lists {path}: remove it, nvflare_logstream does its work"
            )
        try:
            server = ServerProcess(engine, self._settings, launcher_of(fl_ctx))
        except (StoreError, OSError) as error:
            self._cannot_start(error, fl_ctx)
            return
        server.start()
        self._server = server
        self.log_info(fl_ctx, f"receiving job logs into {server.store.root} ({versions()})")

    def _on_before_job_launch(self, event_type: str, fl_ctx: FLContext) -> None:
        if self._server:
            self._server.job_launching(job_id_of(fl_ctx))

    def _on_job_started(self, event_type: str, fl_ctx: FLContext) -> None:
        if self._server:
            for job_id in started_jobs(fl_ctx.get_engine(), fl_ctx):
                self._server.job_started(job_id)

    def _on_job_aborted(self, event_type: str, fl_ctx: FLContext) -> None:
        if not goes_on(fl_ctx.get_engine(), job_id_of(fl_ctx)):
            self._on_job_completed(event_type, fl_ctx)

    def _on_job_completed(self, event_type: str, fl_ctx: FLContext) -> None:
        if self._server:
            self._server.job_completed(job_id_of(fl_ctx))

    def _on_system_end(self, event_type: str, fl_ctx: FLContext) -> None:
        for process in (self._server, self._job):
            if process:
                process.stop()

    def _answer(self, job_id: str, request: object, push: Push | None = None) -> dict[str, Any]:
        return self._server.answer(job_id, request, push) if self._server else self._not_there.encode()

    def _answer_status(self, question: object, named: bool) -> dict[str, Any]:
        return self._server.answer_status(question, named) if self._server else self._not_there.encode()

    def _answer_jobs(self, question: object, jobs: Callable[[], Iterable[ListedJob]]) -> dict[str, Any]:
        return self._server.answer_jobs(question, jobs) if self._server else self._not_there.encode()

    def _cannot_start(self, error: Exception, fl_ctx: FLContext) -> None:
        """The sites keep their logs meanwhile, and send them when a receiver is there."""
        self._not_there = _CANNOT_START
        self.log_error(fl_ctx, f"no job logs are received: {error}")

    # -- in a job's server process ---------------------------------------------------------------------------

    def _on_start_run(self, event_type: str, fl_ctx: FLContext) -> None:
        coming = ComingReceiver()
        # Before all else: the sites' streamers do not wait until the store is open.
        serve_stock(fl_ctx.get_engine().get_cell(), coming.get)
        try:
            self._job = self._start_job(fl_ctx.get_engine(), fl_ctx)
        finally:
            coming.decide(self._job.unchecked if self._job else None)

    def _start_job(self, engine: Any, fl_ctx: FLContext) -> JobProcess | None:
        """The receiver of this job, started; None if there is to be none, which is said."""
        if server_receives(engine.get_cell()):
            idle = "the server receives job logs itself; this job's own receiver has nothing to do"
            self.log_info(fl_ctx, f"{idle} ({versions()})")
            return None
        run_directory = Path(engine.get_workspace().get_run_dir(fl_ctx.get_job_id()))
        settings, problems = self._settings.within_job(run_directory)
        for problem in problems:
            self.log_warning(fl_ctx, problem)
        try:
            job = JobProcess(engine, fl_ctx.get_job_id(), settings)
        except (StoreError, OSError) as error:
            self._cannot_start(error, fl_ctx)
            return None
        job.start()
        self.log_info(fl_ctx, f"receiving this job's logs into {job.store.root} ({versions()})")
        return job

    def _on_end_run(self, event_type: str, fl_ctx: FLContext) -> None:
        if self._job:
            self._job.end_run()


def _directory(argument: str, value: object) -> str | None:
    path = Path(value) if isinstance(value, str) else Path()
    is_inside = bool(path.parts) and ".." not in path.parts
    if value is None or path.is_absolute() or is_inside:
        return str(path) if value else None
    raise ArgumentError(argument, value, "an absolute path, or one inside of the server's workspace")


def _positive(argument: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1e6:
        raise ArgumentError(argument, value, "a number above 0, at most 1000000")
    return float(value)


def _count(argument: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise ArgumentError(argument, value, "a whole number from 1 to 1000000")
    return value


def _percent(argument: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 90:
        raise ArgumentError(argument, value, "a number from 0 to 90")
    return float(value)
