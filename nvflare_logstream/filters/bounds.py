"""Where the wanted part of a stored log begins and ends, and what kind of log it is.

What is between is read by `reading`, and passed over where it has no line of the window by `timed_blocks`.
"""

from __future__ import annotations

import math
from time import monotonic

from nvflare_logstream import lines
from nvflare_logstream.filters.block_filter import as_shown
from nvflare_logstream.filters.kept import Kept
from nvflare_logstream.filters.log import LogLines
from nvflare_logstream.filters.reading import Reading, stage_of_counting
from nvflare_logstream.filters.rules import Filters

_HEAD = 1 << 20  # bytes in which a log's form is looked for


def plan(log: LogLines, filters: Filters, seconds: float = math.inf) -> Reading:
    """Where the wanted part of a log begins and ends.

    Args:
        log: the log.
        filters: what is wanted of it.
        seconds: after which what is not known yet is left to the reading's stages.
    """
    reading = Reading(0, log.end, is_json(log))
    if filters.drops_lines:
        return reading._replace(stage="times" if filters.by_time else stage_of_counting(filters))
    return _last(log, reading, filters, monotonic() + seconds)


def is_json(log: LogLines) -> bool:
    """Whether a log is in JSON form."""
    return lines.is_json(_head(log))


def _head(log: LogLines) -> str:
    """The log's beginning, as far as its first line that is not blank."""
    for offset, block in log.forward(0, log.end):
        if offset >= _HEAD or any(line.strip() for line in block):
            return "".join(block)
    return ""


def _last(log: LogLines, reading: Reading, filters: Filters, deadline: float) -> Reading:
    """The last `tail` lines, and of these the last `max_bytes` bytes: looked for from the log's end.

    Where that takes long, they are counted from its beginning, which can be left and gone on with.
    """
    if not stage_of_counting(filters):
        return reading
    count = size = 0
    for offset, run in log.backward(0, log.end):
        kept = Kept.of(as_shown(run))
        count += kept.lines
        over = max(0, count - filters.tail) if filters.tail is not None else 0
        size += kept.divided(over)[1].size
        over_size = max(0, size - filters.max_bytes) if filters.max_bytes is not None else 0
        if over or over_size:
            return reading._replace(offset=offset, skip_lines=over, skip_bytes=over_size, truncated=True)
        if offset and monotonic() >= deadline:
            return reading._replace(stage=stage_of_counting(filters))
    return reading
