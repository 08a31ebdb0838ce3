"""A site's request as the server reads it: every field is checked.

Unknown fields are ignored; the error for an unknown version names both versions.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from nvflare_logstream.errors import WireError
from nvflare_logstream.streams import UNCHECKED_CURSOR, Loss, StreamId, is_unchecked
from nvflare_logstream.wire import zstd
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import (
    MAX_CURSOR,
    MAX_MESSAGE,
    MAX_OFFSET,
    MAX_STREAMS,
    check_version,
    stream_id,
    unpack,
)
from nvflare_logstream.wire.upload import (
    MAX_FRAME,
    MAX_FRAMES,
    MAX_RAW,
    Close,
    Frame,
    Refusal,
    Unreadable,
    Versions,
)

_Row = TypeVar("_Row")


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
        unreadable: logs that the site cannot read now, or can again.
        heads: the frames, without their data; see `frames`.
        block: the frames' data, one after another.
        compressed: whether `block` is compressed.
        size: bytes of log in all frames.
        versions: what the site runs; None if it does not say.
    """

    clock: float
    utc_offset: int
    full: bool
    opens: tuple[StreamId, ...]
    known: tuple[str, ...]
    closes: tuple[Close, ...]
    refusals: tuple[Refusal, ...]
    unreadable: tuple[Unreadable, ...]
    heads: tuple[_Head, ...]
    block: bytes
    compressed: bool
    size: int
    versions: Versions | None

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


def _losses(row: Fields) -> tuple[Loss, ...]:
    rows = row.rows("lost", 64)
    if not rows:
        return ()
    losses = []
    for loss in rows:
        if not isinstance(loss, list) or len(loss) != 3:
            raise row.bad("lost", loss, "[offset, length or null, reason]")
        entry = Fields(dict(zip(("offset", "length", "reason"), loss, strict=True)), f"{row.where}lost.")
        offset, length = entry.number("offset", MAX_OFFSET), entry.number("length", MAX_OFFSET, default=None)
        losses.append(Loss(offset, length, entry.text("reason")))
    return tuple(losses)


def _head(row: Fields) -> _Head:
    offset, length = row.number("at", MAX_OFFSET), row.number("n", MAX_FRAME)
    checksum, cursor = row.number("crc", 0xFFFFFFFF), row.octets("cur", MAX_CURSOR)
    if is_unchecked(cursor):  # of a copy that no sender of ours has sent
        raise row.bad("cur", cursor, f"what does not begin with {UNCHECKED_CURSOR!r}")
    return _Head(stream_id(row), offset, length, checksum, cursor, _losses(row))


def _close(row: Fields) -> Close:
    total = row.number("total", MAX_OFFSET)
    digest, digest_from = row.text("sha256", 64), row.number("from", total)
    return Close(stream_id(row), total, digest, digest_from, row.text("outcome"))


def _refusal(row: Fields) -> Refusal:
    return Refusal(stream_id(row), row.text("why"))


def _unreadable(row: Fields) -> Unreadable:
    return Unreadable(stream_id(row), row.time("since"), row.text("why"), row.text("outcome", default=None))


def _all(fields: Fields, name: str, most: int, read: Callable[[Fields], _Row]) -> tuple[_Row, ...]:
    """A list of maps, each as `read` reads it; most requests have but one of all these lists."""
    return tuple(map(read, fields.maps(name, most))) if fields.has(name) else ()


def _versions(fields: Fields) -> Versions | None:
    row = fields.map("who", default=None)
    if row is None:
        return None
    return Versions(row.version("package"), row.version("runtime"))


def decode_request(payload: object) -> Request:
    """Read and check a request.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    fields = unpack(payload, MAX_MESSAGE)
    check_version(fields)
    heads = _all(fields, "frames", MAX_FRAMES, _head)
    raw_size = sum([head.length for head in heads])
    if raw_size > MAX_RAW:  # a few KiB may unpack to gigabytes
        raise WireError(f"frames: {raw_size} bytes of data are not allowed; at most {MAX_RAW} in a request")
    return Request(
        clock=fields.time("clock"),
        utc_offset=fields.number("utc", 86400, -86400),
        full=fields.flag("full"),
        opens=_all(fields, "open", MAX_STREAMS, stream_id),
        known=fields.names("known", MAX_STREAMS),
        closes=_all(fields, "close", MAX_STREAMS, _close),
        refusals=_all(fields, "refuse", MAX_STREAMS, _refusal),
        unreadable=_all(fields, "unread", MAX_STREAMS, _unreadable),
        heads=heads,
        block=fields.octets("data", MAX_MESSAGE),
        compressed=fields.flag("zstd"),
        size=raw_size,
        versions=_versions(fields),
    )
