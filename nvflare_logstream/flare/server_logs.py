"""The server's own job logs as streams of site "server": the same sender, straight into the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nvflare.apis.workspace import Workspace

from nvflare_logstream.flare.elsewhere import Survivors
from nvflare_logstream.flare.launchers import Launcher
from nvflare_logstream.flare.runtime import running_server_jobs
from nvflare_logstream.names import DEFAULT_LOG_FILES, SERVER_SITE
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.site.endings import Doubt
from nvflare_logstream.site.link import Link
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import END_UNSEEN, State
from nvflare_logstream.wire.peer import Peer

_RESTARTED = f"{END_UNSEEN}the server restarted"


class _LocalLink(Link):
    """The way from the server's own sender to the store; only here does a peer bear the server's name."""

    def __init__(self, store: LogStore):
        self._receiver = Receiver(store, lambda site, job_id: Admission())

    def send(self, payload: bytes) -> bytes:
        return self._receiver.handle(payload, Peer(SERVER_SITE))


class ServerLogs:
    """Follows the logs of the jobs' server processes; one thread for all.

    The runtime removes a job's run directory when it has archived it; the files are then read to their end
    through the descriptors that are still open.

    Args:
        store: where the streams are kept.
        workspace: tells each job's log directory, unless `directory` is given.
        directory: the one log directory, in a job's own process.
        unseen_place: where the jobs' processes run, if this process cannot see their files there.
    """

    def __init__(
        self, store: LogStore, workspace: Workspace, directory: Path | None = None, unseen_place: str = ""
    ):
        self._store, self._workspace, self._directory = store, workspace, directory
        self._unseen_place = unseen_place
        self._sender = Sender(_LocalLink(store))

    def start(self) -> None:
        """Start the sender's thread."""
        self._sender.start()

    def follow(self, job_id: str) -> None:
        """Follow the logs of a job that is about to be launched."""
        for file in DEFAULT_LOG_FILES if job_id else ():
            self._sender.follow(job_id, self._log_directory(job_id), file)

    def finish(self, job_id: str, outcome: str, wait: float = 0.0) -> None:
        """Send the rest of a job's logs and close them; wait at most `wait` seconds for it."""
        self._sender.finish(job_id, self._log_directory(job_id), (), outcome, doubt=self._doubt())
        if wait:
            self._sender.wait_finished(wait)

    def close_earlier(self, launcher: Launcher, engine: Any) -> None:
        """Close what an earlier life of this server left open; returns at once.

        A job's process may run on, in a container for hours: its logs are followed until it ends.
        """
        left_open = self.left_open()  # now: soon there are new jobs
        if left_open:
            survivors = Survivors(launcher, engine, self._workspace, running_server_jobs)
            arguments = (left_open, survivors)
            with suppress(RuntimeError):  # no thread is left: the next life of the server closes them
                threading.Thread(
                    target=self.close_left, args=arguments, name="nvflare_logstream_restart", daemon=True
                ).start()

    def left_open(self) -> dict[str, list[str]]:
        """The files of the server's open streams, by job."""
        left_open: dict[str, list[str]] = {}
        for stream in self._store.streams(site=SERVER_SITE):
            if stream.state is State.OPEN:
                left_open.setdefault(stream.key.job_id, []).append(stream.key.file)
        return left_open

    def close_left(
        self,
        left_open: dict[str, list[str]],
        survivors: Survivors,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Close what was left open of each job when that is over.

        Args:
            left_open: files by job, see `left_open`.
            survivors: knows which jobs still run.
            sleep: waits some seconds.
        """
        waiting, followed = set(left_open), set[str]()
        while waiting:
            # The runtime has archived a job that has no run directory.
            alive = survivors.alive(job for job in waiting if Path(self._workspace.get_run_dir(job)).is_dir())
            for job_id in sorted(waiting - alive):
                self._sender.finish(
                    job_id,
                    self._log_directory(job_id),
                    left_open[job_id],
                    _RESTARTED,
                    only_unclosed=True,
                    doubt=self._doubt() or survivors.doubt(job_id),
                )
            for job_id in sorted(alive - followed if survivors.launcher.sees_files else ()):
                followed.add(job_id)
                for file in left_open[job_id]:
                    self._sender.follow(job_id, self._log_directory(job_id), file)
            waiting = alive
            if waiting:
                sleep(survivors.interval)

    def _doubt(self) -> Doubt | None:
        if not self._unseen_place:
            return None
        reason = (
            f"the job's server process ran in {self._unseen_place}: what it wrote after a copy of its logs "
            "was made stayed there, and so did all where no copy came back"
        )
        return Doubt(time.time(), reason)

    def _log_directory(self, job_id: str) -> Path:
        if self._directory is not None:
            return self._directory
        # Where a log root of its own is configured, get_log_root would make a directory that is gone again.
        run_dir = Path(self._workspace.get_run_dir(job_id))
        return Path(self._workspace.get_log_root(job_id)) if run_dir.is_dir() else run_dir
