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
# What a terminal obeys, or what hides in a text: control characters, signs that turn the direction of writing
# or take no room (what Unicode calls ignorable, except that which belongs to emoji), separators of lines and
# paragraphs, and halves of surrogate pairs.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_TIME_KEYS = ("asctime", "timestamp", "time")
# What ends a line for `str.splitlines`, and so for the runtime's commands, apart from "\n"; in UTF-8.
_ASCII_ENDS = (b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e")
_WIDE_ENDS = tuple(end.encode() for end in "\x85\u2028\u2029")
_PLAIN_ENDS = bytes.maketrans(b"".join(_ASCII_ENDS), b"\n" * len(_ASCII_ENDS))


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
    """A text that a terminal only shows: what it would obey, and what nobody would see, becomes \\x1b and the
    like. Tabs and line ends stay.
    """
    return text if text.isascii() and text.isprintable() else _HIDDEN.sub(_escaped, text)


def in_one_line(text: str) -> str:
    """A text as `visible` gives it, in one line: tabs, line ends and odd spaces are escaped too."""
    shown = visible(text)
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def last_states(text: str) -> str:
    """A text in which each line that overwrites itself with carriage returns reads as a terminal leaves it.

    Only newlines end a line; a carriage return right before one belongs to the line's end.
    """
    return "\n".join(map(_last_state, text.split("\n"))) if "\r" in text else text


def _last_state(line: str) -> str:
    shown = line.rstrip("\r")
    return shown.rpartition("\r")[2] + ("\r" if len(shown) < len(line) else "")


def has_plain_ends(data: bytes) -> bool:
    """Whether "\\n" alone ends lines in a log."""
    return not any(end in data for end in (_ASCII_ENDS if data.isascii() else _ASCII_ENDS + _WIDE_ENDS))


def with_plain_ends(data: bytes, end: int) -> tuple[bytes, int]:
    """A log with "\\n" at the end of each line, and where in it stands what stood at `end`.

    Behind `end` it may be another.
    """
    if any(mark in data for mark in _ASCII_ENDS):
        data = data.translate(_PLAIN_ENDS)
    if not data.isascii():
        data = data[:end]
        for mark in _WIDE_ENDS:
            data = data.replace(mark, b"\n")
        end = len(data)
    return data, end


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
