"""Where the wanted part of a stored log begins and ends, and what kind of log it is.

What is between is read by `reading`, and passed over where it has no line of the window by `times`.
"""

from __future__ import annotations

from nvflare_logstream import lines
from nvflare_logstream.filters.log import LogLines, text_lines
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.filters.spans import NEVER

_HEAD = 1 << 20  # bytes in which a log's form is looked for


def plan(log: LogLines, filters: Filters) -> Reading:
    """Where the wanted part of a log begins and ends.

    Args:
        log: the log.
        filters: what is wanted of it.
    """
    json = is_json(log)
    reading = Reading(0, log.end, json)
    if not filters.drops_lines:
        return _last(log, reading, filters)
    if filters.by_time:
        timed = has_time(log, reading)
        reading = reading._replace(timed=timed, since_applied=timed and filters.since is not None)
    if filters.tail is None and filters.max_bytes is None:
        return reading
    return reading._replace(counting="bytes" if filters.tail is None else "lines", start=reading.offset)


def is_json(log: LogLines) -> bool:
    """Whether a log is in JSON form."""
    return lines.is_json(_head(log))


def has_time(log: LogLines, reading: Reading) -> bool:
    """Whether any line from the reading's place on has a time."""
    time_of = lines.json_time if reading.json else lines.text_time
    offset = reading.offset
    while offset < log.end:
        stretch = log.stretch(offset, reading.json)
        if stretch.span != NEVER:
            for _, block in log.forward(offset, min(stretch.end, log.end)):
                if any(time_of(line) for line in block):
                    return True
        offset = stretch.end
    return False


def _head(log: LogLines) -> str:
    """The log's beginning, as far as its first line that is not blank."""
    for offset, block in log.forward(0, log.end):
        if offset >= _HEAD or any(line.strip() for line in block):
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
