"""What the server answers to a site.

A reply names every stream of the request once, with its stored length. That length is the truth: the sender
goes on from there.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import msgpack

from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.wire.fields import MAX_TEXT, Fields
from nvflare_logstream.wire.message import (
    MAX_CURSOR,
    MAX_MESSAGE,
    MAX_OFFSET,
    MAX_STREAMS,
    PROTOCOL_VERSION,
    check_version,
    stream_id,
    unpack,
)
from nvflare_logstream.words import Word

_MAX_REASON = 4 * MAX_TEXT  # characters
_MAX_WORD = 40  # characters


class Status(Word):
    """What became of a stream's part of a request."""

    OK = "ok"
    GAP = "gap"  # go on at `end`, with `cursor`
    LATER = "later"  # try again
    REFUSED = "refused"  # final


_Kind = TypeVar("_Kind", bound=Word)


class StreamReply(NamedTuple):
    """The receiver's answer for one stream.

    Attributes:
        status: what became of the stream's part; "later" and "refused" have a `reason`.
        end: bytes stored.
        cursor: the sender's cursor at `end`; empty where it did not ask for it.
        verdict: once the stream is closed, else None.
    """

    stream: StreamId
    status: Status
    end: int = 0
    cursor: bytes = b""
    verdict: Verdict | None = None
    reason: str = ""


class Reply(NamedTuple):
    """The answer to a request.

    Attributes:
        streams: one entry a stream.
        not_before: seconds that the sender should wait before its next small request; it waits half a minute
            at most, whatever this says.
        error: why the whole request was refused, or "".
        jobs_later: jobs that cannot be judged yet; the sender is to ask again.
    """

    streams: tuple[StreamReply, ...] = ()
    not_before: float = 0.0
    error: str = ""
    jobs_later: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The reply as bytes."""
        fields: dict[str, Any] = {
            "v": PROTOCOL_VERSION,
            "wait": self.not_before,
            "streams": [_row(stream) for stream in self.streams],
            "later": list(self.jobs_later),
        }
        if self.error:
            fields["err"] = self.error[:MAX_TEXT]
        encoded: bytes = msgpack.packb(fields)
        return encoded


def _row(reply: StreamReply) -> dict[str, Any]:
    row: dict[str, Any] = {
        "job": reply.stream.job_id,
        "file": reply.stream.file,
        "st": reply.status.value,
        "end": reply.end,
    }
    if reply.cursor:
        row["cur"] = reply.cursor
    if reply.verdict:
        row["ver"] = reply.verdict.value
    if reply.reason:
        row["why"] = reply.reason[:_MAX_REASON]
    return row


def _word(row: Fields, name: str, unknown: _Kind) -> _Kind:
    """A word; `unknown` for one that this release does not know."""
    text = row.text(name, _MAX_WORD)
    try:
        return type(unknown)(text)
    except ValueError:
        return unknown


def decode_reply(payload: object) -> Reply:
    """Read and check a reply; an error in it is read whatever the version, since it may be about the version.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    fields = unpack(payload, 2 * MAX_MESSAGE)
    if fields.has("err"):
        return Reply(error=fields.text("err"))
    check_version(fields)
    streams = []
    for row in fields.maps("streams", 4 * MAX_STREAMS):
        streams.append(
            StreamReply(
                stream_id(row),
                # A word of a newer server is no reason to drop the whole reply.
                _word(row, "st", Status.LATER),
                row.number("end", MAX_OFFSET),
                row.octets("cur", MAX_CURSOR, default=b""),
                _word(row, "ver", Verdict.PARTIAL) if row.has("ver") else None,
                row.text("why", _MAX_REASON, default=""),
            )
        )
    wait = fields.real("wait", 0, math.inf)  # the sender bounds it
    return Reply(tuple(streams), wait, jobs_later=fields.names("later", MAX_STREAMS))
