"""Which jobs' logs have to go, and that they do not come back.

A calendar clock may jump: alone it takes no logs away. What was heard of a job is also noted in seconds of
the server's uptime, over all its lives, and both have to agree that a job is old.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from nvflare_logstream.store.index import Heard, Index, StoredJob

_DAY = 86400.0
_ASKED = 500  # jobs that the job store is asked for in a sweep, about; each costs it a look at the disk


class Removal(NamedTuple):
    """A job whose logs were removed, and why, in plain words."""

    job_id: str
    reason: str


class Retention:
    """Finds the jobs that have to go, and removes them; one thread calls it.

    Args:
        index: what is stored.
        delete: removes a job's logs, given its id and the reason.
        clock: gives the time in seconds since the epoch.
        uptime: gives the time in seconds, from any beginning, in steps of the time that really passed.
    """

    def __init__(
        self,
        index: Index,
        delete: Callable[[str, str], None],
        clock: Callable[[], float],
        uptime: Callable[[], float],
    ):
        self._index, self._delete, self._clock, self._uptime = index, delete, clock, uptime
        self._sweeps = 0
        self._began = uptime()
        self._uptime_before, self._heard = index.heard()

    def sweep(self, keep_seconds: float, deleted: Callable[[str], bool]) -> list[Removal]:
        """Remove jobs that were deleted or are too old, never to make room for others.

        Args:
            keep_seconds: how long after its last sign of life a job is kept, by the calendar. The server must
                also have run for a day since then, or for as long as that while a stream of the job is open.
            deleted: whether it is sure that a job was deleted from the job store. Of many jobs each sweep
                asks about some, in turn.

        Raises:
            StoreError: if the index cannot be read or changed.
        """
        jobs = sorted(self._index.jobs(), key=lambda job: job.last_seen)
        uptime = self._uptime_before + self._uptime() - self._began
        self._note(jobs, uptime)
        self._sweeps += 1
        turns = 1 + len(jobs) // _ASKED
        removed = []
        for job in jobs:
            if (zlib.crc32(job.job_id.encode()) + self._sweeps) % turns == 0 and deleted(job.job_id):
                reason = "the job was deleted"
            elif self._is_old(job, uptime, keep_seconds):
                reason = f"nothing was heard of it for {keep_seconds / _DAY:g} days"
            else:
                continue
            self._delete(job.job_id, reason)
            removed.append(Removal(job.job_id, reason))
        return removed

    def _note(self, jobs: list[StoredJob], uptime: float) -> None:
        changed = {
            job.job_id: Heard(job.last_seen, uptime)
            for job in jobs
            if job.job_id not in self._heard or self._heard[job.job_id].last_seen != job.last_seen
        }
        self._index.save_heard(uptime, changed)
        self._heard = {job.job_id: changed.get(job.job_id) or self._heard[job.job_id] for job in jobs}

    def _is_old(self, job: StoredJob, uptime: float, keep_seconds: float) -> bool:
        """By the calendar, and by an uptime of a day; of as long as the calendar's while a stream is open."""
        at_least = keep_seconds if job.is_open else min(keep_seconds, _DAY)
        quiet = uptime - self._heard[job.job_id].uptime
        return self._clock() - job.last_seen > keep_seconds and quiet >= at_least
