"""The files of a log, opened and looked at with care.

The job's code may put anything into their directory. So only regular files of known owners are looked into:
no symbolic link is followed, no named pipe or device is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from nvflare_logstream.site.cursor import fingerprint

# Without O_NONBLOCK, opening a named pipe that took the file's place waits for a writer.
_PLAINLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class ChainFile(NamedTuple):
    """A file of the rotation chain as a directory scan saw it.

    Attributes:
        path, inode, size: of the file; the size in bytes.
        written: time of its last write, in nanoseconds.
        changed: time of its last write or renaming, in nanoseconds.
    """

    path: Path
    inode: int
    size: int
    written: int = 0
    changed: int = 0


def owners(directory: Path) -> set[int]:
    """The users whose files are read: our own, root, and the owner of the log's directory."""
    users = {os.geteuid(), 0}
    with suppress(FileNotFoundError):
        users.add(os.stat(directory).st_uid)
    return users


def obstacle(status: os.stat_result, users: Collection[int]) -> str:
    """Why a file is not read, in words that follow "it is"; empty if it may be read.

    Args:
        status: of the file itself, no link followed.
        users: whose files are read, see `owners`.
    """
    if stat.S_ISLNK(status.st_mode):
        return "a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "no regular file"
    return "" if status.st_uid in users else f"a file of user {status.st_uid}"


def open_plainly(path: Path) -> int | None:
    """Open a file for reading; None if there is none, or none that may be read (see `obstacle`).

    Raises:
        OSError: if the file is there and cannot be read.
    """
    try:
        descriptor = os.open(path, _PLAINLY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # gone, a link, a socket or device
            return None
        raise
    try:
        if not obstacle(os.fstat(descriptor), owners(path.parent)):
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def look(path: Path, users: Collection[int]) -> ChainFile | None:
    """A file as it is now; None if it is gone or may not be read.

    Raises:
        OSError: if nobody can say; to pass it over might lose it.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if obstacle(status, users):
        return None
    return ChainFile(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def check_plain(path: Path) -> None:
    """Check that a file may be read; nothing is wrong if there is none.

    Raises:
        OSError: if it may not (see `obstacle`).
    """
    with suppress(FileNotFoundError):
        if what := obstacle(os.lstat(path), owners(path.parent)):
            raise OSError(errno.EPERM, f"it is {what}, and only regular files of the job are read")


def head_of(path: Path, length: int, start: int = 0) -> str:
    """Fingerprint of the first `length` bytes, or of those from `start` on; empty without a file."""
    descriptor = open_plainly(path)
    if descriptor is None:
        return ""
    try:
        return fingerprint(os.pread(descriptor, length, start))
    finally:
        os.close(descriptor)
