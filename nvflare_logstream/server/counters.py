"""What the receiver counts for the server's operator, and what of it goes into its log.

The counting is one addition a request. The memory is bounded whatever senders do: so many sites by name, a
fixed set of kinds, a few errors of a bounded length.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nvflare_logstream.lines import in_one_line
from nvflare_logstream.names import SERVER_SITE, is_site
from nvflare_logstream.wire.server_status import MAX_SHOWN, MAX_WORDS, Kind, Problem, Refused
from nvflare_logstream.wire.upload import Versions

MAX_SITES = 4096  # that are counted by name; further ones are counted together, under ""
_LOG_INTERVAL = 60.0  # seconds between two lines about one sender and kind
_RATE_INTERVAL = 10.0  # seconds over which a rate is measured, at least
_logger = logging.getLogger(__name__)


class Traffic(NamedTuple):
    """What came of a site: requests, and bytes of log in them."""

    requests: int = 0
    size: int = 0


class LastHeard(NamedTuple):
    """When a site was heard of last, in seconds since the epoch, and what it said then or before.

    Attributes:
        versions: what it runs; told: when it said so.
        skew: its clock against the server's, in seconds; positive if it is ahead.
    """

    at: float
    versions: Versions | None = None
    told: float = 0.0
    skew: float = 0.0


class _Mark(NamedTuple):
    """What had come of each site at a time."""

    at: float
    sites: Mapping[str, Traffic]


@dataclass
class _Refusals:
    """Messages of one sender and kind that were not taken.

    Attributes:
        unlogged: those that the log does not tell of yet.
        last: when the last one came, in seconds since the epoch; text: why.
        logged: when there was a line in the log, by the uptime.
    """

    count: int = 0
    unlogged: int = 0
    last: float = 0.0
    text: str = ""
    logged: float = -_LOG_INTERVAL


class Counters:
    """Counts what senders ask and what they are refused; thread-safe.

    Args:
        clock: gives the time in seconds since the epoch.
        uptime: gives the time in seconds, from any beginning, in steps of the time that really passed.
    """

    def __init__(self, clock: Callable[[], float] = time.time, uptime: Callable[[], float] = time.monotonic):
        self._clock, self._uptime, self._began = clock, uptime, uptime()
        self._lock = threading.Lock()
        self._sites: dict[str, list[int]] = {}  # by site: requests, bytes
        self._heard: dict[str, LastHeard] = {}
        self._refused: dict[tuple[str, Kind], _Refusals] = {}
        self._errors: deque[Problem] = deque(maxlen=MAX_SHOWN)
        self._before = self._recent = _Mark(self._began, {})

    def took(self, site: str, size: int, versions: Versions | None = None, clock: float = 0.0) -> None:
        """Count a request of a site and the bytes of log in it; keep what the site says, with its clock."""
        with self._lock:
            site = self._known(site)
            counts = self._sites[site]
            counts[0] += 1
            counts[1] += size
            now, heard = self._clock(), self._heard[site]
            if versions:
                self._heard[site] = LastHeard(now, versions, now, clock - now)
            else:
                self._heard[site] = LastHeard(now, heard.versions, heard.told, heard.skew)

    def refused(self, site: str, kind: Kind, why: str) -> None:
        """Count a message that was not taken, and log it: at most one line a minute for a sender and kind."""
        with self._lock:
            site = self._known(site)
            refusals = self._count(site, kind, why)
            refusals.unlogged += 1
            line = self._line(site, kind, refusals, self._uptime())
        _log(line)

    def failed(self, why: str) -> None:
        """Count a failure of the server's own work on the store; it is logged where it happens."""
        with self._lock:
            self._count(SERVER_SITE, Kind.NOT_KEPT, why)

    def turn(self) -> None:
        """Look, each second, what is to be noted or logged by now."""
        now = self._uptime()
        with self._lock:
            if now - self._recent.at >= _RATE_INTERVAL:
                self._before, self._recent = self._recent, _Mark(now, self._traffic())
            lines = [self._line(*key, refusals, now) for key, refusals in self._refused.items()]
        for line in lines:
            _log(line)

    @property
    def up(self) -> float:
        """Seconds since the beginning."""
        return self._uptime() - self._began

    def traffic(self) -> tuple[dict[str, Traffic], dict[str, Traffic], float]:
        """What came of each site in all, what of it came lately, and in how many seconds."""
        with self._lock:
            sites, before = self._traffic(), self._before
        lately = {
            site: Traffic(now.requests - then.requests, now.size - then.size)
            for site, now in sites.items()
            for then in [before.sites.get(site, Traffic())]
        }
        return sites, lately, max(1.0, self._uptime() - before.at)

    def heard(self) -> dict[str, LastHeard]:
        """When each site was heard of last since the beginning, and what it runs."""
        with self._lock:
            return {site: heard for site, heard in self._heard.items() if site and heard.at}

    def refusals(self) -> list[Refused]:
        """What was not taken, by kind and sender."""
        with self._lock:
            return [
                Refused(kind, refusals.count, refusals.last, site)
                for (site, kind), refusals in self._refused.items()
            ]

    def errors(self) -> list[Problem]:
        """The last errors, the newest first."""
        with self._lock:
            return list(reversed(self._errors))

    def _traffic(self) -> dict[str, Traffic]:
        return {site: Traffic(*counts) for site, counts in self._sites.items()}

    def _known(self, site: str) -> str:
        """The name under which a site is counted."""
        if site not in self._sites:
            site = site if len(self._sites) < MAX_SITES and is_site(site) else ""
            self._sites.setdefault(site, [0, 0])
            self._heard.setdefault(site, LastHeard(0.0))
        return site

    def _count(self, site: str, kind: Kind, why: str) -> _Refusals:
        refusals = self._refused.setdefault((site, kind), _Refusals())
        refusals.count += 1
        refusals.last, refusals.text = self._clock(), in_one_line(why[:MAX_WORDS])[:MAX_WORDS]
        self._errors.append(Problem(refusals.last, site, kind, refusals.text))
        return refusals

    def _line(self, site: str, kind: Kind, refusals: _Refusals, now: float) -> str:
        """What is to be logged of a sender and kind now, if anything."""
        if not refusals.unlogged or now - refusals.logged < _LOG_INTERVAL:
            return ""
        count, refusals.unlogged, refusals.logged = refusals.unlogged, 0, now
        what = "a message" if count == 1 else f"{count} messages"
        since = "" if count == 1 else " since the last such line, the last"
        return f"refused {what} of {site or 'other senders'} ({kind}){since}: {refusals.text}"


def _log(line: str) -> None:
    if line:
        _logger.warning("%s", line)
