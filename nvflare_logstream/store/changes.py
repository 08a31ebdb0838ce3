"""Tells readers that a job has something new."""

from __future__ import annotations

import threading


class Changes:
    """Counts, by job, what a reader may want to look at; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counts: dict[str, int] = {}
        self._waiting = 0  # readers

    def wake(self, job_id: str) -> None:
        """Count a change of a job, and wake those who wait for one."""
        with self._changed:
            self._counts[job_id] = self._counts.get(job_id, 0) + 1
            if self._waiting:
                self._changed.notify_all()

    def count(self, job_id: str) -> int:
        """How many changes the job has had."""
        return self._counts.get(job_id, 0)

    def wait(self, job_id: str, seen: int, seconds: float) -> None:
        """Wait until the count is no longer `seen`, at most `seconds`."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self.count(job_id) != seen, seconds)
            finally:
                self._waiting -= 1

    def forget(self, job_id: str) -> None:
        """Stop counting for a job."""
        with self._changed:
            self._counts.pop(job_id, None)
