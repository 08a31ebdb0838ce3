"""One stream out of several sites' logs: lines in the order of their corrected time.

A log's times are written in its site's local time. With the site's offset from UTC and its clock's deviation from the server's,
both known to the server, they become comparable. Within a site the order of lines never changes: a line without a time, or with
an earlier one, counts as written together with the line before it.
"""

from __future__ import annotations

import datetime
import heapq
from collections.abc import Iterable, Iterator

from nvflare_logstream import lines
from nvflare_logstream.client.model import Stream

_UTC = datetime.timezone.utc


class Clock:
    """Gives the corrected times of one site's lines, in seconds since the epoch; fed in order."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self._last = float("-inf")

    def time(self, line: str) -> float:
        """When `line` was written, by the server's clock."""
        found = lines.json_time(line) if line.startswith("{") else lines.text_time(line)
        if found is not None:
            local = found.replace(tzinfo=_UTC).timestamp()
            self._last = max(self._last, local - self._stream.utc_offset - self._stream.skew)
        return self._last


def timed(clock: Clock, site: str, log_lines: Iterable[str]) -> Iterator[tuple[float, str, str]]:
    """Lines as (corrected time, site, line)."""
    for line in log_lines:
        yield clock.time(line), site, line


def merge(logs: Iterable[Iterator[tuple[float, str, str]]]) -> Iterator[tuple[float, str, str]]:
    """Merge logs from `timed`, each in order, without holding more than a line of each."""
    return heapq.merge(*logs, key=lambda line: line[0])
