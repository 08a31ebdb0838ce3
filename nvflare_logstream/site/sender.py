"""Brings the followed logs of one process to the server, by one thread and one request at a time.

The sender keeps no state of its own beyond the requests under way. It asks the receiver where it stands, goes
to that place in the source, and sends what follows; a request without an answer is sent again as it was. The
source file is the spool.

Rules:

* The process that logs comes first: nothing here blocks it or raises into it, and a batch is bounded.
* A stream is closed only when its job is finished (`finish`), after everything was read and taken by the
  receiver.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from nvflare_logstream.errors import LinkError, NoReceiverError, WireError
from nvflare_logstream.site.appearing import Directory
from nvflare_logstream.site.batch import Batch
from nvflare_logstream.site.console_tail import source_of
from nvflare_logstream.site.decision import Decision, always
from nvflare_logstream.site.endings import Doubt
from nvflare_logstream.site.exchange import Step
from nvflare_logstream.site.followed import Ended, FollowedStream
from nvflare_logstream.site.gate import Gate
from nvflare_logstream.site.link import Link
from nvflare_logstream.site.orders import FinishJob, FollowLog, Orders, WatchJob, refusing
from nvflare_logstream.site.rest import seconds_to_rest
from nvflare_logstream.site.source import SourceFactory
from nvflare_logstream.site.state import SenderState
from nvflare_logstream.site.watch import Watcher
from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.wire.upload_reply import decode_reply

_AFTER_ERROR = 5.0  # seconds of rest after an unexpected error
_WARNING_INTERVAL = 600.0  # seconds between two lines about answers that cannot be used

_logger = logging.getLogger(__name__)


class Sender:
    """Follows logs and sends them. All methods but `turn` may be called from any thread.

    Args:
        link: the way to the receiver.
        poll_interval: most seconds until a change is seen where the system does not report it.
        liveness_interval: seconds of silence after which a sign of life is sent.
        on_verdict: called in the sender's thread with (stream, verdict, reason) when a stream has ended.
        clock, wall_clock, watcher: monotonic and calendar time in seconds, and what waits for changes.
        source: makes what is read of a log, from its directory and file name.
        cpu_clock: the seconds of CPU that the sender's thread has taken.
        runtime: the version of the runtime, which the receiver is told.
        allowed: whether logs may leave the site now; asked before each request.
        on_kept_back: called so with (job_id, reason) when a job's logs stay at the site from now on.
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
        source: SourceFactory = source_of,
        cpu_clock: Callable[[], float] = time.thread_time,
        runtime: str = "",
        allowed: Callable[[], Decision] = always,
        on_kept_back: Callable[[str, str], None] = lambda job_id, reason: None,
    ):
        self._link, self._poll, self._on_verdict = link, poll_interval, on_verdict
        self._clock, self._wall_clock, self._cpu_clock = clock, wall_clock, cpu_clock
        self._cpu_before = 0.0  # when the request under way was begun
        self._watcher = watcher or Watcher()
        self._state = SenderState(source, self._watch, liveness_interval, clock(), runtime, self._reports)
        self._gate = Gate(self._state, allowed, on_kept_back)
        self._orders = Orders(clock, self._watcher.wake, self._alive)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._looked_at: list[Directory] = []
        self._next_warning = float("-inf")  # when the next line about unusable answers may come

    def start(self) -> None:
        """Start the one background thread.

        Raises:
            RuntimeError: if the process may have no more; nothing stays open then.
        """
        thread = threading.Thread(target=self._run, name="nvflare_logstream", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._release()
            raise
        self._thread = thread

    def follow(self, job_id: str, directory: Path, file: str) -> None:
        """Begin to follow a log, or by a pattern such as "*.log" those that are there or appear.

        A log that is followed already stays as it is.
        """
        self._orders.give(FollowLog(StreamId(job_id, file), Path(directory)))

    def finish(
        self,
        job_id: str,
        directory: Path,
        files: Iterable[str],
        outcome: str,
        *,
        only_unclosed: bool = False,
        doubt: Doubt | None = None,
    ) -> None:
        """Send the rest of a job's logs and close them: those given and those followed.

        Args:
            job_id: the job's id.
            directory: the job's log directory.
            files: names of logs that are to be closed even if nobody has seen them yet, and patterns. Others
                that the receiver knows are not touched: it cannot ask for a file.
            outcome: how the job's process ended.
            only_unclosed: leave streams alone that the receiver holds as closed.
            doubt: the job ran where the site could not see its logs; they end as partial, and this says why.
        """
        self._orders.give(FinishJob(job_id, Path(directory), tuple(files), outcome, only_unclosed, doubt))

    def refuse(self, job_id: str, files: Iterable[str], reason: str) -> None:
        """Tell the receiver that the site's policy keeps these logs back; with a pattern, all of the job."""
        self._orders.give(refusing(job_id, tuple(files), reason))

    def watch(self, job_id: str, files: Iterable[str] = (), *, is_over: bool = False) -> None:
        """Have a job's logs refused if the site says no before it `is_over`, whichever process sends them.

        `files` are names of its logs, and patterns; others that the receiver has are refused too.
        """
        self._orders.give(WatchJob(job_id, tuple(files), is_over))

    def drain(self, seconds: float) -> bool:
        """Wait until the receiver took all that was written before this call; False if that took too long."""
        return self._orders.wait_quiet(seconds)

    def wait_finished(self, seconds: float) -> bool:
        """Wait until no stream is left; False if that took too long."""
        return self._orders.wait_all_ended(seconds)

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

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.turn()
            except Exception:  # a log problem never ends the process's streaming
                _logger.exception("log streaming hit an unexpected error and goes on")
                self._state.drop_requests()
                self._watcher.pause(_AFTER_ERROR)
        self._release()

    def _release(self) -> None:
        for stream in self._state.streams.values():
            stream.source.close()
        self._watcher.close()

    def turn(self) -> None:
        """One round: wait, look at the logs, send, take the answer. The thread calls it, or a test."""
        state, exchange = self._state, self._state.exchange
        self._take_orders()
        early = exchange.wait(self._clock())
        if early > 0 and (exchange.failures or not (self._orders.urgent or state.hurried)):
            self._gate.pause(self._watcher, early)
            if exchange.wait(self._clock()) > 0 and not self._orders.urgent:
                self._let_go(self._gate.look(self._clock()))
                return
        if exchange.step is Step.IDLE:
            self._take_orders()  # one that came while we paused: nothing else would end the wait for it
            if self._stopping:
                return
            changed = None
            if not state.look_at_once:
                rest = seconds_to_rest(state, self._watcher, self._clock(), self._poll)
                changed = self._gate.wait(self._watcher, rest)
            self._take_orders()
            self._cpu_before = self._cpu_clock()
            if state.appearing.directories or self._looked_at:  # most jobs name no patterns
                state.follow_new(self._clock(), self._orders.urgent or state.hurried)
                self._watch_directories()
            self._gate.next_batch(self._clock(), self._wall_clock(), None if self._orders.urgent else changed)
            self._report()
        self._let_go(self._gate.look(self._clock()))
        if exchange.under_way is not None:
            self._send(exchange.under_way)

    def _take_orders(self) -> None:
        while order := self._orders.take():
            self._gate.obey(order)

    def _report(self) -> None:
        self._orders.report(self._state.quiet_looks + self._state.exchange.caught_up, self._state.all_ended)

    def _send(self, batch: Batch) -> None:
        try:
            may_be_told = batch.may_be_told and batch.writer.plain and not self._state.exchange.failures
            if may_be_told and not (self._orders.urgent or self._state.hurried):
                self._link.tell(batch.payload)
                self._state.told(batch, self._clock(), self._cost())
                return
            reply = decode_reply(self._ask(batch))
        except LinkError as error:
            said_already = isinstance(error, NoReceiverError)  # whoever made the link says so, once
            self._failed("" if said_already else f"no answer from the log receiver: {error}")
            return
        except WireError as error:
            self._failed(f"no answer from the log receiver that can be read: {error}", answered=True)
            return
        if reply.error:
            self._failed(f"the log receiver refused a message: {reply.error}", answered=True)
            self._state.take_error(batch, self._clock())
            return
        self._let_go(self._state.take_answer(batch, reply, self._clock(), self._cost()))
        self._report()

    def _cost(self) -> float:
        """Seconds of CPU that the request took."""
        before, self._cpu_before = self._cpu_before, self._cpu_clock()
        return self._cpu_before - before

    def _ask(self, batch: Batch) -> bytes:
        """Send a request and wait for the reply; while a full one is under way, prepare the next."""
        exchange = self._state.exchange
        if not batch.writer.full or exchange.failures:
            return self._link.send(batch.payload)
        reply = self._link.post(batch.payload)
        if exchange.step is Step.UNDER_WAY:
            self._state.prepare_batch(self._clock(), self._wall_clock())
        return reply()

    def _failed(self, problem: str, answered: bool = False) -> None:
        exchange = self._state.exchange
        exchange.failed(self._clock(), answered)
        for stream in self._state.streams.values():
            stream.open()
        # Few lines: they may go into the log that is followed.
        if not problem or exchange.failures not in (1, 10, 100, 1000):
            return
        if answered:  # requests that are refused may alternate with some that are not
            if self._clock() < self._next_warning:
                return
            self._next_warning = self._clock() + _WARNING_INTERVAL
        _logger.warning("%s; trying again (attempt %d)", problem, exchange.failures)

    def _watch(self, stream: FollowedStream) -> bool:
        return self._watcher.watch(stream.directory, stream.source.descriptor, stream)

    def _reports(self, stream: FollowedStream) -> bool:
        return self._watcher.reports(stream.directory, stream.source.descriptor, stream)

    def _watch_directories(self) -> None:
        """Be woken by logs that appear where some are named by patterns."""
        directories = list(self._state.appearing.directories.values())
        for gone in [directory for directory in self._looked_at if directory not in directories]:
            self._watcher.forget(gone)
            self._forget_directory(gone.path)
        for directory in directories:
            self._watcher.watch(directory.path, None, directory)
        self._looked_at = directories

    def _forget_directory(self, path: Path) -> None:
        used = [directory.path for directory in self._state.appearing.directories.values()]
        used += [stream.directory for stream in self._state.streams.values()]
        if path not in used:
            self._watcher.forget(path)

    def _let_go(self, streams: Iterable[Ended]) -> None:
        for stream, verdict, reason in streams:
            self._watcher.forget(stream)
            self._forget_directory(stream.directory)
            try:
                self._on_verdict(stream.id, verdict, reason)
            except Exception:  # the next stream's verdict is told all the same
                _logger.exception("the verdict on %s could not be passed on", stream.id.file)
