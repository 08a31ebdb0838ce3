"""What one site may ask of the server, so that no site takes the server from the others.

What is over a limit is put off: the site keeps it and comes again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from nvflare_logstream.errors import BusyError

_MOST_SPARE = 64


@dataclass(frozen=True)
class Limits:
    """What one site may ask.

    Attributes:
        requests: most requests that are handled at a time; each process of a site has one under way that
            waits for its answer. What is only told may take up half of them.
        working: most of these that are read and stored at the same time; the others wait for them.
        asked: most streams to open, to close or to write to, jobs, and refusals in one request, each.
        hash_burst: bytes that may be hashed at once for closes; a longer stream is hashed alone.
        hash_rate: bytes that may be hashed a second, over time.
    """

    requests: int = 8
    working: int = 2
    asked: int = 256
    hash_burst: int = 1 << 30
    hash_rate: int = 256 << 20


class _Requests:
    """The requests of one site that are under way."""

    def __init__(self, working: int):
        self.count = 0
        self.working = threading.Semaphore(working)


class SiteLimits:
    """Counts what each site has asked; thread-safe.

    Args:
        limits: what one site may ask.
        clock: gives the time in seconds, from any beginning.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic):
        self._limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._under_way: dict[str, _Requests] = {}
        self._spare: list[_Requests] = []  # to make one takes longer than to count a request
        self._debts: dict[str, tuple[float, float]] = {}  # by site: bytes hashed and not yet waited for, when

    def enter(self, site: str, told: bool = False) -> None:
        """A request of a site begins, `told` if nobody waits for its answer; `leave` ends it.

        Raises:
            BusyError: if too many of this site's are under way; this one is not counted then.
        """
        most = self._limits.requests // 2 if told else self._limits.requests
        with self._lock:
            requests = self._under_way.get(site)
            if requests is None:
                requests = self._spare.pop() if self._spare else _Requests(self._limits.working)
                self._under_way[site] = requests
            if requests.count >= most:
                raise BusyError(f"{most} requests of {site} are being handled, as many as may be; come again")
            requests.count += 1

    def leave(self, site: str) -> None:
        """A request of a site has ended."""
        with self._lock:
            requests = self._under_way[site]
            requests.count -= 1
            if not requests.count:
                del self._under_way[site]
                if len(self._spare) < _MOST_SPARE:
                    self._spare.append(requests)

    def work(self, site: str) -> threading.Semaphore:
        """What a request under way holds while it keeps the processor busy, so that others get their turn."""
        return self._under_way[site].working

    def may_hash(self, site: str, size: int) -> bool:
        """Whether `size` bytes may be hashed for a site now; if so, they are counted."""
        now = self._clock()
        with self._lock:
            debt = self._debt(site, now)
            if debt and debt + size > self._limits.hash_burst:
                return False
            self._debts = {other: owed for other, owed in self._debts.items() if self._debt(other, now)}
            self._debts[site] = (debt + size, now)
            return True

    def _debt(self, site: str, now: float) -> float:
        debt, since = self._debts.get(site, (0.0, now))
        return max(0.0, debt - (now - since) * self._limits.hash_rate)
