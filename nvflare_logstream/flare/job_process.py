"""The receiver in a job's server process, for that job alone, where the server has no receiver of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nvflare_logstream.flare.cell_channel import has_receiver, serve
from nvflare_logstream.flare.keeper import WAIT_FOR_TURN, Keeper
from nvflare_logstream.flare.log_directory import own_log_directory
from nvflare_logstream.flare.receiver_settings import ReceiverSettings
from nvflare_logstream.flare.run_directory import RunDirectories
from nvflare_logstream.flare.server_logs import ServerLogs
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.server.unchecked import UncheckedReceiver
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State
from nvflare_logstream.wire.upload_reply import Status

# Seconds: a site begins to end its run up to 2 s later than the server, and sends its rest for up to 5 s.
_WAIT_FOR_SITES = 8.0
_WAIT_FOR_OWN_LOGS = 2.0  # seconds
_LOOK_INTERVAL = 0.1  # seconds


def server_receives(cell: Any) -> bool:
    """Whether the server's parent process takes logs itself; in the simulator there is none."""
    return bool(cell.get_fqcn() != SERVER_SITE and has_receiver(cell))


class JobProcess:
    """One method for each event of a job's server process.

    Args:
        engine: the job's engine.
        job_id: the job.
        settings: the receiver's.
    """

    def __init__(self, engine: Any, job_id: str, settings: ReceiverSettings):
        workspace = engine.get_workspace()
        self._engine, self._job_id, self._keep_seconds = engine, job_id, settings.keep_seconds
        self.store = settings.open_store(workspace)
        self._run_directories = RunDirectories(self.store, workspace)
        self._server_logs = ServerLogs(self.store, workspace, own_log_directory(workspace, job_id))
        self.unchecked = UncheckedReceiver(self.store, self._admit, self._run_directories.show)
        self._keeper = Keeper([self.store.commit, self.unchecked.turn], [self._sweep])

    def start(self) -> None:
        """Take requests from now on, and follow this process's own logs.

        No other process looks after this store, so logs of earlier jobs that are too old go now.
        """
        self._sweep()
        self.unchecked.end_earlier()
        serve(self._engine.get_cell(), Receiver(self.store, self._admit, self._run_directories.show).handle)
        self._server_logs.start()
        self._server_logs.follow(self._job_id)
        self._keeper.start()

    def end_run(self) -> None:
        """The run is over: let the sites close their streams, then close this process's own."""
        wait_for_sites(self.store, self._job_id)
        self._server_logs.finish(self._job_id, "run ended", wait=_WAIT_FOR_OWN_LOGS)
        self.store.commit()

    def stop(self) -> None:
        """The process ends."""
        self._keeper.stop(WAIT_FOR_TURN)
        self.store.commit()
        self._sweep()  # most jobs are over before the keeper's first round: their uptime counts too

    def _sweep(self) -> None:
        """Remove what is too old, also by an uptime that grows only while this is called."""
        self.store.sweep(self._keep_seconds, deleted=lambda job_id: False)

    def _admit(self, site: str, job_id: str) -> Admission:
        if job_id != self._job_id:
            return Admission(Status.REFUSED, f"this receiver takes logs of job {self._job_id} only")
        if site not in {client.name for client in self._engine.get_clients()}:
            return Admission(Status.REFUSED, f"{site} takes no part in job {job_id}")
        return Admission()


def wait_for_sites(
    store: LogStore,
    job_id: str,
    seconds: float = _WAIT_FOR_SITES,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the sites have closed their streams, at most `seconds`.

    Their runs end after the server's, and without this process nobody would take their logs.
    """
    deadline = clock() + seconds
    while clock() < deadline:
        known = store.streams(job_id, brief=True)
        sites = [stream for stream in known if stream.site != SERVER_SITE]
        if not any(stream.state is State.OPEN for stream in sites):
            return
        sleep(_LOOK_INTERVAL)
