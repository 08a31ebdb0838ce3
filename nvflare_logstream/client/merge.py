"""Merges the logs of several sites: lines in the order of their corrected time.

A log's times are written in its site's local time. They become comparable with the site's offset from UTC and
its clock's skew against the server, which the server knows. The order within a site never changes: a line
without a time, or with an earlier one than the line before, counts as written together with that line.
"""

from __future__ import annotations

import datetime
import heapq
from collections.abc import Callable, Iterable, Iterator

from nvflare_logstream import lines
from nvflare_logstream.streams import Stream

MOST_RUN = 1 << 16  # characters of lines of one site that are given out together
_UTC = datetime.timezone.utc


class Clock:
    """Gives the corrected times of one site's lines, in seconds since the epoch; fed in order.

    Attributes:
        records: the lines are records in JSON form; one line does not tell: a job may print anything.
    """

    def __init__(self, stream: Stream, records: bool = False):
        self._stream, self.records = stream, records
        self._last = float("-inf")

    def time(self, line: str) -> float:
        """When `line` was written, by the server's clock."""
        stamp = lines.json_time(line) if self.records else lines.text_time(line)
        if stamp is not None:
            local = stamp.replace(tzinfo=_UTC).timestamp()
            self._last = max(self._last, local - self._stream.utc_offset - self._stream.skew)
        return self._last


def timed(clock: Clock, site: str, log_lines: Iterable[str]) -> Iterator[tuple[float, str, str]]:
    """Lines as (corrected time, site, line)."""
    for line in log_lines:
        yield clock.time(line), site, line


def merge(logs: Iterable[Iterator[tuple[float, str, str]]]) -> Iterator[tuple[float, str, str]]:
    """Merge logs from `timed`, each in order, without holding more than a line of each."""
    return heapq.merge(*logs, key=lambda line: line[0])


def in_order(
    streams: Iterable[Stream],
    texts: Callable[[Stream], Iterator[str]],
    clocks: dict[str, Clock] | None = None,
    records: Callable[[str], bool] = lambda site: False,
) -> Iterator[tuple[str, str]]:
    """The lines of several logs by corrected time, as (site, line), holding no more than a piece of each.

    Args:
        streams: which logs.
        texts: gives the text of one in pieces of whole lines; the next piece when all lines of the last one
            have been given out.
        clocks: by site, as the lines before left them; those that are not there yet are added.
        records: whether the last text of a site is records in JSON form.
    """
    clocks = {} if clocks is None else clocks

    def log_lines(stream: Stream) -> Iterator[str]:
        for text in texts(stream):
            clocks[stream.site].records = records(stream.site)
            yield from split_lines(text)

    logs = [
        timed(clocks.setdefault(stream.site, Clock(stream)), stream.site, log_lines(stream))
        for stream in streams
    ]
    for _, site, line in merge(logs):
        yield site, line


def runs(lines_in_order: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Put lines, as (site, line), of one site together that follow each other, up to about `MOST_RUN`."""
    run: list[str] = []
    of, size = "", 0
    for site, line in lines_in_order:
        if run and (site != of or size >= MOST_RUN):
            yield of, "".join(run)
            run, size = [], 0
        of, size = site, size + len(line)
        run.append(line)
    if run:
        yield of, "".join(run)


def split_lines(text: str) -> list[str]:
    """Lines with their ends; only a newline ends a line, whatever else a log contains."""
    *whole, last = text.split("\n")
    return [f"{line}\n" for line in whole] + ([last] if last else [])
