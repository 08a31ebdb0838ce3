"""How much may be stored, and by whom."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nvflare_logstream.errors import QuotaError, StoreError
from nvflare_logstream.store.index import StoredPart
from nvflare_logstream.streams import StreamKey

_LOOK_INTERVAL = 1.0  # seconds between two looks at the disk


@dataclass(frozen=True)
class Quotas:
    """What may be stored; whoever is over is refused, and nobody else's logs go for it.

    Attributes:
        stream, job, store: most bytes.
        site: most bytes of one site, over all jobs.
        files: most log files of one site in one job.
        free_share: share of the disk that stays free, from 0 to 1.
    """

    stream: int = 16 << 30
    job: int = 64 << 30
    store: int = 256 << 30
    site: int = 32 << 30
    files: int = 64
    free_share: float = 0.05


class Usage:
    """Counts the stored bytes of each job and site; not thread-safe.

    Args:
        quotas: what may be stored.
        parts: what is stored now.
    """

    def __init__(self, quotas: Quotas, parts: Iterable[StoredPart]):
        self.quotas = quotas
        self._parts: dict[str, dict[str, int]] = {}  # by job and site
        # Sums of them: a frame must cost the same however much is kept.
        self._jobs: dict[str, int] = {}
        self._sites: dict[str, int] = {}
        self._total = 0
        for part in parts:
            self.add(part.job_id, part.site, part.size)

    def add(self, job_id: str, site: str, size: int) -> None:
        """Count `size` bytes more (or fewer, below 0)."""
        sites = self._parts.setdefault(job_id, {})
        sites[site] = sites.get(site, 0) + size
        self._jobs[job_id] = self._jobs.get(job_id, 0) + size
        self._sites[site] = self._sites.get(site, 0) + size
        self._total += size

    def forget(self, job_id: str) -> None:
        """Count no bytes of a job any more."""
        for site, size in self._parts.pop(job_id, {}).items():
            self._sites[site] -= size
            self._total -= size
        self._jobs.pop(job_id, None)

    def check(self, key: StreamKey, stored: int, more: int) -> None:
        """Check that a stream of `stored` bytes may grow by `more`.

        Raises:
            QuotaError: naming the quota that this would exceed.
        """
        for what, used, most in (
            ("stream", stored, self.quotas.stream),
            ("site", self._sites.get(key.site, 0), self.quotas.site),
            ("job", self._jobs.get(key.job_id, 0), self.quotas.job),
            ("store", self._total, self.quotas.store),
        ):
            if used + more > most:
                raise QuotaError(
                    f"server gave up at byte {stored}: the {what} quota of {most} bytes is used up, "
                    f"see max_{what}_gib"
                )

    def check_files(self, files: int) -> None:
        """Check that a site may have `files` log files in one job.

        Raises:
            QuotaError: if they are too many.
        """
        most = self.quotas.files
        if files > most:
            raise QuotaError(
                f"server gave up at byte 0: its site has {most} log files in this job, "
                "the most allowed, see max_site_files"
            )


class FreeSpace:
    """Keeps a share of the disk free; not thread-safe.

    Args:
        directory: a directory on the disk.
        share: what stays free, from 0 to 1; 0 for nothing.
        clock: gives the time in seconds, from any beginning.
    """

    def __init__(self, directory: Path, share: float, clock: Callable[[], float] = time.monotonic):
        self._directory, self._share, self._clock = directory, share, clock
        self._room, self._looked = 0, float("-inf")

    def take(self, size: int) -> None:
        """Count `size` bytes that are about to be written.

        Raises:
            StoreError: if they would leave too little free.
            OSError: if the disk cannot be asked.
        """
        if not self._share:
            return
        if size > self._room or not 0 <= self._clock() - self._looked < _LOOK_INTERVAL:
            self._look()
        if size > self._room:
            raise StoreError(
                f"{self._share:.0%} of the server's disk stay free".replace("%", " %")
                + ", and no more than that is free now; the operator has to make room (min_free_percent)"
            )
        self._room -= size

    def _look(self) -> None:
        disk = os.statvfs(self._directory)
        kept = int(disk.f_blocks * self._share)
        # Some file systems do not say how large they are; they say themselves when they are full.
        self._room = (disk.f_bavail - kept) * disk.f_frsize if disk.f_blocks else 1 << 62
        self._looked = self._clock()
