"""What a request and a reply of an upload have in common: version, bounds, and how they are unpacked."""

from __future__ import annotations

import msgpack

from nvflare_logstream.errors import WireError
from nvflare_logstream.streams import StreamId
from nvflare_logstream.wire.fields import Fields

PROTOCOL_VERSION = 1
MAX_MESSAGE = 4 << 20  # bytes of an encoded request
MAX_STREAMS = 4096  # entries of any list in a request but frames
MAX_CURSOR = 16 << 10  # bytes
MAX_OFFSET = (1 << 63) - 1


def unpack(payload: object, most: int) -> Fields:
    """The fields of a message of at most `most` bytes, whatever its version.

    Raises:
        WireError: if it is too long, or no msgpack map.
    """
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise WireError(f"message: bytes are wanted, {type(payload).__name__} came")
    if len(payload) > most:
        raise WireError(f"message: {len(payload)} bytes are not allowed; at most {most}")
    try:
        fields = Fields(msgpack.unpackb(payload, strict_map_key=False), "")
    except WireError:
        raise
    except Exception as error:  # msgpack raises many kinds for hostile input
        raise WireError(f"message: not readable ({type(error).__name__})") from None
    return fields


def check_version(fields: Fields) -> None:
    """Refuse a message of another protocol version.

    Raises:
        WireError: naming both versions.
    """
    version = fields.number("v", 1 << 31)
    if version != PROTOCOL_VERSION:
        raise WireError(
            f"protocol version {version} is not supported; this side supports version {PROTOCOL_VERSION}"
        )


def stream_id(row: Fields) -> StreamId:
    """The stream that a row is about."""
    return StreamId(row.name("job"), row.name("file"))
