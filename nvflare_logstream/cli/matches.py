"""What was searched for, made visible in a line on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from nvflare_logstream.filters.patterns import Patterns


class Highlight:
    """Shows where patterns match in a line.

    Args:
        grep: the patterns of which each was searched for.
        highlight: those that are only to be seen.
        ignore_case: capitals are not told from small letters.

    Raises:
        ArgumentError: naming the option, the value and what is allowed.
    """

    def __init__(self, grep: tuple[str, ...], highlight: tuple[str, ...], ignore_case: bool):
        found = [Patterns.compiled("grep", (pattern,), ignore_case) for pattern in grep]
        found += [Patterns.compiled("highlight", (pattern,), ignore_case) for pattern in highlight]
        self._patterns = [patterns for patterns in found if patterns]

    def styled(self, line: str, colour: str | None) -> str:
        """The line in a colour, with its matches in reverse."""
        parts, end = [], 0
        for start, stop in self._matches(line):
            if stop <= end:
                continue
            start = max(start, end)
            parts += [_coloured(line[end:start], colour)]
            parts += [typer.style(line[start:stop], fg=colour, bold=True, reverse=True)]
            end = stop
        return "".join([*parts, _coloured(line[end:], colour)])

    def _matches(self, line: str) -> Iterator[tuple[int, int]]:
        yield from sorted(span for patterns in self._patterns for span in patterns.spans(line))


def _coloured(text: str, colour: str | None) -> str:
    return typer.style(text, fg=colour) if text and colour else text
