"""A site, a server and a link between them in one process, for tests that drive a sender turn by turn."""

from __future__ import annotations

import os
from pathlib import Path

from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.site.decision import always
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.site.source import SourceFactory
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import StreamId
from nvflare_logstream.testing import Clock, ClockWatcher, FaultyLink
from nvflare_logstream.wire.peer import Peer

JOB, SITE = "job-1", "site-1"


class Changes:
    """Lets no two changes of files bear the same time, as a coarse clock would; what comes later is later."""

    def __init__(self) -> None:
        self._last = 0  # nanoseconds, by the system's own clock

    def happen_now(self, path: Path) -> None:
        """A file was renamed or written just now."""
        status = os.stat(path)
        while status.st_ctime_ns <= self._last:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            status = os.stat(path)
        self._last = status.st_ctime_ns


class World:
    """A site, a server and a link between them, on one clock that nobody has to wait for."""

    def __init__(self, root: Path, **quotas: int):
        self.clock = self.server_clock = Clock()
        self.root, self.logs = root / "store", root / "logs"
        self.logs.mkdir()
        self.quotas = Quotas(**quotas)
        self.admission = Admission()
        self.watcher = ClockWatcher(self.clock)
        self.link = FaultyLink(self.deliver)
        self.verdicts: dict[StreamId, str] = {}
        self.store = LogStore(self.root, self.quotas, self.server_clock)
        self.senders: list[Sender] = []
        self.source: SourceFactory = Tailer
        self.said = always()  # by the site, of its logs
        self.kept_back: dict[str, str] = {}  # why, by job

    def deliver(self, payload: bytes, job_id: str = "") -> bytes:
        receiver = Receiver(self.store, lambda site, job_id: self.admission, clock=self.server_clock)
        return receiver.handle(payload, Peer(SITE, job_id))

    def crash_server(self) -> None:
        self.store.index.close()  # the files' descriptors are not kept open: nothing else dies with a process
        self.store = LogStore(self.root, self.quotas, self.server_clock)

    def sender(self, *files: str, link: object = None) -> Sender:
        def ended(stream: StreamId, verdict: str, reason: str) -> None:
            self.verdicts[stream] = verdict

        sender = Sender(
            link or self.link,
            on_verdict=ended,
            clock=self.clock,
            wall_clock=self.clock,
            cpu_clock=lambda: 0.0,  # what a test takes must not decide how it goes
            watcher=self.watcher,
            source=self.source,
            allowed=lambda: self.said,
            on_kept_back=self.kept_back.__setitem__,
        )
        self.senders.append(sender)
        for file in files:
            sender.follow(JOB, self.logs, file)
        return sender

    def write(self, data: bytes, file: str = "log.txt") -> None:
        with (self.logs / file).open("ab") as log:
            log.write(data)
        self.watcher.changed = True

    def stored(self, file: str = "log.txt") -> bytes:
        return (self.root / JOB / SITE / file).read_bytes()

    def info(self, file: str = "log.txt"):
        return next(info for info in self.store.streams(JOB) if info.key.file == file)

    def finish(self, sender: Sender, files: tuple[str, ...] = (), **more: bool) -> None:
        sender.finish(JOB, self.logs, files, "exit code 0", **more)
        self.run(sender, turns=60)

    def run(self, sender: Sender, turns: int = 30) -> None:
        for _ in range(turns):
            sender.turn()

    def close(self) -> None:
        for sender in self.senders:
            sender.stop()
        self.store.close()
