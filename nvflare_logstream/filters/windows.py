"""Stretches of a block that a stage keeps, where a line is kept or dropped as the record it belongs to.

A record that changes from one to the other is found by one pattern over the block, then judged by `lines`:
only such records are looked at.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from typing import Any

import re2

from nvflare_logstream import lines

Ranges = list[tuple[int, int]]  # of whole lines: where they begin and end in a block
_FIRST, _LAST = "0000-00-00 00:00:00", "9999-99-99 99:99:99"


class Windows:
    """The lines of a block that belong to records that are kept.

    Args:
        entering: a pattern that every record that is kept begins with; others may too.
        leaving: one that every record that is dropped begins with; others may too.
        judge: whether a line is kept; None if that is as for the line before it.
    """

    def __init__(self, entering: str, leaving: str, judge: Callable[[str], bool | None]):
        self._entering, self._leaving, self._judge = _Record(entering), _Record(leaving), judge

    def within(self, data: bytes, ranges: Ranges, inside: bool) -> tuple[Ranges, bool]:
        """What is kept of these stretches of a block, and whether the last line of them was.

        Args:
            data: valid UTF-8 in which only "\\n" ends a line.
            ranges: what of it counts.
            inside: whether the line before was kept.
        """
        kept: Ranges = []
        for begin, end in ranges:
            at = since = begin  # where to search; where the stretch that is kept began
            while (start := (self._leaving if inside else self._entering).find(data, at, end)) >= 0:
                at = data.find(b"\n", start, end) + 1 or end
                if self._judge(data[start:at].decode()) is (not inside):
                    if inside and start > since:
                        kept.append((since, start))
                    inside, since = not inside, start
                if at == end:
                    break
            if inside and end > since:
                kept.append((since, end))
        return kept, inside


class _Record:
    """Lines that begin with a pattern."""

    def __init__(self, pattern: str):
        options = re2.Options()
        options.never_capture = True
        self._first: Any = re2.compile(pattern, options)
        # Not "(?m)^": RE2 skips to the next "\n" as soon as a line is out of the question.
        self._other: Any = re2.compile(f"\n(?:{pattern})", options)

    def find(self, data: bytes, start: int, end: int) -> int:
        """Where the first of them begins, from the line start `start` on, or -1."""
        if not start and self._first.match(data, 0, end):
            return 0
        match = self._other.search(data, max(0, start - 1), end)
        return -1 if match is None else int(match.start()) + 1


@functools.cache
def level_windows(least: int) -> Windows:
    """The records with at least this level, in text form."""
    high = [name for name, level in lines.KNOWN_LEVELS.items() if level >= least]
    low = [name for name, level in lines.KNOWN_LEVELS.items() if level < least]

    def judge(line: str) -> bool | None:
        level = lines.text_level(line)
        return None if level is None else level >= least

    entering = lines.level_pattern("|".join(high), f"Level [0-9]+|{_other_words(low, first=True)}")
    return Windows(entering, lines.level_pattern("|".join(low), "|".join(["Level [0-9]+", *low])), judge)


def _other_words(words: list[str], first: bool = False) -> str:
    """A pattern for words in capitals that are none of these."""
    rest: dict[str, list[str]] = {}
    for word in words:
        if word:
            rest.setdefault(word[0], []).append(word[1:])
    others = "".join(
        char for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "0123456789_" * (not first) if char not in rest
    )
    parts = [f"[{others}][A-Z0-9_]*"] + [f"{char}{_other_words(ends)}" for char, ends in rest.items()]
    if not first and "" not in words:
        parts.append("")
    return f"(?:{'|'.join(parts)})"


@functools.lru_cache(maxsize=64)
def time_windows(since: datetime.datetime | None, until: datetime.datetime | None) -> Windows:
    """The records of this time, in text form."""
    low = _FIRST if since is None else since.isoformat(" ", "seconds")
    high = _LAST if until is None else until.isoformat(" ", "seconds")

    def judge(line: str) -> bool | None:
        time = lines.text_time(line)
        if time is None:
            return None
        return (since is None or time >= since) and (until is None or time <= until)

    # To the second, both sides of a bound included: a fraction is judged with its line.
    leaving = [_between(_FIRST, low)] * (since is not None) + [_between(high, _LAST)] * (until is not None)
    inside = _between(low, high) if low <= high else r"[^\x00-\x{10FFFF}]"
    return Windows(rf"\[?{inside}", rf"\[?(?:{'|'.join(leaving)})", judge)


def _between(low: str, high: str) -> str:
    """A pattern for times, to the second, from `low` to `high`."""
    same = next(
        (index for index, chars in enumerate(zip(low, high, strict=True)) if chars[0] != chars[1]), len(low)
    )
    if same == len(low):
        return _any(low, exactly=True)
    rest = slice(same + 1, None)
    parts = [low[same] + _beyond(low[rest], "9"), high[same] + _beyond(high[rest], "0")]
    if int(high[same]) - int(low[same]) > 1:
        parts.append(f"[{int(low[same]) + 1}-{int(high[same]) - 1}]{_any(low[rest])}")
    return f"{_any(low[:same], exactly=True)}(?:{'|'.join(parts)})"


def _beyond(bound: str, last: str) -> str:
    """A pattern for what is between `bound` and the last ("9") or first ("0") of all, both included."""
    if not bound:
        return ""
    first, rest = bound[0], bound[1:]
    same = _any(first, exactly=True) + _beyond(rest, last)
    if not first.isdigit() or first == last:
        return same
    step = 1 if last == "9" else -1
    low, high = sorted((int(first) + step, int(last)))
    return f"(?:{same}|[{low}-{high}]{_any(rest)})"


def _any(form: str, exactly: bool = False) -> str:
    """A pattern for a part of a time of this form, or for this very part."""
    return "".join("[ T]" if c == " " else c if exactly or not c.isdigit() else "[0-9]" for c in form)
