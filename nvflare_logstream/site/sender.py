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

from nvflare_logstream.errors import LinkError, WireError
from nvflare_logstream.site.batch import MOST_ASKED, Batch, FinishingJob, FollowedStream
from nvflare_logstream.site.interval import Pacer
from nvflare_logstream.site.link import Link
from nvflare_logstream.site.watch import Watcher
from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.wire.upload import Refusal
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply, decode_reply

_RETRY_LATER = 1.0  # seconds until what the receiver could not take is tried again
_ASLEEP = 60.0  # seconds between two looks while nothing is followed; a call ends them

_logger = logging.getLogger(__name__)


class Sender:
    """Follows logs and sends them.

    Args:
        link: the way to the receiver.
        poll_interval: most seconds until a change is seen where the system does not tell.
        liveness_interval: seconds of silence after which a sign of life is sent.
        on_verdict: called in the sender's thread with (stream, verdict, reason) when a stream has ended.
        clock, wall_clock, watcher: monotonic and calendar time in seconds, and what waits for changes.
    """

    def __init__(
        self,
        link: Link,
        poll_interval: float = 0.5,
        liveness_interval: float = 10.0,
        on_verdict: Callable[[StreamId, Verdict, str], None] = lambda stream, verdict, reason: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        watcher: Watcher | None = None,
    ):
        self._link, self._poll, self._liveness = link, poll_interval, liveness_interval
        self._on_verdict, self._clock, self._wall_clock = on_verdict, clock, wall_clock
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._streams: dict[StreamId, FollowedStream] = {}
        self._finishing: dict[str, FinishingJob] = {}
        self._refusals: dict[StreamId, Refusal] = {}
        self._batch: Batch | None = None
        self._ahead: Batch | None = None  # prepared while a full batch was under way
        self._look = True  # there may be something to send; else a change of the files will tell
        self._watcher = watcher or Watcher()
        self._pacer = Pacer()
        self._failures = 0
        self._last_sent = clock()
        self._ask_again = 0.0  # when jobs and refusals that were not taken are tried again
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
                self._streams[stream] = FollowedStream(stream, Path(directory))
        self._watcher.wake()

    def finish(
        self, job: str, directory: Path, files: Iterable[str], outcome: str, *, only_unclosed: bool = False
    ) -> None:
        """Send the rest of a job's logs and close them: those given, those followed and those the receiver knows of.

        Args:
            job: the job's id.
            directory: the job's log directory.
            files: names of logs that are to be closed even if nobody has seen them yet.
            outcome: how the job's process ended.
            only_unclosed: leave streams alone that the receiver holds as closed.
        """
        with self._lock:
            self._finishing[job] = FinishingJob(job, Path(directory), files, outcome, only_unclosed)
        self._watcher.wake()

    def refuse(self, job: str, files: Iterable[str], reason: str) -> None:
        """Tell the receiver that the site's policy keeps these logs back."""
        with self._lock:
            self._refusals.update(
                {StreamId(job, file): Refusal(StreamId(job, file), reason) for file in files}
            )
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
        if self._thread is None:
            self._release()
        elif seconds:
            self._thread.join(seconds)

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.turn()
            except Exception:  # a log problem never ends the process's streaming
                _logger.exception("log streaming hit an unexpected error and goes on")
                self._drop_batch()
                self._watcher.pause(5.0)
        self._release()

    def _release(self) -> None:
        for stream in list(self._streams.values()):
            stream.tailer.close()
        self._watcher.close()

    def turn(self) -> None:
        """One round: gather, send, take the answer, or wait. The thread calls it; a test may do so instead."""
        early = self._pacer.not_before - self._clock()
        if early > 0 and (self._failures or not self._hurried()):
            self._watcher.pause(early)
            if self._pacer.not_before > self._clock() and not self._urgent:
                return
        if self._batch is None and not self._look:
            self._watcher.wait(self._rest())
        if self._batch is None:
            self._batch = self._gather()
        if self._batch is not None:
            self._send(self._batch)

    def _rest(self) -> float:
        """Seconds until the next look."""
        if self._streams:
            return min(self._poll, max(0.0, self._liveness - (self._clock() - self._last_sent)))
        return self._poll if self._finishing or self._refusals else _ASLEEP

    def _hurried(self) -> bool:
        """Somebody waits, or a job is over: its archive is written within a second, and a few requests are all that is left."""
        return (
            self._urgent
            or bool(self._finishing)
            or any(s.outcome is not None for s in self._streams.values())
        )

    def _gather(self) -> Batch | None:
        """A request with all there is to say now; None if that is nothing.

        While a batch is under way, only what follows its bytes: the answer decides on all else.
        """
        now, self._look, under_way = self._clock(), False, self._batch
        with self._lock:
            streams = list(self._streams.values())
            asked = MOST_ASKED if now >= self._ask_again and under_way is None else 0
            batch = Batch(self._wall_clock(), list(self._finishing.values())[:asked])
            refusals = list(self._refusals.values())[:asked]
        writer = batch.writer
        for refusal in refusals:
            writer.refuse(refusal)
        for number, stream in enumerate(streams):
            if stream.not_before > now or (under_way and stream.id in under_way.closing):
                continue
            if stream.opened:
                self._gather_stream(stream, batch, len(streams) - number)
            elif under_way is None:
                batch.open(stream)
        if writer.full:
            self._go_round(streams)
        if writer.empty and under_way:
            self._look = True
            return None
        if writer.empty:
            with self._idle:
                held_back = now < self._ask_again and (self._finishing or self._refusals)
                if not held_back and not any(stream.not_before > now for stream in streams):
                    self._looks += 1
                self._idle.notify_all()
            if not streams or now - self._last_sent < self._liveness:
                return None
        batch.payload = writer.encode()
        return batch

    def _gather_stream(self, stream: FollowedStream, batch: Batch, streams_left: int) -> None:
        try:
            batch.take(stream, streams_left)
            # What came between the last read and the first watch would not be told of.
            self._look |= (
                self._watcher.watch(stream.directory, stream.tailer.descriptor, stream) or batch.writer.full
            )
            stream.unreadable = False
        except OSError as error:
            if not stream.unreadable:
                _logger.warning("cannot read %s now: %s", stream.directory / stream.id.file, error)
            stream.unreadable = True
            stream.not_before = self._clock() + _RETRY_LATER

    def _go_round(self, streams: list[FollowedStream]) -> None:
        """Begin the next batch with another stream, so that one that writes without end does not keep the others waiting."""
        with self._lock:
            for stream in streams[:1]:
                self._streams[stream.id] = self._streams.pop(stream.id)

    def _send(self, batch: Batch) -> None:
        """Send a batch and take the answer; while a full one is under way, prepare the next."""
        try:
            if batch.writer.full and not self._failures:
                collect = self._link.post(batch.payload)
                self._ahead = self._ahead or self._gather()
                reply = decode_reply(collect())
            else:
                reply = decode_reply(self._link.send(batch.payload))
        except (LinkError, WireError) as error:
            self._failed(f"no answer from the log receiver: {error}")
            return
        if reply.error:
            self._failed(f"the log receiver refused a message: {reply.error}")
            self._drop_batch()
            return
        self._failures = 0
        self._batch, self._ahead = self._ahead, None
        self._last_sent = self._clock()
        self._pacer.sent(self._last_sent, batch.writer.raw_size, batch.writer.full, reply.not_before)
        self._take(batch, reply)

    def _failed(self, problem: str) -> None:
        self._failures += 1
        if self._failures in (1, 10, 100, 1000):  # the line may go into the log that is followed
            _logger.warning("%s; trying again (attempt %d)", problem, self._failures)
        self._pacer.failed(self._clock(), self._failures)

    def _drop_batch(self) -> None:
        """Nobody knows what of the batch was taken: ask the receiver where every stream stands."""
        self._batch, self._ahead, self._look = None, None, True
        for stream in list(self._streams.values()):
            stream.opened = False

    # -- the answer ---------------------------------------------------------------------------------------------

    def _take(self, batch: Batch, reply: Reply) -> None:
        for row in reply.streams:
            if row.stream in self._refusals:
                self._take_refusal(row)
            stream = self._streams.get(row.stream)
            if stream is None:
                continue
            if row.status is Status.REFUSED:
                self._end(stream, Verdict.REFUSED, row.reason)
            elif row.status is Status.LATER:
                self._look = True
                stream.opened, stream.not_before = False, self._clock() + _RETRY_LATER
            elif row.stream in batch.closing and row.status is Status.OK:
                self._end(stream, row.verdict or Verdict.PARTIAL, "")
            elif (
                not stream.opened
                or row.status is Status.GAP
                or row.end != batch.ends.get(row.stream, stream.tailer.offset)
            ):
                if self._batch is not None:  # prepared for another place than this
                    self._drop_batch()
                    return
                # Without its cursor the receiver's end is not a place we can go to: ask for it.
                self._look = True
                stream.opened = bool(row.cursor) or not row.end
                if stream.opened and not stream.tailer.stands_at(row.end, row.cursor):
                    stream.tailer.seek(row.end, row.cursor)
        if reply.jobs_later:
            self._ask_again = self._clock() + _RETRY_LATER
        self._take_known([job for job in batch.jobs if job.job_id not in reply.jobs_later], reply)
        with self._idle:
            self._idle.notify_all()

    def _take_refusal(self, row: StreamReply) -> None:
        with self._lock:
            if row.status is Status.LATER:
                self._ask_again = self._clock() + _RETRY_LATER
            elif row.status is Status.REFUSED:
                del self._refusals[row.stream]

    def _take_known(self, jobs: list[FinishingJob], reply: Reply) -> None:
        """The receiver has told what it knows of jobs that are over: follow their streams to the end."""
        rows = {row.stream: row for row in reply.streams}
        with self._lock:
            for job in jobs:
                self._look = True
                if self._finishing.get(job.job_id) is job:
                    del self._finishing[job.job_id]
                candidates = [StreamId(job.job_id, file) for file in job.files]
                candidates += [stream for stream in (*self._streams, *rows) if stream.job_id == job.job_id]
                for stream in dict.fromkeys(candidates):
                    if job.only_unclosed and stream in rows and rows[stream].verdict:
                        continue
                    found = self._streams.get(stream)
                    if found is None:
                        found = self._streams[stream] = FollowedStream(stream, job.directory)
                        if stream in rows and rows[stream].status is Status.OK:
                            found.opened = True
                            found.tailer.seek(rows[stream].end, rows[stream].cursor)
                    found.outcome = job.outcome

    def _end(self, stream: FollowedStream, verdict: Verdict, reason: str) -> None:
        stream.tailer.close()
        self._watcher.forget(stream)
        with self._lock:
            self._streams.pop(stream.id, None)
            if not any(other.directory == stream.directory for other in self._streams.values()):
                self._watcher.forget(stream.directory)
        self._on_verdict(stream.id, verdict, reason)
