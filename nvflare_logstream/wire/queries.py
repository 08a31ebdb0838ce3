"""What a reader asks the server about one job, and what it answers (query protocol version 1).

Requests and replies are maps of plain values: the runtime's admin command carries them as JSON. Every field
is checked, and refused with an error that names it. Unknown fields are ignored; a message of another version
is refused. Only an error is read whatever its version, since it may be about the version.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.job_streams import JobStreams
from nvflare_logstream.wire.message import MAX_OFFSET
from nvflare_logstream.wire.query_reply import (
    MAX_MARK,
    DigestReply,
    ErrorReply,
    FetchReply,
    FollowedPart,
    FollowReply,
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
from nvflare_logstream.words import Word

__all__ = [
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
    "JobStreams",
    "Operation",
    "Place",
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
_NO_FILTERS = FilterOptions()

ReplyT = TypeVar("ReplyT", bound=Reply)


class Operation(Word):
    """What a request asks for."""

    STREAMS = "streams"
    READ = "read"
    FOLLOW = "follow"
    FETCH = "fetch"
    DIGEST = "digest"


class Request(ABC, Generic[ReplyT]):
    """What a reader asks; the type parameter is the type of its reply."""

    operation: ClassVar[Operation]
    filters: FilterOptions = _NO_FILTERS

    @abstractmethod
    def encode(self) -> dict[str, Any]:
        """The request as it travels."""

    @classmethod
    @abstractmethod
    def decode(cls, row: Fields) -> Request[ReplyT]:
        """The request read back; raises WireError."""

    @abstractmethod
    def decode_reply(self, job_id: str, row: Fields) -> ReplyT:
        """The reply to this request about `job_id`; raises WireError."""


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
    """

    operation = Operation.READ
    site: str
    file: str
    filters: FilterOptions = _NO_FILTERS
    whole_lines: bool = False
    reading: Reading | None = None

    def encode(self) -> dict[str, Any]:
        """The request as it travels."""
        at = None if self.reading is None else self.reading._replace(breaks=())
        reading = {} if at is None else {"reading": encode_reading(at)}
        where = {"site": self.site, "file": self.file, "whole_lines": self.whole_lines}
        return message(op=self.operation, filters=encode_filters(self.filters), **where, **reading)

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
    """

    operation = Operation.FOLLOW
    places: tuple[Place, ...]
    filters: FilterOptions = _NO_FILTERS
    wait: float = 0.0
    mark: str = ""

    def encode(self) -> dict[str, Any]:
        """The request as it travels."""
        # What a reading says of the text that came with it is of no use to the server.
        places = [encode_place(at._replace(reading=at.reading._replace(breaks=()))) for at in self.places]
        filters = encode_filters(self.filters)
        return message(op=self.operation, places=places, filters=filters, wait=self.wait, mark=self.mark)

    @classmethod
    def decode(cls, row: Fields) -> FollowRequest:
        """The request read back; raises WireError."""
        places = tuple(map(decode_place, row.maps("places", MAX_PLACES)))
        wait = row.real("wait", 0.0, MAX_WAIT, default=0.0)
        return cls(places, _filters(row), wait, row.text("mark", MAX_MARK, default=""))

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
    filters = row.map("filters", default=None)
    return _NO_FILTERS if filters is None else decode_filters(filters)
