"""Files on the reader's own disk: private, not behind a symbolic link, synced before they get a name."""

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
from nvflare_logstream.hashing import hash_range

PART = ".part"  # ends the name of a file that is not complete


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a system error into one that names `path` and says what to do.

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
        text = f"cannot write {path}: {error.strerror}; {advice}"
        raise RetrievalError(ErrorCode.OUTPUT_DIR_NOT_WRITABLE, text) from error


def make_directory(path: Path) -> None:
    """Make a private directory, unless there is one; OSError if something else has its name, also a link."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if path.is_symlink():
        raise OSError(errno.ENOTDIR, f"{path.name} is a symbolic link, not a directory")
    if not path.is_dir():
        raise OSError(errno.ENOTDIR, f"{path.name} is not a directory")


def is_regular(path: Path) -> bool:
    """Whether there is a file, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def open_new(path: Path) -> int:
    """Open a new, private file for writing; a file that had its name is removed, and never written to."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def open_to_append(path: Path) -> int:
    """Open a file that exists for appending, and make it private."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.fchmod(fd, 0o600)
    return fd


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, however little the system takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def rename_synced(part: Path, final: Path) -> None:
    """Give a synced file its name, and sync that too."""
    os.replace(part, final)
    fd = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file; at every moment there is either the old one or the new one."""
    part = path.with_name(path.name + PART)
    fd = open_new(part)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    rename_synced(part, path)


def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file; OSError if it is a link, a pipe or the like."""
    # O_NONBLOCK: opening a pipe would otherwise wait for its writer.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def files_below(directory: Path) -> Iterator[tuple[str, str]]:
    """Everything below a directory but directories; links are not followed.

    A directory that cannot be looked into is there too.

    Returns:
        Pairs: the path from `directory` on, in which bytes that are no UTF-8 are shown as \\xff; why it
        cannot be read, or "".
    """
    waiting = [directory]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(place / entry.name)
                    else:
                        yield _name_below(directory, place / entry.name), ""
        except OSError as error:
            yield _name_below(directory, place), error.strerror or str(error)


def _name_below(directory: Path, path: Path) -> str:
    return os.fsencode(path.relative_to(directory)).decode(errors="backslashreplace")


def sha256_of(path: Path, start: int = 0) -> tuple[int, str]:
    """A file's length in bytes and its sha256 (hex) from `start` on; OSError if it cannot be read."""
    hasher = hashlib.sha256()
    with open_to_read(path) as file:
        fd = file.fileno()
        size = hash_range(hasher, lambda at, length: os.pread(fd, length, at), start, os.fstat(fd).st_size)
    return size, hasher.hexdigest()
