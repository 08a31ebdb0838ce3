"""What a site sends to the server (protocol version 1): pure, no network.

A request is one msgpack map: what the sender asks (`open`, `known`), what it sends (`frames`, whose data
follow one another in one zstd-compressed block), what it closes (`close`) and what the site's policy keeps
back (`refuse`).

Every field is checked here. Unknown fields are ignored; the error for an unknown version names both versions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

from nvflare_logstream.errors import WireError
from nvflare_logstream.streams import Loss, StreamId
from nvflare_logstream.wire import zstd
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

MAX_FRAME = 1 << 20  # bytes of one frame's data
MAX_FRAMES = 4096
MAX_RAW = (
    16 << 20
)  # bytes of a request's frames together, uncompressed; a sender reads half as much at a time
_COMPRESS_FROM = 512  # bytes; below, compression costs more than it saves


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


class _Head(NamedTuple):
    """A frame without its data."""

    stream: StreamId
    offset: int
    length: int
    checksum: int
    cursor: bytes
    losses: tuple[Loss, ...]


class Request(NamedTuple):
    """A decoded request.

    Attributes:
        clock: the site's clock in seconds since the epoch.
        utc_offset: the site's offset from UTC in seconds.
        full: it is a full batch: the sender has more than it can hold.
        opens: streams about which the sender asks where the receiver stands.
        known: jobs about which it asks what the receiver has of its site.
        closes: streams that end.
        refusals: streams that the site's policy keeps back.
        heads: the frames, without their data; see `frames`.
        block: the frames' data, one after another.
        compressed: whether `block` is compressed.
    """

    clock: float
    utc_offset: int
    full: bool
    opens: tuple[StreamId, ...]
    known: tuple[str, ...]
    closes: tuple[Close, ...]
    refusals: tuple[Refusal, ...]
    heads: tuple[_Head, ...]
    block: bytes
    compressed: bool

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, each checked against its checksum.

        Raises:
            WireError: if the data are damaged or of another length than announced.
        """
        source = zstd.Unpacker(self.block) if self.compressed else _Plain(self.block)
        for number, head in enumerate(self.heads):
            data = source.take(head.length)
            if len(data) != head.length:
                raise WireError(
                    f"frames[{number}].length: {head.length} announced, {len(data)} bytes are there"
                )
            if zlib.crc32(data) != head.checksum:
                raise WireError(
                    f"frames[{number}].checksum: the data of {head.stream.file} were damaged on the way"
                )
            yield Frame(head.stream, head.offset, data, head.cursor, head.losses)


class _Plain:
    def __init__(self, block: bytes):
        self._block, self._at = block, 0

    def take(self, length: int) -> bytes:
        data = self._block[self._at : self._at + length]
        self._at += length
        return data


class RequestWriter:
    """Gathers one request. Data are compressed at once, so that no batch stands in memory uncompressed.

    Args:
        clock: the site's clock in seconds since the epoch, for the server to learn its skew.
        utc_offset: the site's offset from UTC in seconds.
    """

    def __init__(self, clock: float, utc_offset: int):
        self._fields: dict[str, Any] = {"v": PROTOCOL_VERSION, "clock": clock, "utc": utc_offset}
        self._plain: list[bytes] = []
        self._packer: zstd.Packer | None = None
        self._heads_size = 0
        self.raw_size = 0
        self.full = False

    @property
    def size(self) -> int:
        """Bytes gathered so far, in the form in which they will travel."""
        return self._heads_size + (self._packer.size if self._packer else self.raw_size)

    @property
    def empty(self) -> bool:
        """True while there is nothing to say."""
        return len(self._fields) == 3

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

    def encode(self) -> bytes:
        """The request as bytes."""
        packed = self._packer is not None
        block = self._packer.finish() if self._packer else b"".join(self._plain)
        encoded: bytes = msgpack.packb({**self._fields, "full": self.full, "zstd": packed, "data": block})
        return encoded


def _losses(row: Fields) -> tuple[Loss, ...]:
    losses = []
    for loss in row.rows("lost", 64):
        if not isinstance(loss, list) or len(loss) != 3:
            raise row.bad("lost", loss, "[offset, length or null, reason]")
        entry = Fields(dict(zip(("offset", "length", "reason"), loss, strict=True)), f"{row.where}lost.")
        offset, length = entry.number("offset", MAX_OFFSET), entry.number("length", MAX_OFFSET, default=None)
        losses.append(Loss(offset, length, entry.text("reason")))
    return tuple(losses)


def decode_request(payload: object) -> Request:
    """Read and check a request.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    fields = unpack(payload, MAX_MESSAGE)
    check_version(fields)
    closes, heads = [], []
    for row in fields.maps("frames", MAX_FRAMES):
        offset, length = row.number("at", MAX_OFFSET), row.number("n", MAX_FRAME)
        checksum, cursor = row.number("crc", 0xFFFFFFFF), row.octets("cur", MAX_CURSOR)
        heads.append(_Head(stream_id(row), offset, length, checksum, cursor, _losses(row)))
    raw_size = sum(head.length for head in heads)
    if raw_size > MAX_RAW:  # a few KiB may unpack to gigabytes
        raise WireError(f"frames: {raw_size} bytes of data are not allowed; at most {MAX_RAW} in a request")
    for row in fields.maps("close", MAX_STREAMS):
        total = row.number("total", MAX_OFFSET)
        digest, digest_from = row.text("sha256", 64), row.number("from", total)
        closes.append(Close(stream_id(row), total, digest, digest_from, row.text("outcome")))
    return Request(
        clock=fields.time("clock"),
        utc_offset=fields.number("utc", 86400, -86400),
        full=fields.flag("full"),
        opens=tuple(stream_id(row) for row in fields.maps("open", MAX_STREAMS)),
        known=fields.names("known", MAX_STREAMS),
        closes=tuple(closes),
        refusals=tuple(
            Refusal(stream_id(row), row.text("why")) for row in fields.maps("refuse", MAX_STREAMS)
        ),
        heads=tuple(heads),
        block=fields.octets("data", MAX_MESSAGE),
        compressed=fields.flag("zstd"),
    )
