"""Copies what a job printed from its log to the site's console, which may take it slowly or not at all.

How far that went stands in a small file beside the log: when a job's process is killed, the site's parent
process shows the rest, which is why the job died.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from pathlib import Path

from nvflare_logstream.site.holes import STEP, end_of_hole
from nvflare_logstream.site.plain import open_plainly

_PIECE = 4096  # bytes that a pipe or a terminal with room takes at once
_MOST = 1 << 20  # bytes a turn, so that the training keeps its core whatever is printed
_AT_END = 1.0  # seconds for which the end of a process or of a job waits for the site's console
_LOOK = 0.01  # seconds between two turns then


def identity(descriptor: int) -> tuple[int, int] | None:
    """Which file a descriptor is; None if it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class ConsoleCopy:
    """Copies a log to a console, from a position on.

    Args:
        log: descriptor of the log.
        console: descriptor of the console; None if there is none.
        position: bytes of the log that the console has.
    """

    def __init__(self, log: int, console: int | None, position: int):
        self._log, self._console, self.position = log, console, position
        self._console_is = None if console is None else identity(console)

    def turn(self) -> bool:
        """Copy a part of what is new, without waiting; returns whether there is more.

        Raises:
            OSError: if the log cannot be read.
        """
        size = os.fstat(self._log).st_size
        if size < self.position:  # somebody has emptied it
            self.position = 0
        end = min(size, self.position + _MOST)
        while self.position < end:
            if self._console is None or self._console_is != identity(self._console):
                self._console, self.position = None, size
            elif STEP <= self.position < (hole := end_of_hole(self._log)):
                self.position = hole  # the console was too slow for it
            elif not _has_room(self._console):
                break
            else:
                self._write(
                    self._console, os.pread(self._log, min(_PIECE, end - self.position), self.position)
                )
        return self.position < size

    def _write(self, console: int, data: bytes) -> None:
        try:
            self.position += os.write(console, data)
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more
            self._console = None

    def finish(self) -> None:
        """Copy the rest, as far as the console takes it soon."""
        deadline = time.monotonic() + _AT_END
        while self.turn() and time.monotonic() < deadline:
            time.sleep(_LOOK)


def _has_room(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    return bool(poller.poll(0))


def note_of(log: Path) -> Path:
    """The file that says how far a log was copied; its name is no log's."""
    return log.with_name(f".{log.name}.shown")


def show_rest(log: Path, console: int = 1) -> None:
    """Copy to this process's console what a job's process that was killed could not any more.

    Args:
        log: the job's; nothing is done where it or its note is not there, or not plain files.
        console: descriptor of the console.
    """
    note = note_of(log)
    with suppress(OSError, ValueError):
        shown = _read(note)
        note.unlink()
        descriptor = open_plainly(log)
        if descriptor is not None:
            try:
                end = os.fstat(descriptor).st_size
                ConsoleCopy(descriptor, console, max(shown, end - _MOST)).finish()
            finally:
                os.close(descriptor)


def _read(note: Path) -> int:
    descriptor = open_plainly(note)
    if descriptor is None:
        raise FileNotFoundError(note)
    try:
        return max(0, int(os.read(descriptor, 20)))
    finally:
        os.close(descriptor)
