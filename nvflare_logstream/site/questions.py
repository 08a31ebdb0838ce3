"""What a sender has to ask beside its streams: how jobs that are over stand, and that refusals be taken."""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import TypeVar

from nvflare_logstream.site.batch import MOST_ASKED
from nvflare_logstream.site.orders import FinishJob, KeepBack, RefuseLogs
from nvflare_logstream.site.progress import PutOff
from nvflare_logstream.streams import StreamId
from nvflare_logstream.wire.upload import Refusal
from nvflare_logstream.wire.upload_reply import Status, StreamReply

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Questions:
    """What the receiver has not answered yet; times are monotonic seconds.

    Attributes:
        jobs: jobs that are over or kept back, of which the receiver's known streams were not learned yet.
        refusals: what the site keeps back and the receiver does not know yet.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, FinishJob | KeepBack] = {}
        self.refusals: dict[StreamId, Refusal] = {}
        self._put_off = PutOff()  # what the receiver cannot judge, since the last new question

    def add(self, order: FinishJob | KeepBack | RefuseLogs) -> None:
        """Take up a new question, and ask all of them at once."""
        self._put_off = PutOff()
        if isinstance(order, RefuseLogs):
            self.refusals.update({refusal.stream: refusal for refusal in order.refusals})
        else:
            self.jobs[order.job_id] = order

    @property
    def any_left(self) -> bool:
        """Whether there is a question without an answer."""
        return bool(self.jobs or self.refusals)

    @property
    def hurried(self) -> bool:
        """Whether a job is over and the receiver has not yet said "later"."""
        return bool(self.jobs) and self._put_off.since == inf

    def held_back(self, now: float) -> bool:
        """Whether there are questions whose time has not come."""
        return self.any_left and now < self._put_off.until

    def due(self, now: float) -> tuple[list[FinishJob | KeepBack], list[Refusal]]:
        """What the next request asks."""
        most = MOST_ASKED if now >= self._put_off.until else 0
        return list(islice(self.jobs.values(), most)), list(islice(self.refusals.values(), most))

    def answered(self, job: FinishJob | KeepBack) -> None:
        """The receiver has said how a job stands; a newer question about it stays."""
        if self.jobs.get(job.job_id) is job:
            del self.jobs[job.job_id]

    def job_later(self, job: FinishJob | KeepBack, now: float) -> None:
        """The receiver cannot judge a job yet."""
        if self.jobs.get(job.job_id) is job:
            self._ask_later(self.jobs, job.job_id, now)

    def take_refusal(self, row: StreamReply, now: float) -> None:
        """The receiver has taken a refusal, or cannot judge it yet."""
        if row.status is Status.LATER:
            self._ask_later(self.refusals, row.stream, now)
        elif row.status is Status.REFUSED:
            del self.refusals[row.stream]

    def _ask_later(self, queue: dict[_Key, _Value], key: _Key, now: float) -> None:
        """Ask for it again later, after those behind it."""
        queue[key] = queue.pop(key)
        self._put_off.again(now)
