"""The receiver in the server's parent process: takes the logs of all jobs, keeps them and answers readers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from nvflare_logstream.errors import StoreError
from nvflare_logstream.flare import runtime
from nvflare_logstream.flare.admission import JobAdmission, participants
from nvflare_logstream.flare.archive import ArchiveKeeper
from nvflare_logstream.flare.cell_channel import serve
from nvflare_logstream.flare.keeper import WAIT_FOR_TURN, Keeper
from nvflare_logstream.flare.launchers import HERE, Launcher
from nvflare_logstream.flare.receiver_settings import ReceiverSettings
from nvflare_logstream.flare.run_directory import RunDirectories
from nvflare_logstream.flare.server_logs import ServerLogs
from nvflare_logstream.flare.stock_channel import serve_stock
from nvflare_logstream.names import DEFAULT_LOG_FILES, is_site
from nvflare_logstream.server.counters import Counters
from nvflare_logstream.server.following import Push
from nvflare_logstream.server.job_list import JobLister
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.server.service import LogService
from nvflare_logstream.server.status import StatusService
from nvflare_logstream.server.unchecked import UncheckedReceiver
from nvflare_logstream.streams import StreamKey
from nvflare_logstream.wire.job_list import ListedJob

_logger = logging.getLogger(__name__)


class ServerProcess:
    """One method for each event of the server's parent process.

    Args:
        engine: the server's engine.
        settings: the receiver's.
        launcher: runs the jobs' server processes.
    """

    def __init__(self, engine: Any, settings: ReceiverSettings, launcher: Launcher = HERE):
        workspace = engine.get_workspace()
        self._engine, self._launcher, self._keep_seconds = engine, launcher, settings.keep_seconds
        self.store = settings.open_store(workspace)
        self._admission = JobAdmission(engine, self.store)
        self._archive = ArchiveKeeper(engine, self.store)
        self._run_directories = RunDirectories(self.store, workspace)
        unseen_place = "" if launcher.sees_files else launcher.place
        self._server_logs = ServerLogs(self.store, workspace, unseen_place=unseen_place)
        sources = (self.store, settings.idle_timeout, self._archive.status)  # both tell readers the same
        self._service, self._job_lister = LogService(*sources), JobLister(*sources)
        self._counters = Counters()
        self._status = StatusService(
            self.store,
            settings.quotas,
            self._counters,
            settings.idle_timeout,
            runtime.VERSION,
            connected=lambda: [client.name for client in engine.get_clients()],
        )
        self._lock = threading.Lock()
        self._expected: dict[StreamKey, str] = {}  # what the index does not know yet
        self._unchecked = UncheckedReceiver(
            self.store,
            self._admission,
            self._run_directories.show,
            self._archive.stream_closed,
            self._counters,
        )
        # An archive may take minutes to write: commits and the rest go on meanwhile.
        tasks = [self.store.commit, self._expect_sites, self._unchecked.turn, self._counters.turn]
        self._keepers = (
            Keeper(tasks, [self._sweep], self._counters.failed),
            Keeper([self._archive.update], on_error=self._counters.failed, due=self._archive.due),
        )

    def start(self) -> None:
        """Take requests from now on, and finish what an earlier life of this process left undone."""
        receiver = Receiver(
            self.store,
            self._admission,
            self._run_directories.show,
            self._archive.stream_closed,
            counters=self._counters,
        )
        self._unchecked.end_earlier()
        self._archive.start()
        serve(self._engine.get_cell(), receiver.handle)
        serve_stock(self._engine.get_cell(), lambda: self._unchecked)
        self._server_logs.start()
        self._server_logs.close_earlier(self._launcher, self._engine)
        for keeper in self._keepers:
            keeper.start()

    def stop(self) -> None:
        """The process ends."""
        for keeper in self._keepers:
            keeper.stop(WAIT_FOR_TURN)
        self.store.commit()

    def job_launching(self, job_id: str) -> None:
        """A job's server process is about to be launched: follow its logs."""
        self._server_logs.follow(job_id)

    def job_started(self, job_id: str) -> None:
        """A job runs: record whose logs are to come, so that one that never comes is known to be missing."""
        reasons = dict.fromkeys(
            self._admission.absent(job_id), "the site was not connected when the job was started"
        )
        reasons |= dict.fromkeys(
            participants(self._engine, job_id), "the site is in the job, nothing arrived from it"
        )
        # The receiver refuses a site with another name; the others' logs are still to come.
        named = {site: reason for site, reason in reasons.items() if is_site(site)}
        with self._lock:
            for site, reason in named.items():
                self._expected[StreamKey(job_id, site, DEFAULT_LOG_FILES[0])] = reason
        with suppress(StoreError):  # a full disk, say: the keeper tries again
            self._expect_sites()

    def _expect_sites(self) -> None:
        with self._lock:
            if self._expected:
                self.store.expect(self._expected)
                self._expected.clear()

    def job_completed(self, job_id: str) -> None:
        """The runtime has ended a job and archived its run directory."""
        self._unchecked.job_over(job_id)
        self._server_logs.finish(job_id, self._archive.status(job_id))
        self._archive.job_archived(job_id)
        self.store.wake_readers(job_id)  # its status has changed

    def answer(self, job_id: str, request: object, push: Push | None = None) -> dict[str, Any]:
        """Answer a reader's request about a job; `push` sends the reader what comes before the answer."""
        return self._service.answer(job_id, request, push)

    def answer_status(self, question: object, named: bool) -> dict[str, Any]:
        """Answer an admin's question how the receiver is doing; with names of sites and jobs if `named`."""
        return self._status.answer(question, named)

    def answer_jobs(self, question: object, jobs: Callable[[], Iterable[ListedJob]]) -> dict[str, Any]:
        """Answer an admin's question which jobs have which logs, of the jobs that the admin may see."""
        return self._job_lister.answer(question, jobs)

    def _sweep(self) -> None:
        for job_id, reason in self.store.sweep(self._keep_seconds, self._admission.deleted):
            _logger.info("removed the logs of job %s: %s", job_id, reason)
