"""What to keep of a log: the filters, checked."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field, fields
from typing import Any

import re2

from nvflare_logstream import lines
from nvflare_logstream.errors import ArgumentError

_MAX_COUNT = 1 << 53
MAX_CONTEXT = 1000  # lines
MAX_PATTERN = 1000  # characters
# What looks at the surroundings of a match, which differ where the line stands within a longer text.
_ASSERTION = re.compile(r"[\^$]|\\[AzZbB]")


@dataclass(frozen=True)
class Filters:
    """What to keep of a log.

    Attributes:
        since: first time to keep, in the log's own clock (naive).
        until: last time to keep, likewise.
        level: least level to keep, such as "WARNING".
        grep: a pattern in RE2 syntax: keep the lines that match.
        ignore_case: `grep` does not tell capitals from small letters.
        invert: keep the lines that do not match `grep`.
        before: lines to keep before each match.
        after: lines to keep after each match.
        tail: most lines to keep, the last ones.
        max_bytes: most UTF-8 bytes to keep, the last ones.

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
    _pattern: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, datetime.datetime) or value.tzinfo is not None):
                raise ArgumentError(name, value, "a datetime without a zone, in the log's own clock")
        if self.level is not None and not (isinstance(self.level, str) and self.level in lines.LEVELS):
            raise ArgumentError("level", self.level, f"one of {', '.join(lines.LEVELS)}")
        for name, high in (
            ("tail", _MAX_COUNT),
            ("max_bytes", _MAX_COUNT),
            ("before", MAX_CONTEXT),
            ("after", MAX_CONTEXT),
        ):
            value = getattr(self, name)
            if value is None and name in ("tail", "max_bytes"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
                raise ArgumentError(name, value, f"a whole number from 0 to {high}")
        if self.head is not None and self.tail is not None:
            raise ArgumentError("head", self.head, "only without tail")
        for pattern in self.exclude:
            try:
                re2.compile(pattern)
            except re2.error:
                raise ArgumentError("exclude", pattern, "a pattern in RE2 syntax") from None
        object.__setattr__(self, "_pattern", self._compile())

    def _compile(self) -> Any:
        if self.grep is None:
            return None
        if not isinstance(self.grep, str) or len(self.grep) > MAX_PATTERN:
            raise ArgumentError("grep", self.grep, f"a pattern of at most {MAX_PATTERN} characters")
        options = re2.Options()
        options.case_sensitive = not self.ignore_case
        options.log_errors = False
        try:
            return re2.compile(self.grep, options)
        except (re2.error, UnicodeEncodeError) as error:
            why = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
            raise ArgumentError("grep", self.grep, f"a pattern in RE2 syntax ({why})") from None

    @property
    def drops_lines(self) -> bool:
        """Whether a line in the middle may be dropped."""
        return any(value is not None for value in (self.since, self.until, self.level, self.grep))

    @property
    def only_plain_grep(self) -> bool:
        """Whether `grep` alone drops lines, and a text without a match has no line with one."""
        if self.grep is None or self.invert or _ASSERTION.search(self.grep):
            return False
        return self.since is None and self.until is None and self.level is None

    def matches(self, line: str) -> bool:
        """Whether `grep` keeps the line."""
        is_match = self._pattern.search(line.rstrip("\r\n")) is not None
        return is_match is not self.invert


# The filters' names, the same wherever they travel.
FILTER_NAMES = tuple(entry.name for entry in fields(Filters) if entry.init)
