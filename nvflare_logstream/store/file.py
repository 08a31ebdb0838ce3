"""One stream's file in the store."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nvflare_logstream.errors import StoreError
from nvflare_logstream.streams import Stream

_HASH_STEP = 1 << 20


class StreamFile:
    """One stream in memory: its record, whether that is committed, and the running digest of its file."""

    def __init__(self, info: Stream, path: Path):
        self.info, self.path = info, path
        self.dirty = False
        self._hasher, self._hashed = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """Write at the end; the caller then moves the end."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            view, at = memoryview(data), self.info.end
            while view:
                written = os.pwrite(fd, view, at)
                view, at = view[written:], at + written
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, self.info.end)
            raise
        finally:
            os.close(fd)
        if self._hashed == self.info.end:
            self._hasher.update(data)
            self._hashed += len(data)

    def update(self, **changes: Any) -> None:
        """Change the record; it is on disk after the next commit."""
        self.info = replace(self.info, **changes)
        self.dirty = True

    def seen(self, now: float) -> None:
        """Note a sign of life, which alone is no reason to write the record."""
        self.info = replace(self.info, last_seen=now)

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
        """Bytes on disk, -1 without a file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return -1

    def start_again(self) -> None:
        """Make the file anew, empty."""
        self.info = replace(self.info, end=0, cursor=b"", lines=0)
        self._hasher, self._hashed = hashlib.sha256(), 0
        for directory in (self.path.parent.parent, self.path.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    def digest(self, begins: int) -> str:
        """sha256 of the stored bytes from `begins` on."""
        hasher, at = (self._hasher, self._hashed) if begins == 0 else (hashlib.sha256(), begins)
        with self.path.open("rb") as file:
            while at < self.info.end:
                file.seek(at)
                data = file.read(min(_HASH_STEP, self.info.end - at))
                if not data:
                    raise StoreError(f"{self.path.name}: the stored copy is shorter than its index says")
                hasher.update(data)
                at += len(data)
        if begins == 0:
            self._hashed = at
        return hasher.hexdigest()
