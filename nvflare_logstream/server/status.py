"""Tells an admin how the receiver is doing."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from nvflare_logstream import __version__
from nvflare_logstream.names import SERVER_SITE, is_site
from nvflare_logstream.server.answers import answered
from nvflare_logstream.server.counters import Counters, LastHeard, Traffic
from nvflare_logstream.store.index import StoredPart, StoredSite
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.wire.message import PROTOCOL_VERSION
from nvflare_logstream.wire.queries import QUERY_VERSION
from nvflare_logstream.wire.server_status import (
    MAX_SHOWN,
    Disk,
    QuotaUse,
    Refused,
    ServerStatus,
    SiteUse,
    StreamCounts,
    check_question,
    encode_status,
)
from nvflare_logstream.wire.standing import MAX_STANDINGS, Standing

_FRESH = 1.0  # seconds for which an answer holds: whoever asks more often costs the server nothing more


class StatusService:
    """Answers admins; thread-safe.

    Args:
        store: the streams.
        quotas: the store's.
        counters: what the receiver has counted.
        idle_timeout: seconds without a sign of life after which a site counts as silent (0: never).
        runtime: the version of the runtime.
        clock: gives the time in seconds since the epoch.
        connected: gives the names of the sites that are connected to the server now.
    """

    def __init__(
        self,
        store: LogStore,
        quotas: Quotas,
        counters: Counters,
        idle_timeout: float,
        runtime: str,
        clock: Callable[[], float] = time.time,
        connected: Callable[[], Iterable[str]] = lambda: (),
    ):
        self._store, self._quotas, self._counters, self._connected = store, quotas, counters, connected
        self._idle_timeout, self._runtime, self._clock = idle_timeout, runtime, clock
        self._lock = threading.Lock()
        self._last: ServerStatus | None = None

    def answer(self, question: object, named: bool) -> dict[str, Any]:
        """The reply to a question; with the names of sites and jobs only if `named`."""
        return answered(lambda: self._reply(question, named), "a question for the server's status")

    def _reply(self, question: object, named: bool) -> dict[str, Any]:
        check_question(question)
        status = self.status()
        return encode_status(status if named else status.without_names())

    def status(self) -> ServerStatus:
        """How things are, at most a second ago.

        Raises:
            StoreError: if the index cannot be read.
            OSError: if the disk cannot be asked.
        """
        with self._lock:
            if self._last is None or not 0 <= self._clock() - self._last.now < _FRESH:
                self._last = self._look()
            return self._last

    def _look(self) -> ServerStatus:
        now, parts = self._clock(), self._store.index.parts()
        heard_since = now - self._idle_timeout if self._idle_timeout else 0.0
        totals = self._store.index.totals(heard_since)
        states = totals.states
        came, lately, seconds = self._counters.traffic()
        refused = self._counters.refusals()
        stored = _sums((part.site, part.size) for part in parts)
        return ServerStatus(
            package=__version__,
            runtime=self._runtime,
            upload_protocol=PROTOCOL_VERSION,
            query_protocol=QUERY_VERSION,
            now=now,
            up=self._counters.up,
            streams=StreamCounts(
                states.get("open", 0),
                totals.silent,
                states.get("closed", 0),
                states.get("stopped", 0),
                states.get("refused", 0),
                states.get("unchecked", 0),
            ),
            requests=sum(traffic.requests for traffic in came.values()),
            request_rate=sum(traffic.requests for traffic in lately.values()) / seconds,
            byte_rate=sum(traffic.size for traffic in lately.values()) / seconds,
            disk=self._disk(stored.total()),
            quotas=(*self._quota_uses(parts, stored), *self._single_uses(totals.largest, totals.most_files)),
            refused=_by_kind(refused),
            senders=_most(refused, lambda row: row.last),
            errors=tuple(self._counters.errors()),
            sites=_heaviest(stored, came, lately, seconds),
            standings=self._standings(heard_since),
        )

    def _standings(self, heard_since: float) -> tuple[Standing, ...]:
        """How the sites stand: the silent first, then those that never sent, then the longest not heard of.

        When a site was heard of, the store still knows after a restart; what it runs, it says with its next
        log.
        """
        stored = {row.site: row for row in self._store.index.sites(heard_since)}
        heard, connected = self._counters.heard(), set(self._connected())
        rows = []
        for site in filter(is_site, {*stored, *heard, *connected} - {SERVER_SITE}):
            _, seen, opened, silent, unchecked = stored.get(site, StoredSite(site, 0.0, 0, 0, 0.0))
            said = heard.get(site, LastHeard(0.0))
            row = Standing(site, max(seen, said.at), opened, silent, site in connected, skew=said.skew)
            if said.versions:
                row = row._replace(**said.versions._asdict())
            rows.append(row._replace(stock=unchecked > 0 and unchecked >= seen and unchecked > said.told))
        return tuple(sorted(rows, key=lambda row: (not row.silent, row.heard, row.site)))[:MAX_STANDINGS]

    def _disk(self, stored: int) -> Disk:
        disk, root = os.statvfs(self._store.root), str(self._store.root)
        size = disk.f_blocks * disk.f_frsize
        return Disk(
            size, disk.f_bavail * disk.f_frsize, int(size * self._quotas.free_share), stored, root[-400:]
        )

    def _quota_uses(self, parts: Iterable[StoredPart], stored: Counter[str]) -> Iterable[QuotaUse]:
        jobs = _sums((part.job_id, part.size) for part in parts)
        yield QuotaUse("max_store_gib", stored.total(), self._quotas.store)
        for argument, sums, most in (
            ("max_site_gib", stored, self._quotas.site),
            ("max_job_gib", jobs, self._quotas.job),
        ):
            for whose, used in sums.most_common(1):
                yield QuotaUse(argument, used, most, whose)

    def _single_uses(self, largest: tuple[str, int], most_files: tuple[str, int]) -> Iterable[QuotaUse]:
        for argument, (whose, used), most in (
            ("max_stream_gib", largest, self._quotas.stream),
            ("max_site_files", most_files, self._quotas.files),
        ):
            if used:
                yield QuotaUse(argument, used, most, whose)


def _sums(rows: Iterable[tuple[str, int]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for name, size in rows:
        sums[name] += size
    return sums


def _most(rows: Iterable[Refused], by: Callable[[Refused], float]) -> tuple[Refused, ...]:
    return tuple(sorted(rows, key=by, reverse=True)[:MAX_SHOWN])


def _by_kind(rows: Iterable[Refused]) -> tuple[Refused, ...]:
    kinds: dict[str, Refused] = {}
    for row in rows:
        known = kinds.get(row.kind, Refused(row.kind, 0, 0.0))
        kinds[row.kind] = known._replace(
            messages=known.messages + row.messages, last=max(known.last, row.last)
        )
    return _most(kinds.values(), lambda row: row.messages)


def _heaviest(
    stored: Counter[str], came: dict[str, Traffic], lately: dict[str, Traffic], seconds: float
) -> tuple[SiteUse, ...]:
    """The sites that send most now, and those that have stored most."""
    names = sorted(lately, key=lambda site: lately[site].size, reverse=True)[: MAX_SHOWN // 2]
    names += [site for site, _ in stored.most_common(MAX_SHOWN) if stored[site] and site not in names]
    sites = [
        SiteUse(
            site,
            stored[site],
            lately.get(site, Traffic()).size / seconds,
            came.get(site, Traffic()).requests,
        )
        for site in names[:MAX_SHOWN]
    ]
    return tuple(sorted(sites, key=lambda site: (site.rate, site.stored), reverse=True))
