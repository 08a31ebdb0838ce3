"""Hashing a range of bytes step by step, so that a large file never stands in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

HASH_STEP = 1 << 20  # bytes read at a time


def hash_range(hasher: Any, read: Callable[[int, int], bytes], start: int, end: int) -> int:
    """Update `hasher` with the bytes from `start` to `end`, which `read(offset, length)` gives.

    Returns:
        The offset reached: `end`, or below it if the source is shorter.
    """
    offset = start
    while offset < end:
        data = read(offset, min(HASH_STEP, end - offset))
        if not data:
            break
        hasher.update(data)
        offset += len(data)
    return offset
