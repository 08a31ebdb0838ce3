"""Files on the reader's own disk: never reached through a symbolic link, private, and on disk before they get their name."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nvflare_logstream.errors import ErrorCode, RetrievalError

PART = ".part"  # ends the name of a file that is not complete
_HASH_STEP = 1 << 20


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a system error what it hit and what to do.

    Raises:
        RetrievalError: OUTPUT_DIR_NOT_WRITABLE.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "make room and run it again; an export goes on from there"
        else:
            advice = "see to it that it can be written, or choose another directory"
        raise RetrievalError(
            ErrorCode.OUTPUT_DIR_NOT_WRITABLE, f"cannot write {path}: {error.strerror}; {advice}"
        ) from error


def make_directory(path: Path) -> None:
    """Make a private directory where there is none yet; OSError if something else is in its place."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if path.is_symlink() or not path.is_dir():
        raise OSError(errno.ENOTDIR, "it is not a directory")


def is_regular(path: Path) -> bool:
    """Whether there is a file, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def open_anew(path: Path) -> int:
    """A descriptor to write a new, private file; what had its name before is removed, and never written to."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def open_at_end(path: Path) -> int:
    """A descriptor to write on at the end of a file that is there."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.fchmod(fd, 0o600)
    return fd


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def rename_synced(part: Path, final: Path) -> None:
    """Give a synced file its name, for good."""
    os.replace(part, final)
    fd = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file so that there is, at every moment, the old or the new one."""
    part = path.with_name(path.name + PART)
    fd = open_anew(part)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    rename_synced(part, path)


def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file; OSError if it is a link, a pipe or the like."""
    fd = os.open(
        path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    )  # opening a pipe would wait for its writer
    file = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def sha256_of(path: Path) -> tuple[int, str]:
    """A file's length in bytes and its sha256 (hex)."""
    hasher, size = hashlib.sha256(), 0
    with open_to_read(path) as file:
        while data := file.read(_HASH_STEP):
            hasher.update(data)
            size += len(data)
    return size, hasher.hexdigest()
