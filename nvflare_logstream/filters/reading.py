"""A place in a filtered log, and the next part of the result from there.

`bounds.plan` gives the first place. A place is small and travels: whoever comes back with it gets what
follows, from this process or from another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import NamedTuple

from nvflare_logstream.filters.block_filter import BlockFilter, as_shown
from nvflare_logstream.filters.kept import Kept
from nvflare_logstream.filters.line_filter import LineState
from nvflare_logstream.filters.log import LogLines
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.filters.timed_blocks import find_time, timed_blocks

MOST_READ = 64 << 20  # bytes that are looked through for one part
STAGES = ("times", "last", "lines", "bytes", "")  # of a reading, in their order


class Reading(NamedTuple):
    """A place in a filtered log, from which `part` goes on; small enough to travel.

    Attributes:
        offset, end: the bytes of the log that are still to be looked at.
        json, timed: what kind of log it is: read as records in JSON form; some line has a time.
        since_applied, truncated: for the result; they count in the last stage.
        skip_lines, skip_bytes: kept lines, and then UTF-8 bytes of text, to leave out first.
        state: of the line filter.
        stage: what is done from here on, of `STAGES`. "times": a line with a time is looked for; without one,
            `since` and `until` are not applied. "last": the last lines or bytes are looked for from the log's
            end, where a line alone tells whether it is kept; `offset` and `skip_bytes` tell how many bytes of
            the log and of text it has been through. "lines" or "bytes": what is kept is counted, before any
            of it is given out, since only that tells which are the last. "": text is given out.
        start, start_state: where the stage began, or as late as the last `tail` lines allow; in stage "last"
            where what is kept begins, as far as that was looked for.
        counted, cut: how many lines or bytes were counted; how many lines `tail` will leave out.
        left: lines that `head` still lets out; None at the beginning.
        breaks: of the text that came with this reading: the characters with which a group of lines begins
            that does not follow the line given out before it; only where lines around matches are kept.
        rendered: the records of a JSON log are read as the text that they are shown as.
        copy: which stored copy of the log this is a place in, as `Stream.copy`; 0 where nobody says.
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
    stage: str = ""
    start: int = 0
    counted: int = 0
    cut: int = 0
    left: int | None = None
    breaks: tuple[int, ...] = ()
    start_state: LineState | None = None
    rendered: bool = False
    copy: int = 0

    def is_of(self, copy: int) -> bool:
        """Whether this is a place in that stored copy, as far as both say which they mean."""
        return 0 in (self.copy, copy) or self.copy == copy

    @property
    def records(self) -> bool:
        """Whether the text that is given out is records in JSON form, of which people read the text."""
        return self.json and not self.rendered

    @property
    def done(self) -> bool:
        """Nothing is left."""
        return self.offset >= self.end and not self.stage

    def part(
        self, log: LogLines, filters: Filters, most: int, seconds: float = math.inf
    ) -> tuple[Reading, str]:
        """The next text, and where to go on.

        About `most` characters: the block that passes the limit is still included. Less, or none, once
        `MOST_READ` bytes were read for it or `seconds` have passed: the server has others to serve. At least
        one block is read.
        """
        limit, deadline = log.bytes_read + MOST_READ, monotonic() + seconds

        def is_over() -> bool:
            return log.bytes_read >= limit or monotonic() >= deadline

        here = self._replace(breaks=())
        while here.stage:
            take = {"times": here._look, "last": here._find_last}.get(here.stage, here._count)
            here = take(log, filters, is_over)
            if here.stage and is_over():
                return here, ""
        texts: list[str] = []
        breaks: list[int] = []
        size = 0
        for here, kept in here._kept(log, filters):  # noqa: B020 (the generator keeps the first of them)
            text, groups = kept.text()
            texts.append(text)
            breaks += [size + group for group in groups]
            size += len(text)
            if size >= most or is_over() or (here.left == 0 and size):
                return here._replace(breaks=tuple(breaks)), "".join(texts)
        return here._replace(offset=here.end, breaks=tuple(breaks)), "".join(texts)

    def _kept(self, log: LogLines, filters: Filters) -> Iterator[tuple[Reading, Kept]]:
        """What is kept of each block, without what is to be skipped; with each, the reading after it."""
        if not filters.drops_lines:
            yield from self._all(log)
            return
        block_filter = BlockFilter(filters, self.json, self.timed, self.state)
        # Who follows goes on, without the bounds, from a place that was reached with them.
        left = filters.head if self.left is None or filters.head is None else self.left
        here = self._replace(left=left)
        source = log.blocks(self.offset, self.end)
        if self.timed:
            source = timed_blocks(log, self.offset, self.end, self.json, filters, block_filter)
        for offset, block in source:
            kept = block_filter.feed(block) if block else Kept([])
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
            shown = as_shown(block)
            # Blank lines of JSON are rendered as nothing.
            kept = Kept.of(shown) if here.skip_lines else Kept([shown] if shown else [])
            here, kept = here._replace(offset=offset)._skipping(kept)
            yield here, kept

    def _skipping(self, kept: Kept) -> tuple[Reading, Kept]:
        """Without the lines and bytes that are to be left out first, while nothing is counted."""
        here = self
        if here.skip_lines:
            skipped, kept = kept.divided(here.skip_lines)
            here = here._replace(skip_lines=here.skip_lines - skipped.lines)
        if here.skip_bytes and not here.stage and not here.skip_lines:
            size = kept.size
            kept = kept.without_bytes(here.skip_bytes)
            here = here._replace(skip_bytes=max(0, here.skip_bytes - size))
        return here, kept

    def _look(self, log: LogLines, filters: Filters, is_over: Callable[[], bool]) -> Reading:
        offset, timed = find_time(log, self.offset, self.end, self.json, is_over)
        if not timed and offset < self.end:
            return self._replace(offset=offset)
        applied = timed and filters.since is not None
        return self._replace(
            offset=self.start, timed=timed, since_applied=applied, stage=stage_of_counting(filters)
        )

    def _find_last(self, log: LogLines, filters: Filters, is_over: Callable[[], bool]) -> Reading:
        count, size = self.counted, self.skip_bytes
        first = self.start if count or size else self.end
        feed = BlockFilter(filters, self.json, False).feed if filters.drops_lines else None
        for place, run in log.backward(0, self.end - self.offset):
            if feed and not _are_lines(log, place, run, self.end):
                return self._replace(offset=0, stage=stage_of_counting(filters), counted=0, skip_bytes=0)
            kept = feed(run) if feed else Kept.of(as_shown(run))
            first = place if kept.pieces else first
            count += kept.lines
            over = max(0, count - filters.tail) if filters.tail is not None else 0
            size += kept.divided(over)[1].size
            over_size = max(0, size - filters.max_bytes) if filters.max_bytes is not None else 0
            if over or over_size:
                here = self._replace(offset=place, stage="", counted=0, truncated=True)
                return here._replace(skip_lines=over, skip_bytes=over_size)
            if is_over():
                return self._replace(offset=self.end - place, counted=count, skip_bytes=size, start=first)
        return self._replace(offset=first, stage="", counted=0, skip_bytes=0)

    def _count(self, log: LogLines, filters: Filters, is_over: Callable[[], bool]) -> Reading:
        here, tail = self, filters.tail if self.stage == "lines" else None
        # With context, what a place stands for is not small.
        marks = None if tail is None or filters.context else _Marks(self)
        for after, kept in self._kept(log, filters):
            if marks is None:
                here = after._replace(counted=here.counted + (kept.size if tail is None else kept.lines))
            else:
                here = marks.later(here, after, kept.lines, tail or 0)
            if is_over() and not here.offset >= here.end:
                return here
        over = here.counted - ((filters.tail if self.stage == "lines" else filters.max_bytes) or 0)
        again = here._replace(offset=here.start, state=here.start_state, left=None, counted=0)
        if not here.counted:  # there is nothing to give out; a follower goes on from here
            return here._replace(offset=self.end, stage="")
        again = again._replace(truncated=here.truncated or over > 0)
        if self.stage == "lines":
            cut = max(0, over)
            stage = "bytes" if filters.max_bytes is not None else ""
            return again._replace(stage=stage, cut=cut, skip_lines=cut)
        return again._replace(stage="", skip_lines=self.cut, skip_bytes=max(0, over))


def stage_of_counting(filters: Filters) -> str:
    """The first stage in which what is kept is counted, or the last stage if there is nothing to count."""
    return "lines" if filters.tail is not None else "bytes" if filters.max_bytes is not None else ""


def _are_lines(log: LogLines, place: int, run: bytes, end: int) -> bool:
    """Whether a run has whole lines; a very long one comes in pieces, other ones than from the beginning."""
    if place and log.read(place - 1, 1) != b"\n":
        return False
    return run.endswith(b"\n") or place + len(run) >= end


class _Marks:
    """Places from which the last `tail` lines can be given out: it is not read again what is before them."""

    def __init__(self, first: Reading):
        self._places: deque[tuple[int, LineState | None, int]] = deque()
        self._places.append((first.start, first.start_state, first.counted))

    def later(self, before: Reading, after: Reading, kept_lines: int, tail: int) -> Reading:
        """The reading after a block in which this many lines are kept."""
        counted, truncated = before.counted + kept_lines, after.truncated or before.truncated
        if kept_lines:
            self._places.append((before.offset, before.state, kept_lines))
        while len(self._places) > 1 and counted - self._places[0][2] >= min(tail, counted):
            cut = self._places.popleft()[2]
            counted, truncated = counted - cut, truncated or cut > 0
        start, state, _ = self._places[0]
        return after._replace(start=start, start_state=state, counted=counted, truncated=truncated)
