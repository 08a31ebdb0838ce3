"""Reads of a log what may be in a window of time.

A stretch whose times all lie outside of the window has no line of it, except those that continue a record
before the stretch: it is passed over only where that record is outside too. So the result is that of reading
all of the log, in whatever order its times are.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from time import monotonic

from nvflare_logstream import lines
from nvflare_logstream.filters.block_filter import BlockFilter
from nvflare_logstream.filters.log import LogLines
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.filters.spans import ALWAYS, NEVER, Span, number_of

_RUN = 1 << 22  # bytes that are read as one part of the log
_PASSED = 0.1  # seconds in which stretches are passed over before somebody is told how far it is
_SECOND = datetime.timedelta(seconds=1)


def timed_blocks(
    log: LogLines, start: int, end: int, json: bool, filters: Filters, block_filter: BlockFilter
) -> Iterator[tuple[int, bytes]]:
    """As `LogLines.blocks`, without what cannot be in the window of `since` and `until`.

    Whoever takes a block feeds it to the filter before the next. After much that was passed over comes an
    empty block, which says how far it is.
    """
    window = _window(filters)
    offset, tell = start, monotonic() + _PASSED
    while offset < end:
        stretch = log.stretch(offset, json, window)
        if not (stretch.span.touches(window) or block_filter.state.in_time):
            offset = min(stretch.end, end)
            if monotonic() >= tell:
                yield offset, b""
                tell = monotonic() + _PASSED
            continue
        stop = min(stretch.end, end)
        while stop < end and stop - offset < _RUN:
            stretch = log.stretch(stop, json, window)
            if not stretch.span.touches(window):
                break
            stop = min(stretch.end, end)
        yield from log.blocks(offset, stop)
        offset, tell = stop, monotonic() + _PASSED


def find_time(
    log: LogLines, start: int, end: int, json: bool, is_over: Callable[[], bool]
) -> tuple[int, bool]:
    """Look for a line with a time: how far it was looked, and whether there is one.

    Args:
        log: the log.
        start: a line's start.
        end: where to end.
        json: read the lines as records in JSON form.
        is_over: whether to end earlier; at least one block is looked at.
    """
    time_of = lines.json_time if json else lines.text_time
    offset = start
    while offset < end:
        stretch = log.stretch(offset, json)
        stop = min(stretch.end, end)
        for looked, block in log.forward(offset, stop) if stretch.span != NEVER else ():
            if any(map(time_of, block)):
                return looked, True
            if is_over():
                return looked, False
        offset = stop
        if is_over():
            break
    return offset, False


def _window(filters: Filters) -> Span:
    """The window as numbers; a second wider at its beginning, as 24:00:00 counts as the next day's first."""
    since, until = filters.since, filters.until
    low = ALWAYS.low if since is None or since.year == 1 else number_of(since - _SECOND)
    return Span(low, ALWAYS.high if until is None else number_of(until))
