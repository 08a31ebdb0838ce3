"""How long senders should wait before their next request, so that many sites cost the server a bounded share.

A small request (a few lines) costs the server about the same whatever it carries, so the wait grows with
the number of senders: ten sites still get a line across within 0.2 s, and forty or more within some 2.5 s, as
long as all together cost less than half a core by what a request is seen to cost; beyond, they wait longer. A
full batch is cheap for what it carries; only many of them at once are held back, so that they share one core.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LIVELY = 10  # senders; so many still get a line across within 0.2 s
_INTERVAL = 0.015  # seconds a sender
_INTERVAL_OF_MORE = 0.1  # seconds for each sender beyond: all together then take some 2 % of a core
_LONG_ENOUGH = 2.5  # seconds; lines shall not be older if the server can afford it
_COST_IN_RUNTIME = 0.001  # seconds of CPU for a small request, beside what is measured here
_MOST_COST = 0.02  # seconds; what takes longer compares a whole stream at its close
_SHARE = 0.45  # of a core, for the small requests of all senders
_RECENT = 10.0  # seconds in which a sender counts as active
_LONGEST = 10.0  # seconds; below any sensible idle_timeout, or a waiting site would count as silent


class Pace:
    """Counts active senders and tells each when to come again; thread-safe.

    Args:
        clock: monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, bool]] = {}
        self._full_cost = self._small_cost = 0.0
        self._next_clean = 0.0

    def wait(self, sender: str, full: bool, seconds: float) -> float:
        """How long `sender` should wait before its next request.

        Args:
            sender: a name for the sender.
            full: whether its request was a full batch.
            seconds: how long the server took to handle it.

        Returns:
            Seconds.
        """
        now = self._clock()
        with self._lock:
            self._last[sender] = (now, full)
            if now >= self._next_clean:
                self._last = {name: seen for name, seen in self._last.items() if now - seen[0] < _RECENT}
                self._next_clean = now + 1.0
            if full:
                self._full_cost += 0.2 * (seconds - self._full_cost)
                others = sum(1 for _, is_full in self._last.values() if is_full) - 1
                return min(_LONGEST, others * self._full_cost)
            self._small_cost += 0.02 * (min(seconds, _MOST_COST) - self._small_cost)
            senders = len(self._last)
            lively = min(senders, _LIVELY)
            wanted = lively * _INTERVAL + (senders - lively) * _INTERVAL_OF_MORE
            affordable = senders * (_COST_IN_RUNTIME + self._small_cost) / _SHARE
            return min(_LONGEST, max(min(wanted, _LONG_ENOUGH), affordable))
