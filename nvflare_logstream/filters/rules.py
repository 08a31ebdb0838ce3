"""The log filter pipeline: since → (until, level, grep) → tail → max-bytes. Pure; the server, the command and the API all use it.

`since`, `tail` and `max_bytes` give what `nvflare job logs` of nvflare 2.9 gives on the same text, for text and JSON logs, to the
byte and with the same flags (a property test compares the two). The rest goes into the same order:

* a continuation line (a traceback) belongs to the record before it, for `since`, `until` and `level`;
* where no line has a time, `since` and `until` are not applied, and the result says so;
* `grep` looks at single lines, in RE2 syntax, whose time is linear in the log whatever the pattern;
* `tail` keeps the last lines of what is left, `max_bytes` the last bytes of that, never half a character.

Over a file, without loading it, the same pipeline runs in `nvflare_logstream.filters.reading`.
"""

from __future__ import annotations

import datetime
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import re2

from nvflare_logstream import lines
from nvflare_logstream.errors import ArgumentError

_MAX_COUNT = 1 << 53
_ASSERTION = re.compile(
    r"[\^$]|\\[AzZbB]"
)  # what looks at a match's surroundings, which are other ones within a longer text
_MAX_CONTEXT = 1000
MAX_BEFORE = (
    1 << 20
)  # characters of lines that are kept for the case that a match follows; the last ones of more
_MAX_PATTERN = 1000


@dataclass(frozen=True)
class Filters:
    """What to keep of a log.

    Attributes:
        since, until: first and last time to keep, in the log's own clock (naive).
        level: least level to keep, such as "WARNING".
        grep: a pattern in RE2 syntax; `ignore_case` and `invert` (keep what does not match) change its meaning, `before` and
            `after` add that many lines around each match.
        tail: most lines to keep; max_bytes: most UTF-8 bytes to keep.

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
            ("before", _MAX_CONTEXT),
            ("after", _MAX_CONTEXT),
        ):
            value = getattr(self, name)
            if value is None and name in ("tail", "max_bytes"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
                raise ArgumentError(name, value, f"a whole number from 0 to {high}")
        object.__setattr__(self, "_pattern", self._compile())

    def _compile(self) -> Any:
        if self.grep is None:
            return None
        if not isinstance(self.grep, str) or len(self.grep) > _MAX_PATTERN:
            raise ArgumentError("grep", self.grep, f"a pattern of at most {_MAX_PATTERN} characters")
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
        """Whether `grep` alone drops lines, with a pattern that matches in any text around a line that it matches in."""
        others = (self.since, self.until, self.level)
        return (
            self.grep is not None
            and not self.invert
            and others == (None,) * 3
            and not _ASSERTION.search(self.grep)
        )

    def matches(self, line: str) -> bool:
        """Whether `grep` keeps the line."""
        found = self._pattern.search(line.rstrip("\r\n")) is not None
        return found is not self.invert


FILTER_NAMES = tuple(
    entry.name for entry in fields(Filters) if entry.init
)  # as they are called wherever they travel


@dataclass(frozen=True)
class LineState:
    """Where a `LineFilter` stands between two lines."""

    in_time: bool
    in_level: bool
    before: tuple[str, ...] = ()
    after: int = 0


class LineFilter:
    """since → until → level → grep, fed one line after the other.

    Args:
        filters: what to keep.
        json: the log is in JSON form.
        timed: some line of the log has a time; without one, `since` and `until` are not applied.
        state: where an earlier filter stood, to go on from there.
    """

    def __init__(self, filters: Filters, json: bool, timed: bool, state: LineState | None = None):
        self._filters, self._json = filters, json
        self._since = filters.since if timed else None
        self._until = filters.until if timed else None
        self._least = lines.LEVELS[filters.level] if filters.level else None
        # What precedes the first time or level is kept only if nothing asks for one.
        state = state or LineState(self._since is None and self._until is None, self._least is None)
        self._in_time, self._in_level, self._after = state.in_time, state.in_level, state.after
        self._before: deque[str] = deque(maxlen=filters.before)
        self._before_size = 0
        self._remember(state.before)

    @property
    def state(self) -> LineState:
        """Where the filter stands."""
        return LineState(self._in_time, self._in_level, tuple(self._before), self._after)

    def feed(self, line: str) -> list[str]:
        """The lines to give out now that `line` has been seen, `line` itself or lines of context before it among them."""
        if not (self._keeps_time(line) and self._keeps_level(line)):
            return []
        if self._filters.grep is None:
            return [line]
        if self._filters.matches(line):
            found = [*self._before, line]
            self._before.clear()
            self._before_size = 0
            self._after = self._filters.after
            return found
        if self._after:
            self._after -= 1
            return [line]
        self._remember([line])
        return []

    def _remember(self, log_lines: Iterable[str]) -> None:
        for line in log_lines if self._filters.before else ():
            if len(self._before) == self._filters.before:
                self._before_size -= len(self._before[0])
            self._before.append(line)
            self._before_size += len(line)
            while self._before_size > MAX_BEFORE:
                self._before_size -= len(self._before.popleft())

    def feed_all(self, log_lines: list[str]) -> list[str]:
        """`feed` for many lines; those in which a plain pattern is nowhere are passed over at once, ten times as fast."""
        if self._after or not self._filters.only_plain_grep or self._filters.matches("".join(log_lines)):
            return [kept for line in log_lines for kept in self.feed(line)]
        self._remember(log_lines[-self._filters.before :])
        return []

    def _keeps_time(self, line: str) -> bool:
        if self._since is None and self._until is None:
            return True
        time = lines.json_time(line) if self._json else lines.text_time(line)
        if time is not None:
            self._in_time = (self._since is None or time >= self._since) and (
                self._until is None or time <= self._until
            )
        elif self._json:
            return False  # as the runtime: in a JSON log every record has its own time
        return self._in_time

    def _keeps_level(self, line: str) -> bool:
        if self._least is None:
            return True
        level = lines.json_level(line) if self._json else lines.text_level(line)
        if level is not None:
            self._in_level = level >= self._least
        return self._in_level


def has_time(log_lines: Iterable[str], json: bool) -> bool:
    """Whether any line has a time."""
    time_of = lines.json_time if json else lines.text_time
    return any(time_of(line) is not None for line in log_lines)


@dataclass(frozen=True)
class FilterResult:
    """What is left of a log.

    Attributes:
        text: the lines that were kept.
        since_applied: `since` was asked for and could be applied.
        truncated: `tail` or `max_bytes` cut something off.
        lines: how many lines `text` has; bytes: how many UTF-8 bytes.
    """

    text: str
    since_applied: bool
    truncated: bool
    lines: int
    bytes: int


def apply_filters(
    text: str,
    *,
    since: datetime.datetime | str | None = None,
    tail: int | None = None,
    max_bytes: int | None = None,
    until: datetime.datetime | str | None = None,
    level: str | None = None,
    grep: str | None = None,
    ignore_case: bool = False,
    invert: bool = False,
    before: int = 0,
    after: int = 0,
) -> FilterResult:
    """Run the pipeline over a whole log.

    Args:
        text: the log.
        since: a time as `lines.parse_since` reads it (a zoned one is compared as UTC), or a naive datetime.
        tail: as in `Filters`, and so are the others.
        max_bytes: most UTF-8 bytes to keep.
        until: last time to keep, as `since`.
        level: least level to keep.
        grep: a pattern in RE2 syntax.
        ignore_case: `grep` does not tell capitals from small letters.
        invert: keep the lines that do not match `grep`.
        before: lines to keep before each match.
        after: lines to keep after each match.

    Raises:
        ArgumentError: naming the argument, the value and what is allowed.
    """
    times = {
        name: lines.parse_since(name, value) if isinstance(value, str) else value
        for name, value in (("since", since), ("until", until))
    }
    filters = Filters(
        **times,
        level=level,
        grep=grep,
        ignore_case=ignore_case,
        invert=invert,
        before=before,
        after=after,
        tail=tail,
        max_bytes=max_bytes,
    )
    kept, since_applied = text.splitlines(keepends=True), False
    if filters.drops_lines:
        json = lines.is_json(text)
        timed = has_time(kept, json)
        since_applied = timed and filters.since is not None
        line_filter = LineFilter(filters, json, timed)
        kept = [found for line in kept for found in line_filter.feed(line)]
    cut = False
    if tail is not None and len(kept) > tail:
        kept, cut = kept[len(kept) - tail :], True
    result, cut_bytes = keep_last_bytes("".join(kept), max_bytes)
    return result_of(result, since_applied, cut or cut_bytes)


def keep_last_bytes(text: str, max_bytes: int | None) -> tuple[str, bool]:
    """The last `max_bytes` UTF-8 bytes of `text`, without half a character; and whether anything was cut off."""
    encoded = text.encode("utf-8", errors="surrogatepass")
    if max_bytes is None or len(encoded) <= max_bytes:
        return text, False
    return encoded[len(encoded) - max_bytes :].decode("utf-8", errors="ignore"), True


def result_of(text: str, since_applied: bool, truncated: bool) -> FilterResult:
    """A result with its counts."""
    size = len(text.encode("utf-8", errors="surrogatepass"))
    return FilterResult(text, since_applied, truncated, len(text.splitlines()), size)
