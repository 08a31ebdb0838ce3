"""What a site sends to the server (protocol version 1), and how it writes it: pure, no network.

A request is one msgpack map: what the sender asks (`open`, `known`), what it sends (`frames`, whose data
follow one another in one zstd-compressed block), what it closes (`close`) and what the site's policy keeps
back (`refuse`). What is more than bytes also says under which versions it was written (`who`); a request of
release 0.1.0 does not. `upload_reader` reads it at the server; a job's process never loads that.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import msgpack

from nvflare_logstream import __version__
from nvflare_logstream.names import is_version
from nvflare_logstream.streams import Loss, StreamId
from nvflare_logstream.wire import zstd
from nvflare_logstream.wire.fields import MAX_TEXT
from nvflare_logstream.wire.message import PROTOCOL_VERSION

MAX_FRAME = 1 << 20  # bytes of one frame's data
MAX_FRAMES = 4096
MAX_RAW = 16 << 20  # bytes of a request's frames together, uncompressed; a sender reads half as much
_COMPRESS_FROM = 2048  # bytes; below, compression costs both sides more than the network saves


class Frame(NamedTuple):
    """Bytes of one stream from `offset` on.

    Attributes:
        cursor: where the source stands after these bytes.
        losses: what the source lost before or within them.
    """

    stream: StreamId
    offset: int
    data: bytes
    cursor: bytes
    losses: tuple[Loss, ...] = ()


class Close(NamedTuple):
    """The end of a stream.

    Attributes:
        total: length of the whole stream in bytes.
        digest: sha256 (hex) of the bytes from `digest_from` to `total`, hashed again from the site's files.
        outcome: how the job's process ended, such as "exit code 0" or "signal 9".
    """

    stream: StreamId
    total: int
    digest: str
    digest_from: int
    outcome: str


class Refusal(NamedTuple):
    """The site's policy keeps this stream back."""

    stream: StreamId
    reason: str


class Unreadable(NamedTuple):
    """The site cannot read a log now, or can again.

    Attributes:
        since: the site's clock at the first attempt, in seconds since the epoch.
        reason: the error in words; empty if the log can be read again.
        outcome: how the job's process ended, if the site gives up; None while it goes on trying.
    """

    stream: StreamId
    since: float
    reason: str
    outcome: str | None = None


class Versions(NamedTuple):
    """What a site says of itself; for people, nothing is decided by it.

    Attributes:
        package: the version of nvflare_logstream there.
        runtime: the version of the runtime; empty where it does not say.
        protocol: the version of its messages.
    """

    package: str
    runtime: str = ""
    protocol: int = PROTOCOL_VERSION


class RequestWriter:
    """Gathers one request. Data are compressed at once, so that no batch stands in memory uncompressed.

    Args:
        clock: the site's clock in seconds since the epoch, for the server to learn its skew.
        utc_offset: the site's offset from UTC in seconds.
        runtime: the version of the runtime.
    """

    def __init__(self, clock: float, utc_offset: int, runtime: str = ""):
        self._runtime = runtime
        self._fields: dict[str, Any] = {"v": PROTOCOL_VERSION, "clock": clock, "utc": utc_offset}
        self._plain: list[bytes] = []
        self._packer: zstd.Packer | None = None
        self._heads_size = 0
        self.raw_size = 0
        self.full = self._has_losses = False

    @property
    def size(self) -> int:
        """Bytes gathered so far, in the form in which they will travel."""
        return self._heads_size + (self._packer.size if self._packer else self.raw_size)

    @property
    def empty(self) -> bool:
        """True while there is nothing to say."""
        return len(self._fields) == 3

    @property
    def plain(self) -> bool:
        """True while there is nothing but bytes."""
        return len(self._fields) == 4 and "frames" in self._fields and not self._has_losses

    def _row(self, section: str, stream: StreamId, **more: Any) -> None:
        self._fields.setdefault(section, []).append({"job": stream.job_id, "file": stream.file, **more})

    def open(self, stream: StreamId) -> None:
        """Ask where the receiver stands in this stream."""
        self._row("open", stream)

    def known(self, job_id: str) -> None:
        """Ask which streams of this site the receiver has of a job."""
        self._fields.setdefault("known", []).append(job_id)

    def frame(self, frame: Frame) -> None:
        """Add bytes of a stream."""
        losses = [[loss.offset, loss.length, loss.reason] for loss in frame.losses]
        self._has_losses |= bool(losses)
        checksum = zlib.crc32(frame.data)
        self._row(
            "frames",
            frame.stream,
            at=frame.offset,
            n=len(frame.data),
            crc=checksum,
            cur=frame.cursor,
            lost=losses,
        )
        self._heads_size += 400 + len(frame.cursor)  # names have at most 128 characters each
        self.raw_size += len(frame.data)
        if self._packer is None and self.raw_size >= _COMPRESS_FROM:
            self._packer = zstd.Packer()
            for data in self._plain:
                self._packer.put(data)
            self._plain.clear()
        if self._packer is None:
            self._plain.append(frame.data)
        else:
            self._packer.put(frame.data)

    def close(self, close: Close) -> None:
        """End a stream."""
        digest = {"total": close.total, "sha256": close.digest, "from": close.digest_from}
        self._row("close", close.stream, **digest, outcome=close.outcome[:MAX_TEXT])

    def refuse(self, refusal: Refusal) -> None:
        """Say that the site keeps a stream back."""
        self._row("refuse", refusal.stream, why=refusal.reason[:MAX_TEXT])

    def unreadable(self, log: Unreadable) -> None:
        """Say that a log cannot be read now, or can again."""
        ended = {} if log.outcome is None else {"outcome": log.outcome[:MAX_TEXT]}
        self._row("unread", log.stream, since=log.since, why=log.reason[:MAX_TEXT], **ended)

    def encode(self) -> bytes:
        """The request as bytes."""
        runtime = self._runtime if not self.plain and is_version(self._runtime) else ""
        said = {} if self.plain else {"who": {"package": __version__, "runtime": runtime}}
        packed = self._packer is not None
        block = self._packer.finish() if self._packer else b"".join(self._plain)
        fields = {**self._fields, **said, "full": self.full, "zstd": packed, "data": block}
        encoded: bytes = msgpack.packb(fields)
        return encoded
