"""The disk space of a file that others write to: gives back that of old bytes, keeps some for new ones.

A file that children of the job's process hold open can be neither rotated (they keep writing to the old one)
nor truncated without losing what nobody has read. So its old bytes are made a hole: the file keeps its length
and every byte its place; what lies in the hole takes no space and reads as zeros. The file's beginning stays:
a file is known by it.
"""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

STEP = 1 << 20  # bytes; a hole begins after the first step and ends at a multiple of it, also on large blocks
RESERVED = 1 << 20  # bytes for which there is room behind a file's end
_KEEP_SIZE, _PUNCH_HOLE = 0x1, 0x2  # of fallocate(2)


def end_of_hole(descriptor: int) -> int:
    """Where a file's hole ends; 0 if it has none. The descriptor's position is not kept."""
    try:
        end = os.lseek(descriptor, STEP, os.SEEK_DATA)
    except OSError:  # the file is shorter, or its file system knows of no holes
        return 0
    return end if end > STEP and end % STEP == 0 else 0


def make_hole(descriptor: int, end: int) -> None:
    """Make a hole of all bytes from the first step up to `end`, a multiple of the step.

    Raises:
        OSError: if the file system cannot, see `can_make_holes`.
    """
    _fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, STEP, end - STEP)


def reserve(descriptor: int, start: int) -> None:
    """Take room on the disk for `RESERVED` bytes from `start` on; the file's length stays.

    Raises:
        OSError: if there is none, the file system cannot, or the system has no such call.
    """
    try:
        _fallocate(descriptor, _KEEP_SIZE, start, RESERVED)
    except AttributeError as error:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from error


def _fallocate(descriptor: int, mode: int, start: int, length: int) -> None:
    import ctypes  # only here: few jobs need it

    libc = ctypes.CDLL(None, use_errno=True)
    where = ctypes.c_int64(start), ctypes.c_int64(length)
    if libc.fallocate(ctypes.c_int(descriptor), ctypes.c_int(mode), *where):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def can_make_holes(directory: Path) -> bool:
    """Whether files of a directory can have holes, and readers are told of them: tried with a file there."""
    # AttributeError: a system without fallocate, or without holes.
    with suppress(OSError, AttributeError), tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"x" * (3 * STEP))
        file.flush()
        make_hole(file.fileno(), 2 * STEP)
        return end_of_hole(file.fileno()) == 2 * STEP
    return False
