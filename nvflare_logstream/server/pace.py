"""How long senders should wait before their next request, so that many sites cost the server a bounded share.

A small request (a few lines) costs the server about the same whatever it carries, so the wait grows with
the number of sites: ten sites still get a line across within 0.2 s, and forty or more within some 2.5 s, as
long as all together cost less than half a core by what a request is seen to cost; beyond, they wait longer. A
full batch is cheap for what it carries; only many of them at once are held back, so that they share one core.

A site may name as many jobs as it likes, and need not wait as it is told. So a few senders of a site are
counted, and what they cost is looked at as often as they were asked to come.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

_LIVELY = 10  # sites; so many still get a line across within 0.2 s
_INTERVAL = 0.015  # seconds a site
_INTERVAL_OF_MORE = 0.1  # seconds for each site beyond: all together then take some 2 % of a core
_LONG_ENOUGH = 2.5  # seconds; lines shall not be older if the server can afford it
_COST_IN_RUNTIME = 0.001  # seconds of CPU for a small request, beside what is measured here
_MOST_COST = 0.02  # seconds; what takes longer compares a whole stream at its close
_SHARE = 0.45  # of a core, for the small requests of all senders
_MOST_OF_SITE = 4  # senders of one site that are counted
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
        self._of_site: Counter[str] = Counter()  # senders that are counted
        self._look_from: dict[str, float] = {}  # by site: when what its request costs is looked at again
        self._full_cost = self._small_cost = 0.0
        self._next_clean = 0.0

    def wait(self, sender: str, full: bool, seconds: float | None) -> float:
        """How long `sender` should wait before its next request.

        Args:
            sender: a name for the sender, `<site>/<job id>` or `<site>`.
            full: whether its request was a full batch.
            seconds: what the server took to handle it: CPU time, of a full batch all time. None if that says
                nothing of the next one: a stream was opened, begun or closed.

        Returns:
            Seconds.
        """
        now, site = self._clock(), sender.partition("/")[0]
        with self._lock:
            if now >= self._next_clean:
                self._clean(now)
            is_known = sender in self._last
            if is_known or self._of_site[site] < _MOST_OF_SITE:
                self._of_site[site] += not is_known
                self._last[sender] = (now, full)
            is_due = now >= self._look_from.get(site, now)
            if seconds is not None and is_due:
                self._look(full, seconds)
            wait = self._full_wait() if full else self._small_wait()
            if is_due:
                self._look_from[site] = now + wait / 2
            return wait

    def _clean(self, now: float) -> None:
        self._last = {name: seen for name, seen in self._last.items() if now - seen[0] < _RECENT}
        self._of_site = Counter(name.partition("/")[0] for name in self._last)
        self._look_from = {site: due for site, due in self._look_from.items() if due > now}
        self._next_clean = now + 1.0

    def _look(self, full: bool, seconds: float) -> None:
        if full:
            self._full_cost += 0.2 * (seconds - self._full_cost)
        else:
            self._small_cost += 0.02 * (min(seconds, _MOST_COST) - self._small_cost)

    def _full_wait(self) -> float:
        others = sum(1 for _, is_full in self._last.values() if is_full) - 1
        return min(_LONGEST, max(0, others) * self._full_cost)

    def _small_wait(self) -> float:
        sites, senders = len(self._of_site), len(self._last)
        lively = min(sites, _LIVELY)
        wanted = lively * _INTERVAL + (sites - lively) * _INTERVAL_OF_MORE
        affordable = senders * (_COST_IN_RUNTIME + self._small_cost) / _SHARE
        return min(_LONGEST, max(min(wanted, _LONG_ENOUGH), affordable))
