"""The line filter over a block of a log at once: what costs time is looked at, not each line.

Where only "\\n" ends lines, which lines are kept is found by a few passes of RE2 over the block. Elsewhere,
and for what no such pass can tell, the lines are fed to `LineFilter` one by one. The result is the same.
"""

from __future__ import annotations

from nvflare_logstream import lines
from nvflare_logstream.filters.kept import Kept
from nvflare_logstream.filters.line_filter import MAX_BEFORE, LineFilter, LineState
from nvflare_logstream.filters.patterns import Patterns
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.filters.windows import Ranges, level_windows, time_windows


class BlockFilter:
    """since → until → level → exclude → grep, fed one block of whole lines after the other.

    Args:
        filters: what to keep.
        json: the log is in JSON form.
        timed: some line of the log has a time; without one, `since` and `until` are not applied.
        state: where an earlier filter stood, to go on from there.
    """

    def __init__(self, filters: Filters, json: bool, timed: bool, state: LineState | None = None):
        self._filters = filters
        self._lines = LineFilter(filters, json, timed, state)
        by_time = timed and filters.by_time
        self._times = time_windows(filters.since, filters.until) if by_time else None
        self._levels = level_windows(lines.LEVELS[filters.level]) if filters.level else None
        patterns = [found for found in (filters.wanted, filters.unwanted) if found is not None]
        by_record = self._times is not None or self._levels is not None
        self._by_line = (json and by_record) or not all(found.for_blocks for found in patterns)
        only_grep = not (by_record or filters.invert or filters.unwanted or filters.before)
        self._only = filters.wanted if only_grep else None

    @property
    def state(self) -> LineState:
        """Where the filter stands."""
        return self._lines.state

    def feed(self, data: bytes) -> Kept:
        """What is kept of a block."""
        data = as_shown(data)
        if self._by_line or not lines.has_plain_ends(data):
            return self._line_by_line(data)
        ranges: Ranges = [(0, len(data))] if data else []
        if self._times is not None:
            ranges, self._lines.in_time = self._times.within(data, ranges, self._lines.in_time)
        if self._levels is not None:
            ranges, self._lines.in_level = self._levels.within(data, ranges, self._lines.in_level)
        if self._filters.unwanted is not None:
            ranges = _without(ranges, _found(self._filters.unwanted, data, ranges))
        if self._filters.wanted is None:
            return Kept([data[start:end] for start, end in ranges])
        hits = _found(self._filters.wanted, data, ranges)
        if not self._filters.context:
            kept = _without(ranges, hits) if self._filters.invert else hits
            return Kept([data[start:end] for start, end in kept])
        return self._with_context(data, ranges, hits)

    def _line_by_line(self, data: bytes) -> Kept:
        state = self._lines
        if self._only is not None and not state.after and self._only.not_in(data):
            state.remember([""])
            return Kept([])
        pieces: list[bytes] = []
        breaks = []
        for line in data.decode().splitlines(keepends=True):
            kept = state.feed(line)
            if state.begins_group:
                breaks.append(len(pieces))
            pieces += [kept_line.encode() for kept_line in kept]
        return Kept(pieces, by_line=True, breaks=tuple(breaks))

    def _with_context(self, data: bytes, ranges: Ranges, hits: Ranges) -> Kept:
        """The matching lines with those around them, of the lines that reach `grep`."""
        if len(ranges) > 1 or ranges != [(0, len(data))]:  # context is counted among these
            data = b"".join(data[start:end] for start, end in ranges)
            hits = _moved(hits, ranges)
        if self._filters.invert:
            hits = _single(data, _without([(0, len(data))] if data else [], hits))
        pieces: list[bytes] = []
        breaks, at = [], 0
        for start, end in hits:
            self._pass_over(data, at, start, pieces)
            kept = self._lines.matched(data[start:end].decode())
            if self._lines.begins_group:
                breaks.append(len(pieces))
            pieces += [line.encode() for line in kept]
            at = end
        self._pass_over(data, at, len(data), pieces)
        return Kept(pieces, by_line=True, breaks=tuple(breaks))

    def _pass_over(self, data: bytes, start: int, end: int, pieces: list[bytes]) -> None:
        """Lines without a match: the first may be context of the match before, the last of the next."""
        state = self._lines
        while start < end and state.after:
            line_end = data.find(b"\n", start, end) + 1 or end
            pieces.append(data[start:line_end])
            start, state.after = line_end, state.after - 1
        if start == end:
            return
        # One line more than can be kept, so that `remember` sees that there were more.
        first, most = end, self._filters.before + 1
        while first > start and most and end - first <= 4 * MAX_BEFORE:
            first, most = data.rfind(b"\n", start, first - 1) + 1 or start, most - 1
        state.remember(data[first:end].decode().splitlines(keepends=True))


def as_shown(data: bytes) -> bytes:
    """Bytes as they are shown: what is not UTF-8 as the replacement character."""
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="replace").encode()
    return data


def _found(patterns: Patterns, data: bytes, ranges: Ranges) -> Ranges:
    return [hit for start, end in ranges for hit in patterns.hits(data, start, end)]


def _without(ranges: Ranges, holes: Ranges) -> Ranges:
    """What is left of `ranges`; each of the holes lies in one of them, both are in order."""
    rest: Ranges = []
    number = 0
    for start, end in ranges:
        while number < len(holes) and holes[number][1] <= end:
            if holes[number][0] > start:
                rest.append((start, holes[number][0]))
            start = holes[number][1]
            number += 1
        if start < end:
            rest.append((start, end))
    return rest


def _moved(hits: Ranges, ranges: Ranges) -> Ranges:
    """Where hits stand once the ranges that they lie in are joined."""
    moved: Ranges = []
    number, joined = 0, 0
    for start, end in ranges:
        while number < len(hits) and hits[number][1] <= end:
            moved.append((hits[number][0] - start + joined, hits[number][1] - start + joined))
            number += 1
        joined += end - start
    return moved


def _single(data: bytes, ranges: Ranges) -> Ranges:
    """Each line of these ranges by itself."""
    single: Ranges = []
    for start, end in ranges:
        while start < end:
            line_end = data.find(b"\n", start, end) + 1 or end
            single.append((start, line_end))
            start = line_end
    return single
