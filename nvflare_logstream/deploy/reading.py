"""Reads files of a start-up kit, whatever stands there: nothing that has no end, or that blocks."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def read_file(path: Path, most: int) -> bytes:
    """The first `most` bytes of a regular file.

    Raises:
        OSError: if it is none, or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", os.fspath(path))
    with path.open("rb") as file:
        return file.read(most)
