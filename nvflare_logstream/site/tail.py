"""Follow one log file as one endless byte sequence, across rotations and truncations.

Rules (the tests drive them with random writes, rotations and restarts against a plain model):

* The sequence is every byte ever written to the file, in the order written. A rotated file is read to its end before the
  next one is begun: `log.txt.3`, `log.txt.2`, `log.txt.1`, `log.txt`.
* A file is known by its inode and a fingerprint of its head, because a deleted file's inode is soon given to another one.
* Before new bytes are taken, the last bytes already taken (the anchor) are compared with the file: this finds a truncated
  file also when it has already grown beyond the old position.
* After a truncation the rest is read from the copy that `copytruncate` made, where there is one.
* What cannot be read any more is reported as a `Loss`, never passed over.
* The writer owns a renamed file until its successor has data: a late line still belongs to the old file.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from nvflare_logstream.site.cursor import Cursor, Segment, fingerprint
from nvflare_logstream.wire.frames import Loss

_HEAD = 1024  # bytes of a file's head that identify it, beside its inode
_ANCHOR = 64  # bytes before the position that are compared at each look
_HASH_STEP = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Bytes of the logical sequence, with the cursor that stands after them."""

    offset: int
    data: bytes
    cursor: bytes
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A file of the rotation chain as a directory scan saw it."""

    path: Path
    inode: int
    size: int


class Tailer:
    """Reads one log of one job; not thread-safe, owned by the sender's thread.

    Args:
        directory: the job's log directory.
        name: the log's plain file name; rotated files are `<name>.<suffix>` beside it.
    """

    def __init__(self, directory: Path, name: str):
        self._path = Path(directory) / name
        self.offset = 0  # logical offset of the next byte
        self._fd: int | None = None
        self._inode = 0
        self._seen = (0, 0)  # size and mtime at the last look that found nothing new
        self._head = b""
        self._anchor = b""
        self._base = 0
        self._segments: list[Segment] = []
        self._next_inode = 0  # the file known to follow ours, once a rotation was seen
        self._losses: list[Loss] = []

    # -- position -----------------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int | None:
        """The open file being read, for a watcher; None while there is none."""
        return self._fd

    def seek(self, offset: int, cursor: bytes) -> None:
        """Go to the place the receiver knows: logical `offset`, described by `cursor` (empty: the start).

        A file that the cursor names and that is gone is reported as a loss with the next chunk.
        """
        self.close()
        self._segments, self._base, self._anchor, self._losses = [], 0, b"", []
        self.offset = offset
        self._next_inode = 0
        if not cursor:
            self._base = offset
            return
        place = Cursor.decode(cursor)
        self._segments, self._base = list(place.segments), place.base
        if not self._segments:
            return
        here = self._segments[-1]
        found = self._find(here)
        if found is None:
            self._lose(None, "the file was removed or rotated away before it was read to its end")
        elif self._open(found, here.end):
            self._segments[-1] = replace(here, inode=found.inode)
            self._anchor = place.anchor
        else:  # rotated between the look and the open
            self.seek(offset, cursor)

    def close(self) -> None:
        """Close the open file; the position is kept only in cursors already given out."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, limit: int) -> Chunk | None:
        """Return up to `limit` bytes that follow, or None if nothing new is there now.

        Raises:
            OSError: if the file exists and cannot be read (permissions, I/O error).
        """
        while True:
            data = self._read_open_file(limit) if self._fd is not None else b""
            if data or self._losses:
                return self._chunk(data)
            if not self._advance():
                return self._chunk(b"") if self._losses else None

    def _chunk(self, data: bytes) -> Chunk:
        losses, self._losses = tuple(self._losses), []
        start = self.offset
        if data:
            here = self._segments[-1]
            if len(self._head) < _HEAD and here.start + here.length == len(self._head):
                self._head = (self._head + data)[:_HEAD]
            self._anchor = (self._anchor + data[-_ANCHOR:])[-_ANCHOR:]
            self.offset += len(data)
            if here.head_length < len(self._head):
                here = replace(here, head=fingerprint(self._head), head_length=len(self._head))
            self._segments[-1] = replace(here, length=here.length + len(data))
        cursor = Cursor(self._base, self._anchor, tuple(self._segments)).encode()
        return Chunk(start, data, cursor, losses)

    def _read_open_file(self, limit: int) -> bytes:
        assert self._fd is not None
        stat = os.fstat(self._fd)
        position = self._segments[-1].end
        look = (stat.st_size, stat.st_mtime_ns)
        if stat.st_size == position and look == self._seen:
            return b""
        before = len(self._anchor)
        wanted = before + max(0, min(limit, stat.st_size - position))
        data = os.pread(self._fd, wanted, position - before)
        if data[:before] != self._anchor:
            self._truncated(position)
            return b"" if self._losses else self._read_open_file(limit)
        self._seen = (max(stat.st_size, position + len(data) - before), stat.st_mtime_ns)
        return data[before:]

    def _truncated(self, position: int) -> None:
        """Our position is no longer in the file: go on in the copy that was made of it, or at its new start."""
        unread = max(0, self._seen[0] - position)
        for found in self._scan():
            if found.inode != self._inode and found.size >= position and self._is_copy(found.path, position):
                if self._open(found, position):
                    # The copy holds all of this file's bytes, so it also stands in for them in the digest.
                    self._segments[-1] = replace(self._segments[-1], inode=found.inode)
                return
        self._lose(unread or None, "the file was truncated in place; what was written since the last look is gone")
        self._base, self._segments = self.offset, [Segment(self._inode, 0, 0, fingerprint(b""), 0)]
        self._head = self._anchor = b""
        self._seen = (0, 0)

    def _is_copy(self, path: Path, position: int) -> bool:
        with path.open("rb") as file:
            head = file.read(len(self._head))
            file.seek(position - len(self._anchor))
            return head == self._head and file.read(len(self._anchor)) == self._anchor

    # -- from file to file --------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """Move to the file that follows in the rotation chain; False if there is none (yet)."""
        if self._fd is not None:
            try:
                if os.stat(self._path).st_ino == self._inode:
                    return False
            except FileNotFoundError:
                pass
        chain = self._scan()
        followers = self._followers(chain)
        if followers:
            self._next_inode = followers[0].inode
        if not any(found.size for found in followers) and not (self._fd is None and followers):
            return False
        if self._fd is not None and os.fstat(self._fd).st_size > self._segments[-1].end:
            return True  # a last line came while we looked
        if self._open(followers[0], 0):
            self._anchor, self._next_inode = b"", followers[1].inode if len(followers) > 1 else 0
            self._segments.append(Segment(self._inode, 0, 0, fingerprint(b""), 0))
            while len(self._segments) > Cursor.MAX_SEGMENTS:
                self._base += self._segments.pop(0).length
        return True  # also when a rotation came between the look and the open: look again

    def _followers(self, chain: list[_Found]) -> list[_Found]:
        """The files to read after the one we are in, oldest first."""
        inodes = [found.inode for found in chain]
        if self._fd is not None and self._inode in inodes:
            return chain[inodes.index(self._inode) + 1 :]
        if self._next_inode in inodes:
            return chain[inodes.index(self._next_inode) :]
        followers = [found for found in chain if not self._was_read(found)]
        if self._fd is not None and len(followers) > 1 and any(found.size for found in followers):
            # With one file left, ours was deleted and made anew: its bytes were all read through the open descriptor.
            self._lose(None, "rotation removed files before they were read")
        return followers

    def _was_read(self, found: _Found) -> bool:
        return any(
            segment.inode == found.inode
            and segment.head_length > 0
            and self._head_of(found.path, segment.head_length) == segment.head
            for segment in self._segments
        )

    def _open(self, found: _Found, position: int) -> bool:
        """Open a file of the chain, to go on at `position`; False if it is no longer the one that was found."""
        try:
            fd = os.open(found.path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        if os.fstat(fd).st_ino != found.inode:
            os.close(fd)
            return False
        self.close()
        self._fd, self._inode = fd, found.inode
        self._head = os.pread(fd, min(_HEAD, position), 0)
        self._seen = (0, 0)
        return True

    def _lose(self, length: int | None, reason: str) -> None:
        self._losses.append(Loss(self.offset, length, reason))

    def _scan(self) -> list[_Found]:
        """The rotation chain, oldest first; looked at until two looks agree, since a rotation renames file by file."""
        last: list[_Found] | None = None
        while True:
            chain = self._scan_once()
            if last is not None and [(f.path, f.inode) for f in last] == [(f.path, f.inode) for f in chain]:
                return chain
            last = chain

    def _scan_once(self) -> list[_Found]:
        prefix = self._path.name + "."
        rotated: list[tuple[tuple[int, int], _Found]] = []
        current: list[_Found] = []
        try:
            entries = list(os.scandir(self._path.parent))
        except FileNotFoundError:
            return []
        for entry in entries:
            if entry.name != self._path.name and not entry.name.startswith(prefix):
                continue
            try:
                stat = os.stat(entry.path)
            except FileNotFoundError:
                continue
            found = _Found(Path(entry.path), stat.st_ino, stat.st_size)
            if entry.name == self._path.name:
                current.append(found)
                continue
            suffix = entry.name[len(prefix) :]
            if suffix.endswith((".gz", ".xz", ".bz2", ".zst")):
                continue  # a compressed backup is no longer the file that was written
            # Numbered backups are oldest at the highest number; any other naming is ordered by last write.
            rank = (0, -int(suffix)) if suffix.isdigit() else (1, stat.st_mtime_ns)
            rotated.append((rank, found))
        return [found for _, found in sorted(rotated, key=lambda item: item[0])] + current

    def _find(self, segment: Segment) -> _Found | None:
        """The file that holds `segment`: same inode and head, or else the same content under another inode."""
        chain = self._scan()
        for found in sorted(chain, key=lambda f: f.inode != segment.inode):
            if found.inode != segment.inode and segment.head_length == 0:
                continue
            if found.size >= segment.head_length and self._head_of(found.path, segment.head_length) == segment.head:
                return found
        return None

    @staticmethod
    def _head_of(path: Path, length: int) -> str:
        try:
            with path.open("rb") as file:
                return fingerprint(file.read(length))
        except FileNotFoundError:
            return ""

    # -- the site's own digest ----------------------------------------------------------------------------------

    def digest(self) -> tuple[str, int]:
        """Hash again, from the files, what was read so far.

        Returns:
            The sha256 in hex, and the logical offset it begins at: 0, or later where rotation has removed older files.
        """
        hasher, begins = hashlib.sha256(), self._base
        at = self._base
        for segment in self._segments:
            at += segment.length
            if not self._hash_segment(segment, hasher):
                hasher, begins = hashlib.sha256(), at
        return hasher.hexdigest(), begins

    def _hash_segment(self, segment: Segment, hasher: hashlib._Hash) -> bool:
        if not segment.length:
            return True
        if segment is self._segments[-1] and self._fd is not None:
            return self._hash_range(os.dup(self._fd), segment, hasher)
        found = self._find(segment)
        if found is None or found.size < segment.end:
            return False
        return self._hash_range(os.open(found.path, os.O_RDONLY), segment, hasher)

    @staticmethod
    def _hash_range(fd: int, segment: Segment, hasher: hashlib._Hash) -> bool:
        with os.fdopen(fd, "rb", buffering=0):
            at = segment.start
            while at < segment.end:
                data = os.pread(fd, min(_HASH_STEP, segment.end - at), at)
                if not data:
                    return False
                hasher.update(data)
                at += len(data)
        return True
