"""What queries and their replies have in common: their version, and the values that they carry.

Filters, a reading and the record of a stream have one form on the wire each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from nvflare_logstream import lines
from nvflare_logstream.errors import ArgumentError, WireError
from nvflare_logstream.filters.line_filter import MAX_BEFORE, LineState
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.streams import Loss, State, Stream, StreamKey
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import MAX_OFFSET

QUERY_VERSION = 1
MAX_ROWS = 1 << 20  # entries of a list in a reply
_MAX_WORDS = 1 << 16  # characters of what a server says of a stream
_MAX_FILTER_TEXT = 1000  # characters
_MAX_CONTEXT = 1000  # lines before or after a match
_FAR = 1 << 62  # above every place in a log
_SECONDS = 1e12  # above every difference of two clocks


def message(**values: Any) -> dict[str, Any]:
    """A request or reply of this version, as it travels."""
    return {"v": QUERY_VERSION, **values}


def check_version(row: Fields) -> None:
    """Refuse a message of another version, or of none, naming both."""
    version = row.number("v", 1 << 31, default=None)
    if version != QUERY_VERSION:
        raise row.bad("v", version, f"this side speaks version {QUERY_VERSION} of the query protocol")


@dataclass(frozen=True)
class FilterOptions:
    """Filters before they are applied to a log; times are texts: only the server knows each site's time zone.

    Attributes:
        since, until: as `nvflare_logstream.lines.parse_since` reads them.
        level, grep, ignore_case, invert, before, after, tail, max_bytes: as in
            `nvflare_logstream.filters.Filters`.

    Raises:
        ArgumentError: naming the field, the value and what is allowed.
    """

    since: str | None = None
    until: str | None = None
    level: str | None = None
    grep: str | None = None
    ignore_case: bool = False
    invert: bool = False
    before: int = 0
    after: int = 0
    tail: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        self.for_site(None)

    def for_site(self, utc_offset: int | None) -> Filters:
        """The filters for the logs of one site.

        Args:
            utc_offset: the site's offset from UTC in seconds; None where it is not known.
        """
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        for name in ("since", "until"):
            if values[name] is not None:
                values[name] = lines.parse_since(name, values[name], utc_offset=utc_offset)
        return Filters(**values)

    def unbounded(self) -> FilterOptions:
        """The same filters without `tail` and `max_bytes`, which bound a log when it is first read."""
        return replace(self, tail=None, max_bytes=None)


def encode_filters(options: FilterOptions) -> dict[str, Any]:
    """Filters as they travel: only what differs from its default; 0 is a bound."""
    values = {option.name: (getattr(options, option.name), option.default) for option in fields(options)}
    return {name: value for name, (value, default) in values.items() if value != default}


def decode_filters(row: Fields) -> FilterOptions:
    """Filters read back.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    texts: dict[str, Any] = {
        name: row.text(name, _MAX_FILTER_TEXT, default=None) for name in ("since", "until", "level", "grep")
    }
    flags: dict[str, Any] = {name: row.flag(name) for name in ("ignore_case", "invert")}
    context: dict[str, Any] = {
        name: row.number(name, _MAX_CONTEXT, default=0) for name in ("before", "after")
    }
    bounds: dict[str, Any] = {name: row.number(name, _FAR, default=None) for name in ("tail", "max_bytes")}
    try:
        return FilterOptions(**texts, **flags, **context, **bounds)
    except ArgumentError as error:
        raise WireError(f"{row.where}{error}") from None


def encode_reading(reading: Reading) -> dict[str, Any]:
    """A reading as it travels."""
    values = asdict(reading)
    if reading.state is not None:
        values["state"]["before"] = list(reading.state.before)
    return values


def decode_reading(row: Fields) -> Reading:
    """A reading that came back; it may lie behind the end of a log: the server had more before it crashed.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    end = row.number("end", _FAR)
    counting = row.text("counting", default="")
    if counting not in ("", "lines", "bytes"):
        raise row.bad("counting", counting, 'one of "", "lines", "bytes"')
    counts: dict[str, Any] = {
        name: row.number(name, _FAR, default=0)
        for name in ("skip_lines", "skip_bytes", "start", "counted", "cut")
    }
    flags: dict[str, Any] = {name: row.flag(name) for name in ("json", "timed", "since_applied", "truncated")}
    state = row.map("state", default=None)
    return Reading(
        row.number("at", end),
        end,
        counting=counting,
        state=None if state is None else _line_state(state),
        **flags,
        **counts,
    )


def _line_state(row: Fields) -> LineState:
    before = row.rows("before", _MAX_CONTEXT)
    if not all(isinstance(line, str) and _is_text(line) for line in before):
        raise row.bad("before", before, "lines of text")
    if sum(map(len, before)) > 2 * MAX_BEFORE:
        raise row.bad("before", before, f"at most {2 * MAX_BEFORE} characters")
    after = row.number("after", _MAX_CONTEXT, default=0)
    return LineState(row.flag("in_time"), row.flag("in_level"), tuple(before), after)


def _is_text(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character, which no reply has
        return False
    return True


@dataclass(frozen=True)
class Place:
    """Where a follower stands in one log."""

    site: str
    file: str
    reading: Reading


def encode_place(place: Place) -> dict[str, Any]:
    """A place as it travels."""
    return {"site": place.site, "file": place.file, "reading": encode_reading(place.reading)}


def decode_place(row: Fields) -> Place:
    """A place read back; raises WireError."""
    return Place(row.site("site"), row.name("file"), decode_reading(row.map("reading")))


def _offset(row: Fields, name: str) -> int:
    return row.number(name, MAX_OFFSET)


def _time(row: Fields, name: str) -> float:
    return row.time(name)


def _words(row: Fields, name: str) -> str:
    """What a site may have said of itself; it is shown to people, on their terminals."""
    return lines.visible(row.text(name, _MAX_WORDS))


# How each field of a record is read: all but the key and the losses; the cursor does not travel.
_RECORD: dict[str, Callable[[Fields, str], Any]] = {
    "end": _offset,
    "lines": _offset,
    "state": lambda row, name: row.word(name, State),
    "reason": _words,
    "total": lambda row, name: row.number(name, MAX_OFFSET, -1),
    "digest": lambda row, name: row.text(name, 64),
    "digest_from": _offset,
    "agreed": lambda row, name: row.flag(name),
    "outcome": _words,
    "opened": _time,
    "last_seen": _time,
    "last_data": _time,
    "closed": _time,
    "utc_offset": lambda row, name: row.number(name, 86400, -86400),
    "skew": lambda row, name: row.real(name, -_SECONDS, _SECONDS),
    "silent": lambda row, name: row.flag(name),
}


def encode_stream(stream: Stream) -> dict[str, Any]:
    """The record of a stream as it travels; the job is known to who asks."""
    losses = [loss._asdict() for loss in stream.losses]
    record = {name: getattr(stream, name) for name in _RECORD}
    return {"site": stream.site, "file": stream.file, **record, "losses": losses}


def decode_stream(job_id: str, row: Fields) -> Stream:
    """The record of a stream of `job_id`, with plain names; what a site said of itself is fit for a terminal.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    key = StreamKey(job_id, row.site("site"), row.name("file"))
    losses = tuple(
        Loss(_offset(loss, "offset"), loss.number("length", MAX_OFFSET, default=None), _words(loss, "reason"))
        for loss in row.maps("losses", MAX_ROWS)
    )
    return Stream(key, losses=losses, **{name: read(row, name) for name, read in _RECORD.items()})
