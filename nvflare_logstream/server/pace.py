"""How long senders should wait before their next small request, so that many sites cost the server a bounded share.

A small request (a few lines) costs the server about the same whatever it carries, so the interval grows with the number of
senders: ten sites still get a line across within 0.2 s, a thousand together cost about a tenth of a core. A full batch is
cheap for what it carries; only many of them at once are held back, so that they share one core.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SMALL_REQUEST = 0.0015  # seconds of server CPU that a small request costs, mostly in the runtime
_SMALL_SHARE = 0.10  # of a core, for all small requests together
_RECENT = 10.0  # seconds in which a sender counts as active
_LONGEST = 30.0  # seconds


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
        """The seconds `sender` should wait, after a request (a `full` batch or not) that took `seconds` to handle."""
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
            return min(_LONGEST, len(self._last) * _SMALL_REQUEST / _SMALL_SHARE)
