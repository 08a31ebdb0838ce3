"""The site's own digest: what was read of a log, hashed again from its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import partial

from nvflare_logstream.hashing import hash_range
from nvflare_logstream.site.cursor import Segment


def digest_of(
    base: int, segments: Iterable[Segment], open_holder: Callable[[Segment], int | None]
) -> tuple[str, int]:
    """Hash segments that follow one another.

    Args:
        base: place in the stream, in bytes, at which the first one begins.
        segments: the segments, oldest first.
        open_holder: opens the file that holds a segment; the descriptor is closed here. None if it is gone.

    Returns:
        The sha256 in hex, and the place it begins at: `base`, or after the last segment that cannot be read
            again.

    Raises:
        OSError: if a file is there and cannot be read.
    """
    hasher, begins, end = hashlib.sha256(), base, base
    for segment in segments:
        end += segment.length
        descriptor = open_holder(segment) if segment.length else None
        if descriptor is None:
            reached = segment.start
        else:
            try:
                reached = hash_range(hasher, partial(_read, descriptor), segment.start, segment.end)
            finally:
                os.close(descriptor)
        if reached < segment.end:
            hasher, begins = hashlib.sha256(), end
    return hasher.hexdigest(), begins


def _read(descriptor: int, position: int, length: int) -> bytes:
    return os.pread(descriptor, length, position)
