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
from nvflare_logstream.filters.windows import Spans, level_windows, time_windows

# What ends a line for `str.splitlines`, apart from "\n".
_ASCII_ENDS = (b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e")
_OTHER_ENDS = ("\x85".encode(), "\u2028".encode(), "\u2029".encode())


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
        bounded = timed and (filters.since is not None or filters.until is not None)
        self._times = time_windows(filters.since, filters.until) if bounded else None
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
        if self._by_line or not _has_plain_ends(data):
            return self._line_by_line(data)
        spans: Spans = [(0, len(data))] if data else []
        if self._times is not None:
            spans, self._lines.in_time = self._times.within(data, spans, self._lines.in_time)
        if self._levels is not None:
            spans, self._lines.in_level = self._levels.within(data, spans, self._lines.in_level)
        if self._filters.unwanted is not None:
            spans = _without(spans, _found(self._filters.unwanted, data, spans))
        if self._filters.wanted is None:
            return Kept([data[start:end] for start, end in spans])
        hits = _found(self._filters.wanted, data, spans)
        if not self._filters.context:
            kept = _without(spans, hits) if self._filters.invert else hits
            return Kept([data[start:end] for start, end in kept])
        return self._with_context(data, spans, hits)

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

    def _with_context(self, data: bytes, spans: Spans, hits: Spans) -> Kept:
        """The matching lines with those around them, of the lines that reach `grep`."""
        if len(spans) > 1 or spans != [(0, len(data))]:  # context is counted among these
            data = b"".join(data[start:end] for start, end in spans)
            hits = _moved(hits, spans)
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


def _has_plain_ends(data: bytes) -> bool:
    """Whether "\\n" alone ends lines."""
    return not any(end in data for end in (_ASCII_ENDS if data.isascii() else _ASCII_ENDS + _OTHER_ENDS))


def _found(patterns: Patterns, data: bytes, spans: Spans) -> Spans:
    return [hit for start, end in spans for hit in patterns.hits(data, start, end)]


def _without(spans: Spans, holes: Spans) -> Spans:
    """What is left of `spans`; each of the holes lies in one of them, both are in order."""
    rest: Spans = []
    number = 0
    for start, end in spans:
        while number < len(holes) and holes[number][1] <= end:
            if holes[number][0] > start:
                rest.append((start, holes[number][0]))
            start = holes[number][1]
            number += 1
        if start < end:
            rest.append((start, end))
    return rest


def _moved(hits: Spans, spans: Spans) -> Spans:
    """Where hits stand once the spans that they lie in are joined."""
    moved: Spans = []
    number, joined = 0, 0
    for start, end in spans:
        while number < len(hits) and hits[number][1] <= end:
            moved.append((hits[number][0] - start + joined, hits[number][1] - start + joined))
            number += 1
        joined += end - start
    return moved


def _single(data: bytes, spans: Spans) -> Spans:
    """Each line of these spans by itself."""
    single: Spans = []
    for start, end in spans:
        while start < end:
            line_end = data.find(b"\n", start, end) + 1 or end
            single.append((start, line_end))
            start = line_end
    return single
