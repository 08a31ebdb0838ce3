"""What a reader asks the server about one job, and what it answers (query protocol version 1).

Requests and replies are maps of plain values: the runtime's admin command carries them as JSON. Every field
is checked, and refused with an error that names it. Unknown fields are ignored; a message of another version
is refused. Only an error is read whatever its version, since it may be about the version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.job_streams import JobStreams
from nvflare_logstream.wire.message import MAX_OFFSET
from nvflare_logstream.wire.query import NO_FILTERS, Operation, ReplyT, Request
from nvflare_logstream.wire.query_reply import (
    MAX_GROWING,
    MAX_MARK,
    DigestReply,
    ErrorReply,
    FetchReply,
    FollowedPart,
    FollowReply,
    Growing,
    Pushed,
    ReadReply,
    Reply,
    StreamsReply,
    open_reply,
)
from nvflare_logstream.wire.query_values import (
    QUERY_VERSION,
    FilterOptions,
    Place,
    check_heeded,
    check_version,
    decode_filters,
    decode_place,
    decode_reading,
    encode_filters,
    encode_place,
    encode_reading,
    heeded,
    message,
)

__all__ = [
    "MAX_GROWING",
    "MAX_PART",
    "MAX_PLACES",
    "MAX_WAIT",
    "QUERY_VERSION",
    "DigestReply",
    "DigestRequest",
    "ErrorReply",
    "FetchReply",
    "FetchRequest",
    "FilterOptions",
    "FollowReply",
    "FollowRequest",
    "FollowedPart",
    "Growing",
    "JobStreams",
    "Operation",
    "Place",
    "Pushed",
    "ReadReply",
    "ReadRequest",
    "Reply",
    "ReplyT",
    "Request",
    "StreamsReply",
    "StreamsRequest",
    "decode_reply",
    "decode_request",
    "encode_reply",
]

MAX_PART = 1 << 20  # characters of text, or bytes, in one reply
MAX_WAIT = 10.0  # seconds of a long poll
MAX_PLACES = 1000  # streams that one request follows


@dataclass(frozen=True)
class StreamsRequest(Request[StreamsReply]):
    """Which streams there are."""

    operation = Operation.STREAMS

    def encode(self) -> dict[str, Any]:
        """The request as it travels."""
        return message(op=self.operation)

    @classmethod
    def decode(cls, row: Fields) -> StreamsRequest:
        """The request read back; raises WireError."""
        return cls()

    def decode_reply(self, job_id: str, row: Fields) -> StreamsReply:
        """The reply to this request about `job_id`; raises WireError."""
        return StreamsReply.decode(job_id, row)


@dataclass(frozen=True)
class ReadRequest(Request[ReadReply]):
    """The filtered text of one log.

    Attributes:
        whole_lines: leave out the line that is just being written.
        reading: of the last reply, to go on after it.
        as_text: filter a JSON log as the text that it is shown as.
    """

    operation = Operation.READ
    site: str
    file: str
    filters: FilterOptions = NO_FILTERS
    whole_lines: bool = False
    reading: Reading | None = None
    as_text: bool = False

    def encode(self) -> dict[str, Any]:
        """The request as it travels."""
        at = None if self.reading is None else self.reading._replace(breaks=())
        reading = {} if at is None else {"reading": encode_reading(at)}
        what = {"site": self.site, "file": self.file, "filters": encode_filters(self.filters), **reading}
        return message(op=self.operation, **what, whole_lines=self.whole_lines, as_text=self.as_text)

    @classmethod
    def decode(cls, row: Fields) -> ReadRequest:
        """The request read back; raises WireError."""
        reading = row.map("reading", default=None)
        return cls(
            row.site("site"),
            row.name("file"),
            _filters(row),
            row.flag("whole_lines"),
            None if reading is None else decode_reading(reading),
            row.flag("as_text"),
        )

    def decode_reply(self, job_id: str, row: Fields) -> ReadReply:
        """The reply to this request about `job_id`; raises WireError."""
        return ReadReply.decode(row)


@dataclass(frozen=True)
class FollowRequest(Request[FollowReply]):
    """What is new in the logs that are followed.

    Attributes:
        places: where the follower stands; of two places in the same log the later one counts.
        filters: what to keep of new lines; `tail` and `max_bytes` are not applied to them.
        wait: seconds to wait for something new, at most `MAX_WAIT`.
        mark: of the last reply; empty at first, which is answered at once.
        push: what messages are called that the server may send while it waits; empty: none.
        pace: least seconds between two of them.
        growing: push lines too that have not ended, where they overwrite themselves.
        as_text: of a JSON log of which no line was there yet, filter the text that it is shown as; else its
            place tells.
    """

    operation = Operation.FOLLOW
    places: tuple[Place, ...]
    filters: FilterOptions = NO_FILTERS
    wait: float = 0.0
    mark: str = ""
    push: str = ""
    pace: float = 0.0
    growing: bool = False
    as_text: bool = False

    def encode(self) -> dict[str, Any]:
        """The request as it travels."""
        # What a reading says of the text that came with it is of no use to the server.
        places = [encode_place(at._replace(reading=at.reading._replace(breaks=()))) for at in self.places]
        what = {"op": self.operation, "places": places, "filters": encode_filters(self.filters)}
        pushed = {"push": self.push, "pace": self.pace, "growing": self.growing}
        return message(**what, wait=self.wait, mark=self.mark, as_text=self.as_text, **pushed)

    @classmethod
    def decode(cls, row: Fields) -> FollowRequest:
        """The request read back; raises WireError."""
        places = tuple(map(decode_place, row.maps("places", MAX_PLACES)))
        wait = row.real("wait", 0.0, MAX_WAIT, default=0.0)
        mark, push = (row.text(name, MAX_MARK, default="") for name in ("mark", "push"))
        pace = row.real("pace", 0.0, MAX_WAIT, default=0.0)
        growing, as_text = row.flags(("growing", "as_text"))
        return cls(places, _filters(row), wait, mark, push, pace, growing, as_text)

    def decode_reply(self, job_id: str, row: Fields) -> FollowReply:
        """The reply to this request about `job_id`; raises WireError."""
        return FollowReply.decode(job_id, row)


@dataclass(frozen=True)
class FetchRequest(Request[FetchReply]):
    """At most `most` bytes of a stream from `offset` on."""

    operation = Operation.FETCH
    site: str
    file: str
    offset: int = 0
    most: int = MAX_PART

    def encode(self) -> dict[str, Any]:
        """The request as it travels."""
        return message(op=self.operation, site=self.site, file=self.file, offset=self.offset, most=self.most)

    @classmethod
    def decode(cls, row: Fields) -> FetchRequest:
        """The request read back; raises WireError."""
        offset = row.number("offset", MAX_OFFSET, default=0)
        most = row.number("most", MAX_PART, default=MAX_PART)
        return cls(row.site("site"), row.name("file"), offset, most)

    def decode_reply(self, job_id: str, row: Fields) -> FetchReply:
        """The reply to this request about `job_id`; raises WireError."""
        return FetchReply.decode(row)


@dataclass(frozen=True)
class DigestRequest(Request[DigestReply]):
    """The sha256 of a stream's bytes from `start` to `end`, hashed for this answer."""

    operation = Operation.DIGEST
    site: str
    file: str
    start: int
    end: int

    def encode(self) -> dict[str, Any]:
        """The request as it travels."""
        return message(op=self.operation, site=self.site, file=self.file, start=self.start, end=self.end)

    @classmethod
    def decode(cls, row: Fields) -> DigestRequest:
        """The request read back; raises WireError."""
        end = row.number("end", MAX_OFFSET)
        return cls(row.site("site"), row.name("file"), row.number("start", end), end)

    def decode_reply(self, job_id: str, row: Fields) -> DigestReply:
        """The reply to this request about `job_id`; raises WireError."""
        return DigestReply.decode(row)


_REQUESTS: dict[Operation, type[Request[Any]]] = {
    kind.operation: kind for kind in (StreamsRequest, ReadRequest, FollowRequest, FetchRequest, DigestRequest)
}


def decode_request(value: object) -> Request[Any]:
    """A request as it came to the server.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    row = Fields(value)
    check_version(row)
    return _REQUESTS[row.word("op", Operation)].decode(row)


def decode_reply(job_id: str, request: Request[ReplyT], value: object) -> ReplyT | ErrorReply:
    """The reply to `request` as it came to the reader.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    row = open_reply(value)
    if isinstance(row, ErrorReply):
        return row
    check_heeded(request.filters, row)
    return request.decode_reply(job_id, row)


def encode_reply(request: Request[ReplyT], reply: ReplyT) -> dict[str, Any]:
    """The reply to `request` as it travels, with the names of the filters that it heeds."""
    return {**reply.encode(), **heeded(request.filters)}


def _filters(row: Fields) -> FilterOptions:
    return decode_filters(filters) if (filters := row.map("filters", default=None)) else NO_FILTERS
