"""A log as the filters read it: any bytes that can be read by offset, and the lines in them.

Lines are handled as text in which a byte that is not UTF-8 stands as a surrogate, so that offsets stay exact.
They leave as the runtime's own commands show them, with the replacement character.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from nvflare_logstream.errors import StoreError
from nvflare_logstream.filters.spans import ALWAYS, NEVER, Span
from nvflare_logstream.filters.times import LogTimes, Stretch

BLANK = 1 << 10  # bytes at a log's beginning that may be blank lines; what follows tells whether it is JSON
BLOCK = 1 << 16  # bytes read at a time, at first
GROWTH = 8  # how many times that where much is read: a block is searched at once
MAX_LINE = 16 << 20  # bytes; a longer line is handled in pieces: a log must not fill the server's memory


class Log(Protocol):
    """Bytes that can be read by offset: a file, a text, or ranges fetched from a server."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on, fewer at the end.

        Raises:
            StoreError: if they cannot be read now.
        """


class FileLog:
    """The first `size` bytes of a file."""

    def __init__(self, path: Path, size: int):
        self._path, self.size = path, size

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on, fewer at the end.

        Raises:
            StoreError: if the file is gone, cannot be read, or is shorter than it was: what is left must not
                pass for all of it.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise StoreError(f"cannot read {self._path.name}: {error.strerror}") from error
        if len(data) < min(length, self.size - offset):
            name = self._path.name
            raise StoreError(f"{name} on the server's disk is shorter than the {self.size} bytes stored")
        return data


class TextLog:
    """A text in memory; a lone surrogate in it counts as one replacement character."""

    def __init__(self, text: str):
        try:
            self._data = text.encode()
        except UnicodeEncodeError:
            paired = text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
            self._data = paired.encode()
        self.size = len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on, fewer at the end."""
        return self._data[offset : offset + length]


class LogLines:
    """The lines of a log.

    Args:
        log: the bytes.
        times: what is known of the times in it; without, all of it is looked at for a window of time.

    Attributes:
        end: offset up to which the log is read; the log's size unless it is changed.
        bytes_read: bytes read so far.
        rendered: they are records in JSON form, read as the text that they are shown as.
    """

    rendered = False

    def __init__(self, log: Log, times: LogTimes | None = None):
        self._log, self._times, self.end = log, times, log.size
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on, fewer at the end.

        Raises:
            StoreError: if they cannot be read now.
        """
        length = min(length, self.end - offset)
        if length <= 0:
            return b""
        data = self._log.read(offset, length)
        self.bytes_read += len(data)
        return data

    def stretch(self, offset: int, json: bool, window: Span = NEVER) -> Stretch:
        """A part of the log, from `offset` to a line's start or the log's end, and which times it has.

        Args:
            offset: a line's start.
            json: read the lines as records in JSON form.
            window: find out whether there are times in here.

        Raises:
            StoreError: if the log cannot be read now.
        """
        chunks = self._times.chunks(json) if self._times is not None else None
        known = chunks.at(offset, self.end, self.read, window) if chunks is not None else None
        return known or Stretch(self.end, ALWAYS)

    def forward(self, start: int, end: int) -> Iterator[tuple[int, list[str]]]:
        """Whole lines from `start` to `end`, a block at a time, with the offset after them."""
        for offset, block in self.blocks(start, end):
            yield offset, text_lines(block)

    def blocks(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Runs of whole lines from `start` to `end`, with the offset after them.

        Each is larger than the one before it, up to `GROWTH` blocks.
        """
        rest: list[bytes] = []
        offset, size = start, 0  # where to read next, and how many bytes `rest` has
        step = BLOCK
        while offset < end and (data := self.read(offset, min(step, end - offset))):
            step = max(BLOCK, min(2 * step, GROWTH * BLOCK, MAX_LINE - size - step))
            cut = data.rfind(b"\n") + 1
            if not cut and size + len(data) >= MAX_LINE:
                cut = _last_character_end(data)
            offset += cut or len(data)  # what begins behind the last line's end is read again: it is little
            rest.append(data[:cut] if cut else data)
            size += len(data)
            if cut:
                yield offset, rest[0] if len(rest) == 1 else b"".join(rest)
                rest, size = [], 0
        if size:
            yield offset, b"".join(rest)

    def backward(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Runs of whole lines from `end` back to `start`, with the offset at which each begins."""
        rest: list[bytes] = []
        offset, size, step = end, 0, BLOCK
        while offset > start:
            length = min(step, offset - start)
            step = max(BLOCK, min(2 * step, GROWTH * BLOCK, MAX_LINE - size - step))
            offset, data = offset - length, self.read(offset - length, length)
            cut = data.find(b"\n", 0, len(data) if rest else -1) + 1
            if offset == start:
                cut = 0
            elif not cut and size + len(data) >= MAX_LINE:
                cut = _first_character(data)
            elif not cut:
                rest, size = [data, *rest], size + len(data)
                continue
            yield offset + cut, b"".join([data[cut:], *rest])
            rest, size = ([data[:cut]], cut) if cut else ([], 0)


def last_line_end(log_lines: LogLines, start: int) -> int:
    """The offset after the last whole line that ends after `start`; `start` if there is none.

    Blank lines at a log's beginning count once a line has come that tells whether they belong to a JSON log.
    """
    if log_lines.end <= BLANK and not log_lines.read(0, log_lines.end).strip():
        return start
    for offset, run in log_lines.backward(start, log_lines.end):
        cut = run.rfind(b"\n") + 1
        if cut:
            return offset + cut
        if len(run) >= MAX_LINE:
            return offset + _last_character_end(run)
    return start


def text_lines(data: bytes) -> list[str]:
    """Lines as text, with their ends; a byte that is not UTF-8 becomes a surrogate."""
    return data.decode("utf-8", errors="surrogateescape").splitlines(keepends=True)


def _first_character(data: bytes) -> int:
    """Where the first whole UTF-8 character of `data` begins."""
    return next((start for start in range(min(4, len(data))) if data[start] & 0xC0 != 0x80), 0)


def _last_character_end(data: bytes) -> int:
    """Where the last whole UTF-8 character of `data` ends."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] >= 0xC0:
            return len(data) - back
        if data[-back] < 0x80:
            break
    return len(data)
