"""What does not follow the rotation: copies that an operator made, and lines that come too late."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from nvflare_logstream.site.chain import is_order_doubtful, scan, was_read
from nvflare_logstream.site.cursor import Segment, fingerprint
from nvflare_logstream.site.openfile import OpenFile
from nvflare_logstream.site.plain import ChainFile, head_of
from nvflare_logstream.streams import Loss

_SHORTEST_COPY = 16  # bytes; shorter files may be alike without being copies
_LATE = "a rotated file was written to after the next one had been begun; that is missing"
_UNREAD = "{} was not read: it came to lie among files that had been read before"
_DOUBTFUL = "the times of the rotated files contradict their order; what follows may be in another one"
_NO_DIRECTORY = "the log's directory is not there; nobody knows what the log held"
_COPIED = "{} begins as another file of the log; it was taken for a copy of that and left out"


class Strays:
    """Finds them among the files of one log, and tells each once.

    Args:
        log: the log's path.
    """

    def __init__(self, log: Path):
        self._log = log
        self._log_inodes = (0, 0)  # of the log at the last looks, and before it was rotated last
        self._copies: set[tuple[int, int]] = set()  # inodes and sizes of those that were told
        self._found: set[tuple[int, int]] = set()  # also told: the file that one is like may be gone by now
        self._told: set[Loss] = set()

    def forget(self) -> None:
        """Nobody knows what was taken of the entries: find everything again."""
        self._copies.clear()
        self._told.clear()

    def look(self, known: Sequence[Segment]) -> list[ChainFile]:
        """The rotation chain without the copies that were found, see `scan`."""
        chain = scan(self._log, known, self._copies)
        if chain and chain[-1].path == self._log and chain[-1].inode != self._log_inodes[1]:
            self._log_inodes = (self._log_inodes[1], chain[-1].inode)
        return chain

    def find_copy(
        self,
        file: ChainFile,
        segments: Sequence[Segment],
        chain: list[ChainFile],
        offset: int,
        opened: OpenFile | None,
    ) -> list[Loss]:
        """Find out whether a file that follows is a copy of another one; it is not seen again then.

        An operator's `cp log.txt log.txt.1` looks like a rotated file. That the log wrote the same twice
        cannot be ruled out, so each is an entry.

        Args:
            file: the file.
            segments: what was read.
            chain: all files of the log.
            offset: the place in the stream.
            opened: the open file, which may have no name any more.

        Raises:
            OSError: if a file cannot be read.
        """
        if file.path == self._log or file.inode in self._log_inodes:
            return []
        if not (self._is_copy(file, segments, chain) or (opened and _is_head(file, opened.head))):
            return []
        self._copies.add((file.inode, file.size))
        self._found.add((file.inode, file.size))
        return [Loss(offset, None, _COPIED.format(file.path.name))]

    def _is_copy(self, file: ChainFile, segments: Sequence[Segment], chain: list[ChainFile]) -> bool:
        if file.size < _SHORTEST_COPY:
            return False
        if (file.inode, file.size) in self._found:
            return True
        others = [other for other in chain if other.inode != file.inode]
        return _was_read_elsewhere(file, segments) or any(_begins(file, other) for other in others)

    def find_doubt(
        self, chain: list[ChainFile], followers: list[ChainFile], segments: Sequence[Segment], offset: int
    ) -> list[Loss]:
        """Find out whether rotated files, of which nothing was read, may be in another order.

        Nothing but times tells then, and a clock may have been set back.

        Args:
            chain: the files as they lie there.
            followers: those to be read next.
            segments: what was read.
            offset: the place in the stream.
        """
        unread = [file for file in followers if file.size]
        doubtful = sum(file.path != self._log for file in unread) > 1 and any(
            after.written < before.written for before, after in pairwise(unread)
        )
        if not doubtful:
            rotated = [file for file in chain if file.path != self._log]
            doubtful = is_order_doubtful(rotated) and not any(was_read(file, segments) for file in rotated)
        return self._tell(Loss(offset, None, _DOUBTFUL)) if doubtful else []

    def find_missing(
        self, chain: list[ChainFile], base: int, segments: Sequence[Segment], is_open: bool
    ) -> list[Loss]:
        """Find what nobody will read any more, at the end of the log.

        Args:
            chain: the files as they lie there.
            base: the place in the stream at which `segments` begin.
            segments: what was read.
            is_open: whether a file is open, so that something is known of the log.

        Raises:
            OSError: if a file cannot be read.
        """
        losses = self.find_late_lines(chain, base, segments)
        offset = base + sum(segment.length for segment in segments)
        if not is_open and not self._log.parent.exists():
            losses += self._tell(Loss(offset, None, _NO_DIRECTORY))
        read = [number for number, file in enumerate(chain) if was_read(file, segments)] or [0]
        for number in range(read[0] if base else 0, read[-1]):  # older ones were read before `base`
            file = chain[number]
            if file.size and number not in read and not self._is_copy(file, segments, chain):
                losses += self._tell(Loss(offset, None, _UNREAD.format(file.path.name)))
        return losses

    def find_late_lines(self, chain: list[ChainFile], base: int, segments: Sequence[Segment]) -> list[Loss]:
        """Find rotated files that grew after the reader had gone on to the next, see `find_missing`."""
        losses = []
        for segment in segments[:-1]:
            base += segment.length
            grown = [file for file in chain if file.inode == segment.inode and file.size > segment.end]
            if any(was_read(file, [segment]) for file in grown):
                losses += self._tell(Loss(base, None, _LATE))
        return losses

    def _tell(self, loss: Loss) -> list[Loss]:
        """The entry, if it is new."""
        if loss in self._told:
            return []
        self._told.add(loss)
        return [loss]


def _is_head(file: ChainFile, head: bytes) -> bool:
    """Whether all of a file is the beginning of a head."""
    same = _SHORTEST_COPY <= file.size <= len(head)
    return same and head_of(file.path, file.size) == fingerprint(head[: file.size])


def _was_read_elsewhere(file: ChainFile, segments: Sequence[Segment]) -> bool:
    """Whether a file is like the beginning of what was read of another one."""
    return any(
        segment.inode != file.inode
        and segment.end >= file.size >= segment.head_length > 0
        and head_of(file.path, segment.head_length) == segment.head
        for segment in segments
    )


def _begins(file: ChainFile, other: ChainFile) -> bool:
    """Whether all of a file stands at the start of another one."""
    if file.size > other.size:
        return False
    position, block = 0, 1 << 10  # most files differ at once
    while position < file.size:
        length = min(block, file.size - position)
        if head_of(file.path, length, position) != head_of(other.path, length, position):
            return False
        position, block = position + length, 1 << 20
    return True
