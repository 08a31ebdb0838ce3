"""Patterns in RE2 syntax: found in a line, or in all lines of a block of bytes at once.

What is found in a block is exactly what is found line by line: in a block a pattern never matches a line's
end (RE2's `never_nl`), and `^`, `$`, `\\A` and `\\z` mean the ends of a line. A pattern of which that cannot
be said is looked for line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import re2

from nvflare_logstream.errors import ArgumentError

MAX_PATTERN = 1000  # characters
MAX_PATTERNS = 100
_MISSES = 64  # lines with the literal but without a match, until a block is searched for the whole pattern
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# Bytes of any kind, quoted text, and flags that are taken back: what `_in_block` does not translate.
_ONLY_IN_LINES = re.compile(r"\\[CQ]|\(\?[a-zA-Z]*-")
# One part of a pattern: an escape, a class, another character; with what repeats it.
_PART = re.compile(r"(\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|.)([*+?]|\{[0-9,]*\})?", re.DOTALL)
_NOT_SO_EASY = re.compile(r"[|(]|\\[pPxQC0-9]")  # alternatives, groups, and escapes of several characters
_META = frozenset("^$.|()[]{}*+?\\")


class Patterns:
    """One pattern or several, any of which is to be found.

    Args:
        patterns: in RE2 syntax; at least one.
        ignore_case: capitals are not told from small letters.

    Raises:
        re2.error: if they are no patterns.
    """

    def __init__(self, patterns: tuple[str, ...], ignore_case: bool):
        for pattern in patterns:
            re2.compile(pattern, _options(ignore_case))
        joined = patterns[0] if len(patterns) == 1 else "|".join(f"(?:{pattern})" for pattern in patterns)
        self._in_line = re2.compile(joined, _options(ignore_case))
        self._in_block: Any = None
        self._literal, self._is_literal = b"", False
        # What looks at a line's ends differs where the line stands within a longer text.
        self._plain = not re.search(r"[\^$]|\\[AzbB]", joined)
        if not any(map(_ONLY_IN_LINES.search, patterns)):
            options = _options(ignore_case)
            options.never_nl = True
            self._in_block = re2.compile(f"(?m){_ESCAPE.sub(_line_end, joined)}", options)
            if len(patterns) == 1 and not ignore_case:
                literal = _literal(joined)
                self._literal, self._is_literal = literal.encode(), literal == joined

    @classmethod
    def compiled(cls, argument: str, given: tuple[str, ...], ignore_case: bool) -> Patterns | None:
        """The patterns of an argument, or None if there are none.

        Raises:
            ArgumentError: naming the argument, the value and what is allowed.
        """
        if not isinstance(given, tuple | list) or len(given) > MAX_PATTERNS:
            raise ArgumentError(argument, given, f"at most {MAX_PATTERNS} patterns")
        for pattern in given:
            if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN:
                raise ArgumentError(argument, pattern, f"a pattern of at most {MAX_PATTERN} characters")
        try:
            return cls(tuple(given), ignore_case) if given else None
        except (re2.error, UnicodeEncodeError) as error:
            why = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
            shown = given[0] if len(given) == 1 else given
            raise ArgumentError(argument, shown, f"a pattern in RE2 syntax ({why})") from None

    @property
    def for_blocks(self) -> bool:
        """Whether `hits` can tell the lines of a block."""
        return self._in_block is not None

    def found_in(self, line: str) -> bool:
        """Whether a line has a match; its end does not belong to it."""
        return self._in_line.search(line.rstrip("\r\n")) is not None

    def not_in(self, data: bytes) -> bool:
        """Whether it is plain from one look that no line of `data` (valid UTF-8) has a match."""
        return self._plain and self._in_line.search(data) is None

    def hits(self, data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The lines of a block that have a match: where each begins, and where it ends with its "\\n".

        Args:
            data: valid UTF-8 in which only "\\n" ends a line.
            start: where the lines begin that are searched.
            end: where they end.
        """
        # A pattern may be found at the end of the last line, but not behind it.
        stop = end - 1 if data[end - 1 : end] == b"\n" else end
        literal, misses = self._literal, 0
        search = self._in_block.search
        while start < end:
            if literal and misses < _MISSES:
                found = data.find(literal, start, stop)
            else:
                match = search(data, start, stop)
                found = -1 if match is None else match.start()
            if found < 0:
                return
            start = data.rfind(b"\n", start, found) + 1 or start
            line_end = data.find(b"\n", found, end) + 1 or end
            sure = not literal or self._is_literal or misses >= _MISSES
            if sure or search(data, start, line_end - (data[line_end - 1] == 10)) is not None:
                yield start, line_end
            else:
                misses += 1
            start = line_end


def _options(ignore_case: bool) -> Any:
    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.log_errors = False
    options.never_capture = True
    return options


def _line_end(escape: re.Match[str]) -> str:
    return {"A": "^", "z": "$"}.get(escape[1], escape[0])


def _literal(pattern: str) -> str:
    """The longest text that every match of a pattern has in it, as far as that is easily seen; or ""."""
    if _NOT_SO_EASY.search(pattern):
        return ""
    longest = run = ""
    for part, repeated in _PART.findall(pattern):
        char = part[1:] if part[0] == "\\" and not part[1:].isalnum() and part[1:].isascii() else part
        is_char = len(char) == 1 and (part[0] == "\\" or char not in _META)
        if is_char and repeated in ("", "+"):
            run += char
        if not is_char or repeated:
            longest, run = max(longest, run, key=len), ""
    return max(longest, run, key=len)
