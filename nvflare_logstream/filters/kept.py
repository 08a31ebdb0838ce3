"""What the filters keep of one block of a log."""

from __future__ import annotations

from typing import NamedTuple

from nvflare_logstream import lines


class Kept(NamedTuple):
    """Pieces of whole lines, as they are shown.

    Attributes:
        pieces: valid UTF-8.
        by_line: every piece is one line; else only "\\n" ends a line in them.
        breaks: indices of the pieces with which a group begins that does not follow the line before.
    """

    pieces: list[bytes]
    by_line: bool = False
    breaks: tuple[int, ...] = ()

    @classmethod
    def of(cls, data: bytes) -> Kept:
        """All lines of some valid UTF-8, whatever ends them."""
        if not data or lines.has_plain_ends(data):
            return cls([data] if data else [])
        return cls([line.encode() for line in data.decode().splitlines(keepends=True)], by_line=True)

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return len(self.pieces) if self.by_line else sum(map(_lines, self.pieces))

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return sum(map(len, self.pieces))

    def text(self) -> tuple[str, tuple[int, ...]]:
        """The text, and where in it, in characters, groups begin."""
        if not self.breaks:
            return b"".join(self.pieces).decode(), ()
        texts, groups, at = [piece.decode() for piece in self.pieces], [], 0
        begins = set(self.breaks)
        for number, text in enumerate(texts):
            if number in begins:
                groups.append(at)
            at += len(text)
        return "".join(texts), tuple(groups)

    def divided(self, count: int) -> tuple[Kept, Kept]:
        """The first `count` lines, and the rest."""
        number = 0
        while number < len(self.pieces) and count:
            piece_lines = 1 if self.by_line else _lines(self.pieces[number])
            if piece_lines > count:
                return self._cut(number, _end_of_lines(self.pieces[number], count))
            count -= piece_lines
            number += 1
        return self._cut(number, 0)

    def without_bytes(self, count: int) -> Kept:
        """The same without the first `count` bytes; a character that is cut goes as a whole."""
        number = 0
        while number < len(self.pieces) and len(self.pieces[number]) <= count:
            count -= len(self.pieces[number])
            number += 1
        rest = self._cut(number, 0)[1]
        if count and rest.pieces:
            first = rest.pieces[0][count:].decode(errors="ignore").encode()
            rest = rest._replace(pieces=[first, *rest.pieces[1:]])
        return rest

    def _cut(self, number: int, at: int) -> tuple[Kept, Kept]:
        """Divided within the piece of this number, or before it if `at` is 0."""
        first, rest = self.pieces[:number], self.pieces[number:]
        if at:
            first, rest = [*first, rest[0][:at]], [rest[0][at:], *rest[1:]]
        breaks = tuple(index - number for index in self.breaks if index >= number + bool(at))
        before = tuple(index for index in self.breaks if index < len(first))
        return Kept(first, self.by_line, before), Kept(rest, self.by_line, breaks)


def _lines(piece: bytes) -> int:
    return piece.count(b"\n") + (not piece.endswith(b"\n"))


def _end_of_lines(piece: bytes, count: int) -> int:
    """Where the first `count` lines of a piece with more of them end."""
    end = 0
    for _ in range(count):
        end = piece.index(b"\n", end) + 1
    return end
