"""What the server answers to a site: a reply names every stream of the request once, with the stored length, which is the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.wire.fields import MAX_TEXT
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


class Status(Word):
    """What became of a stream's part of a request."""

    OK = "ok"
    GAP = "gap"  # go on at `end`, with `cursor`
    LATER = "later"  # try again
    REFUSED = "refused"  # final


@dataclass(frozen=True)
class StreamReply:
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


@dataclass(frozen=True)
class Reply:
    """The answer to a request; `not_before` is how many seconds the sender should wait before its next small request."""

    streams: tuple[StreamReply, ...] = ()
    not_before: float = 0.0
    error: str = ""
    jobs_later: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The reply as bytes."""
        rows = []
        for s in self.streams:
            row: dict[str, Any] = {
                "job": s.stream.job_id,
                "file": s.stream.file,
                "st": s.status.value,
                "end": s.end,
            }
            row.update(
                {
                    k: v
                    for k, v in (
                        ("cur", s.cursor),
                        ("ver", str(s.verdict or "")),
                        ("why", s.reason[: 4 * MAX_TEXT]),
                    )
                    if v
                }
            )
            rows.append(row)
        fields = {
            "v": PROTOCOL_VERSION,
            "wait": self.not_before,
            "streams": rows,
            "later": list(self.jobs_later),
        }
        encoded: bytes = msgpack.packb({**fields, "err": self.error[:MAX_TEXT]} if self.error else fields)
        return encoded


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
        status = row.word("st", Status)
        cursor = row.octets("cur", MAX_CURSOR) if row.has("cur") else b""
        verdict = row.word("ver", Verdict) if row.has("ver") else None
        reason = row.text("why", 4 * MAX_TEXT) if row.has("why") else ""
        streams.append(
            StreamReply(stream_id(row), status, row.number("end", MAX_OFFSET), cursor, verdict, reason)
        )
    return Reply(tuple(streams), fields.time("wait"), jobs_later=fields.names("later", MAX_STREAMS))
