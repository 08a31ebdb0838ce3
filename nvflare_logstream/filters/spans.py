"""Between which times the lines of a piece of a log were written, found at the speed of memory.

A time is a number here: its fourteen digits from the year to the second. A rough span is a guess that is
proved: it is made of the minutes, hours or days in which the piece begins and ends, and one search by RE2
shows that no line has any other. It may be too wide, never too narrow.
"""

from __future__ import annotations

import datetime
import re
from functools import cache, lru_cache
from typing import Any, NamedTuple

import re2

from nvflare_logstream import lines

_LENGTH = 14  # digits of a time, from the year to the second
# Digits that the times in a cell share, and its seconds: ten seconds, a minute and so on up to a year.
_CELLS = ((13, 10), (12, 60), (11, 600), (10, 3600), (8, 86400), (6, 31 * 86400), (4, 366 * 86400))
_ROOM = 2  # times that a cell is longer than the piece: those near each other share cells, and patterns
_GUESSES = 6  # lines in other cells after which all are looked at: times in no order at all
_LAST = 1 << 12  # bytes at a piece's end that are looked at for its last time
_DIGITS = "0123456789"
_SHAPE = re.compile(rb"\n\[?(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)")
_JSON_SHAPE = re.compile(rb'\n\{"asctime": "(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,]\d+)?"')
_HIDDEN = re.compile(rb"\\u00[67]")  # a letter of a JSON key, in disguise


class Span(NamedTuple):
    """The first and the last time that lines may have."""

    low: int
    high: int

    def touches(self, other: Span) -> bool:
        """Whether a time may be in both."""
        return self.low <= other.high and self.high >= other.low

    def within(self, other: Span) -> bool:
        """Whether all times are in the other."""
        return self.low >= other.low and self.high <= other.high


NEVER = Span(10**_LENGTH, -1)  # of lines without times
ALWAYS = Span(-1, 10**_LENGTH)


def number_of(time: datetime.datetime) -> int:
    """A time as a number, without its microseconds."""
    return int(f"{time.year:04d}{time:%m%d%H%M%S}")


def text_span(data: bytes, end: int) -> Span:
    """A rough span of lines in text form: a newline, then whole lines up to `end`."""
    data, end = lines.with_plain_ends(data, end)
    found = _elsewhere(frozenset()).search(data, 0, end)
    if found is None:
        return NEVER
    first = last = _digits(found.group())
    for time in _SHAPE.findall(data, max(0, end - _LAST), end)[-1:]:
        last = _digits(time)
    length = _ROOM * abs(_seconds(last) - _seconds(first))
    shared = next((digits for digits, seconds in _CELLS if seconds > length), _CELLS[-1][0])
    cells, place = {first[:shared], last[:shared]}, 0
    for _ in range(_GUESSES):
        found = _elsewhere(frozenset(cells)).search(data, place, end)
        if found is None:
            low, high = min(cells).ljust(_LENGTH, "0"), max(cells).ljust(_LENGTH, "9")
            return Span(int(low), int(high))
        cells.add(_digits(found.group())[:shared])
        place = found.start()
    return _exact(_SHAPE.findall(data, 0, end))


def exact_text_span(data: bytes, end: int) -> Span:
    """The span of the same, ten times as slow."""
    data, end = lines.with_plain_ends(data, end)
    times = _SHAPE.findall(data, 0, end)
    return _exact(times) if times else NEVER


def json_span(data: bytes, end: int) -> Span:
    """The span of the same in JSON form; lines as the runtime writes them are looked at all at once."""
    plain, plain_end = lines.with_plain_ends(data, end)
    plain = plain[:plain_end].rstrip(b"\n")
    times = _JSON_SHAPE.findall(plain)
    if times and _has_one_time_a_line(plain, len(times)):
        return _exact(times)
    text = data[1:end].decode("utf-8", errors="replace")
    found = [time for line in text.splitlines(keepends=True) if (time := lines.json_time(line))]
    return Span(number_of(min(found)), number_of(max(found))) if found else NEVER


def _has_one_time_a_line(plain: bytes, count: int) -> bool:
    """Whether no record can have a time but the one that it begins with; `count` of them do."""
    if plain.count(b"\n") != count or plain.count(b'time"') != count or b'timestamp"' in plain:
        return False
    return not (b"\\u00" in plain and _HIDDEN.search(plain))


def _digits(time: bytes) -> str:
    return time.translate(None, b"\n[-:T ").decode()


def _exact(times: list[bytes]) -> Span:
    numbers = [int(_digits(time)) for time in set(times)]
    return Span(min(numbers), max(numbers))


def _seconds(time: str) -> int:
    """About how many seconds a time is after the year 0."""
    year, month, day, hour, minute, second = int(time[:4]), *(int(time[n : n + 2]) for n in range(4, 14, 2))
    return (((year * 12 + month) * 31 + day) * 24 + hour) * 3600 + minute * 60 + second


@cache
def _options() -> Any:
    options = re2.Options()
    options.encoding, options.log_errors = re2.Options.Encoding.LATIN1, False
    return options


@lru_cache(maxsize=64)
def _elsewhere(cells: frozenset[str]) -> Any:
    """Finds a line in text form whose time is in none of some cells, which are equally long."""
    forms, begun = [], {""}
    for place in range(max(map(len, cells), default=0)):
        for prefix in sorted(begun):
            known = {cell[place] for cell in cells if cell.startswith(prefix)}
            if others := "".join(digit for digit in _DIGITS if digit not in known):
                forms.append(_time([*prefix, f"[{others}]"]))
        begun = {cell[: place + 1] for cell in cells}
    times = "|".join(forms) if cells else _time([])
    return re2.compile(rf"\n\[?(?:{times})".encode(), _options())


def _time(digits: list[str]) -> str:
    """The pattern of a time that begins with these digits."""
    separators = {4: "-", 6: "-", 8: "[ T]", 10: ":", 12: ":"}
    digits = digits + ["[0-9]"] * (_LENGTH - len(digits))
    return "".join(separators.get(place, "") + digit for place, digit in enumerate(digits))
