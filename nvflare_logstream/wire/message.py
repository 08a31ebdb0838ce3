"""What a request and a reply of an upload have in common: version, bounds, and how they are unpacked."""

from __future__ import annotations

from typing import Any

import msgpack

from nvflare_logstream.errors import WireError
from nvflare_logstream.streams import StreamId
from nvflare_logstream.wire.fields import Fields

PROTOCOL_VERSION = 1
MAX_MESSAGE = 4 << 20  # bytes of an encoded request
MAX_STREAMS = 4096  # entries of any list in a request but frames
MAX_CURSOR = 16 << 10  # bytes
MAX_OFFSET = (1 << 63) - 1
_MAX_LIST = 4 * MAX_STREAMS  # entries; a longer list would get its memory before anything in it is read
_MAX_MAP = 64  # fields
_MAX_VALUES = 1 << 18  # lists, maps and their entries in one message: in memory each is up to 80 bytes


class _Allowance:
    """Counts the values of one message while they are read.

    One byte on the wire can become a list of 72 bytes in memory: 4 MiB of them took 285 MiB.
    """

    def __init__(self) -> None:
        self._left = _MAX_VALUES

    def take(self, container: Any) -> Any:
        """Count a list or a map that was read whole, with its entries."""
        self._left -= 1 + len(container)
        if self._left < 0:
            raise WireError(f"message: more than {_MAX_VALUES} values are not allowed")
        return container


def unpack(payload: object, most: int) -> Fields:
    """The fields of a message of at most `most` bytes, whatever its version.

    Raises:
        WireError: if it is too long, holds too many values, or is no msgpack map.
    """
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise WireError(f"message: bytes are wanted, {type(payload).__name__} came")
    if len(payload) > most:
        raise WireError(f"message: {len(payload)} bytes are not allowed; at most {most}")
    # A value takes a byte at least: what is shorter cannot hold too many, and need not be counted.
    take = _Allowance().take if len(payload) > _MAX_VALUES else None
    try:
        value = msgpack.unpackb(
            payload,
            strict_map_key=False,
            max_array_len=_MAX_LIST,
            max_map_len=_MAX_MAP,
            list_hook=take,
            object_hook=take,
        )
        fields = Fields(value, "")
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
