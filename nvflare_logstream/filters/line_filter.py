"""The stages that look at one line after the other: since → until → level → grep.

A continuation line (a traceback) belongs to the record before it, for `since`, `until` and `level`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from nvflare_logstream import lines
from nvflare_logstream.filters.rules import Filters

MAX_BEFORE = 1 << 20  # characters of lines kept in case a match follows; of more, the last ones


class LineState(NamedTuple):
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
        """The lines to give out now that `line` has been seen, `line` itself or lines of context before it
        among them.
        """
        if not (self._keeps_time(line) and self._keeps_level(line)):
            return []
        if self._filters.grep is None:
            return [line]
        if self._filters.matches(line):
            with_context = [*self._before, line]
            self._before.clear()
            self._before_size = 0
            self._after = self._filters.after
            return with_context
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
        """`feed` for many lines; skips a block in which a plain pattern does not occur, ten times as fast."""
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
