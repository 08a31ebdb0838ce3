"""Whether a sender may let logs out: the one place where a site's no is heeded once streaming has begun.

Rules:

* The site is asked before each request. Without its yes no byte of a log goes, no digest and no close: only
  refusals, and the question which logs the receiver has of a job, so that those can be refused too.
* A no is for good: whatever the site says later, the logs of the jobs that ran then stay ended. A stream is
  one sequence without holes, so a later yes would bring out what was written in between.
* A policy that cannot be read is no yes: everything waits, for a file that is being saved say. After ten
  seconds it is a no for the jobs that run. What is left of a job that is over goes on waiting: it grows no
  more, and whoever finishes it asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

from nvflare_logstream.site.batch import Batch
from nvflare_logstream.site.decision import Decision
from nvflare_logstream.site.followed import Ended
from nvflare_logstream.site.orders import FinishJob, FollowLog, KeepBack, Order, RefuseLogs, WatchJob
from nvflare_logstream.site.state import SenderState
from nvflare_logstream.site.watch import Changes, Watcher
from nvflare_logstream.streams import Verdict
from nvflare_logstream.wire.upload import Refusal

CHECK_INTERVAL = 1.0  # seconds between two questions where nothing is sent and a job has to be watched
_PATIENCE = 10.0  # seconds without an answer that can be used after which it counts as a no
_MOST_KEPT = 10_000  # jobs that are remembered as kept back

_logger = logging.getLogger(__name__)


class Gate:
    """Stands between a sender's state and its link; used by the sender's thread alone.

    Args:
        state: the sender's.
        ask: what the site says now; asked often, so it has to cost next to nothing.
        on_kept_back: called with (job_id, reason) for each job whose logs stay at the site from now on.

    Attributes:
        is_open: the site's last answer was a yes.
    """

    def __init__(
        self, state: SenderState, ask: Callable[[], Decision], on_kept_back: Callable[[str, str], None]
    ):
        self._state, self._ask, self._on_kept_back = state, ask, on_kept_back
        self.is_open = True
        self._in_doubt_since = inf  # monotonic seconds
        self._watched: dict[str, tuple[str, ...]] = {}  # files by job
        self._kept: dict[str, KeepBack] = {}  # by job

    def obey(self, order: Order) -> None:
        """Take up what a caller wants, unless it is about a job that is kept back."""
        if isinstance(order, RefuseLogs | KeepBack):
            self._state.obey(order)
            return
        job_id = order.stream.job_id if isinstance(order, FollowLog) else order.job_id
        files = (order.stream.file,) if isinstance(order, FollowLog) else order.files
        if not isinstance(order, FollowLog):
            self._watched.pop(job_id, None)
        if kept := self._kept.get(job_id):
            self._refuse_all(kept, files)
        elif not isinstance(order, WatchJob):
            self._state.obey(order)
        elif not order.is_over:
            self._watched[job_id] = files

    def wait(self, watcher: Watcher, seconds: float) -> Changes:
        """Wait for a change, at most so many seconds; less where the site has to be asked before."""
        if self.is_open:
            return watcher.wait(self._at_most(seconds))
        # Nothing is sent: neither does a change matter, nor what has been due for long.
        waits = self._watched or self._state.streams or self._state.questions.any_left
        watcher.pause(CHECK_INTERVAL if waits else seconds)
        return None

    def pause(self, watcher: Watcher, seconds: float) -> None:
        """Wait so many seconds; less where the site has to be asked before."""
        watcher.pause(self._at_most(seconds))

    def _at_most(self, seconds: float) -> float:
        """What a site says wakes nobody."""
        return min(seconds, CHECK_INTERVAL) if self._watched else seconds

    def look(self, now: float) -> list[Ended]:
        """Ask whether the request under way may go; it is dropped if not. Returns the streams that ended."""
        under_way = self._state.exchange.under_way
        if under_way is None and self.is_open and not self._watched:
            return []  # an idle job costs nothing
        said = self._ask()
        if said.allowed:
            self._state.look_at_once |= not self.is_open
            self.is_open, self._in_doubt_since = True, inf
            return []
        self.is_open = False
        if under_way is not None and not under_way.only_refuses:
            self._state.drop_requests()
        if said.sure:
            self._in_doubt_since = inf
            return self._end(said.reason, over_too=True)
        if self._in_doubt_since == inf:
            _logger.warning("logs wait until it is known whether they may leave the site: %s", said.reason)
        self._in_doubt_since = min(self._in_doubt_since, now)
        return self._end(said.reason) if now - self._in_doubt_since >= _PATIENCE else []

    def next_batch(self, now: float, wall_time: float, changed: Changes) -> None:
        """Begin a request with all there is to say, see `SenderState.next_batch`.

        Without the site's yes that is little, or nothing.
        """
        state, questions = self._state, self._state.questions
        if self.is_open:
            state.next_batch(now, wall_time, changed)
            return
        state.look_at_once = False
        jobs, refusals = questions.due(now)
        jobs = [job for job in jobs if isinstance(job, KeepBack)]
        if not (jobs or refusals):
            state.quiet_looks += not (state.streams or questions.any_left)
            return
        batch = Batch(wall_time, jobs, state.runtime, refusals)
        batch.only_refuses = True
        batch.payload = batch.writer.encode()
        state.exchange.begin(batch)

    def _end(self, reason: str, over_too: bool = False) -> list[Ended]:
        """End all streams for good, those of jobs that are over only if it says so; have them refused."""
        state, jobs = self._state, dict(self._watched)
        over = {job.job_id: job.files for job in state.questions.jobs.values() if isinstance(job, FinishJob)}
        streams = list(state.streams.values())
        if not over_too:
            streams = [stream for stream in streams if not (stream.last or stream.id.job_id in over)]
        jobs.update(over if over_too else {})
        seen = {stream.id.job_id for stream in streams} | state.appearing.directories.keys()
        kept = jobs.keys() | (seen if over_too else seen - over.keys())
        ended = [state.end(stream, Verdict.REFUSED, reason) for stream in streams]
        for job_id in kept:
            state.appearing.directories.pop(job_id, None)
            self._keep(job_id, reason)
        if ended:
            state.obey(RefuseLogs(tuple(Refusal(stream.stream.id, reason) for stream in ended)))
        for job_id, files in jobs.items():
            self._refuse_all(KeepBack(job_id, (), reason), files)
        return ended

    def _refuse_all(self, kept: KeepBack, files: tuple[str, ...]) -> None:
        """Have all logs of a job refused, by these names too: an earlier order may not have been answered."""
        files = tuple(dict.fromkeys((*kept.files, *files)))
        kept = self._kept[kept.job_id] = kept._replace(files=files)
        self._state.obey(kept)

    def _keep(self, job_id: str, reason: str) -> None:
        self._watched.pop(job_id, None)
        if len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[job_id] = KeepBack(job_id, (), reason)
        _logger.warning("the logs of job %s stay at this site from now on: %s", job_id, reason)
        try:
            self._on_kept_back(job_id, reason)
        except Exception:  # the next job is kept back all the same
            _logger.exception("it could not be passed on that job %s is kept back", job_id)
