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

from nvflare_logstream.site.chain import Found, head_of, scan
from nvflare_logstream.site.cursor import Cursor, Segment, fingerprint
from nvflare_logstream.streams import Loss

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
        self._cursor = b""
        self._losses: list[Loss] = []

    # -- position -----------------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int | None:
        """The open file being read, for a watcher; None while there is none."""
        return self._fd

    def stands_at(self, offset: int, cursor: bytes) -> bool:
        """Whether this is the place after the last chunk (or seek)."""
        return (offset, cursor) == (self.offset, self._cursor)

    def seek(self, offset: int, cursor: bytes) -> None:
        """Go to the place the receiver knows: logical `offset`, described by `cursor` (empty: the start).

        A file that the cursor names and that is gone is reported as a loss with the next chunk.
        """
        self.close()
        self._segments, self._base, self._anchor, self._losses = [], offset, b"", []
        self.offset, self._cursor = offset, cursor
        self._next_inode = 0
        place = Cursor.decode(cursor)
        if place is None or place.offset != offset:
            if offset or cursor:
                self._lose(
                    None, "the place in the file is not known any more; what is there was read from its start"
                )
            return
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
        self._cursor = Cursor(self._base, self._anchor, tuple(self._segments)).encode()
        return Chunk(start, data, self._cursor, losses)

    def _read_open_file(self, limit: int) -> bytes:
        assert self._fd is not None
        status = os.fstat(self._fd)
        position = self._segments[-1].end
        look = (status.st_size, status.st_mtime_ns)
        if status.st_size == position and look == self._seen:
            return b""
        if not position and self._step_back():
            return self._read_open_file(limit)
        before = len(self._anchor)
        wanted = before + max(0, min(limit, status.st_size - position))
        data = os.pread(self._fd, wanted, position - before)
        if data[:before] != self._anchor:
            self._truncated(position)
            return b"" if self._losses else self._read_open_file(limit)
        self._seen = (max(status.st_size, position + len(data) - before), status.st_mtime_ns)
        return data[before:]

    def _truncated(self, position: int) -> None:
        """Our position is no longer in the file: go on in the copy that was made of it, or at its new start."""
        unread = max(0, self._seen[0] - position)
        for found in reversed(scan(self._path)):
            if found.inode != self._inode and found.size >= position and self._is_copy(found.path, position):
                if self._open(found, position):
                    # The copy holds all of this file's bytes, so it also stands in for them in the digest.
                    self._segments[-1] = replace(self._segments[-1], inode=found.inode)
                return
        # How much was written after the last look nobody knows, so the length stays open.
        gone = (
            f"at least {unread} bytes written before it are gone"
            if unread
            else "what was written since the last look is gone"
        )
        self._lose(None, f"the file was truncated in place; {gone}")
        self._head = b""
        self._seen = (0, 0)
        self._begin_segment()

    def _step_back(self) -> bool:
        """Nothing was read of our file yet: a copy made of it meanwhile, before it was truncated, comes first."""
        before = []
        for found in self._unread(scan(self._path)):
            if found.inode == self._inode:
                break
            before += [found] if found.size else []
        else:
            return False  # ours was removed
        if not before or not self._open(before[0], 0):
            return False
        self._segments.pop()
        self._begin_segment()
        return True

    def _begin_segment(self) -> None:
        """The sequence goes on at the start of the open file."""
        self._anchor = b""
        self._segments.append(Segment(self._inode, 0, 0, fingerprint(b""), 0))
        while len(self._segments) > Cursor.MAX_SEGMENTS:
            self._base += self._segments.pop(0).length

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
        followers, certain = self._followers()
        if followers and certain:
            self._next_inode = followers[0].inode
        if certain and not any(found.size for found in followers) and not (self._fd is None and followers):
            return False
        if self._fd is not None and os.fstat(self._fd).st_size > self._segments[-1].end:
            return True  # a last line came while we looked
        if self._open(followers[0], 0):
            if not certain:
                self._lose(None, "rotation removed files before they were read")
            self._next_inode = followers[1].inode if len(followers) > 1 else 0
            self._begin_segment()
        return True  # also when a rotation came between the look and the open: look again

    def _followers(self) -> tuple[list[Found], bool]:
        """The files to read after the one we are in, oldest first; and whether none can be missing between."""
        chain = scan(self._path)
        inodes = [found.inode for found in chain]
        if self._fd is not None and self._inode in inodes:
            return chain[inodes.index(self._inode) + 1 :], True
        unread = self._unread(chain)
        if self._fd is None or not unread:
            return unread, True
        # With one file left, ours was deleted and made anew: its bytes were all read through the open descriptor.
        alone = sum(1 for found in unread if found.size) <= 1
        return unread, unread[0].inode == self._next_inode if self._next_inode else alone

    def _unread(self, chain: list[Found]) -> list[Found]:
        """What follows, in the chain, the last file of which something was read."""
        read = [number for number, found in enumerate(chain) if self._was_read(found)]
        return chain[read[-1] + 1 :] if read else chain

    def _was_read(self, found: Found) -> bool:
        return any(
            segment.inode == found.inode
            and segment.head_length > 0
            and head_of(found.path, segment.head_length) == segment.head
            for segment in self._segments
        )

    def _open(self, found: Found, position: int) -> bool:
        """Open a file of the chain, to go on at `position`; False if it is no longer the one that was found."""
        try:
            fd = os.open(found.path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            same = os.fstat(fd).st_ino == found.inode
            head = os.pread(fd, min(_HEAD, position), 0)
        except OSError:
            os.close(fd)
            raise
        if not same:
            os.close(fd)
            return False
        self.close()
        self._fd, self._inode, self._head = fd, found.inode, head
        self._seen = (0, 0)
        return True

    def _lose(self, length: int | None, reason: str) -> None:
        self._losses.append(Loss(self.offset, length, reason))

    def _find(self, segment: Segment) -> Found | None:
        """The file that holds `segment`: same inode and head, or else the same content under another inode."""
        chain = scan(self._path)
        for found in sorted(chain, key=lambda f: f.inode != segment.inode):
            if found.inode != segment.inode and segment.head_length == 0:
                continue
            if found.size >= segment.head_length and head_of(found.path, segment.head_length) == segment.head:
                return found
        return None

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
