"""What the components of one process share.

The runtime makes components itself, one object for each entry of a config, and hands them nothing that they
have in common. So what they share is reached through this module: `shared`, the package's only global object.
A test calls `shared.reset()`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from nvflare_logstream.flare.fallback import JobFallback

if TYPE_CHECKING:
    from nvflare_logstream.site.sender import Sender


class SiteEntry(NamedTuple):
    """What one SiteLogStreamer entry of resources.json asks for.

    Attributes:
        log_files: names of the files to stream.
        poll_interval: seconds.
        liveness_interval: seconds.
        job_has_package: the job's Python has this package; None: decide by the launcher.
    """

    log_files: tuple[str, ...]
    poll_interval: float
    liveness_interval: float
    job_has_package: bool | None = None


class SiteEntries:
    """All SiteLogStreamer entries of this process.

    The runtime gives events to only one of several components of a class, and which one is not for us to
    choose: whichever gets them first acts for all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[SiteEntry] = []
        self._actor: object = None

    def add(self, entry: SiteEntry) -> None:
        """Add an entry, when its component is made."""
        self._entries.append(entry)

    def claim(self, component: object) -> bool:
        """True for the one component that acts: the first to ask."""
        with self._lock:
            if self._actor is None:
                self._actor = component
            return self._actor is component

    @property
    def log_files(self) -> tuple[str, ...]:
        """The files of all entries, each once."""
        return tuple(dict.fromkeys(file for entry in self._entries for file in entry.log_files))

    @property
    def poll_interval(self) -> float:
        """The shortest that an entry asks for, in seconds."""
        return min(entry.poll_interval for entry in self._entries)

    @property
    def liveness_interval(self) -> float:
        """The shortest that an entry asks for, in seconds."""
        return min(entry.liveness_interval for entry in self._entries)

    @property
    def job_has_package(self) -> bool | None:
        """What the entries say of the job's Python; a no counts."""
        said = {entry.job_has_package for entry in self._entries}
        return False if False in said else (True if True in said else None)

    def streamer_args(self) -> dict[str, Any]:
        """Arguments of the one JobLogStreamer that serves all entries."""
        return {
            "log_files": list(self.log_files),
            "poll_interval": self.poll_interval,
            "liveness_interval": self.liveness_interval,
        }


class JobSender:
    """The one sender of a job's process: made for the first JobLogStreamer, and given up by the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sender: Sender | None = None
        self._users: list[object] = []

    def acquire(self, user: object, make: Callable[[], Sender]) -> Sender:
        """The sender for one more user; `make` gives a started one if there is none."""
        with self._lock:
            if self._sender is None:
                self._sender = make()
            self._users.append(user)
            return self._sender

    def release(self, user: object) -> Sender | None:
        """One user is done; returns the sender if that was the last one, who has to stop it."""
        with self._lock:
            if user not in self._users:
                return None
            self._users.remove(user)
            if self._users:
                return None
            sender, self._sender = self._sender, None
            return sender


class Shared:
    """What is shared: `site_entries` in a client's parent process, the others in a job's process.

    `console` says whether what this process prints goes into a log, see `job_console`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything, for tests: a process never does."""
        self.site_entries = SiteEntries()
        self.job_sender = JobSender()
        self.job_fallback = JobFallback()
        self.console: str | None = None  # why there is none; empty if there is one, None if nobody asked


shared = Shared()
