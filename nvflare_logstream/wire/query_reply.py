"""What the server answers to a reader."""

from __future__ import annotations

import base64
import binascii
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from nvflare_logstream.errors import ErrorCode
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.lines import visible
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.job_streams import MAX_ROWS, JobStreams, decode_job, encode_job
from nvflare_logstream.wire.message import MAX_OFFSET
from nvflare_logstream.wire.query_values import (
    Place,
    check_version,
    decode_place,
    decode_reading,
    encode_place,
    encode_reading,
    message,
)

_MAX_TEXT = 1 << 26  # characters; a line is never cut in two, and may be longer than a part
_MAX_ERROR = 1 << 16  # characters
MAX_MARK = 64  # characters
MAX_GROWING = 4096  # characters, and bytes, of a line that is still being written
_CODES = frozenset(code.value for code in ErrorCode)
_SHA256 = re.compile("[0-9a-f]{64}")


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
        """The reply read back; raises WireError.

        A code that this side does not know, from a later server, becomes INTERNAL_ERROR.
        """
        code = row.text("code")
        known = ErrorCode(code) if code in _CODES else ErrorCode.INTERNAL_ERROR
        return cls(known, visible(row.text("error", _MAX_ERROR)))


def open_reply(value: object) -> Fields | ErrorReply:
    """The fields of a reply, or the error that it is: that is read whatever its version.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    row = Fields(value)
    if row.has("error"):
        return ErrorReply.decode(row)
    check_version(row)
    return row


@dataclass(frozen=True)
class StreamsReply(Reply):
    """A job and its streams."""

    job: JobStreams

    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""
        return message(**encode_job(self.job))

    @classmethod
    def decode(cls, job_id: str, row: Fields) -> StreamsReply:
        """The reply read back; raises WireError."""
        return cls(decode_job(job_id, row))


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
    def until_applied(self) -> bool:
        """Whether `until`, if it was asked for, could be applied: some line of the log has a time."""
        return self.reading.timed

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


class FollowedPart(NamedTuple):
    """What came in one log that is followed: lines, and where to go on."""

    place: Place
    text: str


class Growing(NamedTuple):
    """A line that has not ended yet and overwrites itself with carriage returns: how it reads now."""

    site: str
    file: str
    text: str


@dataclass(frozen=True)
class FollowReply(Reply):
    """What came since the last reply.

    Attributes:
        job: the job and its streams.
        parts: at most one of each log.
        mark: for the next request; it changes with the job's status and with the verdict on any stream.
        busy: as many followers wait as the server lets wait; ask again in a moment.
        pushed: how many messages were sent before; `parts` go on where the last of them ends.
    """

    job: JobStreams
    parts: tuple[FollowedPart, ...]
    mark: str
    busy: bool = False
    pushed: int = 0

    def encode(self) -> dict[str, Any]:
        """The reply as it travels."""
        told = {"parts": _encode_parts(self.parts), "mark": self.mark, "busy": self.busy}
        return message(**encode_job(self.job), **told, pushed=self.pushed)

    @classmethod
    def decode(cls, job_id: str, row: Fields) -> FollowReply:
        """The reply read back; raises WireError."""
        job, parts, pushed = (
            decode_job(job_id, row),
            _decode_parts(row),
            row.number("pushed", MAX_ROWS, default=0),
        )
        return cls(job, parts, row.text("mark", MAX_MARK), row.flag("busy"), pushed)


@dataclass(frozen=True)
class Pushed:
    """What came in logs that are followed, sent while the reply is still waited for.

    Attributes:
        name: the request's name for such messages.
        number: how many were sent before: they may arrive in another order, or not at all.
        parts: at most one of each log.
        growing: lines that have grown, where the request asks for them.
    """

    name: str
    number: int
    parts: tuple[FollowedPart, ...]
    growing: tuple[Growing, ...] = ()

    def encode(self) -> dict[str, Any]:
        """The message as it travels."""
        growing = [line._asdict() for line in self.growing]
        return message(push=self.name, number=self.number, parts=_encode_parts(self.parts), growing=growing)

    @classmethod
    def decode(cls, value: object) -> Pushed:
        """The message read back; raises WireError."""
        row = Fields(value)
        check_version(row)
        growing = tuple(
            Growing(line.site("site"), line.name("file"), line.text("text", MAX_GROWING))
            for line in row.maps("growing", MAX_ROWS)
        )
        return cls(row.text("push", MAX_MARK), row.number("number", MAX_ROWS), _decode_parts(row), growing)


def _encode_parts(parts: tuple[FollowedPart, ...]) -> list[dict[str, Any]]:
    return [{**encode_place(part.place), "text": part.text} for part in parts]


def _decode_parts(row: Fields) -> tuple[FollowedPart, ...]:
    rows = row.maps("parts", MAX_ROWS)
    return tuple(FollowedPart(decode_place(part), part.text("text", _MAX_TEXT)) for part in rows)


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
        digest = row.text("digest", default=None)
        if not row.has("digest") or (digest is not None and not _SHA256.fullmatch(digest)):
            raise row.bad("digest", digest, "64 lower-case hex digits, or null from a server that is busy")
        return cls(digest)
