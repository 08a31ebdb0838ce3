"""Whether jobs still run, also those that are no processes of this machine: their launcher is asked."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from nvflare.apis.workspace import Workspace

from nvflare_logstream.flare.launched import Launched, doubt_of, launched_out_of_sight
from nvflare_logstream.flare.launchers import Launcher
from nvflare_logstream.site.endings import Doubt

ASK_INTERVAL = 5.0  # seconds between two questions to a launcher
_SOON = 60.0  # seconds; the runtime ends a job's process within a few after its parent
_LOOK_INTERVAL, _LATER_INTERVAL = 1.0, 10.0  # seconds; each look is at all processes of the machine
QUIET = 60.0  # seconds without a new byte after which a job is taken for over, where nobody can say
_MOST_ENTRIES = 1000  # of a log directory that are looked at

_logger = logging.getLogger(__name__)


class Elsewhere:
    """Finds out whether jobs still run that are no processes of this machine.

    Args:
        launcher: runs the jobs.
        engine: of this process.
        workspace: the site's workspace.
        clock: gives the time in seconds, from any beginning.
    """

    def __init__(
        self,
        launcher: Launcher,
        engine: Any,
        workspace: Workspace,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._launcher, self._engine, self._workspace, self._clock = launcher, engine, workspace, clock
        self._grew: dict[str, tuple[int, float]] = {}  # by job: bytes of its logs, and when that was new
        self._said: set[tuple[str, bool | None]] = set()
        self._unsure: set[str] = set()  # jobs of which nobody could say whether they were over

    def is_alive(self, job_id: str) -> bool:
        """Whether a job still runs; where nobody can say, whether its logs have grown within a minute."""
        launched = launched_out_of_sight(self._launcher, Path(self._workspace.get_run_dir(job_id)))
        if launched and launched.ended:
            return False
        answer = self._launcher.is_running(self._engine, job_id, self._workspace.site_name)
        alive = self._is_growing(job_id) if answer is None else answer
        if answer is None and not alive:
            self._unsure.add(job_id)
        if alive and (job_id, answer) not in self._said:
            self._said.add((job_id, answer))
            self._say(job_id, answer)
        return alive

    def wait(self, job_id: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait until a job is over of which its handle says so, where that may not be true."""
        while self._launcher.may_run_on and self.is_alive(job_id):
            sleep(ASK_INTERVAL)

    def doubt_at_end(self, job_id: str, ended: Launched, keep: bool) -> Doubt | None:
        """Why nobody knows all of the logs of a job that is over; None where its site sees all of them.

        Args:
            job_id: the job's id.
            ended: how it ended.
            keep: keep that in its directory, for a later life, if this process does not see its files.
        """
        doubt = doubt_of(self._launcher, Path(self._workspace.get_log_root(job_id)), ended)
        if doubt and keep:
            with suppress(OSError):  # a later life then says that it did not see the end
                ended.write(Path(self._workspace.get_run_dir(job_id)))
        return doubt or self.doubt(job_id)

    def doubt(self, job_id: str) -> Doubt | None:
        """Why nobody knows that a job which is not alive has written all; None if its launcher said so."""
        if job_id not in self._unsure:
            return None
        return Doubt(
            time.time(),
            f"nobody could say whether the job still ran in {self._launcher.place}; "
            f"its logs had not grown for {QUIET:g} s",
        )

    def _say(self, job_id: str, answer: bool | None) -> None:
        place = self._launcher.place
        if answer:
            _logger.info("job %s still runs in %s; its logs are closed when it ends", job_id, place)
        else:
            _logger.warning(
                "nobody can say whether job %s still runs in %s; "
                "its logs are closed when they have not grown for %g s",
                job_id,
                place,
                QUIET,
            )

    def _is_growing(self, job_id: str) -> bool:
        size, now = 0, self._clock()
        with suppress(OSError), os.scandir(self._workspace.get_log_root(job_id)) as entries:
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in islice(entries, _MOST_ENTRIES))
        known = self._grew.get(job_id)
        if known is None or known[0] != size:
            known = self._grew[job_id] = (size, now)
        return now - known[1] < QUIET


class Survivors:
    """Finds out which jobs have outlived the process that launched them, wherever they run.

    Args:
        launcher: runs the jobs.
        engine: of this process.
        workspace: of this process.
        running: those of some jobs that still have a process of this machine.
        clock: gives the time in seconds, from any beginning.
    """

    def __init__(
        self,
        launcher: Launcher,
        engine: Any,
        workspace: Workspace,
        running: Callable[[Iterable[str]], set[str]],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.launcher, self._running, self._clock, self._began = launcher, running, clock, clock()
        self._elsewhere = None if launcher.starts_here else Elsewhere(launcher, engine, workspace, clock)

    def alive(self, job_ids: Iterable[str]) -> set[str]:
        """Those of some jobs that still run, see `Elsewhere.is_alive`."""
        if self._elsewhere is None:
            return self._running(job_ids)
        return {job_id for job_id in sorted(job_ids) if self._elsewhere.is_alive(job_id)}

    def doubt(self, job_id: str) -> Doubt | None:
        """Why nobody knows that a job which is not alive has written all, see `Elsewhere.doubt`."""
        return self._elsewhere.doubt(job_id) if self._elsewhere else None

    @property
    def interval(self) -> float:
        """Seconds until the next look."""
        if self._elsewhere:
            return ASK_INTERVAL
        return _LOOK_INTERVAL if self._clock() - self._began < _SOON else _LATER_INTERVAL
