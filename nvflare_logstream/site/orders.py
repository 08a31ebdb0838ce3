"""Requests of other threads to a sender, and its progress for those who wait.

A caller leaves an order and goes on; the sender's thread takes the orders one by one when it comes round. So
all other state belongs to that thread alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from nvflare_logstream.names import DEFAULT_LOG_FILES, is_pattern
from nvflare_logstream.site.endings import Doubt
from nvflare_logstream.streams import StreamId
from nvflare_logstream.wire.upload import Refusal

_CHECK = 0.1  # seconds between two looks at the clock and at the thread by those who wait


class FollowLog(NamedTuple):
    """Begin to follow a log."""

    stream: StreamId
    directory: Path


class FinishJob(NamedTuple):
    """Send the rest of a job's logs and close them.

    Attributes:
        files: logs that are to be closed even if nobody has seen them yet.
        outcome: how the job's process ended.
        only_unclosed: leave streams alone that the receiver holds as closed.
        doubt: why the logs may be more than the site can read; None if it can read all of them.
    """

    job_id: str
    directory: Path
    files: tuple[str, ...]
    outcome: str
    only_unclosed: bool
    doubt: Doubt | None = None


class RefuseLogs(NamedTuple):
    """Say that the site's policy keeps logs back."""

    refusals: tuple[Refusal, ...]


class WatchJob(NamedTuple):
    """Have a job's logs refused if its site says no while the job runs, whoever sends them.

    Attributes:
        files: names of its logs, and patterns.
        is_over: the job is over, and is to be watched no more.
    """

    job_id: str
    files: tuple[str, ...] = ()
    is_over: bool = False


class KeepBack(NamedTuple):
    """Refuse all logs of a job: those given, and those that the receiver has.

    Attributes:
        files: names of its logs, and patterns.
        reason: why, in plain words.
    """

    job_id: str
    files: tuple[str, ...]
    reason: str

    def refusals(self, known: Iterable[str]) -> RefuseLogs:
        """What to refuse where the receiver has the logs `known`; log.txt stands for those without a name."""
        named = [file for file in self.files if not is_pattern(file)]
        files = list(dict.fromkeys((*named, *known))) or DEFAULT_LOG_FILES[:1]
        return RefuseLogs(tuple(Refusal(StreamId(self.job_id, file), self.reason) for file in files))


def refusing(job_id: str, files: tuple[str, ...], reason: str) -> RefuseLogs | KeepBack:
    """What keeps logs of a job back; with a pattern, all that the receiver has of the job."""
    whole = KeepBack(job_id, files, reason)
    return whole if any(map(is_pattern, files)) else whole.refusals(())


Order = FollowLog | FinishJob | RefuseLogs | WatchJob | KeepBack


class Orders:
    """Orders not yet taken, and the sender's progress; safe to use from any thread.

    Args:
        clock: monotonic time in seconds.
        wake: ends the sender's sleep.
        alive: whether the sender's thread runs; without it nobody waits.
    """

    def __init__(self, clock: Callable[[], float], wake: Callable[[], None], alive: Callable[[], bool]):
        self._clock, self._wake, self._alive = clock, wake, alive
        self._orders: deque[Order] = deque()
        self._progress = threading.Condition()
        self._waiting = 0
        self._quiet_looks = 0
        self._all_ended = True

    @property
    def urgent(self) -> bool:
        """Whether somebody waits."""
        return self._waiting > 0

    def give(self, order: Order) -> None:
        """Leave an order to the sender's thread."""
        with self._progress:
            self._orders.append(order)
        self._wake()

    # -- the sender's thread ---------------------------------------------------------------------------------

    def take(self) -> Order | None:
        """The oldest order that was not taken yet."""
        if not self._orders:
            return None
        with self._progress:
            self._all_ended = False  # until the sender reports again
            return self._orders.popleft()

    def report(self, quiet_looks: int, all_ended: bool) -> None:
        """Tell those who wait how far the sender is.

        Args:
            quiet_looks: how many looks at all logs have found nothing to send so far, or what was all taken.
            all_ended: no stream is followed, and no order is open.
        """
        if (quiet_looks, all_ended) == (self._quiet_looks, self._all_ended):  # only this thread sets them
            return
        with self._progress:
            self._quiet_looks, self._all_ended = quiet_looks, all_ended
            if self._waiting:
                self._progress.notify_all()

    # -- those who wait --------------------------------------------------------------------------------------

    def wait_quiet(self, seconds: float) -> bool:
        """Wait until the receiver took all that was written before this call; False after `seconds`."""
        wanted = self._quiet_looks + 2  # the first look may have begun before the call
        return self._wait(lambda: self._quiet_looks >= wanted, seconds, look_again=True)

    def wait_all_ended(self, seconds: float) -> bool:
        """Wait until no stream and no order is left; False after `seconds`."""
        return self._wait(lambda: self._all_ended and not self._orders, seconds, look_again=False)

    def _wait(self, reached: Callable[[], bool], seconds: float, look_again: bool) -> bool:
        """Wait; wake the sender at first and every so often, with `look_again` after each progress too."""
        deadline = self._clock() + seconds
        with self._progress:
            self._waiting += 1
            try:
                wake = True
                while not reached() and self._alive():
                    left = deadline - self._clock()
                    if left <= 0:
                        break
                    if wake:
                        self._wake()
                    wake = not self._progress.wait(min(left, _CHECK)) or look_again
                return reached()
            finally:
                self._waiting -= 1
