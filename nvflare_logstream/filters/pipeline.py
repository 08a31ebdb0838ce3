"""The whole pipeline over a text: what the server runs over a file, run to its end."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from nvflare_logstream import typed_time
from nvflare_logstream.filters.bounds import plan
from nvflare_logstream.filters.log import LogLines, TextLog
from nvflare_logstream.filters.rules import Filters

_PART = 1 << 20  # characters


@dataclass(frozen=True)
class FilterResult:
    """What is left of a log.

    Attributes:
        text: the lines that were kept.
        since_applied: `since` was asked for and could be applied.
        truncated: `tail` or `max_bytes` cut something off.
        lines: how many lines `text` has.
        bytes: how many UTF-8 bytes `text` has.
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
    until: datetime.datetime | str | None = None,
    **filters: Any,
) -> FilterResult:
    """Run the pipeline over a log that is in memory.

    Args:
        text: the log; a lone surrogate in it counts as one replacement character.
        since: a time as `typed_time.parse_since` reads it (one with a zone is compared as UTC), or a naive
            datetime.
        until: likewise.
        filters: all other fields of `Filters`.

    Raises:
        ArgumentError: naming the argument, the value and what is allowed.
    """
    wanted = Filters(since=_time("since", since), until=_time("until", until), **filters)
    log = LogLines(TextLog(text))
    reading, parts = plan(log, wanted), []
    while not reading.done:
        reading, part = reading.part(log, wanted, _PART)
        parts.append(part)
    kept = "".join(parts)
    return FilterResult(
        kept, reading.since_applied, reading.truncated, len(kept.splitlines()), len(kept.encode())
    )


def _time(argument: str, value: datetime.datetime | str | None) -> datetime.datetime | None:
    return typed_time.parse_since(argument, value) if isinstance(value, str) else value
