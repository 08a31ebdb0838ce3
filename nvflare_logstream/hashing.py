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
        read: gives up to as many bytes as its second argument says, from the position in its first; none at
            the end.
        start: position of the first byte.
        end: position after the last byte.

    Returns:
        The position that was reached; below `end` if the bytes end before it.
    """
    position = start
    while position < end:
        data = read(position, min(HASH_STEP, end - position))
        if not data:
            break
        hasher.update(data)
        position += len(data)
    return position
