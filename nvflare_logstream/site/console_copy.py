"""Copies what a job printed from its log to the site's console, which may take it slowly or not at all.

How far that went stands in a small file beside the log: when a job's process is killed, the site's parent
process shows the rest, which is why the job died.
"""

from __future__ import annotations

import os
import select
import stat
import time
from contextlib import suppress
from pathlib import Path

from nvflare_logstream.site.holes import STEP, end_of_hole
from nvflare_logstream.site.plain import open_plainly

_PIECE = 4096  # bytes that a pipe or a terminal with room takes at once
_MOST = 1 << 20  # bytes a turn, so that the training keeps its core whatever is printed
AT_END = 1.0  # seconds for which the end of a process or of a job waits for the site's console
_LOOK = 0.01  # seconds between two turns then


def identity(descriptor: int) -> tuple[int, int] | None:
    """Which file a descriptor is; None if it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_unblocked(console: int) -> int | None:
    """Open a pipe or a terminal once more so that no write to it waits; None where that cannot be.

    It may be full as soon as we have seen room there: other processes write to it too. To set the descriptor
    itself would set theirs.
    """
    with suppress(OSError):
        mode = os.fstat(console).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return os.open(f"/proc/self/fd/{console}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return None


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
            elif not self._write(
                self._console, os.pread(self._log, min(_PIECE, end - self.position), self.position)
            ):
                break
        return self.position < size

    def _write(self, console: int, data: bytes) -> bool:
        """Write a piece; returns whether to go on."""
        events = _room(console)
        try:
            if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                self._console = None  # nobody reads it any more; to write to it may kill the process
            elif events:
                self.position += os.write(console, data)
        except BlockingIOError:
            return False
        except OSError:
            self._console = None
        return bool(events)

    def finish(self) -> None:
        """Copy the rest, as far as the console takes it soon."""
        deadline = time.monotonic() + AT_END
        while self.turn() and time.monotonic() < deadline:
            time.sleep(_LOOK)


def _room(descriptor: int) -> int:
    """What poll(2) says of a descriptor that is to be written to; 0 if it has no room."""
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    return next((events for _, events in poller.poll(0)), 0)


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
            unblocked = open_unblocked(console)
            try:
                end = os.fstat(descriptor).st_size
                copied_to = console if unblocked is None else unblocked
                ConsoleCopy(descriptor, copied_to, max(shown, end - _MOST)).finish()
            finally:
                os.close(descriptor)
                if unblocked is not None:
                    os.close(unblocked)


def _read(note: Path) -> int:
    descriptor = open_plainly(note)
    if descriptor is None:
        raise FileNotFoundError(note)
    try:
        return max(0, int(os.read(descriptor, 20)))
    finally:
        os.close(descriptor)
