"""A log that its site could not see while its job ran, read from a copy that came back at the job's end.

A job in a pod writes where no other process can read. What its streamer sent is at the server; a copy of
its directory may come back in an archive when the run is over, or never. Rules:

* The copy goes on where the server stands, and only if the last bytes that the server has stand in it at the
  same place. So nothing comes twice, and a copy some lines short ends nothing early.
* The times of files that were unpacked tell nothing of their order. Their numbers do, as the runtime and most
  loggers give them: the lowest is the newest, and dates grow.
* Such a stream is never closed as complete: what the job wrote after the copy was made stayed where it ran.
  It ends with a `Doubt`, which says so.
"""

from __future__ import annotations

import os
from pathlib import Path

from nvflare_logstream.site.chain import FIRST_DATE, holder, scan
from nvflare_logstream.site.cursor import Cursor
from nvflare_logstream.site.plain import ChainFile, open_plainly
from nvflare_logstream.site.source import Chunk
from nvflare_logstream.site.tail import Tailer


class ReturnedCopy(Tailer):
    """The source that reads such a copy; see `Tailer` for what it takes."""

    def __init__(self, directory: Path, name: str):
        super().__init__(directory, name)
        self._goes_on = True  # the copy holds the place; where nothing was sent, any copy does

    def seek(self, offset: int, cursor: bytes) -> None:
        """Go to the receiver's place; where the copy does not hold that, nothing follows."""
        self._goes_on = not offset or self._holds(offset, cursor)
        if self._goes_on:
            super().seek(offset, cursor)
        else:
            self.close()
            self.offset, self._cursor = offset, cursor

    def _holds(self, offset: int, cursor: bytes) -> bool:
        place = Cursor.decode(cursor)
        if place is None or place.offset != offset or not place.segments:
            return False
        last = place.segments[-1]
        file = holder(scan(self._path), last)
        descriptor = open_plainly(file.path) if file and file.size >= last.end else None
        if descriptor is None:
            return False
        try:
            length = len(place.anchor)
            return os.pread(descriptor, length, last.end - length) == place.anchor
        finally:
            os.close(descriptor)

    def open(self) -> None:
        """Open what is to be read next; see `Tailer.open`."""
        if self._goes_on:
            super().open()

    def read(self, limit: int) -> Chunk | None:
        """What follows in the copy, or None."""
        return super().read(limit) if self._goes_on else None

    def _scan(self) -> list[ChainFile]:
        chain = [file._replace(written=0, changed=0) for file in super()._scan()]
        return sorted(chain, key=lambda file: (file.path == self._path, _age(file)))


def _age(file: ChainFile) -> int:
    """Orders rotated files, oldest first."""
    suffix = file.path.name.rpartition(".")[2]
    number = int(suffix) if suffix.isdecimal() else 0
    return number if number >= FIRST_DATE else -number
