"""One stream's file in the store."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nvflare_logstream.errors import StoreError
from nvflare_logstream.hashing import hash_range
from nvflare_logstream.streams import State, Stream, StreamKey

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW  # a link in the store is not ours
_numbers = itertools.count(1)
_MOST_LIVES = 100  # of the server, in which bytes of one stream came; after more nobody knows what came


@contextmanager
def as_store_error(key: StreamKey) -> Iterator[None]:
    """Raise what the disk refuses to a stream as a `StoreError`, which names the stream."""
    try:
        yield
    except OSError as error:
        raise not_kept(key, error) from error


def not_kept(key: StreamKey, error: OSError) -> StoreError:
    """What the disk refuses to a stream, as an error that names the stream."""
    return StoreError(f"cannot keep {key}: {error}")


class StreamFile:
    """One stream in memory: its record, and whether that is committed.

    Args:
        record: what is known of the stream.
        path: its file.

    Attributes:
        dirty: the record is newer than the index.
        listed: how many entries of the ledger are in the index.
        is_heard: a sender has opened it or written to it in this life of the server.
        read: what was hashed last, see `fingerprint`, and its sha256 (hex).
    """

    def __init__(self, record: Stream, path: Path):
        self.record, self.path = record, path
        self.dirty = self.is_heard = False
        self.listed = 0
        self.read: tuple[tuple[int, ...], str] = ((), "")
        self._hash_from(record.end, record.came)
        self._left: tuple[int, ...] = ()  # how the file was when it was last looked at, or written to
        self._version = 0
        # Its name may not be on disk yet: the life of the server that made it may not have come to that.
        self._is_unnamed = True
        self._before_close: Stream | None = None  # while a close is not on disk

    def write(self, data: bytes) -> None:
        """Write at the end of a file whose `size` was just looked at; the caller then moves the end."""
        fd = os.open(self.path, os.O_WRONLY | _FLAGS)
        try:
            rest, offset = data, self.record.end
            while (written := os.pwrite(fd, rest, offset)) < len(rest):
                rest, offset = rest[written:], offset + written
            mark = mark_of(os.fstat(fd))
            if mark[:1] != self._left[:1]:  # made anew since
                self._version = next(_numbers)
            self._left = mark
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, self.record.end)
            raise
        finally:
            os.close(fd)
        if self._hashed == self.record.end:
            self._hasher.update(data)
            self._hashed += len(data)

    def version(self) -> int:
        """A number that stays the same only while the file has no change but what is written at its end.

        Raises:
            OSError: if the file cannot be looked at.
        """
        self._look(self.path.lstat())
        return self._version

    def _look(self, status: os.stat_result) -> None:
        if (mark := mark_of(status)) != self._left:  # written by somebody else, say, or made anew
            self._left, self._version = mark, next(_numbers)

    def holds(self, offset: int, data: bytes) -> bool:
        """Whether `data` is what is stored from `offset` on.

        Raises:
            OSError: if it cannot be read.
        """
        fd = os.open(self.path, os.O_RDONLY | _FLAGS)
        try:
            return os.pread(fd, len(data), offset) == data
        finally:
            os.close(fd)

    def _hash_from(self, end: int, came_before: str) -> None:
        """Hash what comes in this life of the server, and not what is on disk."""
        self._hasher, self._hash_start, self._hashed = hashlib.sha256(), end, end
        self._came_before = came_before

    @property
    def received(self) -> str:
        """sha256 (hex) of all bytes as they came; empty if some came in an earlier life of the server."""
        return self._hasher.hexdigest() if not self._hash_start and self._hashed == self.record.end else ""

    def _came(self) -> str:
        """The sha256 of what came in each life of the server, see `Stream.came`."""
        came, is_known = self._came_before, self._hashed == self.record.end
        if self._hashed > self._hash_start:
            is_known &= bool(came) or not self._hash_start
            came = f"{came} {self._hashed}:{self._hasher.hexdigest()}".strip()
        return came if is_known and came.count(" ") < _MOST_LIVES else ""

    def note_what_came(self) -> Stream:
        """Bring the note of what came into the record, before it is committed, and return it."""
        if (came := self._came()) != self.record.came:
            self.record = self.record._replace(came=came)
        return self.record

    def is_as_it_came(self, digest: str) -> bool:
        """Whether all bytes on disk, which have this sha256 (hex), are as they came, as far as that is known.

        Raises:
            StoreError: if the file is shorter.
            OSError: if it cannot be read.
        """
        if self.received:
            return self.received == digest
        start = 0
        for part in self._came().split():
            end, came = part.split(":")
            if digest_of(self.path, start, int(end)) != came:
                return False
            start = int(end)
        return True

    def update(self, **changes: Any) -> None:
        """Change the record; it is on disk after the next commit."""
        if changes.get("state") is State.CLOSED:
            self._before_close = self._before_close or self.record
        elif "state" in changes:
            self._before_close = None
        self.record = self.record._replace(**changes)
        self.dirty = True

    @property
    def shown(self) -> Stream:
        """The record as readers may see it: a close counts once it is on disk."""
        return self._before_close or self.record

    def committed(self, record: Stream) -> bool:
        """Note that `record`, which was of this stream, is on disk; returns whether it shows a close."""
        self.listed = max(self.listed, len(record.losses))
        if not self._before_close or (record.state, record.closed) != (State.CLOSED, self.record.closed):
            return False
        self._before_close = None
        return True

    def seen(self, now: float) -> None:
        """Note a sign of life, which alone is no reason to write the record."""
        self.record = self.record._replace(last_seen=now)

    def wait(self, reason: str, now: float) -> None:
        """Note why an open stream cannot grow now; not on disk, which may be what has no room."""
        if self.record.state is State.OPEN:
            self.record = self.record._replace(reason=reason, last_seen=now)

    def sync(self, directories: set[Path]) -> bool:
        """Bring the data to disk, and a new file's name; False if somebody removed the file.

        Args:
            directories: those that were synced after the file was made; those that are synced here join them.

        Raises:
            OSError: if the file cannot be opened.
            UnsyncedError: if nobody knows what of it is on disk.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
        except FileNotFoundError:
            return False
        try:
            os.fdatasync(fd)
            if self._is_unnamed:
                for directory in self.path.parents[:3]:
                    if directory not in directories:
                        sync_directory(directory)
                        directories.add(directory)
                self._is_unnamed = False
        except OSError as error:
            raise UnsyncedError(error.errno, error.strerror) from error
        finally:
            os.close(fd)
        return True

    def size(self) -> int:
        """Bytes on disk; -1 without a file.

        Raises:
            OSError: if there is something else than a file.
        """
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return -1
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{self.path} is not a plain file")
        self._look(status)
        return status.st_size

    def start_again(self, kept: int = 0) -> None:
        """Make the file anew, with the first `kept` bytes that it has; the record then has so many."""
        self._hash_from(kept, "")
        self._left = ()
        if kept:
            os.truncate(self.path, kept)
            return
        self.record = self.record._replace(end=0, lines=0, came="")
        for directory in (self.path.parent.parent, self.path.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._is_unnamed = True
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600))

    def fingerprint(self, start: int) -> tuple[int, ...]:
        """Changes when the stored bytes from `start` on do.

        Raises:
            OSError: if the file cannot be looked at.
        """
        return start, self.record.end, *mark_of(self.path.lstat())


def mark_of(status: os.stat_result) -> tuple[int, ...]:
    """Changes when the file does."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class UnsyncedError(OSError):
    """The disk did not take data: the system may have dropped them, and a next sync would not say so."""


def digest_of(path: Path, start: int, end: int) -> str:
    """sha256 (hex) of a file's bytes from `start` to `end`.

    Raises:
        StoreError: if the file is shorter.
        OSError: if it cannot be read.
    """
    hasher = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
    try:
        reached = hash_range(hasher, lambda offset, length: os.pread(fd, length, offset), start, end)
    finally:
        os.close(fd)
    if reached < end:
        raise StoreError(f"{path.name}: the stored copy is shorter than its index says")
    return hasher.hexdigest()


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to disk.

    Raises:
        OSError: if the disk does not take them.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
