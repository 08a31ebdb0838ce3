"""One stream's file in the store."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from nvflare_logstream.errors import StoreError
from nvflare_logstream.hashing import hash_range
from nvflare_logstream.streams import Stream


class StreamFile:
    """One stream in memory: its record, whether that is committed, and the running digest of its file.

    Args:
        record: what is known of the stream.
        path: its file.
    """

    def __init__(self, record: Stream, path: Path):
        self.record, self.path = record, path
        self.dirty = False  # the record is newer than the index
        self._hasher, self._hashed = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """Write at the end; the caller then moves the end."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            rest, offset = memoryview(data), self.record.end
            while rest:
                written = os.pwrite(fd, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, self.record.end)
            raise
        finally:
            os.close(fd)
        if self._hashed == self.record.end:
            self._hasher.update(data)
            self._hashed += len(data)

    def update(self, **changes: Any) -> None:
        """Change the record; it is on disk after the next commit."""
        self.record = self.record._replace(**changes)
        self.dirty = True

    def seen(self, now: float) -> None:
        """Note a sign of life, which alone is no reason to write the record."""
        self.record = self.record._replace(last_seen=now)

    def sync(self) -> bool:
        """Bring the data to disk; False if somebody removed the file."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        return True

    def size(self) -> int:
        """Bytes on disk; -1 without a file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return -1

    def start_again(self) -> None:
        """Make the file anew, empty."""
        self.record = self.record._replace(end=0, cursor=b"", lines=0)
        self._hasher, self._hashed = hashlib.sha256(), 0
        for directory in (self.path.parent.parent, self.path.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    def digest(self, start: int) -> str:
        """sha256 (hex) of the stored bytes from `start` on.

        Raises:
            StoreError: if the file is shorter than the record says.
            OSError: if it cannot be read.
        """
        whole = start == 0
        # On a copy: after an error the running digest still belongs to the bytes counted in `_hashed`.
        hasher = self._hasher.copy() if whole else hashlib.sha256()
        with self.path.open("rb", buffering=0) as file:
            end = hash_range(
                hasher,
                lambda offset, length: os.pread(file.fileno(), length, offset),
                self._hashed if whole else start,
                self.record.end,
            )
        if end < self.record.end:
            raise StoreError(f"{self.path.name}: the stored copy is shorter than its index says")
        if whole:
            self._hasher, self._hashed = hasher, end
        return hasher.hexdigest()
