"""What kind of log it is, and where a reading of it begins.

What is wanted of it is found by `reading`; `timed_blocks` passes over what has no line of the window.
"""

from __future__ import annotations

from nvflare_logstream import lines
from nvflare_logstream.filters.log import LogLines
from nvflare_logstream.filters.reading import Reading, stage_of_counting
from nvflare_logstream.filters.rules import Filters

_HEAD = 1 << 20  # bytes in which a log's form is looked for


def plan(log: LogLines, filters: Filters) -> Reading:
    """The first place in a filtered log.

    Args:
        log: the log.
        filters: what is wanted of it.
    """
    stage = "times" if filters.by_time else stage_of_counting(filters)
    # A record may be several lines of text: which lines the filters keep is told from the beginning on.
    if stage and filters.by_line and not (log.rendered and filters.drops_lines):
        stage = "last"
    return Reading(0, log.end, is_json(log), stage=stage, rendered=log.rendered)


def is_json(log: LogLines) -> bool:
    """Whether a log is in JSON form."""
    return lines.is_json(_head(log))


def _head(log: LogLines) -> str:
    """The log's beginning, as far as its first line that is not blank."""
    for offset, block in log.forward(0, log.end):
        if offset >= _HEAD or any(line.strip() for line in block):
            return "".join(block)
    return ""
