"""Makes a log of what a job's process and its children print, whoever prints it and however they end.

File descriptors 1 and 2 of the process are pointed at the log, and children inherit them. The kernel writes,
at the log's end, without a pipe that could fill: what was written is there, also after SIGKILL.

Rules:

* The site's console gets all of it too: one thread copies it from the log. A console that takes nothing holds
  up nobody: it is written to only when it has room.
* The log takes a bounded part of the disk: of more, the oldest bytes become a hole (see `holes`).
* Nothing that is printed may fail: on a disk that is nearly full the process prints where it did before. Some
  room is taken in advance, for what comes before that is seen, and for children, which keep what they have.
* A descriptor of ours that the job has closed may be another file by now. It is looked at before each use.
"""

from __future__ import annotations

import atexit
import errno
import faulthandler
import fcntl
import logging
import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from nvflare_logstream.site.console_copy import AT_END, ConsoleCopy, identity, note_of, open_unblocked
from nvflare_logstream.site.holes import RESERVED, STEP, can_make_holes, end_of_hole, make_hole, reserve
from nvflare_logstream.site.plain import check_plain, open_plainly

KEPT = 200 << 20  # bytes at the log's end that always stay: as much as the runtime keeps of log.txt
_LEAST_FREE = 64 << 20  # bytes of the disk
_LIMITED = "the size of files is limited here (ulimit -f)"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PAUSE = 0.1  # seconds between two turns; a look at the log costs some microseconds
_AFTER_ERROR = 5.0  # seconds
_APPEND = os.O_WRONLY | os.O_APPEND
_NEW_FILE = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_logger = logging.getLogger(__name__)


class Console:
    """The console of this process, from its making to the process's end.

    Args:
        log: the log; what is there already stays.
        kept: how many bytes at its end always stay.

    Raises:
        OSError: if it cannot be had; the process prints where it did before.
        RuntimeError: the same, because no thread is left.
    """

    def __init__(self, log: Path, kept: int = KEPT):
        self._kept, self._directory, self._note, self._pid = kept, log.parent, note_of(log), os.getpid()
        self._can_make_holes: bool | None = None  # not tried yet
        self._reserved = 0  # up to where there is room for the log
        self._lock = threading.Lock()  # one at a time copies
        self._over = False
        self._open: list[int] = []
        try:
            self._prepare(log)
            threading.Thread(target=self._run, name="nvflare_logstream_console", daemon=True).start()
        except BaseException:
            for descriptor in self._open:
                os.close(descriptor)
            raise
        self._take_over()
        atexit.register(self.finish)

    def _prepare(self, log: Path) -> None:
        """Open all that is needed."""
        if _is_limited():
            # The log keeps its length, and whoever prints beyond the limit is killed for it.
            raise OSError(errno.EFBIG, _LIMITED)
        check_plain(log)
        saved = [self._duplicate(number) for number in (1, 2)]
        _fill_standard()
        self._writer = self._keep_open(os.open(log, _APPEND | _NEW_FILE, 0o644))
        reader = open_plainly(log)
        if reader is None:
            raise OSError(errno.EPERM, "it is no regular file")
        self._reader = self._keep_open(reader)
        self._log_is = identity(self._writer)
        shown = os.open(self._note, os.O_WRONLY | os.O_TRUNC | _NEW_FILE, 0o644)
        self._shown = self._keep_open(shown)
        self._note_is = identity(self._shown)
        if obstacle := self._obstacle():
            raise OSError(errno.ENOSPC, obstacle)
        others = [fd for fd in saved if fd is not None and identity(fd) != self._log_is]
        self._console, self._is_taken = next(iter(others), None), False
        unblocked = None if self._console is None else open_unblocked(self._console)
        copied_to = self._console if unblocked is None else self._keep_open(unblocked)
        self._copy = ConsoleCopy(self._reader, copied_to, os.fstat(self._reader).st_size)
        self._write_note()  # a job that is killed at once has shown nothing

    def _take_over(self) -> None:
        """What is printed goes to the log from now on."""
        _flush()
        for number in (1, 2):
            os.dup2(self._writer, number)
        self._is_taken = True
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError):  # a stream of the job's own, or None
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        if not faulthandler.is_enabled():
            faulthandler.enable(self._writer)
        os.environ.setdefault("PYTHONFAULTHANDLER", "1")  # for children that run Python

    def _keep_open(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def _duplicate(self, number: int) -> int | None:
        """A duplicate of a descriptor, which children do not get; None if it is closed."""
        try:
            return self._keep_open(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3))
        except OSError as error:
            if error.errno == errno.EBADF:
                return None
            raise

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        is_told = False  # once: the lines go into this very log
        while not self._over:
            pause = _PAUSE
            try:
                self.turn()
            except Exception:  # whatever it is, the job goes on
                if self._are_ours() and not is_told:
                    _logger.exception("what the job prints is not copied to the site's console now")
                    is_told = True
                pause = _AFTER_ERROR
            time.sleep(pause)
        _logger.warning("the job has closed our files: what it prints is not copied to the site's console")

    def turn(self) -> None:
        """Bound the log, and copy a part of what is new."""
        with self._lock:
            if self._are_ours():
                # What the job could fail by comes first, whatever goes wrong with the rest.
                if (obstacle := self._obstacle()) and self._is_taken:
                    self._give_back(obstacle)
                self._bound(os.fstat(self._reader).st_size)
                self._copy.turn()
                self._write_note()

    def _are_ours(self) -> bool:
        logs, note = {identity(self._writer), identity(self._reader)}, identity(self._shown)
        self._over = self._over or logs != {self._log_is} or note != self._note_is
        return not self._over

    def _write_note(self) -> None:
        with suppress(OSError):  # a full disk; the parent process may then show a part again
            if identity(self._shown) == self._note_is:  # looked at again: to copy takes time
                os.pwrite(self._shown, b"%20d" % self._copy.position, 0)

    def _bound(self, size: int) -> None:
        """Let go of the oldest bytes where more than is kept lies there."""
        end = (size - self._kept) // STEP * STEP
        if end <= STEP or end <= end_of_hole(self._reader):
            return
        if self._can_make_holes is None:
            self._can_make_holes = can_make_holes(self._directory)
        if self._can_make_holes:
            make_hole(self._writer, end)
        else:
            self._begin_again()

    def _begin_again(self) -> None:
        """Empty the log; its reader says in the ledger what that costs.

        The first line tells the reader: a flood of equal lines looks as before at any other place.
        """
        line = f"[{time.time_ns()}] earlier lines are gone: this disk cannot give back a part of a file\n"
        try:  # once more, because what is written to the other goes to the end
            first = os.open(f"/proc/self/fd/{self._writer}", os.O_WRONLY)
        except OSError:
            first = os.dup(self._writer)
        try:
            os.ftruncate(self._writer, 0)
            os.pwrite(first, line.encode(), 0)
        finally:
            os.close(first)

    def _obstacle(self) -> str:
        """Why the log should not grow; empty if it may."""
        if _is_limited():  # first: on some file systems, to reserve beyond it is a deadly signal
            return _LIMITED
        refused = self._reserve()
        disk = os.fstatvfs(self._writer)
        # Some file systems do not say how large they are.
        is_space = not disk.f_blocks or disk.f_bavail * disk.f_frsize >= _LEAST_FREE
        return refused if is_space else "the disk is nearly full"

    def _reserve(self) -> str:
        """Keep room for what is printed next; returns why that was refused. Only a try tells of quotas."""
        size = os.fstat(self._writer).st_size
        if not size + RESERVED // 2 <= self._reserved <= size + RESERVED:
            try:
                reserve(self._writer, size)
            except OSError as error:
                return f"the disk takes no more ({error.strerror})" if error.errno in _NO_ROOM else ""
            self._reserved = size + RESERVED
        return ""

    def _give_back(self, obstacle: str) -> None:
        """Print where this process did before; its children keep what they have."""
        self._is_taken = False
        told = f"{obstacle}: what the job's process prints from now on is on the site's console only"
        takes_a_line = obstacle != _LIMITED
        if takes_a_line:  # while it still goes into the log, whose readers have to know
            _logger.warning(told)
        if self._console is not None:
            for number in (1, 2):
                if identity(number) == self._log_is:  # else the job has pointed it elsewhere
                    os.dup2(self._console, number)
        if not takes_a_line:
            _logger.warning(told)

    def finish(self) -> None:
        """The process ends: copy the rest to the site's console, as far as it takes that soon."""
        if os.getpid() != self._pid:  # a child that was forked
            return
        _flush()
        if not self._lock.acquire(timeout=AT_END):  # the thread stands still: the console blocks it
            return
        with suppress(OSError):
            if self._are_ours():
                self._copy.finish()
                self._write_note()
        self._lock.release()


def _is_limited() -> bool:
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


def _fill_standard() -> None:
    """See to it that what is opened from now on gets none of the numbers 0, 1 and 2."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a stream of the job's own may raise anything
            stream.flush()
