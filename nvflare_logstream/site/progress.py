"""Whether the receiver gets on with a stream, and how long to wait if it does not.

A receiver that was restarted may go back once, and gets the bytes again at once. One that goes back again and
again would be sent the same bytes without end: each further time the stream waits twice as long. Progress is
new ground only: as many bytes as were last sent in vain.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

_FREE = 2  # times in a row that cost no wait: a restart of the server, and one more


class Waits(NamedTuple):
    """How long a stream waits, in seconds: at first, then twice as long each time, up to the longest."""

    first: float
    longest: float


SETBACK_WAITS = Waits(0.5, 600.0)  # the receiver goes back behind what it has taken
RETRY_WAITS = Waits(0.5, 30.0)  # it says that it does not take the bytes now


class PutOff:
    """When to ask again about what the receiver puts off: the more rarely, the longer it does.

    Attributes:
        since: when it first said "later", in monotonic seconds; infinity before.
        until: when to ask again.
    """

    def __init__(self) -> None:
        self.since, self.until = inf, 0.0

    def again(self, now: float) -> None:
        """It says "later" now."""
        self.since = min(self.since, now)
        self.until = now + min(max(1.0, (now - self.since) / 10), 60.0)


class Progress:
    """How the receiver gets on with one stream."""

    def __init__(self) -> None:
        self._taken = 0  # the furthest place in the stream that the receiver ever had
        self._setbacks = 0  # in a row, without progress
        self._in_vain = 0  # bytes to be won until the setbacks are forgotten

    @property
    def first_wait(self) -> bool:
        """Whether the last setback was the first in a row that costs a wait."""
        return self._setbacks == _FREE + 1

    @property
    def steady(self) -> bool:
        """Whether nothing was sent in vain since the last progress."""
        return not self._setbacks

    def reached(self, end: int) -> None:
        """The receiver has the stream's bytes up to `end`."""
        if end <= self._taken:
            return
        self._in_vain -= end - self._taken
        self._taken = end
        if self._in_vain <= 0:
            self._in_vain = self._setbacks = 0

    def fell_back(self, in_vain: int, waits: Waits) -> float:
        """So many bytes are to be sent again; return how many seconds the stream is to wait before."""
        self._in_vain = max(self._in_vain, in_vain)
        self._setbacks += 1
        if self._setbacks <= _FREE:
            return 0.0
        return min(waits.first * 2.0 ** min(self._setbacks - _FREE - 1, 20), waits.longest)
