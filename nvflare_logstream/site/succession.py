"""Which files follow the open one, and whether others may have come and gone between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvflare_logstream.site.chain import unread, was_read
from nvflare_logstream.site.cursor import Segment
from nvflare_logstream.site.openfile import OpenFile
from nvflare_logstream.site.plain import ChainFile


class Succession:
    """What is known of the file that follows the open one.

    Args:
        log: the log's path.

    Attributes:
        inode: of the file that follows for certain; 0 if none is known.
        orphaned: the open file had no name at the last look.
    """

    def __init__(self, log: Path):
        self._log = log
        self.inode = 0
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
        inodes = [other.inode for other in chain]
        if file is not None and file.inode in inodes:
            certain = not self.inode or self.inode in inodes
            later = chain[inodes.index(file.inode) + 1 :]
            return [other for other in later if not was_read(other, segments)], certain
        followers = unread(chain, segments)
        if file is None or not followers:
            return followers, True
        if self.inode:
            return followers, followers[0].inode == self.inode
        new = [other for other in followers if other.size or other.path == self._log]
        # Ours was deleted and made anew: more than once, for all we know, unless we saw both.
        seen = self.orphaned or file.named
        return followers, not new or (len(new) == 1 and new[0].path == self._log and seen)

    def note(self, chain: list[ChainFile], file: OpenFile | None, segments: Sequence[Segment]) -> None:
        """Note the file that follows, if none is known yet."""
        if not self.inode:
            followers, certain = self.followers(chain, file, segments)
            self.inode = followers[0].inode if followers and certain else 0
