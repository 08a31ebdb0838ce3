"""Wake a thread when a followed file changes: inotify where the system has it, else the poll interval alone.

Polling fast enough for a line to arrive at once would cost an idle job more than all its log lines; the
kernel reports changes for free. File systems that may not report all (network mounts written elsewhere) are
still looked at every poll interval; `reports` tells them apart.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_IN_MODIFY = 0x2
_ENTRIES = 0x40 | 0x80 | 0x100 | 0x200  # a directory's: moved away, moved here, made, deleted
_ITSELF = 0x400 | 0x800  # a directory was deleted, or moved
_IN_Q_OVERFLOW, _IN_IGNORED = 0x4000, 0x8000
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_MOST_READ = 65536  # bytes; what is left ends the next wait at once
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
# By the numbers that statfs gives: ext2 to ext4, XFS, Btrfs, tmpfs, overlay, F2FS, ZFS. Only this machine's
# kernel writes there, so it knows of every write.
_LOCAL = {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0xF2F52010, 0x2FC12FC1}

Changes = Collection[object] | None  # of which owners and directories; None if nobody knows


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
        self._places: dict[object, tuple[int, int] | None] = {}  # which directories are watched
        self._local: set[object] = set()  # the owners and directories whose files are all on this machine
        if sys.platform.startswith("linux"):
            import ctypes  # only here: loading it costs a tenth of all that a job's process loads of us

            self._libc = ctypes.CDLL(None, use_errno=True)
            self._inotify = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        # Not select(): a training process may have more than 1,024 descriptors.
        self._wakes, self._all = select.poll(), select.poll()
        self._wakes.register(self._wake_read, select.POLLIN)
        self._all.register(self._wake_read, select.POLLIN)
        if self._inotify >= 0:
            self._all.register(self._inotify, select.POLLIN)

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
        is_new = False
        if self._watched.get(directory, -1) < 0:  # not yet, or it was not there yet
            self._places[directory] = _identity(directory)  # first: `reports` sees if another takes its place
            is_new = self._add(directory, str(directory), _ENTRIES | _ITSELF)
        if descriptor is not None:
            before = self._watched.get(owner, -1)
            # Adding the same file again gives the same watch. Through /proc it is the open file, whatever its
            # name is now.
            is_new |= self._add(owner, f"/proc/self/fd/{descriptor}", _IN_MODIFY)
            if before >= 0 and before not in self._watched.values():
                self._libc.inotify_rm_watch(self._inotify, before)
        return is_new

    def reports(self, directory: Path, descriptor: int | None, owner: object) -> bool:
        """Whether every change of what `watch` was called with is sure to end a wait.

        A directory that was removed or replaced is watched anew at the next `watch`.
        """
        if directory not in self._local or (descriptor is not None and owner not in self._local):
            return False
        if self._places.get(directory) == _identity(directory):
            return True
        self.forget(directory)
        return False

    def forget(self, owner: object) -> None:
        """End what `watch` began for `owner` (whoever watches a file, or a directory)."""
        self._last.pop(owner, None)
        self._local.discard(owner)
        self._places.pop(owner, None)
        before = self._watched.pop(owner, -1)
        if before >= 0 and before not in self._watched.values():
            self._libc.inotify_rm_watch(self._inotify, before)

    def _add(self, owner: object, path: str, mask: int) -> bool:
        """Watch what a path names, for `owner`; returns whether it was not watched for it before."""
        before, added = self._watched.get(owner, -1), -1
        if self._inotify >= 0:
            added = self._libc.inotify_add_watch(self._inotify, os.fsencode(path), mask)
        self._watched[owner] = added
        self._local.discard(owner)
        if added >= 0 and self._is_local(path):
            self._local.add(owner)
        return added >= 0 and added != before

    def _is_local(self, path: str) -> bool:
        import ctypes

        status = ctypes.create_string_buffer(512)  # more than the system fills; the type comes first
        found = self._libc.statfs(os.fsencode(path), status)
        return found == 0 and int.from_bytes(status.raw[:8], sys.byteorder) in _LOCAL

    def wake(self) -> None:
        """End the wait that is under way, or else the next one."""
        with self._wake_lock, suppress(BlockingIOError):  # a wake is already waiting
            if not self._closed:
                os.write(self._wake_write, b"!")

    def wait(self, seconds: float) -> Changes:
        """Wait until a file changes, `wake` is called or `seconds` have passed.

        Returns:
            Of which owners and directories the system has reported changes since the last wait.
        """
        if self._inotify >= 0:  # while lines come there is something: no need to ask first
            with suppress(BlockingIOError):
                return self._note(os.read(self._inotify, _MOST_READ))
        return self._wait(seconds, self._all)

    def pause(self, seconds: float) -> None:
        """Wait until `wake` is called or `seconds` have passed, whatever the files do meanwhile."""
        self._wait(seconds, self._wakes)

    def _wait(self, seconds: float, poller: select.poll) -> Changes:
        changed: Changes = ()
        for fd, _ in poller.poll(max(0.0, seconds) * 1000):
            with suppress(BlockingIOError):
                data = os.read(fd, _MOST_READ)
                if fd == self._inotify:
                    changed = self._note(data)
        return changed

    def _note(self, events: bytes) -> Changes:
        """What has changed. Notes too which watches the kernel has ended: what they watched is gone."""
        place, watches, ended = 0, set(), set()
        while place < len(events):
            watch, mask, _, length = _EVENT.unpack_from(events, place)
            place += _EVENT.size + length
            watches.add(watch)
            if mask & _IN_Q_OVERFLOW:  # what was dropped may have told of any of them
                for owner in list(self._watched):
                    self.forget(owner)
                return None
            if mask & _IN_IGNORED:
                ended.add(watch)
        changed = [owner for owner, watch in self._watched.items() if watch in watches]
        for owner in [owner for owner in changed if self._watched[owner] in ended] if ended else ():
            self._watched[owner] = -1
            self._last.pop(owner, None)  # another file may have its numbers
            self._local.discard(owner)
        return changed


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return status.st_dev, status.st_ino
