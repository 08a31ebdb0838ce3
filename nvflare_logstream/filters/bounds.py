"""Where the wanted part of a stored log begins and ends, found with little reading.

Where times are in order, `since` and `until` are found by bisection. Whether they are in order is judged by
the places looked at: those of the bisection and, for a clock that once went back by an hour, places at
growing distances from the bounds found. Where times are not in order, all of the log is read.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator

from nvflare_logstream import lines
from nvflare_logstream.filters.log import BLOCK, LogLines, text_lines
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import Filters

# Bytes around a bisected place that are looked at line by line: threads log a little out of order.
_GUARD = BLOCK
_PROBE = 1 << 10  # bytes of a first look into the middle of a file; more only where lines are long
_FIRST_TIME = 1 << 20  # bytes in which a probe looks for a time
_TIMED_LINE = 1 << 20  # bytes of a line that are looked at for its time; in text it stands at the beginning
_WIDEN = 1.2  # from one of the growing distances to the next


def plan(log: LogLines, filters: Filters, search: bool = True) -> Reading:
    """Where the wanted part of a log begins and ends.

    Args:
        log: the log.
        filters: what is wanted of it.
        search: find the bounds of `since` and `until` by bisection instead of looking at all of the log.
    """
    json = is_json(log)
    reading = Reading(0, log.end, json)
    if not filters.drops_lines:
        return _last(log, reading, filters)
    if filters.since or filters.until:
        timed = _first_time(log, 0, log.end, json)
        is_timed = timed is not None
        reading = reading._replace(timed=is_timed, since_applied=is_timed and filters.since is not None)
        if is_timed and search:
            reading = _between(log, reading, filters)
    if filters.tail is None and filters.max_bytes is None:
        return reading
    return reading._replace(counting="bytes" if filters.tail is None else "lines", start=reading.offset)


def is_json(log: LogLines) -> bool:
    """Whether a log is in JSON form."""
    return lines.is_json(_head(log))


def has_time(log: LogLines, reading: Reading) -> bool:
    """Whether any line from the reading's place on has a time."""
    return _first_time(log, max(0, reading.offset - 1), log.end, reading.json) is not None


def _head(log: LogLines) -> str:
    """The log's beginning, as far as its first line that is not blank."""
    for offset, block in log.forward(0, log.end):
        if offset >= _FIRST_TIME or any(line.strip() for line in block):
            return "".join(block)
    return ""


def _last(log: LogLines, reading: Reading, filters: Filters) -> Reading:
    """The last `tail` lines, and of these the last `max_bytes` bytes: read backwards."""
    if filters.tail is not None:
        reading = _last_lines(log, reading, filters.tail)
    if filters.max_bytes is None:
        return reading
    size = 0
    for offset, run in log.backward(reading.offset, reading.end):
        size += len(run.decode("utf-8", errors="replace").encode("utf-8"))
        if size > filters.max_bytes:
            return reading._replace(offset=offset, skip_bytes=size - filters.max_bytes, truncated=True)
    return reading


def _last_lines(log: LogLines, reading: Reading, tail: int) -> Reading:
    count = 0
    for offset, run in log.backward(0, reading.end):
        log_lines = text_lines(run)
        count += len(log_lines)
        if count > tail:
            over = "".join(log_lines[: count - tail]).encode("utf-8", errors="surrogateescape")
            return reading._replace(offset=offset + len(over), truncated=True)
    return reading


def _between(log: LogLines, reading: Reading, filters: Filters) -> Reading:
    """Narrow the log down to where lines of the window may stand; all of it where times are not in order."""
    probes: dict[int, datetime.datetime] = {}
    start, end = reading.offset, reading.end
    if filters.since is not None:
        since = filters.since
        start = _bisect(log, reading.json, probes, lambda time: time < since)[0]
    if filters.until is not None:
        until = filters.until
        end = _bisect(log, reading.json, probes, lambda time: time <= until)[1]
    # Farther from what was found, before `since` all times must be early, after `until` none may be.
    for distance in _distances(start) if filters.since is not None else ():
        _probe(log, reading.json, probes, start - distance)
    for distance in _distances(log.end - end) if filters.until is not None else ():
        _probe(log, reading.json, probes, end + distance)
    times = [probes[offset] for offset in sorted(probes)]
    if times != sorted(times):
        return reading
    start = _next_line(log, start - _GUARD) if start > _GUARD else 0
    end = _next_line(log, end + _GUARD)
    return reading._replace(offset=start, end=max(start, end))


def _distances(most: int) -> Iterator[int]:
    distance = float(BLOCK)
    while distance < most:
        yield int(distance)
        distance *= _WIDEN


def _probe(log: LogLines, json: bool, probes: dict[int, datetime.datetime], start: int) -> None:
    timed = _first_time(log, start, log.end, json)
    if timed is not None:
        probes[timed[0]] = timed[1]


def _bisect(
    log: LogLines,
    json: bool,
    probes: dict[int, datetime.datetime],
    early: Callable[[datetime.datetime], bool],
) -> tuple[int, int]:
    """Two line starts near each other: before the first all times are `early`, from the second on none."""
    low, high = 0, log.end
    before, behind = 0, log.end
    while high - low > BLOCK:
        middle = (low + high) // 2
        timed = _first_time(log, middle, high, json)
        if timed is None:  # one record reaches from before the middle to beyond what was searched
            high = middle
            continue
        offset, time = timed
        probes[offset] = time
        if early(time):
            low, before = middle, offset
        else:
            high, behind = middle, offset
    return before, behind


def _next_line(log: LogLines, offset: int) -> int:
    """The first line start after `offset`, or the end."""
    step = _PROBE
    while data := log.read(offset, step):
        cut = data.find(b"\n")
        if cut >= 0:
            return offset + cut + 1
        offset, step = offset + len(data), min(2 * step, BLOCK)
    return log.end


def _first_time(log: LogLines, start: int, end: int, json: bool) -> tuple[int, datetime.datetime] | None:
    """The first line with a time that begins after `start` (or at 0) and before `end`: its offset, its time.

    From the file's start all of it is searched, elsewhere a bounded part.
    """
    time_of = lines.json_time if json else lines.text_time
    limit = end if start == 0 else min(end, start + _FIRST_TIME)
    line_start = offset = 0 if start == 0 else _next_line(log, start)
    step, rest = _PROBE, b""
    while line_start < limit:
        data = log.read(offset, step)
        offset, step = offset + len(data), min(2 * step, BLOCK)
        *whole, rest = (rest + data).split(b"\n")
        too_long = len(rest) > _TIMED_LINE
        if too_long or not data:
            whole, rest = [*whole, rest], b""
        for raw in whole:
            for line in raw.decode("utf-8", errors="replace").splitlines(keepends=True):
                time = time_of(line)
                if time is not None and line_start < limit:
                    return line_start, time
            line_start += len(raw) + 1
        if not data:
            break
        if too_long:
            line_start = offset = _next_line(log, offset)
    return None
