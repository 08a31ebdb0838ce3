"""Who uses a store: any number of receivers at a time, or one who repairs it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nvflare_logstream.errors import StoreError

LOCK_FILE = ".lock"  # also says that its directory is a store, where the index is gone


class StoreLock:
    """Held from its making to `close`, or to the end of the process.

    Args:
        root: the store's directory.
        alone: nobody else may use the store.

    Raises:
        StoreError: if somebody else does.
        OSError: if the lock's file cannot be made.
    """

    def __init__(self, root: Path, *, alone: bool = False):
        self._fd = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_NB | (fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        except BlockingIOError:
            os.close(self._fd)
            who = (
                "a server uses it; stop the server first"
                if alone
                else "it is being repaired; start again then"
            )
            raise StoreError(f"the log store {root} is in use: {who}") from None
        except OSError:
            if alone:
                os.close(self._fd)
                raise
            # Not every file system has locks; a store that cannot be locked is better than none.

    def close(self) -> None:
        """Let others use the store."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
