"""The stages that look at one line after the other: since → until → level → exclude → grep.

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
    """Where a `LineFilter` stands between two lines.

    Attributes:
        in_time, in_level: whether the record of the last line is kept by `since` and `until`, and by `level`.
        before: the lines that are context if a match follows.
        after: how many lines are still context of the last match.
        gap: a line was left out that none of these can bring back, since one was given out.
    """

    in_time: bool
    in_level: bool
    before: tuple[str, ...] = ()
    after: int = 0
    gap: bool = False


class LineFilter:
    """since → until → level → exclude → grep, fed one line after the other.

    Args:
        filters: what to keep.
        json: the log is in JSON form.
        timed: some line of the log has a time; without one, `since` and `until` are not applied.
        state: where an earlier filter stood, to go on from there.

    Attributes:
        in_time, in_level, after: as in `LineState`.
        begins_group: what `feed` has just given out does not follow what it gave out before it.
    """

    def __init__(self, filters: Filters, json: bool, timed: bool, state: LineState | None = None):
        self._filters, self._json = filters, json
        self._by_time = timed and filters.by_time
        self._least = lines.LEVELS[filters.level] if filters.level else None
        # What precedes the first time or level is kept only if nothing asks for one.
        state = state or LineState(not self._by_time, self._least is None)
        self.in_time, self.in_level, self.after = state.in_time, state.in_level, state.after
        self._before: deque[str] = deque()
        self._before_size = 0
        self._gap = False
        self.remember(state.before)
        self._gap = state.gap
        self.begins_group = False

    @property
    def state(self) -> LineState:
        """Where the filter stands."""
        return LineState(self.in_time, self.in_level, tuple(self._before), self.after, self._gap)

    def feed(self, line: str) -> list[str]:
        """The lines to give out now that `line` has been seen, `line` itself or lines of context before it
        among them.
        """
        self.begins_group = False
        if not (self._keeps_time(line) and self._keeps_level(line)) or self._filters.excludes(line):
            return []
        if self._filters.matches(line):
            return self.matched(line)
        if self.after:
            self.after -= 1
            return [line]
        self.remember([line])
        return []

    def matched(self, line: str) -> list[str]:
        """A line that matches, with the lines of context before it."""
        with_context = [*self._before, line]
        self._before.clear()
        self._before_size = 0
        self.after = self._filters.after
        self.begins_group, self._gap = self._gap and self._filters.context, False
        return with_context

    def remember(self, log_lines: Iterable[str]) -> None:
        """Lines that are given out only if a match follows."""
        for line in log_lines:
            self._before.append(line)
            self._before_size += len(line)
            while len(self._before) > self._filters.before or self._before_size > MAX_BEFORE:
                self._before_size -= len(self._before.popleft())
                self._gap = True

    def _keeps_time(self, line: str) -> bool:
        if not self._by_time:
            return True
        since, until = self._filters.since, self._filters.until
        time = lines.json_time(line) if self._json else lines.text_time(line)
        if time is not None:
            self.in_time = (since is None or time >= since) and (until is None or time <= until)
        elif self._json:
            return False  # as the runtime: in a JSON log every record has its own time
        return self.in_time

    def _keeps_level(self, line: str) -> bool:
        if self._least is None:
            return True
        level = lines.json_level(line) if self._json else lines.text_level(line)
        if level is not None:
            self.in_level = level >= self._least
        return self.in_level
