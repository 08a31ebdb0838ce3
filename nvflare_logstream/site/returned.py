"""A log that its site could not see while its job ran, read from a copy that came back at the job's end.

A job in a pod writes where no other process can read. What its streamer sent is at the server; a copy of
its directory may come back in an archive when the run is over, or never. Rules:

* The copy goes on where the server stands, and only if the last bytes that the server has stand in it at the
  same place. So nothing comes twice, and a copy some lines short ends nothing early. Where the place is not
  found in a copy that is no shorter, the ledger says so.
* The times of files that were unpacked tell nothing of their order. Their numbers do, as the runtime and most
  loggers give them: the lowest is the newest, and dates grow.
* Such a stream is never closed as complete: what the job wrote after the copy was made stayed where it ran.
  It ends with a `Doubt`, which says so.
"""

from __future__ import annotations

import os
from pathlib import Path

from nvflare_logstream.site.chain import FIRST_DATE, holder
from nvflare_logstream.site.cursor import Cursor, Segment
from nvflare_logstream.site.plain import ChainFile, open_plainly
from nvflare_logstream.site.source import Chunk
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import Loss

_ANOTHER = (
    "a copy of the log came back in which this place is not found; what it holds beyond that is missing"
)


class ReturnedCopy(Tailer):
    """The source that reads such a copy; see `Tailer` for what it takes."""

    def __init__(self, directory: Path, name: str):
        super().__init__(directory, name)
        self._goes_on = True  # the copy holds the place; where nothing was sent, any copy does

    def seek(self, offset: int, cursor: bytes) -> None:
        """Go to the receiver's place; where the copy does not hold that, nothing follows."""
        place = Cursor.decode(cursor)
        segments = place.segments if place and place.offset == offset else ()
        self._goes_on = not offset or bool(place and segments and self._holds(segments[-1], place.anchor))
        if self._goes_on:
            super().seek(offset, cursor)
            return
        self.close()
        self.offset, self._cursor = offset, cursor
        chain = self._scan()
        is_short = sum(file.size for file in chain) < offset and len(chain) <= len(segments)
        self._losses = [] if is_short or not chain else [Loss(offset, None, _ANOTHER)]

    def _holds(self, last: Segment, anchor: bytes) -> bool:
        """Whether a file of the copy goes on behind a segment, which ends with `anchor`."""
        file = holder(self._scan(), last)
        return file is not None and _has(file, last.end, anchor)

    def open(self) -> None:
        """Open what is to be read next; see `Tailer.open`."""
        if self._goes_on:
            super().open()

    def read(self, limit: int) -> Chunk | None:
        """What follows in the copy, or None."""
        if self._goes_on:
            return super().read(limit)
        losses, self._losses = tuple(self._losses), []
        return Chunk(self.offset, b"", self._cursor or b"", losses) if losses else None

    def _scan(self) -> list[ChainFile]:
        chain = [file._replace(written=0, changed=0) for file in super()._scan()]
        return sorted(chain, key=lambda file: (file.path == self._path, _age(file)))


def _has(file: ChainFile, end: int, anchor: bytes) -> bool:
    """Whether `anchor` stands in a file just before `end`."""
    descriptor = open_plainly(file.path) if file.size >= end else None
    if descriptor is None:
        return False
    try:
        return os.pread(descriptor, len(anchor), end - len(anchor)) == anchor
    finally:
        os.close(descriptor)


def _age(file: ChainFile) -> int:
    """Orders rotated files, oldest first."""
    suffix = file.path.name.rpartition(".")[2]
    number = int(suffix) if suffix.isdecimal() else 0
    return number if number >= FIRST_DATE else -number
