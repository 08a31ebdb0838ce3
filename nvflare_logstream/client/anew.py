"""Logs whose stored copy the server begins anew while somebody reads them.

That happens where a copy is not what the site wrote, or gives way to what the site's own sender sends. What
was shown of the copy before may stand nowhere in the new one, so none of it counts any more. The query is
asked again of the new copy, from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable

from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.streams import Stream
from nvflare_logstream.wire.queries import Place

_COMING_SECONDS = 30.0  # in which a site may send again what there was


class Anew:
    """Knows which new copies have not been read to their end yet.

    Args:
        clock: gives seconds that only grow.
        by_end: the query has bounds that count from a log's end: while most of it is still to come, that is
            not the end that is meant.
    """

    def __init__(self, clock: Callable[[], float], by_end: bool):
        self._clock, self._by_end = clock, by_end
        self._before: dict[
            str, tuple[int, float]
        ] = {}  # by site: how long the copy before was; when it ended

    def __bool__(self) -> bool:
        return bool(self._before)

    def begin(self, place: Place, stream: Stream) -> Place:
        """Where a reader stands who stood in an earlier copy."""
        length, _ = self._before.get(stream.site, (0, 0.0))
        self._before[stream.site] = max(length, place.reading.end), self._clock()
        return place._replace(reading=Reading(0, 0, copy=stream.copy))

    def is_coming(self, stream: Stream) -> bool:
        """Whether to wait for more of a new copy before it is read."""
        length, began = self._before.get(stream.site, (0, 0.0))
        is_late = self._clock() - began >= _COMING_SECONDS
        return self._by_end and stream.live and stream.end < length and not is_late

    def is_new(self, site: str) -> bool:
        """Whether nothing of a site's new copy has been read."""
        return site in self._before

    def end(self, site: str) -> None:
        """Note that a site's new copy is being read."""
        self._before.pop(site, None)
