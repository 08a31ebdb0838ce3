"""What queries and their replies have in common: their version, and the filters and places they carry."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from nvflare_logstream import typed_time
from nvflare_logstream.errors import ArgumentError, OlderPeerError, WireError
from nvflare_logstream.filters.line_filter import MAX_BEFORE, LineState
from nvflare_logstream.filters.reading import STAGES, Reading
from nvflare_logstream.filters.rules import MAX_CONTEXT, MAX_PATTERN, Filters
from nvflare_logstream.wire.fields import Fields

QUERY_VERSION = 1
MAX_EXCLUDED = 100  # patterns
MAX_FILTERS = 100  # names in a reply
_LATER_FILTERS = ("exclude", "head")  # which the first servers that answer queries ignore
_FAR = 1 << 62  # above every place in a log
_MOST_BREAKS = 1 << 24  # more than the characters of any part
_COUNTS = ("skip_lines", "skip_bytes", "start", "counted", "cut")
_FLAGS = ("json", "timed", "since_applied", "truncated", "rendered")


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
        since, until: as `nvflare_logstream.typed_time.parse_since` reads them.
        level, grep, ignore_case, invert, before, after, tail, max_bytes, exclude, head: as in
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
    exclude: tuple[str, ...] = ()
    head: int | None = None

    def __post_init__(self) -> None:
        self.for_site(None)

    def for_site(self, utc_offset: int | None, skew: float = 0.0) -> Filters:
        """The filters for the logs of one site.

        Args:
            utc_offset: the site's offset from UTC in seconds; None where it is not known.
            skew: the site's clock minus the server's, in seconds.
        """
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        for name in ("since", "until"):
            if values[name] is not None:
                values[name] = typed_time.parse_since(name, values[name], utc_offset=utc_offset, skew=skew)
        return Filters(**values)

    def unbounded(self) -> FilterOptions:
        """The same filters without `head`, `tail` and `max_bytes`: they bound what is read at first."""
        if self.head is None and self.tail is None and self.max_bytes is None:
            return self
        return replace(self, head=None, tail=None, max_bytes=None)


def encode_filters(options: FilterOptions) -> dict[str, Any]:
    """Filters as they travel: only what differs from its default; 0 is a bound."""
    values = {option.name: (getattr(options, option.name), option.default) for option in fields(options)}
    changed = {name: value for name, (value, default) in values.items() if value != default}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def heeded(options: FilterOptions) -> dict[str, Any]:
    """The field of a reply that names the filters which it heeds, of those that some servers do not know."""
    names = [name for name in _LATER_FILTERS if name in encode_filters(options)]
    return {"filters": names} if names else {}


def check_heeded(options: FilterOptions, row: Fields) -> None:
    """Refuse a reply of a server that ignored a filter since it does not know it.

    Raises:
        OlderPeerError: naming the filters.
    """
    ignored = set(heeded(options).get("filters", ())) - set(row.names("filters", MAX_FILTERS))
    if ignored:
        raise OlderPeerError(
            f"the server is older than this command: it has no {' and no '.join(sorted(ignored))}"
        )


def decode_filters(row: Fields) -> FilterOptions:
    """Filters read back.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    texts: dict[str, Any] = {
        name: row.text(name, MAX_PATTERN, default=None) for name in ("since", "until", "level", "grep")
    }
    flags: dict[str, Any] = {name: row.flag(name) for name in ("ignore_case", "invert")}
    context: dict[str, Any] = {name: row.number(name, MAX_CONTEXT, default=0) for name in ("before", "after")}
    bounds: dict[str, Any] = {
        name: row.number(name, _FAR, default=None) for name in ("head", "tail", "max_bytes")
    }
    exclude = tuple(row.rows("exclude", MAX_EXCLUDED))
    if not all(isinstance(pattern, str) and len(pattern) <= MAX_PATTERN for pattern in exclude):
        raise row.bad("exclude", exclude, f"patterns of at most {MAX_PATTERN} characters")
    try:
        return FilterOptions(**texts, **flags, **context, **bounds, exclude=exclude)
    except ArgumentError as error:
        raise WireError(f"{row.where}{error}") from None


def encode_reading(reading: Reading) -> dict[str, Any]:
    """A reading as it travels."""
    values = reading._asdict()
    values["at"] = values.pop("offset")
    values["breaks"] = list(reading.breaks)
    for name in ("state", "start_state"):
        if values[name] is not None:
            values[name] = {**values[name]._asdict(), "before": list(values[name].before)}
    return values


def decode_reading(row: Fields) -> Reading:
    """A reading that came back; it may lie behind the end of a log: the server had more before it crashed.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    end = row.number("end", _FAR)
    stage = row.text("stage", default=None)
    if stage is None or stage not in STAGES:
        raise row.bad("stage", stage, f"one of {', '.join(map(repr, STAGES))}")
    json, timed, since_applied, truncated, rendered = row.flags(_FLAGS)
    skip_lines, skip_bytes, start, counted, cut = row.numbers(_COUNTS, _FAR, default=0)
    state, start_state = row.map("state", default=None), row.map("start_state", default=None)
    return Reading(
        row.number("at", end),
        end,
        json,
        timed,
        since_applied,
        truncated,
        skip_lines=skip_lines,
        skip_bytes=skip_bytes,
        state=None if state is None else _line_state(state),
        stage=stage,
        start=start,
        counted=counted,
        cut=cut,
        left=row.number("left", _FAR, default=None),
        breaks=_breaks(row),
        start_state=None if start_state is None else _line_state(start_state),
        rendered=rendered,
        copy=row.number("copy", _FAR, default=0),
    )


def _breaks(row: Fields) -> tuple[int, ...]:
    breaks = row.rows("breaks", _MOST_BREAKS)
    if not all(type(place) is int and place >= 0 for place in breaks):
        raise row.bad("breaks", breaks, "whole numbers, places in a text")
    return tuple(breaks)


def _line_state(row: Fields) -> LineState:
    before = row.rows("before", MAX_CONTEXT)
    if not all(isinstance(line, str) and _is_text(line) for line in before):
        raise row.bad("before", before, "lines of text")
    if sum(map(len, before)) > 2 * MAX_BEFORE:
        raise row.bad("before", before, f"at most {2 * MAX_BEFORE} characters")
    after = row.number("after", MAX_CONTEXT, default=0)
    return LineState(row.flag("in_time"), row.flag("in_level"), tuple(before), after, row.flag("gap"))


def _is_text(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character, which no reply has
        return False
    return True


class Place(NamedTuple):
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
