"""The server's component: takes logs from the sites into the store."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.workspace import Workspace
from nvflare.widgets.widget import Widget

from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.flare import admin_command, site_policy
from nvflare_logstream.flare.admission import JobAdmission, participants
from nvflare_logstream.flare.archive import ArchiveKeeper
from nvflare_logstream.flare.cell_channel import has_receiver, serve
from nvflare_logstream.flare.log_directory import own_log_directory
from nvflare_logstream.flare.server_logs import ServerLogs
from nvflare_logstream.names import DEFAULT_LOG_FILES, SERVER_SITE, check_seconds
from nvflare_logstream.server.receiver import Admission, Receiver
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import State, StreamKey
from nvflare_logstream.wire.upload_reply import Status

_COMMIT_INTERVAL = 1.0  # seconds; what a crash of the server makes the sites send again
_SWEEP_INTERVAL = 60.0  # seconds
_WAIT_FOR_SITES = (
    8.0  # seconds; a site begins to end its run up to 2 s later, and sends its rest for up to 5 s
)
STORE_DIRECTORY = "logstream"
_GIB = 1 << 30


class JobLogReceiver(Widget):
    """Receives the sites' job logs and keeps them, with a verdict on each.

    Put it into the server's `local/resources.json` (for all jobs), or into a job's server config
    (`recipe.job.to_server(JobLogReceiver())`: for that job alone, where the server has none of its own; what a site writes
    after the server job's end is then not received).

    Args:
        dest_dir: directory of the store; default `logstream` in the server's workspace.
        idle_timeout: seconds without a sign of life after which a site counts as silent (0: never).
        max_stream_gib, max_job_gib, max_store_gib: quotas in GiB for one stream, one job and the whole store.
        keep_days: days after its last sign of life for which a job's logs are kept.

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
    ):
        super().__init__()
        if dest_dir is not None and (not isinstance(dest_dir, str) or not Path(dest_dir).is_absolute()):
            raise ArgumentError(
                "dest_dir", dest_dir, "an absolute path, or nothing for the server's workspace"
            )
        self.dest_dir = dest_dir
        self.idle_timeout = check_seconds("idle_timeout", idle_timeout, 0, 86400)
        self.max_stream_gib = _positive("max_stream_gib", max_stream_gib)
        self.max_job_gib = _positive("max_job_gib", max_job_gib)
        self.max_store_gib = _positive("max_store_gib", max_store_gib)
        self.keep_days = _positive("keep_days", keep_days)
        self._store: LogStore | None = None
        self._server_logs: ServerLogs | None = None
        self._archive: ArchiveKeeper | None = None
        self._admission: JobAdmission | None = None
        self._stopping = threading.Event()
        self._service: LogService | None = None
        admin_command.register(self._answer)
        self.register_event_handler(EventType.SYSTEM_START, self._on_system_start)
        self.register_event_handler(EventType.BEFORE_JOB_LAUNCH, self._on_before_job_launch)
        self.register_event_handler(EventType.JOB_STARTED, self._on_job_started)
        self.register_event_handler([EventType.JOB_COMPLETED, EventType.JOB_ABORTED], self._on_job_completed)
        self.register_event_handler(EventType.SYSTEM_END, self._on_end)
        self.register_event_handler(EventType.START_RUN, self._on_start_run)
        self.register_event_handler(EventType.END_RUN, self._on_end_run)

    # -- in the server parent -----------------------------------------------------------------------------------

    def _on_system_start(self, event_type: str, fl_ctx: FLContext) -> None:
        engine = fl_ctx.get_engine()
        workspace = engine.get_workspace()
        for path in site_policy.stock_components(workspace):
            self.log_error(
                fl_ctx, f"resources.json also lists {path}: remove it, nvflare_logstream does its work"
            )
        store = self._open_store(workspace)
        self._admission = admission = JobAdmission(engine, store)
        self._archive = ArchiveKeeper(engine, store)
        receiver = Receiver(store, admission, self._linker(workspace), self._archive.stream_closed)
        serve(engine.get_cell(), receiver.handle)
        self._server_logs = ServerLogs(store, workspace)
        self._server_logs.finish_earlier()
        self._service = LogService(store, self.idle_timeout, self._archive.status)
        self._start_keeper(store, admission)
        self.log_info(fl_ctx, f"receiving job logs into {store.root}")

    def _on_before_job_launch(self, event_type: str, fl_ctx: FLContext) -> None:
        if self._server_logs:
            self._server_logs.follow(_job_of(fl_ctx))

    def _on_job_started(self, event_type: str, fl_ctx: FLContext) -> None:
        if not (self._store and self._admission):
            return
        job = _job_of(fl_ctx)
        for site in participants(fl_ctx.get_engine(), job):
            self._store.expect(
                StreamKey(job, site, DEFAULT_LOG_FILES[0]), "the site is in the job, nothing arrived from it"
            )
        for site in self._admission.absent(job):
            self._store.expect(
                StreamKey(job, site, DEFAULT_LOG_FILES[0]),
                "the site was not connected when the job was started",
            )

    def _on_job_completed(self, event_type: str, fl_ctx: FLContext) -> None:
        if self._server_logs and self._archive and self._store:
            job = _job_of(fl_ctx)
            self._server_logs.finish(job, self._archive.status(job))
            self._archive.job_archived(job)
            self._store.wake_readers(job)  # its status has changed

    def _on_end(self, event_type: str, fl_ctx: FLContext) -> None:
        self._stopping.set()
        if self._store:
            self._store.commit()

    def _answer(self, job: str, request: object) -> dict[str, Any]:
        if self._service is None:
            return {"error": "the log receiver is not started yet; try again", "code": "SYSTEM_NOT_READY"}
        return self._service.answer(job, request)

    # -- in a job's server process ------------------------------------------------------------------------------

    def _on_start_run(self, event_type: str, fl_ctx: FLContext) -> None:
        engine = fl_ctx.get_engine()
        cell, workspace, job = engine.get_cell(), engine.get_workspace(), fl_ctx.get_job_id()
        if cell.get_fqcn() != SERVER_SITE and has_receiver(cell):
            self.log_info(
                fl_ctx, "the server receives job logs itself; this job's own receiver has nothing to do"
            )
            return
        store = self._open_store(workspace)

        def admit(site: str, named_job: str) -> Admission:
            if named_job != job:
                return Admission(Status.REFUSED, f"this receiver takes logs of job {job} only")
            known = {client.name for client in engine.get_clients()}
            return (
                Admission()
                if site in known
                else Admission(Status.REFUSED, f"{site} takes no part in job {job}")
            )

        receiver = Receiver(store, admit, self._linker(workspace))
        serve(cell, receiver.handle)
        self._server_logs = ServerLogs(store, workspace, own_log_directory(workspace, job))
        self._server_logs.follow(job)
        self._start_keeper(store, None)
        self.log_info(fl_ctx, f"receiving this job's logs into {store.root}")

    def _on_end_run(self, event_type: str, fl_ctx: FLContext) -> None:
        if self._server_logs and self._store:
            job = fl_ctx.get_job_id()
            self._wait_for_sites(self._store, job)
            self._server_logs.finish(job, "run ended", wait=2.0)

    @staticmethod
    def _wait_for_sites(store: LogStore, job: str) -> None:
        """Let the sites close their streams: their runs end after this one, and nobody takes their logs without this process."""
        deadline = time.monotonic() + _WAIT_FOR_SITES
        while time.monotonic() < deadline:
            if not any(
                info.state is State.OPEN for info in store.streams(job) if info.key.site != SERVER_SITE
            ):
                break
            time.sleep(0.1)

    # -- both ---------------------------------------------------------------------------------------------------

    def _open_store(self, workspace: Workspace) -> LogStore:
        root = Path(self.dest_dir) if self.dest_dir else Path(workspace.get_root_dir()) / STORE_DIRECTORY
        gib = (self.max_stream_gib, self.max_job_gib, self.max_store_gib)
        self._store = LogStore(root, Quotas(*(int(size * _GIB) for size in gib)))
        return self._store

    def _linker(self, workspace: Workspace) -> Any:
        def link(key: StreamKey) -> None:
            """Give the stored file a second name where the runtime's own commands look for it."""
            if self._store is None or not Path(workspace.get_run_dir(key.job_id)).is_dir():
                return
            target = Path(workspace.get_log_root(key.job_id)) / key.site / key.file
            if target.exists():
                return
            try:
                target.parent.mkdir(exist_ok=True)
                try:
                    os.link(self._store.path(key), target)
                except OSError:  # another file system
                    target.symlink_to(self._store.path(key))
            except OSError as error:
                self.logger.warning(f"{key}: cannot show it to the runtime's own log commands: {error}")

        return link

    def _start_keeper(self, store: LogStore, admission: JobAdmission | None) -> None:
        def keep() -> None:
            passed = 0.0
            while not self._stopping.wait(_COMMIT_INTERVAL):
                passed += _COMMIT_INTERVAL
                try:
                    store.commit()
                    if self._archive:
                        self._archive.update()
                    if admission and passed >= _SWEEP_INTERVAL:
                        passed = 0.0
                        for job in store.sweep(self.keep_days * 86400, admission.job_exists):
                            self.logger.info(f"removed the logs of job {job}")
                except Exception as error:  # a full disk, say: the next round may do better
                    self.logger.error(f"keeping the log store: {type(error).__name__}: {error}")

        threading.Thread(target=keep, name="nvflare_logstream_store", daemon=True).start()


def _job_of(fl_ctx: FLContext) -> str:
    """The job an event of the server parent is about; each version and event has it in another place."""
    data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
    meta = fl_ctx.get_prop(FLContextKey.JOB_META)
    for source in (data, meta):
        if isinstance(source, dict) and source.get(JobMetaKey.JOB_ID.value):
            return str(source[JobMetaKey.JOB_ID.value])
    return str(fl_ctx.get_prop(FLContextKey.CURRENT_JOB_ID) or "")


def _positive(argument: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1e6:
        raise ArgumentError(argument, value, "a number above 0, at most 1000000")
    return float(value)
