"""What the server answers to a reader."""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from nvflare_logstream.errors import ErrorCode
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.lines import visible
from nvflare_logstream.streams import Stream
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import MAX_OFFSET
from nvflare_logstream.wire.query_values import (
    MAX_ROWS,
    Place,
    decode_place,
    decode_reading,
    decode_stream,
    encode_place,
    encode_reading,
    encode_stream,
    message,
)

_MAX_TEXT = 1 << 26  # characters; a line is never cut in two, and may be longer than a part
_MAX_ERROR = 1 << 16  # characters
MAX_MARK = 64  # characters


class Reply(ABC):
    """What the server answers."""

    @abstractmethod
    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""


@dataclass(frozen=True)
class ErrorReply(Reply):
    """The server says no."""

    code: ErrorCode
    text: str

    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""
        return message(code=self.code, error=self.text[:_MAX_ERROR])

    @classmethod
    def decode(cls, row: Fields) -> ErrorReply:
        """The reply read back; raises WireError."""
        return cls(row.word("code", ErrorCode), visible(row.text("error", _MAX_ERROR)))


@dataclass(frozen=True)
class StreamsReply(Reply):
    """A job and its streams.

    Attributes:
        status: the job's status in the runtime's words; empty if it is not known.
        streams: as judged at `now`.
        now: the server's clock, in seconds since the epoch.
    """

    status: str
    streams: tuple[Stream, ...]
    now: float

    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""
        streams = [encode_stream(stream) for stream in self.streams]
        return message(job_status=self.status, streams=streams, now=self.now)

    @classmethod
    def decode(cls, job_id: str, row: Fields) -> StreamsReply:
        """The reply read back; raises WireError."""
        streams = tuple(decode_stream(job_id, stream) for stream in row.maps("streams", MAX_ROWS))
        return cls(row.text("job_status"), streams, row.time("now"))


@dataclass(frozen=True)
class ReadReply(Reply):
    """The next piece of a log.

    Attributes:
        text: whole lines, except where `max_bytes` cut the first, or the log itself ends within one.
        reading: where to go on.
        read: bytes of the log that the server read for it.
    """

    text: str
    reading: Reading
    read: int = 0

    @property
    def done(self) -> bool:
        """Whether this is the last piece."""
        return self.reading.done

    @property
    def since_applied(self) -> bool:
        """As in `nvflare_logstream.filters.FilterResult`, for all of the log."""
        return self.reading.since_applied

    @property
    def truncated(self) -> bool:
        """As in `nvflare_logstream.filters.FilterResult`, for all of the log; right in the last piece."""
        return self.reading.truncated

    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""
        return message(text=self.text, reading=encode_reading(self.reading), read=self.read)

    @classmethod
    def decode(cls, row: Fields) -> ReadReply:
        """The reply read back; raises WireError."""
        reading = decode_reading(row.map("reading"))
        return cls(row.text("text", _MAX_TEXT), reading, row.number("read", MAX_OFFSET, default=0))


@dataclass(frozen=True)
class FollowedPart:
    """What came in one log that is followed: lines, and where to go on."""

    place: Place
    text: str


@dataclass(frozen=True)
class FollowReply(Reply):
    """What came since the last reply.

    Attributes:
        state: the job and its streams.
        parts: at most one of each log.
        mark: for the next request; it changes with the job's status and with the verdict on any stream.
        busy: as many followers wait as the server lets wait; ask again in a moment.
    """

    state: StreamsReply
    parts: tuple[FollowedPart, ...]
    mark: str
    busy: bool = False

    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""
        parts = [{**encode_place(part.place), "text": part.text} for part in self.parts]
        return {**self.state.encode(), "parts": parts, "mark": self.mark, "busy": self.busy}

    @classmethod
    def decode(cls, job_id: str, row: Fields) -> FollowReply:
        """The reply read back; raises WireError."""
        rows = row.maps("parts", MAX_ROWS)
        parts = tuple(FollowedPart(decode_place(part), part.text("text", _MAX_TEXT)) for part in rows)
        return cls(StreamsReply.decode(job_id, row), parts, row.text("mark", MAX_MARK), row.flag("busy"))


@dataclass(frozen=True)
class FetchReply(Reply):
    """Bytes of a stream as they are stored, none at its end, `end`."""

    data: bytes
    end: int

    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""
        return message(data=base64.b64encode(self.data).decode(), end=self.end)

    @classmethod
    def decode(cls, row: Fields) -> FetchReply:
        """The reply read back; raises WireError."""
        text = row.text("data", _MAX_TEXT)
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise row.bad("data", text, "bytes in base64") from None
        return cls(data, row.number("end", MAX_OFFSET))


@dataclass(frozen=True)
class DigestReply(Reply):
    """sha256 (hex) of the bytes that were asked for; None: the server is busy, ask again in a moment."""

    digest: str | None

    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""
        return message(digest=self.digest)

    @classmethod
    def decode(cls, row: Fields) -> DigestReply:
        """The reply read back; raises WireError."""
        return cls(row.text("digest", 64, default=None))
