"""Follow one log file as one endless byte sequence, across rotations and truncations.

Rules (the tests drive them with random writes, rotations and restarts against a plain model):

* The sequence is every byte ever written to the file, in the order written. A rotated file is read to its end
  before the next one is begun, mostly `log.txt.2`, `log.txt.1`, `log.txt`; none is read twice.
* A file is known by its inode and a fingerprint of its head: the inode of a deleted one is soon used again.
* Before new bytes are taken, the last ones taken (the anchor) are compared with the file, to see truncation.
* After a truncation the rest is read from the copy that `copytruncate` made, where there is one.
* What cannot be read any more is reported as a `Loss`, never passed over.
* The writer owns a renamed file until its successor has data: a late line still belongs to the old file.
"""

from __future__ import annotations

import os
from pathlib import Path

from nvflare_logstream.site.chain import MOST_FILES, holder, skip_empty, unread
from nvflare_logstream.site.cursor import MAX_SEGMENTS, Ahead, Cursor, Segment, merge_gone
from nvflare_logstream.site.digest import digest_of
from nvflare_logstream.site.openfile import OpenFile
from nvflare_logstream.site.plain import ChainFile, check_plain, open_plainly
from nvflare_logstream.site.source import Chunk
from nvflare_logstream.site.strays import Strays
from nvflare_logstream.site.succession import Succession
from nvflare_logstream.site.told import Told
from nvflare_logstream.streams import Loss

_REMOVED = "the file was copied, truncated and removed; what was written in between is gone"


class Tailer:
    """The source that reads a log's own files; owned by the sender's thread.

    Args:
        directory: the job's log directory.
        name: the log's plain file name; rotated files are `<name>.<suffix>` beside it.

    Attributes:
        offset: place in the stream of the next byte.
        settled: see `Source.settled`.
    """

    def __init__(self, directory: Path, name: str):
        self._path, self.offset, self.settled = Path(directory) / name, 0, False
        self._file: OpenFile | None = None
        self._base = 0
        self._segments: list[Segment] = []
        self._next = Succession(self._path)
        self._ahead = Ahead()
        self._strays = Strays(self._path)
        self._cursor: bytes | None = b""  # at `offset`; None if a seek could not be completed
        self._losses: list[Loss] = []
        self._told = Told()

    @property
    def descriptor(self) -> int | None:
        """The open file being read, for a watcher; None while there is none."""
        return self._file.descriptor if self._file else None

    def stands_at(self, offset: int, cursor: bytes) -> bool:
        """Whether this is the place after the last chunk or seek."""
        return (offset, cursor) == (self.offset, self._cursor)

    def seek(self, offset: int, cursor: bytes) -> None:
        """Go to a place that the receiver knows: `offset`, which `cursor` describes (empty: the start).

        If the file that the cursor names is gone, the next chunk reports a loss. What is no cursor of this
        version is counted from the oldest file's start; where that is wrong, the digests at the close differ.

        Raises:
            OSError: if a file is there and cannot be read.
        """
        self._strays.forget()
        self._ahead.go_back(self._base, self._segments, offset)
        self.offset, self._cursor = offset, None
        found = Cursor.decode(cursor)
        place = found if found and found.offset == offset else None
        self._told.go_back(found.losses if found else 0)
        if not (place and self._file and self._file.holds(place.segments)):
            self.close()
        self._segments, self._base, self._losses = [], offset, []
        if place:
            self._seek_to(place)
        elif (offset or cursor) and (found or not self._seek_by_length()):
            self._lose("the place in the file is not known any more; what is there was read from its start")
        self._cursor = cursor

    def _seek_to(self, place: Cursor) -> None:
        self._segments, self._base = list(place.segments), place.base
        if not self._segments:
            return
        if self._file is not None:  # it holds the place, and may have no name any more
            self._file.go_to(self._segments[-1].end, place.anchor)
            self._next.note(self._scan(), self._file, self._segments)
            return
        file = holder(self._scan(), self._segments[-1])
        if file is None:
            self._lose("the file was removed or rotated away before it was read to its end")
        elif opened := self._open(file, self._segments[-1].end, place.anchor):
            self._segments[-1] = opened.segment(self._segments[-1])
            self._next.go_to(file, self._scan(), self._file, self._segments)
        else:  # it was rotated between the scan and the open
            self._seek_to(place)

    def _seek_by_length(self) -> bool:
        """Go to the place behind the chain's first `offset` bytes; False if it holds fewer."""
        segments, left, self._next.expected = [], self.offset, []
        for file in self._scan():
            length = min(left, file.size)
            if not length:
                continue
            opened = self._open(file, length)
            if opened is None:  # it was rotated between the scan and the open
                return self._seek_by_length()
            segments.append(opened.segment())
            left -= length
        if left:
            self.close()
            return False
        self._segments, self._base = segments, 0
        self._forget_oldest()
        return True

    def close(self) -> None:
        """Close the open file; the place is kept only in cursors already given out."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def open(self) -> None:
        """Open the file to be read next, or note which one follows it; raises OSError as `read` does."""
        if self._file is None and self._cursor is not None:
            self._advance()
        elif self._file is not None:
            self._next.note(self._scan(), self._file, self._segments)

    def read(self, limit: int) -> Chunk | None:
        """Return up to `limit` bytes that follow, or None if nothing is new.

        Raises:
            OSError: if the file cannot be read, or must not be, see `plain.obstacle`.
        """
        while True:
            data = self._read_file(self._file, limit) if self._file else b""
            self._losses += self._told.due(self.offset, self._losses)
            if data or self._losses:
                return self._chunk(data)
            if not self._advance():
                return self._chunk(b"") if self._losses else None

    def _chunk(self, data: bytes) -> Chunk:
        losses, self._losses, start = tuple(self._losses), [], self.offset
        if data and self._file:
            self.offset += len(data)
            self._segments[-1] = self._file.segment(self._segments[-1])
        anchor, self.settled = (self._file.anchor, self._file.at_end) if self._file else (b"", False)
        self._told.tell(losses)
        self._cursor = Cursor(self._base, anchor, tuple(self._segments), self._told.count).encode()
        return Chunk(start, data, self._cursor, losses)

    def _read_file(self, file: OpenFile, limit: int) -> bytes:
        """What follows in the open file, or in the file that turns out to come before it."""
        while True:
            status = file.changed(self._path)
            if status is None:
                return b""
            if not file.position and (earlier := self._step_back(file)):
                file = earlier
                continue
            data = file.read(status, limit)
            if data is not None:
                return data
            file = self._after_truncation(file)
            if self._losses:
                return b""

    def _after_truncation(self, file: OpenFile) -> OpenFile:
        """Go on in the copy that was made before the truncation, or else at the file's new start."""
        chain = self._scan()
        if other := file.newest_copy(chain):
            copied = file.copied_from(other, chain)
            copy = self._open(other, file.position, file.anchor)
            if copy is None:
                return file  # it was rotated between the scan and the open: look again
            if all(named.inode != file.inode for named in chain):
                self._losses.append(Loss(self.offset + copied, None, _REMOVED))
            # The copy holds all of this file's bytes, so it also stands in for them in the digest.
            self._segments[-1] = copy.segment(self._segments[-1])
            return copy
        self._lose(file.begin_again())
        merge_gone(self._segments)
        self._begin_segment(file)
        return file

    def _step_back(self, file: OpenFile) -> OpenFile | None:
        """Nothing was read of this file yet: if it was copied, then truncated, the copy comes first."""
        chain = self._scan()
        before = []
        for other in unread(chain, self._segments):
            if other.inode == file.inode:
                break
            before += [other] if other.size else []
        else:
            return None  # ours was removed
        if before and (copy := self._find_copy(before[0], chain)):
            self._losses += copy
            return self._step_back(file)
        if earlier := self._open(before[0], 0) if before else None:
            self._segments.pop()
            self._begin_segment(earlier)
        return earlier

    def _begin_segment(self, file: OpenFile) -> None:
        """The stream goes on at the start of the open file."""
        self._segments.append(file.segment())
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        while len(self._segments) > MAX_SEGMENTS:
            self._base += self._segments.pop(0).length

    def _lose(self, reason: str = "rotation removed files before they were read") -> None:
        self._losses.append(Loss(self.offset, None, reason))

    def _advance(self) -> bool:
        """Move to the file that follows in the rotation chain; False if there is none (yet)."""
        self.settled = self._file is not None and self._file.in_place  # as `_read_file` has just seen it
        if self.settled:
            return False
        chain = self._scan()
        followers, certain = self._next.followers(chain, self._file, self._segments)
        self._next.orphaned = not followers and self._file is not None and not self._file.named
        self.settled = not (followers or self._next.orphaned)  # an open file hides that its directory went
        if certain:  # also if it cannot be opened now
            self._next.expect(followers, chain)
        if not followers or (certain and self._file is not None and not any(file.size for file in followers)):
            check_plain(self._path)
            if not followers and (not certain or self._ahead.take(self.offset)):
                self._lose()
                self._next.expected = []
            return False
        too_many = not self._segments and len(followers) > MOST_FILES + 1
        followers = skip_empty(followers)
        if copy := self._find_copy(followers[0], chain):
            self._losses += copy
            self._next.drop(followers[0])
            return True  # without it, the order of the others may be another
        if self._file is not None and self._file.has_more():
            return True  # a last line came while we looked
        doubt = self._strays.find_doubt(chain, followers, self._segments, self.offset)
        # All that may fail comes before the open: a file that is open has a segment.
        read_before = self._ahead.peek(self.offset)
        gone, expected = self._next.behind(followers[0], chain)
        missing = not certain or gone or (read_before and not holder(followers[:1], read_before))
        if opened := self._open(followers[0], 0):
            self._losses += doubt
            self._ahead.take(self.offset)
            self._next.expected = expected
            if missing:
                self._lose()
            elif too_many:
                self._lose(f"there are more than {MOST_FILES} rotated files, and not all were read")
            self._begin_segment(opened)
            self._losses += self._strays.find_late_lines(chain, self._base, self._segments)
        return True  # also if a rotation came between the scan and the open: look again

    def _find_copy(self, file: ChainFile, chain: list[ChainFile]) -> list[Loss]:
        return self._strays.find_copy(file, self._segments, chain, self.offset, self._file)

    def _scan(self) -> list[ChainFile]:
        return self._strays.look(self._segments)

    def _open(self, file: ChainFile, position: int, anchor: bytes | None = None) -> OpenFile | None:
        """Open a file of the chain in place of the open one; None if its path names another file by now."""
        opened = OpenFile.open(file, position, anchor)
        if opened is not None:
            self.close()
            self._file, self._next.orphaned = opened, False
        return opened

    def digest(self) -> tuple[str, int]:
        """Hash again, from the files, what was read so far. What is found missing, the next chunk tells.

        Returns:
            The sha256 in hex, and the place in the stream it begins at: above 0 where older files are gone.

        Raises:
            OSError: if a file is there and cannot be read.
        """
        self._losses += self._strays.find_missing(self._scan(), self._base, self._segments, bool(self._file))
        self._losses += self._told.due(self.offset, self._losses, at_end=True)
        return digest_of(self._base, self._segments, self._open_holder)

    def _open_holder(self, segment: Segment) -> int | None:
        if self._file is not None and segment is self._segments[-1]:
            return os.dup(self._file.descriptor)
        file = holder(self._scan(), segment)
        return open_plainly(file.path) if file and file.size >= segment.end else None
