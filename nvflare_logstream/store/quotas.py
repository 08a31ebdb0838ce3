"""How much may be stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nvflare_logstream.errors import QuotaError
from nvflare_logstream.store.index import StoredJob


@dataclass(frozen=True)
class Quotas:
    """Most bytes that may be stored."""

    stream: int = 16 << 30
    job: int = 64 << 30
    store: int = 256 << 30


class Usage:
    """Counts the stored bytes of each job; not thread-safe.

    Args:
        quotas: most bytes that may be stored.
        jobs: what is stored now.
    """

    def __init__(self, quotas: Quotas, jobs: Iterable[StoredJob]):
        self.quotas = quotas
        self._bytes = {job.job_id: job.size for job in jobs}

    def add(self, job_id: str, size: int) -> None:
        """Count `size` bytes more (or fewer, below 0)."""
        self._bytes[job_id] = self._bytes.get(job_id, 0) + size

    def forget(self, job_id: str) -> None:
        """Count no bytes of a job any more."""
        self._bytes.pop(job_id, None)

    def check(self, job_id: str, stored: int, more: int) -> None:
        """Check that a stream of `stored` bytes may grow by `more`.

        Raises:
            QuotaError: naming the quota that this would exceed.
        """
        for what, used, most in (
            ("stream", stored, self.quotas.stream),
            ("job", self._bytes.get(job_id, 0), self.quotas.job),
            ("store", sum(self._bytes.values()), self.quotas.store),
        ):
            if used + more > most:
                raise QuotaError(
                    f"server gave up at byte {stored}: the {what} quota of {most} bytes is used up"
                )
