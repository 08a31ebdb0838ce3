"""What the server's job store says of a job, and when its silence means that an admin has deleted the job.

The runtime answers None for a job that is not there and for nearly every error of its storage: a directory
that is not mounted looks like a store without jobs. So one None proves nothing. A job counts as deleted only
after repeated looks over a long time, at each of which the store gave it not, but gave another job. Where the
store keeps jobs in directories, the job's directory must be gone too: one that is there and cannot be read is
an error of the disk. And there the directory of all jobs stands for another job, if it is still the one in
which a job was found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from nvflare_logstream.flare.runtime import job_directory

LOOKS = 3  # that must find a job absent
OVER_SECONDS = 600.0  # at least, between the first of these looks and the last
_BETWEEN = 10.0  # seconds until a look is repeated that found nothing: a site may ask each second
_MAX_WITNESSES = 8  # other jobs asked for at one look
_MAX_ABSENT = 100_000  # jobs whose absence is noted: more than a server keeps the logs of


class _Absence(NamedTuple):
    first: float  # when the job was first found absent
    last: float
    looks: int


class JobStore:
    """Asks the job store for jobs; thread-safe, since each look stands for itself.

    Args:
        engine: the server's engine.
        others: ids of jobs that may be in the job store; one of them has to be found for an absence to count.
        clock: gives the time in seconds, from any beginning, in steps of the time that really passed.
    """

    def __init__(
        self,
        engine: Any,
        others: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._engine, self._others, self._clock = engine, others, clock
        self._absent: dict[str, _Absence] = {}
        self._witness = ""  # the job that was found last
        self._home: tuple[int, int] | None = None  # device and inode of the directory in which it was found
        self._doubted = -_BETWEEN  # when the store last gave no job at all

    def meta(self, job_id: str) -> dict[str, Any] | None:
        """The job's meta; None if the store does not give it, for whatever reason."""
        try:
            with self._engine.new_context() as fl_ctx:
                job = self._engine.job_def_manager.get_job(job_id, fl_ctx)
        except Exception:  # each storage has its own errors; none of them says that there is no such job
            return None
        if job is None:
            return None
        self._witness, self._home = job_id, self._home_of(job_id)
        self._absent.pop(job_id, None)
        return dict(job.meta)

    def deleted(self, job_id: str) -> bool:
        """Look for a job that `meta` does not give; whether it is sure by now that the job was deleted.

        Sure is what three looks over ten minutes agree on. A store that fails, or that gives no other job
        either, agrees on nothing.
        """
        now = self._clock()
        seen = self._absent.get(job_id)
        if seen is None or now - seen.last >= _BETWEEN:
            if (
                job_id in self._engine.run_processes
                or self.meta(job_id) is not None
                or self._is_there(job_id)
            ):
                self._absent.pop(job_id, None)
                return False
            if now - self._doubted < _BETWEEN:
                return False
            if not self._answers(job_id):
                self._doubted = now
                return False
            seen = _Absence(seen.first if seen else now, now, seen.looks + 1 if seen else 1)
            if len(self._absent) >= _MAX_ABSENT:
                self._absent.clear()
            self._absent[job_id] = seen
        return seen.looks >= LOOKS and seen.last - seen.first >= OVER_SECONDS

    def _is_there(self, job_id: str) -> bool:
        """Whether there is a directory of the job, or that cannot be found out."""
        directory = job_directory(self._engine, job_id)
        if directory is None:
            return False
        try:
            os.lstat(directory)
        except OSError as error:
            return not isinstance(error, FileNotFoundError)
        return True

    def _home_of(self, job_id: str) -> tuple[int, int] | None:
        directory = job_directory(self._engine, job_id)
        try:
            status = os.stat(directory.parent) if directory else None
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if status else None

    def _answers(self, job_id: str) -> bool:
        """Whether the store gives a job other than this one now, or is seen to be there without one."""
        home = self._home_of(job_id)
        if home is not None and home == self._home:
            return True
        if self._witness not in ("", job_id) and self.meta(self._witness) is not None:
            return True
        others = (other for other in self._others() if other != job_id)
        return any(self.meta(other) is not None for other in islice(others, _MAX_WITNESSES))
