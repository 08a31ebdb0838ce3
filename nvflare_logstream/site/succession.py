"""Which files follow the open one, and whether others may have come and gone between.

A file that was seen to follow is known by its inode and the head it had then: the inode of a deleted one is
soon used again. It is expected until it is reached, so that its going is noticed however many come before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from nvflare_logstream.site.chain import holder, unread, was_read
from nvflare_logstream.site.cursor import Segment
from nvflare_logstream.site.openfile import HEAD, OpenFile
from nvflare_logstream.site.plain import ChainFile, head_of


class Succession:
    """What is known of the file that follows the open one.

    Args:
        log: the log's path.

    Attributes:
        expected: the files that follow for certain, as they were seen first, oldest first.
        orphaned: the open file had no name at the last look.
    """

    def __init__(self, log: Path):
        self._log = log
        self.expected: list[Segment] = []
        self.orphaned = False

    def followers(
        self, chain: list[ChainFile], file: OpenFile | None, segments: Sequence[Segment]
    ) -> tuple[list[ChainFile], bool]:
        """The files to read after the open one, oldest first; and whether none can be missing between.

        Args:
            chain: the files as they lie there.
            file: the open one.
            segments: what was read.
        """
        inodes, first = [other.inode for other in chain], self.expected[:1]
        if file is not None and file.inode in inodes:
            certain = not first or holder(chain, first[0]) is not None
            later = chain[inodes.index(file.inode) + 1 :]
            return [other for other in later if not was_read(other, segments)], certain
        followers = unread(chain, segments)
        if file is None or not followers:
            return followers, True
        if first:
            return followers, holder(followers[:1], first[0]) is not None
        new = [other for other in followers if other.size or other.path == self._log]
        # Ours was deleted and made anew: more than once, for all we know, unless we saw both.
        seen = self.orphaned or file.named
        return followers, not new or (len(new) == 1 and new[0].path == self._log and seen)

    def go_to(
        self, place: ChainFile, chain: list[ChainFile], file: OpenFile | None, segments: Sequence[Segment]
    ) -> None:
        """The reader has opened the file that holds its place: note the files that follow it."""
        self.expected = self.behind(place, chain)[1]
        self.note(chain, file, segments)

    def note(self, chain: list[ChainFile], file: OpenFile | None, segments: Sequence[Segment]) -> None:
        """Note the files that follow the open one."""
        followers, certain = self.followers(chain, file, segments)
        if certain:
            self.expect(followers, chain)

    def expect(self, followers: Sequence[ChainFile], chain: list[ChainFile]) -> None:
        """Note files that follow for certain; those that were seen before and have gone keep their places."""
        entries = [self._seen(file) or _look_at(file) for file in followers]
        for number, seen in enumerate(self.expected):
            if seen in entries or holder(chain, seen):
                continue
            later = [other for other in self.expected[number + 1 :] if other in entries]
            if number and self.expected[number - 1] in entries:
                place = entries.index(self.expected[number - 1]) + 1
            else:
                place = entries.index(later[0]) if later else 0
            entries.insert(place, seen)
        self.expected = entries

    def _seen(self, file: ChainFile) -> Segment | None:
        return next((seen for seen in self.expected if holder([file], seen)), None)

    def drop(self, file: ChainFile) -> None:
        """A file turned out to be none of the log."""
        self.expected = [seen for seen in self.expected if seen.inode != file.inode]

    def behind(self, file: ChainFile, chain: list[ChainFile]) -> tuple[bool, list[Segment]]:
        """Whether files that came before `file` have gone, and what is expected behind it.

        Raises:
            OSError: if a file cannot be read.
        """
        number = next((n for n, seen in enumerate(self.expected) if holder([file], seen)), -1)
        if number >= 0:
            before, behind = self.expected[:number], self.expected[number + 1 :]
        else:
            before = list(takewhile(lambda seen: not holder(chain, seen), self.expected))
            behind = self.expected[len(before) :]
        return not all(holder(chain, seen) for seen in before), behind


def _look_at(file: ChainFile) -> Segment:
    length = min(file.size, HEAD)
    return Segment(file.inode, 0, 0, head_of(file.path, length), length)
