"""Brings the followed logs of one process to the server: one thread, one request in flight, whatever the number of files.

The sender keeps no state of its own beyond the batch under way. It asks the receiver where it stands, goes to that place in the
source, and sends what follows; a request without an answer is sent again as it was. The source file is the spool.

Rules:

* The process that logs comes first: nothing here blocks it or raises into it, and a batch is bounded.
* A stream is closed only when asked to (`finish`), after everything was read and taken by the receiver.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from nvflare_logstream.errors import LinkError
from nvflare_logstream.site.pace import Pacer
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.site.watch import Watcher
from nvflare_logstream.wire.frames import (
    MAX_FRAME,
    MAX_FRAMES,
    Close,
    Frame,
    Refusal,
    Reply,
    RequestWriter,
    StreamId,
    StreamReply,
    decode_reply,
)

_BATCH_SENT = 1 << 20  # bytes of a batch as it travels
_BATCH_READ = 8 << 20  # bytes of log in a batch
_RETRY_LATER = 1.0  # seconds until a stream the receiver could not take is tried again

_logger = logging.getLogger(__name__)


class Link(Protocol):
    """A way to the receiver."""

    def send(self, payload: bytes) -> bytes:
        """Send a request and return the reply.

        Raises:
            LinkError: if there was none; the request may or may not have been taken.
        """
        ...


class _Stream:
    """A followed log: its tailer and how far it is with the receiver."""

    def __init__(self, stream: StreamId, directory: Path):
        self.id, self.directory = stream, directory
        self.tailer = Tailer(directory, stream.file)
        self.opened = False  # the receiver has told where it stands
        self.outcome: str | None = None  # set: close when everything was sent
        self.not_before = 0.0


class _Job:
    """Streams of one job that are to be finished."""

    def __init__(self, job: str, directory: Path, files: Iterable[str], outcome: str, only_unclosed: bool):
        self.job, self.directory, self.files = job, directory, tuple(files)
        self.outcome, self.only_unclosed = outcome, only_unclosed


class _Batch:
    """A request under way, with what its answer has to be read against."""

    def __init__(self, clock: float, jobs: list[_Job]):
        self.writer = RequestWriter(clock, time.localtime().tm_gmtoff)
        self.jobs = jobs
        self.closing: set[StreamId] = set()
        self.payload = b""


class Sender:
    """Follows logs and sends them.

    Args:
        link: the way to the receiver.
        poll_interval: most seconds until a change is seen where the system does not tell.
        liveness_interval: seconds of silence after which a sign of life is sent.
        on_verdict: called in the sender's thread with (stream, verdict, reason) when a stream has ended.
    """

    def __init__(
        self,
        link: Link,
        poll_interval: float = 0.5,
        liveness_interval: float = 10.0,
        on_verdict: Callable[[StreamId, str, str], None] = lambda stream, verdict, reason: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ):
        self._link, self._poll, self._liveness = link, poll_interval, liveness_interval
        self._on_verdict, self._clock, self._wall_clock = on_verdict, clock, wall_clock
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._streams: dict[StreamId, _Stream] = {}
        self._finishing: dict[str, _Job] = {}
        self._refusals: list[Refusal] = []
        self._batch: _Batch | None = None
        self._watcher = Watcher()
        self._pacer = Pacer()
        self._failures = 0
        self._last_sent = clock()
        self._urgent = False  # somebody waits: no pacing
        self._looks = 0  # completed looks that found nothing more to send
        self._stopping = False
        self._thread: threading.Thread | None = None

    # -- called from any thread ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the one background thread."""
        self._thread = threading.Thread(target=self._run, name="nvflare_logstream", daemon=True)
        self._thread.start()

    def follow(self, job: str, directory: Path, file: str) -> None:
        """Begin to follow a log; a log that is followed already stays as it is."""
        stream = StreamId(job, file)
        with self._lock:
            if stream not in self._streams:
                self._streams[stream] = _Stream(stream, Path(directory))
        self._watcher.wake()

    def finish(self, job: str, directory: Path, files: Iterable[str], outcome: str, *, only_unclosed: bool = False) -> None:
        """Send the rest of a job's logs and close them: those given, those followed and those the receiver knows of.

        Args:
            job: the job's id.
            directory: the job's log directory.
            files: names of logs that are to be closed even if nobody has seen them yet.
            outcome: how the job's process ended.
            only_unclosed: leave streams alone that the receiver holds as closed.
        """
        with self._lock:
            self._finishing[job] = _Job(job, Path(directory), files, outcome, only_unclosed)
        self._watcher.wake()

    def refuse(self, job: str, files: Iterable[str], reason: str) -> None:
        """Tell the receiver that the site's policy keeps these logs back."""
        with self._lock:
            self._refusals += [Refusal(StreamId(job, file), reason) for file in files]
        self._watcher.wake()

    def drain(self, seconds: float) -> bool:
        """Wait until everything written before this call was taken by the receiver; False if `seconds` were not enough."""
        deadline = time.monotonic() + seconds
        with self._idle:
            self._urgent = True
            wanted = self._looks + 2  # the first look may have begun before the call
            self._watcher.wake()
            while self._looks < wanted and self._alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._idle.wait(min(left, 0.1))
                self._watcher.wake()
            self._urgent = False
            return self._looks >= wanted

    def wait_finished(self, seconds: float) -> bool:
        """Wait until no stream is left; False if `seconds` were not enough."""
        deadline = time.monotonic() + seconds
        with self._idle:
            self._urgent = True
            while (self._streams or self._finishing) and self._alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._idle.wait(min(left, 0.1))
                self._watcher.wake()
            self._urgent = False
            return not self._streams and not self._finishing

    def stop(self, seconds: float = 0.0) -> None:
        """End the thread; waits at most `seconds` for it."""
        self._stopping = True
        self._watcher.wake()
        if self._thread and seconds:
            self._thread.join(seconds)

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:  # a log problem never ends the process's streaming
                _logger.exception("log streaming hit an unexpected error and goes on")
                self._batch = None
                for stream in self._streams.values():
                    stream.opened = False
                self._watcher.pause(5.0)
        for stream in list(self._streams.values()):
            stream.tailer.close()
        self._watcher.close()

    def _turn(self) -> None:
        """One round: gather, send, take the answer, wait."""
        early = self._pacer.not_before - self._clock()
        if early > 0 and not (self._urgent and not self._failures):
            self._watcher.pause(early)
            if self._pacer.not_before > self._clock() and not self._urgent:
                return
        if self._batch is None:
            self._batch = self._gather()
        if self._batch is None:
            self._watcher.wait(min(self._poll, max(0.0, self._liveness - (self._clock() - self._last_sent))))
        else:
            self._send(self._batch)

    def _gather(self) -> _Batch | None:
        """A request with all there is to say now; None if that is nothing."""
        with self._lock:
            streams = list(self._streams.values())
            batch = _Batch(self._wall_clock(), list(self._finishing.values()))
            refusals, self._refusals = self._refusals, []
        writer, now, budget = batch.writer, self._clock(), MAX_FRAMES
        for refusal in refusals:
            writer.refuse(refusal)
        for job in batch.jobs:
            writer.known(job.job)
        for number, stream in enumerate(streams):
            if stream.not_before > now:
                continue
            if not stream.opened:
                writer.open(stream.id)
                continue
            share = (_BATCH_READ - writer.raw_size) // (len(streams) - number)
            budget -= self._gather_stream(stream, batch, max(share, MAX_FRAME), budget)
        if writer.empty:
            with self._idle:
                self._looks += 1
                self._idle.notify_all()
            if not streams or now - self._last_sent < self._liveness:
                return None
        batch.payload = writer.encode()
        return batch

    def _gather_stream(self, stream: _Stream, batch: _Batch, share: int, budget: int) -> int:
        """Add what follows in one stream, at most `share` bytes in `budget` frames; and its close at the end."""
        tailer, writer, count = stream.tailer, batch.writer, 0
        end = writer.raw_size + share
        try:
            while count < budget:
                left = min(MAX_FRAME, end - writer.raw_size)
                if left <= 0 or writer.size >= _BATCH_SENT or writer.raw_size >= _BATCH_READ:
                    writer.full = True
                    return count
                chunk = tailer.read(left)
                if chunk is None:
                    break
                writer.frame(Frame(stream.id, chunk.offset, chunk.data, chunk.cursor, chunk.losses))
                count += 1
            self._watcher.watch(stream.directory, tailer.descriptor, stream)
            if stream.outcome is not None and not count:
                digest, begins = tailer.digest()
                writer.close(Close(stream.id, tailer.offset, digest, begins, stream.outcome))
                batch.closing.add(stream.id)
        except OSError as error:
            _logger.warning("cannot read %s now: %s", stream.directory / stream.id.file, error)
            stream.not_before = self._clock() + _RETRY_LATER
        return count

    def _send(self, batch: _Batch) -> None:
        try:
            reply = decode_reply(self._link.send(batch.payload))
        except LinkError as error:
            self._failures += 1
            if self._failures in (1, 10, 100, 1000):
                _logger.info("no answer from the log receiver, trying again (attempt %d): %s", self._failures, error)
            self._pacer.failed(self._clock(), self._failures)
            return
        self._failures = 0
        self._batch = None
        self._last_sent = self._clock()
        self._pacer.sent(self._last_sent, batch.writer.raw_size, batch.writer.full, reply.not_before)
        if reply.error:
            _logger.error("the log receiver refused a message: %s", reply.error)
            self._pacer.failed(self._last_sent, 10)
            for stream in list(self._streams.values()):
                stream.opened = False
            return
        self._take(batch, reply)

    # -- the answer ---------------------------------------------------------------------------------------------

    def _take(self, batch: _Batch, reply: Reply) -> None:
        for row in reply.streams:
            stream = self._streams.get(row.stream)
            if stream is None:
                continue
            if row.status == "refused":
                self._end(stream, "refused", row.reason)
            elif row.status == "later":
                stream.opened, stream.not_before = False, self._clock() + _RETRY_LATER
            elif row.stream in batch.closing and row.status == "ok":
                self._end(stream, row.verdict, "")
            elif not stream.opened or row.status == "gap" or row.end != stream.tailer.offset:
                stream.opened = True
                if row.end != stream.tailer.offset or stream.tailer.descriptor is None:
                    self._seek(stream, row)
        self._take_known([job for job in batch.jobs if job.job not in reply.jobs_later], reply)
        with self._idle:
            self._idle.notify_all()

    def _seek(self, stream: _Stream, row: StreamReply) -> None:
        if row.end and not row.cursor:
            stream.opened = False  # the receiver is elsewhere than we thought: ask for its cursor
        else:
            stream.tailer.seek(row.end, row.cursor)

    def _take_known(self, jobs: list[_Job], reply: Reply) -> None:
        """The receiver has told what it knows of jobs that are over: follow their streams to the end."""
        rows = {row.stream: row for row in reply.streams}
        with self._lock:
            for job in jobs:
                del self._finishing[job.job]
                candidates = [StreamId(job.job, file) for file in job.files]
                candidates += [stream for stream in (*self._streams, *rows) if stream.job == job.job]
                for stream in dict.fromkeys(candidates):
                    if job.only_unclosed and stream in rows and rows[stream].verdict:
                        continue
                    if stream not in self._streams:
                        self._streams[stream] = _Stream(stream, job.directory)
                    self._streams[stream].outcome = job.outcome

    def _end(self, stream: _Stream, verdict: str, reason: str) -> None:
        stream.tailer.close()
        self._watcher.forget(stream)
        with self._lock:
            self._streams.pop(stream.id, None)
            if not any(other.directory == stream.directory for other in self._streams.values()):
                self._watcher.forget(stream.directory)
        self._on_verdict(stream.id, verdict, reason)
