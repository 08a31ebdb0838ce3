"""One file of a rotation chain, open for reading; it notices if bytes that were read are no longer there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nvflare_logstream.site.cursor import Segment, fingerprint
from nvflare_logstream.site.plain import ChainFile, open_plainly

HEAD = 1024  # bytes of a file's head that identify it, beside its inode
ANCHOR = 64  # bytes before the position that are compared before each read


class OpenFile:
    """A file and the position in it up to which it was read.

    Attributes:
        descriptor, inode: of the open file, whatever its name is by now.
        position: bytes of the file that were read.
        anchor: the last bytes before the position.
        head: the first bytes that were read, as far as they identify the file.
        in_place: it had the log's name when it was last looked at.
        at_end: it was read to its end then.
    """

    def __init__(self, descriptor: int, identity: tuple[int, int], position: int, head: bytes, anchor: bytes):
        self.descriptor, self._identity, self.inode = descriptor, identity, identity[1]
        self.position, self.anchor, self.head = position, anchor, head
        self.in_place = self.at_end = False
        self._seen = (0, 0)  # size and mtime at the last read

    @classmethod
    def open(cls, file: ChainFile, position: int, anchor: bytes | None = None) -> OpenFile | None:
        """Open a file of the chain to read it from `position` on; None if its path names another file by now.

        Args:
            file: the file as a scan saw it.
            position: where to go on, in bytes.
            anchor: the bytes before the position; None to take those that are there.

        Raises:
            OSError: if the file cannot be read.
        """
        descriptor = open_plainly(file.path)
        if descriptor is None:
            return None
        try:
            status = os.fstat(descriptor)
            head = os.pread(descriptor, min(HEAD, position), 0)
            if anchor is None:
                anchor = os.pread(descriptor, min(ANCHOR, position), max(0, position - ANCHOR))
        except OSError:
            os.close(descriptor)
            raise
        if status.st_ino != file.inode:
            os.close(descriptor)
            return None
        return cls(descriptor, (status.st_dev, status.st_ino), position, head, anchor)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    @property
    def named(self) -> bool:
        """Whether the file still has a name somewhere."""
        return os.fstat(self.descriptor).st_nlink > 0

    def has_more(self) -> bool:
        """Whether the file is longer than what was read of it."""
        return os.fstat(self.descriptor).st_size > self.position

    def changed(self, log: Path) -> os.stat_result | None:
        """The file's status if it may hold something new, else None.

        Args:
            log: the log's path. Mostly it names this file, and one look tells that and its status.
        """
        self.at_end = False
        try:
            status = os.lstat(log)
            self.in_place = (status.st_dev, status.st_ino) == self._identity
        except OSError:  # also if nobody can say: what is open can be read all the same
            self.in_place = False
        if not self.in_place:
            status = os.fstat(self.descriptor)
        if status.st_size == self.position and (status.st_size, status.st_mtime_ns) == self._seen:
            return None
        return status

    def read(self, status: os.stat_result, limit: int) -> bytes | None:
        """Return up to `limit` bytes that follow, or None if those before the position are no longer there.

        Args:
            status: as `changed` gave it.
            limit: most bytes.

        Raises:
            OSError: if the file cannot be read.
        """
        before = len(self.anchor)
        wanted = before + max(0, min(limit, status.st_size - self.position))
        data = os.pread(self.descriptor, wanted, self.position - before)
        if data[:before] != self.anchor:
            return None
        data = data[before:]
        self._seen = (max(status.st_size, self.position + len(data)), status.st_mtime_ns)
        if data:
            if len(self.head) < HEAD and self.position == len(self.head):
                self.head = (self.head + data)[:HEAD]
            self.anchor = (self.anchor + data[-ANCHOR:])[-ANCHOR:]
            self.position += len(data)
        self.at_end = self.in_place and self.position >= status.st_size
        return data

    def holds(self, segments: Sequence[Segment]) -> bool:
        """Whether the last of these segments stands in this file."""
        if not segments or segments[-1].inode != self.inode:
            return False
        return fingerprint(os.pread(self.descriptor, segments[-1].head_length, 0)) == segments[-1].head

    def go_to(self, position: int, anchor: bytes) -> None:
        """Go on at a position, before which the bytes `anchor` were read."""
        self.head = os.pread(self.descriptor, min(HEAD, position), 0)
        self.position, self.anchor, self._seen, self.at_end = position, anchor, (0, 0), False

    def begin_again(self) -> str:
        """Go to the file's start: it was truncated in place. Returns what is gone, in words."""
        known = self._seen[0] - self.position
        gone = "what was written since the last look is"
        if known > 0:  # how much was written after the last read nobody knows
            gone = f"at least {known} bytes written before it are"
        self.position, self.anchor, self.head, self._seen, self.at_end = 0, b"", b"", (0, 0), False
        return f"the file was truncated in place; {gone} gone"

    def newest_copy(self, chain: list[ChainFile]) -> ChainFile | None:
        """The newest other file that holds the same bytes up to the position, as far as can be seen."""
        least = max(self.position, self._seen[0])  # one that was made earlier does not hold the rest
        for other in reversed(chain):
            if other.inode != self.inode and other.size >= least and self._is_copied_to(other.path):
                return other
        return None

    def copied_from(self, copy: ChainFile, chain: list[ChainFile]) -> int:
        """How many bytes after the position stand in `copy` and in later copies, as far as times tell."""
        changed = os.fstat(self.descriptor).st_mtime_ns
        later = [other for other in chain[chain.index(copy) + 1 :] if other.written < changed]
        return copy.size - self.position + sum(other.size for other in later)

    def _is_copied_to(self, path: Path) -> bool:
        descriptor = open_plainly(path)
        if descriptor is None:
            return False
        try:
            head = os.pread(descriptor, len(self.head), 0)
            before = os.pread(descriptor, len(self.anchor), self.position - len(self.anchor))
        finally:
            os.close(descriptor)
        return (head, before) == (self.head, self.anchor)

    def segment(self, begun: Segment | None = None) -> Segment:
        """The part of the stream that stands in this file, up to the position.

        Args:
            begun: the same part at an earlier position, or in the file of which this one is a copy; None at
                the file's start.
        """
        start, head, head_length = (begun.start, begun.head, begun.head_length) if begun else (0, "", -1)
        if head_length < len(self.head):
            head, head_length = fingerprint(self.head), len(self.head)
        return Segment(self.inode, start, self.position - start, head, head_length)
