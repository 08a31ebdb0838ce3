"""A JSON log as the text that people read: rendered first, then filtered, as the runtime's command does.

One record may be several lines of text, and a blank line is none; so `tail` and `max_bytes` have to count
what is shown. Offsets are those of the JSON log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nvflare_logstream import lines
from nvflare_logstream.filters.block_filter import as_shown
from nvflare_logstream.filters.log import LogLines

_HALF = re.compile("[\ud800-\udfff]")  # of a character: JSON can say it, UTF-8 cannot


class RenderedLines(LogLines):
    """The lines of a JSON log as text.

    Nothing is known of the times in it: those of the text need not be those of the records.
    """

    rendered = True

    def blocks(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """What runs of whole lines from `start` to `end` read as, with the offset after them."""
        for offset, block in super().blocks(start, end):
            yield offset, _render(block)

    def backward(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """What runs of whole lines from `end` back to `start` read as, and the offset where each begins."""
        for offset, run in super().backward(start, end):
            yield offset, _render(run)


def _render(block: bytes) -> bytes:
    return _HALF.sub("\ufffd", lines.json_as_text(as_shown(block).decode())).encode()
