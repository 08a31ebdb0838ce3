"""What to keep of a log: the filters, checked."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, fields

from nvflare_logstream import lines
from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.filters.patterns import MAX_PATTERN, Patterns

_MAX_COUNT = 1 << 53
MAX_CONTEXT = 1000  # lines
_HIGHEST = {
    **dict.fromkeys(("head", "tail", "max_bytes"), _MAX_COUNT),
    **dict.fromkeys(("before", "after"), MAX_CONTEXT),
}

__all__ = ["FILTER_NAMES", "MAX_CONTEXT", "MAX_PATTERN", "Filters"]


@dataclass(frozen=True)
class Filters:
    """What to keep of a log.

    Attributes:
        since: first time to keep, in the log's own clock (naive).
        until: last time to keep, likewise.
        level: least level to keep, such as "WARNING".
        grep: a pattern in RE2 syntax: keep the lines that match.
        ignore_case: `grep` and `exclude` do not tell capitals from small letters.
        invert: keep the lines that do not match `grep`.
        before: lines to keep before each match.
        after: lines to keep after each match.
        tail: most lines to keep, the last ones.
        max_bytes: most UTF-8 bytes to keep, the last ones.
        exclude: patterns: drop the lines that match any, before `grep` sees them.
        head: most lines to keep, the first ones; not together with `tail`.

    Raises:
        ArgumentError: naming the field, the value and what is allowed.
    """

    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    level: str | None = None
    grep: str | None = None
    ignore_case: bool = False
    invert: bool = False
    before: int = 0
    after: int = 0
    tail: int | None = None
    max_bytes: int | None = None
    exclude: tuple[str, ...] = ()
    head: int | None = None
    wanted: Patterns | None = field(default=None, init=False, repr=False, compare=False)
    unwanted: Patterns | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, datetime.datetime) or value.tzinfo is not None):
                raise ArgumentError(name, value, "a datetime without a zone, in the log's own clock")
        if self.level is not None and not (isinstance(self.level, str) and self.level in lines.LEVELS):
            raise ArgumentError("level", self.level, f"one of {', '.join(lines.LEVELS)}")
        for name, high in _HIGHEST.items():
            value = getattr(self, name)
            if value is None and high == _MAX_COUNT:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
                raise ArgumentError(name, value, f"a whole number from 0 to {high}")
        if self.head is not None and self.tail is not None:
            raise ArgumentError("head", self.head, "either the first lines (head) or the last ones (tail)")
        grep = () if self.grep is None else (self.grep,)
        object.__setattr__(self, "wanted", Patterns.compiled("grep", grep, self.ignore_case))
        object.__setattr__(self, "unwanted", Patterns.compiled("exclude", self.exclude, self.ignore_case))

    @property
    def drops_lines(self) -> bool:
        """Whether lines may be left out that are not before the last lines or bytes that are wanted."""
        if self.by_time or self.level is not None or self.head is not None:
            return True
        return self.wanted is not None or self.unwanted is not None

    @property
    def by_line(self) -> bool:
        """Whether each line is kept or dropped whatever stands around it, and none for its number."""
        return not (self.by_time or self.level is not None or self.head is not None or self.context)

    @property
    def by_time(self) -> bool:
        """Whether a line's time counts: `since` or `until` is given."""
        return self.since is not None or self.until is not None

    @property
    def context(self) -> bool:
        """Whether lines around matches are kept too."""
        return self.wanted is not None and bool(self.before or self.after)

    def matches(self, line: str) -> bool:
        """Whether `grep` keeps the line."""
        return self.wanted is None or self.wanted.found_in(line) is not self.invert

    def excludes(self, line: str) -> bool:
        """Whether `exclude` drops the line."""
        return self.unwanted is not None and self.unwanted.found_in(line)


# The filters' names, the same wherever they travel.
FILTER_NAMES = tuple(entry.name for entry in fields(Filters) if entry.init)
