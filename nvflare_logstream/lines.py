"""What a log line looks like: the only place that knows.

Two forms: the runtime's text form, `2026-04-28 10:00:00,123 - name - LEVEL - message`, with raw continuation
lines (tracebacks) after it; and its JSON form, one object a line. Times in a log are written without a zone;
here they are naive values, and a time with a zone is turned into UTC first, as the runtime's own `nvflare job
logs` does.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

from nvflare_logstream.errors import ArgumentError

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
# Names that other loggers use. What has no rank stands above all: it is rather shown than hidden.
_UNRANKED = 60
KNOWN_LEVELS = {
    **LEVELS,
    **{"NOTSET": 0, "TRACE": 5, "VERBOSE": 15, "NOTICE": 25, "SUCCESS": 25, "WARN": 30, "FATAL": 50},
}
# A record begins with its time. Then come, between " - ", its level, or up to three names and its level: the
# formats of the runtime. A name in capitals behind the first one is a level, if one that nobody ranks.
_LEVEL_START = r"\[?[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}[^ \n]* - "
_LEVEL_FIRST_NAME = r"(?:[^ \n]|[ ]+(?:[^ \n-]|-[^ \n]))*[ ]* - "
# What begins like a level is no name: a search for the level can end there.
_LEVEL_SECOND_NAME = r"(?:[A-Z][A-Z0-9_]*[^A-Z0-9_ \n]|[^A-Z \n])[^ \n]* - "
_LEVEL_NAME = r"[^ \n]+ - "

_TIME = re.compile(r"\[?(?P<time>\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(?:[.,]\d+)?)")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TIME_KEYS = ("asctime", "timestamp", "time")
_ALLOWED = (
    "a time such as 2026-04-28T10:00:00, the same with Z or an offset such as +02:00, "
    "or a duration such as 10m or 1h30m"
)


def parse_time(text: str) -> datetime.datetime:
    """Read a timestamp; one with a zone becomes UTC. The result has no zone.

    Raises:
        ValueError: if `text` is no timestamp.
    """
    text = text.strip()
    if text.endswith("Z"):
        text = text[:-1] + "+00:00"
    text = text.replace(" ", "T", 1).replace(",", ".")
    time = datetime.datetime.fromisoformat(_whole_micros(text))
    if time.tzinfo is None:
        return time
    try:
        return time.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    except OverflowError:  # the calendar's first or last day, in another zone
        raise ValueError(f"{text} is out of range") from None


def _whole_micros(text: str) -> str:
    # Python 3.10 reads 3 or 6 digits of a second's fraction only; logs have any number.
    match = re.search(r"\.(\d+)", text)
    if match is None:
        return text
    return f"{text[: match.start(1)]}{match.group(1)[:6].ljust(6, '0')}{text[match.end(1) :]}"


def parse_since(
    argument: str, text: str, *, now: datetime.datetime | None = None, utc_offset: int | None = None
) -> datetime.datetime:
    """Read the value of `--since` or `--until` into the clock of a site's log.

    Args:
        argument: the option's name, for the error.
        text: a timestamp without a zone (the log's own clock), one with a zone, or a duration back from now.
        now: the present in UTC, naive.
        utc_offset: the site's offset from UTC in seconds; None where it is not known: the log's clock is then
            taken as UTC.

    Raises:
        ArgumentError: if `text` is neither.
    """
    if not isinstance(text, str):
        raise ArgumentError(argument, text, _ALLOWED)
    shift = datetime.timedelta(seconds=utc_offset or 0)
    duration = _DURATION.fullmatch(text.strip())
    try:
        if duration and any(duration.groups()):
            present = now or datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
            return present - _span(duration) + shift
        time = parse_time(text)
        return time + shift if _has_zone(text) else time
    except (ValueError, OverflowError):
        raise ArgumentError(argument, text, _ALLOWED) from None


def fixed_time(argument: str, text: str, now: float) -> str:
    """Pin a value of `--since` or `--until` to the present: a duration becomes a time in UTC.

    Args:
        argument: the option's name, for the error.
        text: as for `parse_since`.
        now: the present, in seconds since the epoch.

    Raises:
        ArgumentError: as `parse_since`.
    """
    present = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).replace(tzinfo=None)
    time = parse_since(argument, text, now=present)
    return f"{time.isoformat()}Z" if _DURATION.fullmatch(text.strip()) else text


def _span(duration: re.Match[str]) -> datetime.timedelta:
    days, hours, minutes, seconds = (int(part or 0) for part in duration.groups())
    return datetime.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _has_zone(text: str) -> bool:
    return re.search(r"(Z|[+-]\d{2}(:?\d{2}(:?\d{2})?)?)$", text.strip()[10:]) is not None


def text_time(line: str) -> datetime.datetime | None:
    """The time a text line begins with, or None for a continuation line."""
    match = _TIME.match(line)
    if match is None:
        return None
    try:
        return parse_time(match.group("time"))
    except ValueError:
        return None


def json_time(line: str) -> datetime.datetime | None:
    """The time in a JSON line, or None."""
    record = _record(line)
    for key in _TIME_KEYS if record is not None else ():
        value = record.get(key) if record else None
        if value:
            try:
                return parse_time(str(value))
            except ValueError:
                continue
    return None


def level_pattern(ranked: str, any_level: str) -> str:
    """A pattern for the beginning of a text line with a level, in the syntax of `re` and of RE2.

    Args:
        ranked: a pattern for levels where a name may stand too: in any of four fields.
        any_level: a pattern for what else is a level where the runtime's own format has one.
    """
    last = f"{_LEVEL_SECOND_NAME}(?:{_LEVEL_NAME})?(?:{ranked})"
    return f"{_LEVEL_START}(?:(?:{ranked})|{_LEVEL_FIRST_NAME}(?:(?:{any_level})|{last})) - "


_KNOWN = "|".join(KNOWN_LEVELS)
_LEVEL = re.compile(
    f"{_LEVEL_START}(?:(?P<a>{_KNOWN})|{_LEVEL_FIRST_NAME}(?:(?P<b>[A-Z][A-Z0-9_]*|Level [0-9]+)"
    f"|{_LEVEL_SECOND_NAME}(?:{_LEVEL_NAME})?(?P<c>{_KNOWN}))) - "
)


def text_level(line: str) -> int | None:
    """The level of a text line that begins a record, or None."""
    match = _LEVEL.match(line)
    return _rank(match["a"] or match["b"] or match["c"]) if match else None


def json_level(line: str) -> int | None:
    """The level in a JSON line, or None."""
    record = _record(line) or {}
    level = record.get("levelname") or record.get("level")
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    return _rank(level.strip()) if isinstance(level, str) and level.strip() else None


def _rank(level: str) -> int:
    number = re.fullmatch(r"(?:Level )?([0-9]{1,9})", level)
    return int(number[1]) if number else KNOWN_LEVELS.get(level.upper(), _UNRANKED)


def visible(text: str) -> str:
    """A text whose control characters, except tabs and line ends, are shown as \\x1b and the like."""
    return text if text.isprintable() else _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def in_one_line(text: str) -> str:
    """A text as one line that a terminal only shows: what is not printable becomes \\x1b and the like."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def is_json(text: str) -> bool:
    """Whether a log is in JSON form, judged by its first line that is not blank."""
    for line in text.splitlines():
        if line.strip():
            return _record(line.strip()) is not None
    return False


def json_as_text(text: str) -> str:
    """Render lines in JSON form as the text form reads; what is not a JSON object stays as it is."""
    rendered = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped:
            record = _record(stripped)
            rendered.append(line if record is None else _record_as_text(record))
    return "\n".join(rendered) + "\n" if rendered else ""


def _record_as_text(record: dict[str, Any]) -> str:
    fields = (_TIME_KEYS, ("name", "fullName"), ("levelname", "level"), ("fl_ctx",), ("message", "msg"))
    values = [next((record[key] for key in keys if record.get(key)), "") for keys in fields]
    shown = [str(value) for value in values if value not in (None, "")]
    return " - ".join(shown) if shown else json.dumps(record, default=str)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
