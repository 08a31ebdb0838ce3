"""Which times stand where in a log.

A log is looked through once, in chunks of whole lines, and of each chunk is kept between which times its
lines were written. That stays true as long as the bytes do, however the log grows: nothing is concluded from
the order of times.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import NamedTuple

from nvflare_logstream.filters.spans import ALWAYS, NEVER, Span, exact_text_span, json_span, text_span

CHUNK = 1 << 18  # bytes
MOST_SECONDS = 0.25  # that one question takes; many records in JSON form take long
Read = Callable[[int, int], bytes]


class Stretch(NamedTuple):
    """A part of a log, up to `end`, and the span of its times."""

    end: int
    span: Span


class Chunks:
    """The spans of a log's chunks, in one of the two forms that logs have; thread-safe.

    Args:
        json: read the lines as records in JSON form.
    """

    def __init__(self, json: bool):
        self._span_of = json_span if json else text_span
        self._exact_span_of = None if json else exact_text_span
        self._is_exact = bytearray()  # for each chunk
        self._ends, self._lows, self._highs = array("q"), array("q"), array("q")
        # Bytes that were looked at: more than the last end, within a line that is longer than a chunk.
        self._looked = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._ends)

    def at(self, offset: int, end: int, read: Read, window: Span = NEVER) -> Stretch | None:
        """The chunk at `offset`; None behind the last whole one, and where a reader would wait too long.

        The log is looked through so far, or a part of the way: the next question goes on.

        Args:
            offset: a place in the log.
            end: the log's end.
            read: gives so many bytes of the log from an offset on.
            window: where a rough span leaves open whether it has times in here, an exact one is found.
        """
        deadline, is_over = monotonic() + MOST_SECONDS, False
        with self._lock:
            while not self._ends or self._ends[-1] <= offset:
                if is_over or end - self._looked < CHUNK or not self._look_on(read):
                    return None
                is_over = monotonic() >= deadline
            chunk = bisect_right(self._ends, offset)
            span = Span(self._lows[chunk], self._highs[chunk])
            if not self._is_exact[chunk] and span.touches(window) and not span.within(window):
                span = self._refine(chunk, read)
            return Stretch(self._ends[chunk], span)

    def _refine(self, chunk: int, read: Read) -> Span:
        begin, end = self._ends[chunk - 1] if chunk else 0, self._ends[chunk]
        data = _from_newline(begin, end, read)
        if self._exact_span_of and len(data) == end - begin + 1:
            self._lows[chunk], self._highs[chunk] = self._exact_span_of(data, len(data))
            self._is_exact[chunk] = True
        return Span(self._lows[chunk], self._highs[chunk])

    def _look_on(self, read: Read) -> bool:
        """Look at one chunk more; False if it cannot be read."""
        data = _from_newline(self._looked, self._looked + CHUNK, read)
        if len(data) <= CHUNK:
            return False
        begins_line = self._looked == (self._ends[-1] if self._ends else 0)
        cut = data.rfind(b"\n", 1)
        if cut < 0:  # a line that goes on behind its chunk is looked at as part of the log
            self._looked += CHUNK
            return True
        self._looked += cut
        low, high = self._span_of(data, cut + 1) if begins_line else ALWAYS
        self._ends.append(self._looked)
        self._lows.append(low)
        self._highs.append(high)
        self._is_exact.append(self._exact_span_of is None or not begins_line)
        return True


def _from_newline(begin: int, end: int, read: Read) -> bytes:
    """The bytes from `begin` to `end`, with the one before them; at the log's beginning that is a newline."""
    return read(begin - 1, end - begin + 1) if begin else b"\n" + read(0, end)


class LogTimes:
    """What is known of the times in one log; an empty one knows nothing, and learns while it is asked."""

    def __init__(self) -> None:
        self._forms = {form: Chunks(form) for form in (False, True)}

    def __len__(self) -> int:
        return sum(map(len, self._forms.values()))

    def chunks(self, json: bool) -> Chunks:
        """The log's chunks, with its lines read as one of the two forms."""
        return self._forms[json]
