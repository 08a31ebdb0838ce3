"""What a user types as a time, for --since and --until: read into the clock of a site's log."""

from __future__ import annotations

import datetime
import re

from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.lines import parse_time

_UNITS = ("weeks", "days", "hours", "minutes", "seconds")  # each typed by its first letter
_AMOUNTS = "".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?){unit[0]})?" for unit in _UNITS)
_DURATION = re.compile(rf"-?{_AMOUNTS}(?: ago)?")
_EPOCH = re.compile(r"@?(\d{9,11}(?:\.\d+)?)")
_TIME_OF_DAY = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?"
_CLOCK = re.compile(rf"(?=.)(?:(today|yesterday)\b\s*)?({_TIME_OF_DAY})?", re.IGNORECASE)
_AS_OF = " as of "  # between a time of day and the moment, in UTC, by which its day is found
_ZULU = re.compile(r"\s*[zZ]$")
_ALLOWED = (
    "a time such as 2026-04-28T10:00:00, the same with Z or an offset such as +02:00, 10:00, today, "
    "yesterday, now, seconds since 1970, or a duration such as 10m, 1h30m, 1.5h or 2w"
)


def parse_since(
    argument: str,
    text: str,
    *,
    now: datetime.datetime | None = None,
    utc_offset: int | None = None,
    skew: float = 0.0,
) -> datetime.datetime:
    """Read the value of `--since` or `--until` into the clock of a site's log.

    Args:
        argument: the option's name, for the error.
        text: a time without a zone or a time of day (the log's own clock), a time with a zone, or a duration
            back from now.
        now: the present in UTC, naive.
        utc_offset: the site's offset from UTC in seconds; None where it is not known: the log's clock is then
            taken as UTC.
        skew: the site's clock minus the right time, in seconds.

    Raises:
        ArgumentError: if `text` is none of these.
    """
    if not isinstance(text, str):
        raise ArgumentError(argument, text, _ALLOWED)
    shift = datetime.timedelta(seconds=(utc_offset or 0) + skew)
    present = now or datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    try:
        typed, pinned = _typed(text)
        if clock := _CLOCK.fullmatch(typed):
            return _of_day(clock, (parse_time(pinned) if pinned else present) + shift)
        moment = _moment(typed, present)
        return parse_time(typed) if moment is None else moment + shift
    except (ValueError, OverflowError):
        raise ArgumentError(argument, text, _ALLOWED) from None


def fixed_time(argument: str, text: str, now: float) -> str:
    """Pin a value of `--since` or `--until` to the present: it means the same time whenever it is read.

    What is the same moment everywhere becomes a time in UTC; a time of day keeps its words, since its day is
    that of each site's own calendar; a time by the log's own clock stays as it is.

    Args:
        argument: the option's name, for the error.
        text: as for `parse_since`.
        now: the present, in seconds since the epoch.

    Raises:
        ArgumentError: as `parse_since`.
    """
    present = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).replace(tzinfo=None)
    parse_since(argument, text, now=present)
    typed, pinned = _typed(text)
    if _CLOCK.fullmatch(typed):
        return f"{typed}{_AS_OF}{pinned or f'{present.isoformat()}Z'}"
    moment = _moment(typed, present)
    return typed if moment is None else f"{moment.isoformat()}Z"


def _typed(text: str) -> tuple[str, str]:
    """What was typed, and the moment that it is pinned to, if it is."""
    typed, pinned_to, moment = _ZULU.sub("Z", text.strip()).partition(_AS_OF)
    if pinned_to and not (_CLOCK.fullmatch(typed) and moment.endswith("Z")):
        raise ValueError(text)
    return typed, moment


def _of_day(clock: re.Match[str], present: datetime.datetime) -> datetime.datetime:
    day, time = clock.groups()
    hours, minutes, seconds = [*(time or "0:0").split(":"), "0"][:3]
    midnight = datetime.datetime.combine(present, datetime.time(int(hours), int(minutes)))
    midnight += datetime.timedelta(seconds=_below(60, seconds))
    return midnight - datetime.timedelta(days=1) if day and day.lower() == "yesterday" else midnight


def _below(limit: int, text: str) -> float:
    if not (value := float(text)) < limit:
        raise ValueError(f"{text} is out of range")
    return value


def _moment(text: str, present: datetime.datetime) -> datetime.datetime | None:
    """What is the same moment at every site, in UTC; None for a time by a log's own clock."""
    if text.lower() == "now":
        return present
    duration = _DURATION.fullmatch(text)
    if duration and any(duration.groups()):
        amounts = {unit: float(amount or 0) for unit, amount in duration.groupdict().items()}
        return present - datetime.timedelta(**amounts)
    if epoch := _EPOCH.fullmatch(text):
        utc = datetime.datetime.fromtimestamp(float(epoch[1]), datetime.timezone.utc)
        return utc.replace(tzinfo=None)
    return parse_time(text) if _has_zone(text) else None


def _has_zone(text: str) -> bool:
    return re.search(r"(Z|[+-]\d{2}(:?\d{2}(:?\d{2})?)?)$", text.strip()[10:]) is not None
