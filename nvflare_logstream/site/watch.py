"""Wake a thread when a followed file changes: inotify where the system has it, else the poll interval alone.

Polling fast enough for a line to arrive at once would cost an idle job more than all its log lines; the
kernel reports changes for free. File systems that report none (network mounts written elsewhere) are still
looked at every poll interval.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress
from pathlib import Path

_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO = 0x2, 0x100, 0x80
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class Watcher:
    """Waits for changes of files and for `wake`; one thread waits, any thread may wake it."""

    def __init__(self) -> None:
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A descriptor closed meanwhile may already be a file of the training code.
        self._wake_lock = threading.Lock()
        self._closed = False
        self._inotify = -1
        self._watched: dict[object, int] = {}
        self._last: dict[object, tuple[Path, tuple[int, int] | None]] = {}  # what each owner watches
        if sys.platform.startswith("linux"):
            import ctypes  # only here: loading it costs a tenth of all that a job's process loads of us

            self._libc = ctypes.CDLL(None, use_errno=True)
            self._inotify = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)

    def close(self) -> None:
        """Release all descriptors."""
        with self._wake_lock:
            descriptors = () if self._closed else (self._wake_read, self._wake_write, self._inotify)
            self._closed = True
            for fd in descriptors:
                if fd >= 0:
                    os.close(fd)

    def watch(self, directory: Path, descriptor: int | None, owner: object) -> bool:
        """Watch a directory for new files, and an open file for new bytes.

        Args:
            directory: the directory; it may not be there yet.
            descriptor: the open file, if there is one.
            owner: who watches; the file takes the place of the one it watched before.

        Returns:
            Whether anything is watched that was not before.

        Raises:
            OSError: if the descriptor is not open.
        """
        file = None if descriptor is None else (descriptor, os.fstat(descriptor).st_ino)
        if self._last.get(owner) == (directory, file) and self._watched.get(directory, -1) >= 0:
            return False
        self._last[owner] = (directory, file)
        if self._watched.get(directory, -1) < 0:  # not yet, or it was not there yet
            self._watched[directory] = self._add(str(directory), _IN_CREATE | _IN_MOVED_TO)
        if descriptor is not None:
            # Adding the same file again gives the same watch. Through /proc it is the open file, whatever its
            # name is now.
            added = self._add(f"/proc/self/fd/{descriptor}", _IN_MODIFY)
            before = self._watched.get(owner, -1)
            self._watched[owner] = added
            if before >= 0 and before != added and before not in self._watched.values():
                self._libc.inotify_rm_watch(self._inotify, before)
        return self._inotify >= 0

    def forget(self, owner: object) -> None:
        """End what `watch` began for `owner` (whoever watches a file, or a directory)."""
        self._last.pop(owner, None)
        before = self._watched.pop(owner, -1)
        if before >= 0 and before not in self._watched.values():
            self._libc.inotify_rm_watch(self._inotify, before)

    def _add(self, path: str, mask: int) -> int:
        if self._inotify < 0:
            return -1
        added: int = self._libc.inotify_add_watch(self._inotify, os.fsencode(path), mask)
        return added

    def wake(self) -> None:
        """End the wait that is under way, or else the next one."""
        with self._wake_lock, suppress(BlockingIOError):  # a wake is already waiting
            if not self._closed:
                os.write(self._wake_write, b"!")

    def wait(self, seconds: float) -> None:
        """Wait until a file changes, `wake` is called or `seconds` have passed."""
        self._wait(seconds, [self._wake_read] + ([self._inotify] if self._inotify >= 0 else []))

    def pause(self, seconds: float) -> None:
        """Wait until `wake` is called or `seconds` have passed, whatever the files do meanwhile."""
        self._wait(seconds, [self._wake_read])

    @staticmethod
    def _wait(seconds: float, descriptors: list[int]) -> None:
        poller = select.poll()  # not select(): a training process may have more than 1,024 descriptors
        for fd in descriptors:
            poller.register(fd, select.POLLIN)
        for fd, _ in poller.poll(max(0.0, seconds) * 1000):
            try:
                while len(os.read(fd, 65536)) == 65536:
                    pass
            except BlockingIOError:
                pass
