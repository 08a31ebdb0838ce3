"""A JSON log as the text that people read: rendered first, then filtered, as the runtime's command does.

One record may be several lines of text, and a blank line is none; so `tail` and `max_bytes` have to count
what is shown. Offsets are those of the JSON log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nvflare_logstream import lines
from nvflare_logstream.filters.block_filter import as_shown
from nvflare_logstream.filters.bounds import is_json
from nvflare_logstream.filters.log import LogLines
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import Filters

_HALF = re.compile("[\ud800-\udfff]")  # of a character: JSON can say it, UTF-8 cannot


class RenderedLines(LogLines):
    """The lines of a JSON log as text."""

    def blocks(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """What runs of whole lines from `start` to `end` read as, with the offset after them."""
        for offset, block in super().blocks(start, end):
            yield offset, _render(block)

    def backward(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """What runs of whole lines from `end` back to `start` read as, and the offset where each begins."""
        for offset, run in super().backward(start, end):
            yield offset, _render(run)


def plan_rendered(log: RenderedLines, filters: Filters) -> Reading:
    """Where the wanted part of a rendered log begins: read backwards, or all of it where lines are dropped.

    Times are not searched for: those of the text need not be those of the records.
    """
    reading = Reading(0, log.end, is_json(log))  # a record without a known field stays one
    if not filters.drops_lines:
        return _last(log, reading, filters)
    if filters.by_time:
        timed = any(map(lines.json_time if reading.json else lines.text_time, _lines(log)))
        reading = reading._replace(timed=timed, since_applied=timed and filters.since is not None)
    if filters.tail is None and filters.max_bytes is None:
        return reading
    return reading._replace(counting="bytes" if filters.tail is None else "lines")


def _last(log: RenderedLines, reading: Reading, filters: Filters) -> Reading:
    count = size = 0
    for offset, run in log.backward(0, log.end):
        kept = run.decode().splitlines(keepends=True)
        over = max(0, count + len(kept) - filters.tail) if filters.tail is not None else 0
        count, kept = count + len(kept), kept[over:]
        size += len("".join(kept).encode())
        over_size = max(0, size - filters.max_bytes) if filters.max_bytes is not None else 0
        if over or over_size:
            return reading._replace(offset=offset, skip_lines=over, skip_bytes=over_size, truncated=True)
    return reading


def _lines(log: RenderedLines) -> Iterator[str]:
    for _, block in log.forward(0, log.end):
        yield from block


def _render(block: bytes) -> bytes:
    return _HALF.sub("\ufffd", lines.json_as_text(as_shown(block).decode())).encode()
