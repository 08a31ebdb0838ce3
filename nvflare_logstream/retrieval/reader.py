"""The filter pipeline over a stored file, without loading it.

`plan` finds where the wanted part begins, reading backwards from the end for `tail` and `max_bytes` and by bisection for `since`
and `until`; `Reading` then gives it out forwards, in parts. The result is that of `filters.apply_filters` on the whole text.

Lines are handled as text in which a byte that is not UTF-8 stands as a surrogate, so that positions stay exact; they leave as the
runtime's own commands show them, with the replacement character.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nvflare_logstream import lines
from nvflare_logstream.errors import StoreError
from nvflare_logstream.filters import Filters, LineFilter, LineState

BLOCK = 1 << 16
_GUARD = BLOCK  # bytes around a bisected place that are looked at line by line: threads log a little out of order
_PROBE = 1 << 12  # bytes of a first look into the middle of a file; more only where lines are long
_FIRST_TIME = 1 << 20  # bytes in which a probe looks for a time
MOST_READ = 64 << 20  # bytes that are looked through at a time
MAX_LINE = 16 << 20  # bytes; what is longer without a line end is handled in pieces: a log must not fill the server's memory


class Source:
    """The stored bytes of a stream up to `end`; counts what is read.

    Args:
        path: the stored file.
        end: how many bytes of it are the stream.
    """

    def __init__(self, path: Path, end: int):
        self._path, self.end = path, end
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on, fewer at the end.

        Raises:
            StoreError: if the file is gone.
        """
        length = min(length, self.end - offset)
        if length <= 0:
            return b""
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise StoreError(f"cannot read {self._path.name}: {error.strerror}") from error
        self.bytes_read += len(data)
        return data

    def forward(self, start: int, end: int) -> Iterator[tuple[int, list[str]]]:
        """Whole lines from `start` to `end`, a block at a time, with the position after them."""
        rest, at = b"", start
        while at < end:
            data = self.read(at, min(BLOCK, end - at))
            if not data:
                break
            at += len(data)
            rest += data
            cut = rest.rfind(b"\n") + 1 or (len(rest) if len(rest) >= MAX_LINE else 0)
            if cut:
                yield at - len(rest) + cut, _split(rest[:cut])
                rest = rest[cut:]
        if rest:
            yield at, _split(rest)

    def backward(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Runs of whole lines from `end` back to `start`, with the position at which each begins."""
        rest, at = b"", end
        while at > start:
            length = min(BLOCK, at - start)
            rest = self.read(at - length, length) + rest
            at -= length
            cut = rest.find(b"\n", 0, -1) + 1
            if at == start or (not cut and len(rest) >= MAX_LINE):
                cut = 0
            elif not cut:
                continue
            yield at + cut, rest[cut:]
            rest = rest[:cut]


def _split(data: bytes) -> list[str]:
    return data.decode("utf-8", errors="surrogateescape").splitlines(keepends=True)


def shown(line: str) -> str:
    """A line as it is shown: bytes that are not UTF-8 as the replacement character."""
    return line if line.isascii() else line.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


@dataclass(frozen=True)
class Reading:
    """A place in a filtered log, from which `part` goes on; small enough to travel.

    Attributes:
        at, end: the bytes of the file that are still to be looked at.
        json, timed: what kind of log it is.
        since_applied, truncated: for the result; `truncated` counts once `counting` is over.
        skip_lines, skip_bytes: kept lines, and then UTF-8 bytes of text, to leave out first.
        state: of the line filter.
        counting: "lines" or "bytes" while what is kept is counted, before any of it is given out: of lines that filters drop in
            between, nobody knows otherwise which are the last; "" when that is done.
        start, counted, cut: where the counting began; how far it is; how many lines `tail` will leave out.
    """

    at: int
    end: int
    json: bool = False
    timed: bool = False
    since_applied: bool = False
    truncated: bool = False
    skip_lines: int = 0
    skip_bytes: int = 0
    state: LineState | None = None
    counting: str = ""
    start: int = 0
    counted: int = 0
    cut: int = 0

    @property
    def done(self) -> bool:
        """Nothing is left."""
        return self.at >= self.end and not self.counting

    def part(self, source: Source, filters: Filters, most: int) -> tuple[Reading, str]:
        """The next text, somewhat more than `most` characters at the most, and where to go on.

        Less, or none, once `MOST_READ` bytes were read for it: the server has others to serve.
        """
        limit = source.bytes_read + MOST_READ
        here = self
        while here.counting and source.bytes_read < limit:
            here = here._count(source, filters, limit)
        if here.counting:
            return here, ""
        texts, size = [], 0
        for here, found in here._kept(source, filters):  # noqa: B020 (the generator keeps the first of them)
            here, text = here._without_skipped_bytes("".join(found))
            texts.append(text)
            size += len(text)
            if size >= most or source.bytes_read >= limit:
                return here, "".join(texts)
        return replace(here, at=here.end), "".join(texts)

    def _kept(self, source: Source, filters: Filters) -> Iterator[tuple[Reading, list[str]]]:
        """Blocks of kept lines, as they are shown and without `skip_lines`, with the reading after each block."""
        line_filter = LineFilter(filters, self.json, self.timed, self.state)
        skip_lines, skip_bytes = self.skip_lines, self.skip_bytes
        for at, block in source.forward(self.at, self.end):
            found = list(map(shown, block))
            if filters.drops_lines:
                found = line_filter.feed_all(found)
            skipped = min(skip_lines, len(found))
            found, skip_lines = found[skipped:], skip_lines - skipped
            state = line_filter.state if filters.drops_lines else None
            after = replace(self, at=at, state=state, skip_lines=skip_lines, skip_bytes=skip_bytes)
            skip_bytes = max(0, skip_bytes - (_size(found) if skip_bytes else 0))
            yield after, found

    def _without_skipped_bytes(self, text: str) -> tuple[Reading, str]:
        if not self.skip_bytes or not text:
            return self, text
        encoded = text.encode("utf-8")
        rest = replace(self, skip_bytes=max(0, self.skip_bytes - len(encoded)))
        return rest, encoded[self.skip_bytes :].decode("utf-8", errors="ignore")

    def _count(self, source: Source, filters: Filters, limit: int) -> Reading:
        here = self
        for after, found in self._kept(source, filters):
            more = len(found) if self.counting == "lines" else _size(found)
            here = replace(after, counted=here.counted + more)
            if source.bytes_read >= limit:
                return here
        over = here.counted - ((filters.tail if self.counting == "lines" else filters.max_bytes) or 0)
        again = replace(here, at=self.start, state=None, counted=0, truncated=here.truncated or over > 0)
        if self.counting == "lines":
            cut = max(0, over)
            return replace(again, counting="bytes" if filters.max_bytes is not None else "", cut=cut, skip_lines=cut)
        return replace(again, counting="", skip_lines=self.cut, skip_bytes=max(0, over))


def _size(found: list[str]) -> int:
    return sum(len(line) if line.isascii() else len(line.encode("utf-8")) for line in found)


def plan(source: Source, filters: Filters) -> Reading:
    """Where the wanted part of a log begins and ends."""
    json = is_json(source)
    reading = Reading(0, source.end, json)
    if not filters.drops_lines:
        return _last(source, reading, filters)
    if filters.since or filters.until:
        timed = _first_time(source, 0, source.end, json)
        reading = replace(reading, timed=timed is not None, since_applied=timed is not None and filters.since is not None)
        if timed is not None:
            reading = _between(source, reading, filters)
    if filters.tail is None and filters.max_bytes is None:
        return reading
    return replace(reading, counting="bytes" if filters.tail is None else "lines", start=reading.at)


def last_line_end(source: Source, start: int) -> int:
    """The position after the last whole line that ends after `start`; `start` if there is none."""
    for at, run in source.backward(start, source.end):
        cut = run.rfind(b"\n") + 1
        if cut:
            return at + cut
        if len(run) >= MAX_LINE:
            return source.end
    return start


def is_json(source: Source) -> bool:
    """Whether a log is in JSON form."""
    return lines.is_json(_head(source))


def has_time(source: Source, reading: Reading) -> bool:
    """Whether any line from the reading's place on has a time."""
    return _first_time(source, max(0, reading.at - 1), source.end, reading.json) is not None


def _head(source: Source) -> str:
    """The log's beginning, as far as its first line that is not blank."""
    for at, block in source.forward(0, source.end):
        if at >= _FIRST_TIME or any(line.strip() for line in block):
            return "".join(block)
    return ""


def _last(source: Source, reading: Reading, filters: Filters) -> Reading:
    """The last `tail` lines, and of these the last `max_bytes` bytes: read backwards."""
    if filters.tail is not None:
        reading = _last_lines(source, reading, filters.tail)
    if filters.max_bytes is None:
        return reading
    size = 0
    for at, run in source.backward(reading.at, reading.end):
        size += len(run.decode("utf-8", errors="replace").encode("utf-8"))
        if size > filters.max_bytes:
            return replace(reading, at=at, skip_bytes=size - filters.max_bytes, truncated=True)
    return reading


def _last_lines(source: Source, reading: Reading, tail: int) -> Reading:
    count = 0
    for at, run in source.backward(0, reading.end):
        found = _split(run)
        count += len(found)
        if count > tail:
            over = "".join(found[: count - tail]).encode("utf-8", errors="surrogateescape")
            return replace(reading, at=at + len(over), truncated=True)
    return reading


def _between(source: Source, reading: Reading, filters: Filters) -> Reading:
    """Narrow the file down to where its times allow lines of the window to be; all of it where they are not in order."""
    probes: dict[int, datetime.datetime] = {}
    start, end = reading.at, reading.end
    if filters.since is not None:
        start = _bisect(source, reading.json, probes, lambda time: time < filters.since)[0]  # type: ignore[operator]
    if filters.until is not None:
        end = _bisect(source, reading.json, probes, lambda time: time <= filters.until)[1]  # type: ignore[operator]
    times = [probes[at] for at in sorted(probes)]
    if times != sorted(times):
        return reading
    start = _next_line(source, start - _GUARD) if start > _GUARD else 0
    end = _next_line(source, end + _GUARD)
    return replace(reading, at=start, end=max(start, end))


def _bisect(
    source: Source, json: bool, probes: dict[int, datetime.datetime], early: Callable[[datetime.datetime], bool]
) -> tuple[int, int]:
    """Two line starts, about a block apart: up to the first all times are `early`, from the second on none is."""
    low, high = 0, source.end
    before, behind = 0, source.end
    while high - low > BLOCK:
        middle = (low + high) // 2
        found = _first_time(source, middle, high, json)
        if found is None:  # one record reaches from before the middle to beyond what was searched
            high = middle
            continue
        at, time = found
        probes[at] = time
        if early(time):
            low, before = middle, at
        else:
            high, behind = middle, at
    return before, behind


def _next_line(source: Source, at: int) -> int:
    """The first line start after `at`, or the end."""
    step = _PROBE
    while data := source.read(at, step):
        cut = data.find(b"\n")
        if cut >= 0:
            return at + cut + 1
        at, step = at + len(data), min(2 * step, BLOCK)
    return source.end


def _first_time(source: Source, start: int, end: int, json: bool) -> tuple[int, datetime.datetime] | None:
    """The first line with a time that begins after `start` (or at 0) and before `end`: its place and its time.

    From the file's start all of it is searched, elsewhere a bounded part.
    """
    time_of = lines.json_time if json else lines.text_time
    limit = end if start == 0 else min(end, start + _FIRST_TIME)
    at = 0 if start == 0 else _next_line(source, start)
    step, rest, line_at = _PROBE, b"", at
    while line_at < limit:
        data = source.read(at, step)
        at, step = at + len(data), min(2 * step, BLOCK)
        *whole, rest = (rest + data).split(b"\n")
        if not data:
            whole, rest = [rest], b""
        for raw in whole:
            for line in raw.decode("utf-8", errors="replace").splitlines(keepends=True):
                time = time_of(line)
                if time is not None and line_at < limit:
                    return line_at, time
            line_at += len(raw) + 1
    return None
