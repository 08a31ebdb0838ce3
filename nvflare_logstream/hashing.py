"""Hash a range of bytes step by step, wherever they are read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

HASH_STEP = 1 << 20  # bytes read at a time: bounds the memory that hashing a large log takes


class Hasher(Protocol):
    """What hashlib's objects have in common."""

    def update(self, data: bytes, /) -> None:
        """Hash `data` after what was hashed before."""


def hash_range(hasher: Hasher, read: Callable[[int, int], bytes], start: int, end: int) -> int:
    """Update `hasher` with the bytes from `start` to `end`.

    Args:
        hasher: such as `hashlib.sha256()`.
        read: gives up to as many bytes as its second argument says, from the offset in its first; none at the
            end.
        start: offset of the first byte.
        end: offset after the last byte.

    Returns:
        The offset that was reached; below `end` if the bytes end before it.
    """
    offset = start
    while offset < end:
        data = read(offset, min(HASH_STEP, end - offset))
        if not data:
            break
        hasher.update(data)
        offset += len(data)
    return offset
