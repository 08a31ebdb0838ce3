"""A place in a filtered log, and the next part of the result from there.

`bounds.plan` gives the first place. A place is small and travels: whoever comes back with it gets what
follows, from this process or from another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nvflare_logstream.filters.line_filter import LineFilter, LineState
from nvflare_logstream.filters.log import LogLines, shown
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.filters.window import blocks

MOST_READ = 64 << 20  # bytes that are looked through for one part


class Reading(NamedTuple):
    """A place in a filtered log, from which `part` goes on; small enough to travel.

    Attributes:
        offset, end: the bytes of the log that are still to be looked at.
        json, timed: what kind of log it is.
        since_applied, truncated: for the result; `truncated` counts once `counting` is over.
        skip_lines, skip_bytes: kept lines, and then UTF-8 bytes of text, to leave out first.
        state: of the line filter.
        counting: "lines" or "bytes" while what is kept is counted, before any of it is given out: where
            filters drop lines in between, only counting tells which are the last; "" when that is done.
        start, counted, cut: where the counting began; how far it is; how many lines `tail` will leave out.
    """

    offset: int
    end: int
    json: bool = False
    timed: bool = False
    since_applied: bool = False
    truncated: bool = False
    skip_lines: int = 0
    skip_bytes: int = 0
    state: LineState | None = None
    counting: str = ""
    start: int = 0
    counted: int = 0
    cut: int = 0

    @property
    def done(self) -> bool:
        """Nothing is left."""
        return self.offset >= self.end and not self.counting

    def part(self, log: LogLines, filters: Filters, most: int) -> tuple[Reading, str]:
        """The next text, and where to go on.

        About `most` characters: the block that passes the limit is still included. Less, or none, once
        `MOST_READ` bytes were read for it: the server has others to serve.
        """
        limit = log.bytes_read + MOST_READ
        here = self
        while here.counting and log.bytes_read < limit:
            here = here._count(log, filters, limit)
        if here.counting:
            return here, ""
        texts, size = [], 0
        for here, kept in here._kept(log, filters):  # noqa: B020 (the generator keeps the first of them)
            here, text = here._without_skipped_bytes("".join(kept))
            texts.append(text)
            size += len(text)
            if size >= most or log.bytes_read >= limit:
                return here, "".join(texts)
        return here._replace(offset=here.end), "".join(texts)

    def _kept(self, log: LogLines, filters: Filters) -> Iterator[tuple[Reading, list[str]]]:
        """Blocks of kept lines as they are shown, without `skip_lines`; with each, the reading after it."""
        line_filter = LineFilter(filters, self.json, self.timed, self.state)
        skip_lines, skip_bytes = self.skip_lines, self.skip_bytes
        source = log.forward(self.offset, self.end)
        if self.timed:
            source = blocks(log, self.offset, self.end, self.json, filters, line_filter)
        for offset, block in source:
            kept = list(map(shown, block))
            if filters.drops_lines:
                kept = line_filter.feed_all(kept)
            skipped = min(skip_lines, len(kept))
            kept, skip_lines = kept[skipped:], skip_lines - skipped
            state = line_filter.state if filters.drops_lines else None
            after = self._replace(offset=offset, state=state, skip_lines=skip_lines, skip_bytes=skip_bytes)
            skip_bytes = max(0, skip_bytes - (_size(kept) if skip_bytes else 0))
            yield after, kept

    def _without_skipped_bytes(self, text: str) -> tuple[Reading, str]:
        if not self.skip_bytes or not text:
            return self, text
        encoded = text.encode("utf-8")
        rest = self._replace(skip_bytes=max(0, self.skip_bytes - len(encoded)))
        return rest, encoded[self.skip_bytes :].decode("utf-8", errors="ignore")

    def _count(self, log: LogLines, filters: Filters, limit: int) -> Reading:
        here = self
        for after, kept in self._kept(log, filters):
            more = len(kept) if self.counting == "lines" else _size(kept)
            here = after._replace(counted=here.counted + more)
            if log.bytes_read >= limit:
                return here
        over = here.counted - ((filters.tail if self.counting == "lines" else filters.max_bytes) or 0)
        again = here._replace(offset=self.start, state=None, counted=0, truncated=here.truncated or over > 0)
        if self.counting == "lines":
            cut = max(0, over)
            counting = "bytes" if filters.max_bytes is not None else ""
            return again._replace(counting=counting, cut=cut, skip_lines=cut)
        return again._replace(counting="", skip_lines=self.cut, skip_bytes=max(0, over))


def _size(log_lines: list[str]) -> int:
    return sum(len(line) if line.isascii() else len(line.encode("utf-8")) for line in log_lines)
