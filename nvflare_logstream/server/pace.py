"""How long senders should wait before their next request, so that many sites cost the server a bounded share.

A small request (a few lines) costs the server about the same whatever it carries, so the wait grows with
the number of senders: ten sites still get a line across within 0.2 s, and all together cost a few percent
of a core. A full batch is cheap for what it carries; only many of them at once are held back, so that they
share one core.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LIVELY = 10  # senders; so many still get a line across within 0.2 s
_INTERVAL = 0.015  # seconds a sender: a small request costs about 1 ms of server CPU, mostly in the runtime
_INTERVAL_OF_MORE = 0.04  # seconds for each sender beyond: all together then take about 3 % of a core
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
        self._full_cost = 0.0
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
            lively = min(len(self._last), _LIVELY)
            return min(_LONGEST, lively * _INTERVAL + (len(self._last) - lively) * _INTERVAL_OF_MORE)
