"""The filter pipeline over a stored file, without loading it.

`bounds.plan` finds where the wanted part begins, reading backwards from the end for `tail` and `max_bytes` and by bisection for
`since` and `until`; `Reading` then gives it out forwards, in parts. The result is that of `filters.apply_filters` on the text.

Lines are handled as text in which a byte that is not UTF-8 stands as a surrogate, so that positions stay exact; they leave as the
runtime's own commands show them, with the replacement character.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nvflare_logstream.errors import StoreError
from nvflare_logstream.filters.rules import Filters, LineFilter, LineState

BLOCK = 1 << 16
MOST_READ = 64 << 20  # bytes that are looked through at a time
MAX_LINE = (
    16 << 20
)  # bytes; what is longer without a line end is handled in pieces: a log must not fill the server's memory


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
        rest: list[bytes] = []
        at, size = start, 0  # where to read, and how much there is in `rest`
        while at < end and (data := self.read(at, min(BLOCK, end - at))):
            at += len(data)
            cut = data.rfind(b"\n") + 1
            if not cut and size + len(data) >= MAX_LINE:
                cut = _last_character_end(data)
            if cut:
                yield at - len(data) + cut, text_lines(b"".join([*rest, data[:cut]]))
                rest, size, data = [], 0, data[cut:]
            rest.append(data)
            size += len(data)
        if size:
            yield at, text_lines(b"".join(rest))

    def backward(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Runs of whole lines from `end` back to `start`, with the position at which each begins."""
        rest: list[bytes] = []
        at, size = end, 0
        while at > start:
            length = min(BLOCK, at - start)
            at, data = at - length, self.read(at - length, length)
            cut = data.find(b"\n", 0, len(data) if rest else -1) + 1
            if at == start:
                cut = 0
            elif not cut and size + len(data) >= MAX_LINE:
                cut = _first_character(data)
            elif not cut:
                rest, size = [data, *rest], size + len(data)
                continue
            yield at + cut, b"".join([data[cut:], *rest])
            rest, size = ([data[:cut]], cut) if cut else ([], 0)


def _first_character(data: bytes) -> int:
    """Where the first whole UTF-8 character of `data` begins."""
    return next((at for at in range(min(4, len(data))) if data[at] & 0xC0 != 0x80), 0)


def _last_character_end(data: bytes) -> int:
    """Where the last whole UTF-8 character of `data` ends."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] >= 0xC0:
            return len(data) - back
        if data[-back] < 0x80:
            break
    return len(data)


def text_lines(data: bytes) -> list[str]:
    """Lines as text, with their ends; a byte that is not UTF-8 becomes a surrogate."""
    return data.decode("utf-8", errors="surrogateescape").splitlines(keepends=True)


def shown(line: str) -> str:
    """A line as it is shown: bytes that are not UTF-8 as the replacement character."""
    return (
        line
        if line.isascii()
        else line.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
    )


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
            return replace(
                again, counting="bytes" if filters.max_bytes is not None else "", cut=cut, skip_lines=cut
            )
        return replace(again, counting="", skip_lines=self.cut, skip_bytes=max(0, over))


def _size(found: list[str]) -> int:
    return sum(len(line) if line.isascii() else len(line.encode("utf-8")) for line in found)


def last_line_end(source: Source, start: int) -> int:
    """The position after the last whole line that ends after `start`; `start` if there is none."""
    for at, run in source.backward(start, source.end):
        cut = run.rfind(b"\n") + 1
        if cut:
            return at + cut
        if len(run) >= MAX_LINE:
            return at + _last_character_end(run)
    return start
