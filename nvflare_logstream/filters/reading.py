"""A place in a filtered log, and the next part of the result from there.

`bounds.plan` gives the first place. A place is small and travels: whoever comes back with it gets what
follows, from this process or from another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nvflare_logstream.filters.block_filter import BlockFilter, as_shown
from nvflare_logstream.filters.kept import Kept
from nvflare_logstream.filters.line_filter import LineState
from nvflare_logstream.filters.log import LogLines
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
        left: lines that `head` still lets out; None at the beginning.
        breaks: of the text that came with this reading: the characters with which a group of lines begins
            that does not follow the line given out before it; only where lines around matches are kept.
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
    left: int | None = None
    breaks: tuple[int, ...] = ()

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
        here = self._replace(breaks=())
        while here.counting and log.bytes_read < limit:
            here = here._count(log, filters, limit)
        if here.counting:
            return here, ""
        texts: list[str] = []
        breaks: list[int] = []
        size = 0
        for here, kept in here._kept(log, filters):  # noqa: B020 (the generator keeps the first of them)
            text, groups = kept.text()
            texts.append(text)
            breaks += [size + group for group in groups]
            size += len(text)
            if size >= most or log.bytes_read >= limit or (here.left == 0 and size):
                return here._replace(breaks=tuple(breaks)), "".join(texts)
        return here._replace(offset=here.end, breaks=tuple(breaks)), "".join(texts)

    def _kept(self, log: LogLines, filters: Filters) -> Iterator[tuple[Reading, Kept]]:
        """What is kept of each block, without what is to be skipped; with each, the reading after it."""
        if not filters.drops_lines:
            yield from self._all(log)
            return
        block_filter = BlockFilter(filters, self.json, self.timed, self.state)
        here = self._replace(left=filters.head if self.left is None else self.left)
        source = log.blocks(self.offset, self.end)
        if self.timed:
            source = blocks(log, self.offset, self.end, self.json, filters, block_filter)
        for offset, block in source:
            kept = block_filter.feed(block)
            here = here._replace(offset=offset, state=block_filter.state)
            over = None
            if here.left is not None:
                kept, over = kept.divided(here.left)
                here = here._replace(left=here.left - kept.lines)
            here, kept = here._skipping(kept)
            if over is not None and over.pieces:
                yield here._replace(offset=self.end, truncated=True), kept
                return
            yield here, kept

    def _all(self, log: LogLines) -> Iterator[tuple[Reading, Kept]]:
        here = self
        for offset, block in log.blocks(self.offset, self.end):
            here, kept = here._replace(offset=offset)._skipping(Kept([as_shown(block)]))
            yield here, kept

    def _skipping(self, kept: Kept) -> tuple[Reading, Kept]:
        """Without the lines and bytes that are to be left out first, while nothing is counted."""
        here = self
        if here.skip_lines:
            skipped, kept = kept.divided(here.skip_lines)
            here = here._replace(skip_lines=here.skip_lines - skipped.lines)
        if here.skip_bytes and not here.counting and not here.skip_lines:
            size = kept.size
            kept = kept.without_bytes(here.skip_bytes)
            here = here._replace(skip_bytes=max(0, here.skip_bytes - size))
        return here, kept

    def _count(self, log: LogLines, filters: Filters, limit: int) -> Reading:
        here = self
        for after, kept in self._kept(log, filters):
            more = kept.lines if self.counting == "lines" else kept.size
            here = after._replace(counted=here.counted + more)
            if log.bytes_read >= limit and not here.offset >= here.end:
                return here
        over = here.counted - ((filters.tail if self.counting == "lines" else filters.max_bytes) or 0)
        again = here._replace(offset=self.start, state=None, left=None, counted=0)
        again = again._replace(truncated=here.truncated or over > 0)
        if self.counting == "lines":
            cut = max(0, over)
            counting = "bytes" if filters.max_bytes is not None else ""
            return again._replace(counting=counting, cut=cut, skip_lines=cut)
        return again._replace(counting="", skip_lines=self.cut, skip_bytes=max(0, over))
