"""The exchange of requests and replies with the receiver.

* `begin` goes from IDLE to UNDER_WAY; `prepare` from there to AHEAD, while a full batch is under way.
* `answered` goes from UNDER_WAY to IDLE, or from AHEAD to UNDER_WAY: what was prepared is the next request.
* `told` goes from UNDER_WAY to IDLE without an answer: the next answer tells what came of it.
* `failed` stays: a request without an answer is sent again as it was.
* `drop` goes to IDLE from anywhere: nobody knows what the receiver took.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from nvflare_logstream.site.batch import Batch
from nvflare_logstream.site.timer import RequestTimer

_MOST_TOLD = 7  # requests in a row to which no answer is wanted
_ANSWER_WITHIN = 1.0  # seconds; so old an answer may be when another request is told


class Step(Enum):
    """Where the exchange stands; the value is the number of requests that have no answer yet."""

    IDLE = 0
    UNDER_WAY = 1
    AHEAD = 2


_STEPS = tuple(Step)


class Exchange:
    """The request under way and the one prepared meanwhile; times are monotonic seconds.

    Args:
        now: the time at which the exchange begins.

    Attributes:
        failures: how often in a row no answer came.
        last_answer: when the last answer came.
        caught_up: how many requests brought all that the logs then held, and were taken.
    """

    def __init__(self, now: float):
        self._unanswered: list[Batch] = []
        self._timer = RequestTimer()
        self._told = 0  # requests since the last answer
        self._server_wait = 0.0  # seconds of rest for which the last answer asked
        self.failures = self.caught_up = 0
        self.last_answer = now

    @property
    def step(self) -> Step:
        """Where the exchange stands."""
        return _STEPS[len(self._unanswered)]

    @property
    def under_way(self) -> Batch | None:
        """The request that was sent or is to be sent."""
        return self._unanswered[0] if self._unanswered else None

    def wait(self, now: float) -> float:
        """Seconds until the next request may go; 0 or less if it may go at once."""
        return self._timer.not_before - now

    def begin(self, batch: Batch) -> None:
        """Make `batch` the request under way."""
        assert self.step is Step.IDLE
        self._unanswered.append(batch)

    def prepare(self, batch: Batch) -> None:
        """Make `batch` the one that follows the request under way."""
        assert self.step is Step.UNDER_WAY
        self._unanswered.append(batch)

    def may_tell(self, batch: Batch, now: float) -> bool:
        """Whether a request needs no answer: it brings bytes and nothing else, and another follows soon.

        An answer costs both sides as much as a request. What is lost without one leaves a gap, of which the
        next answer tells.
        """
        if not batch.writer.plain or batch.writer.full or batch.in_doubt or self.failures:
            return False
        is_known = self._told < _MOST_TOLD and now - self.last_answer < _ANSWER_WITHIN
        return is_known and self._timer.in_quick_succession(now)

    @property
    def longest_rest(self) -> float:
        """Seconds without a request after which the receiver is asked what it took of those it was told."""
        return _ANSWER_WITHIN / 2 if self._told else inf

    def told(self, now: float, cost: float) -> None:
        """The request under way was sent, and no answer comes; it took `cost` seconds of CPU."""
        assert self.step is Step.UNDER_WAY
        self._told += 1
        self._sent(now, self._server_wait, cost)

    def answered(self, now: float, server_wait: float, cost: float = 0.0) -> None:
        """The request under way was answered.

        Args:
            now: the time.
            server_wait: seconds of rest for which the receiver asks.
            cost: seconds of CPU that the request took.
        """
        self.failures, self.last_answer, self._told, self._server_wait = 0, now, 0, server_wait
        self._sent(now, server_wait, cost)

    def _sent(self, now: float, server_wait: float, cost: float) -> None:
        writer = self._unanswered.pop(0).writer
        self._timer.sent(now, writer.raw_size, cost, writer.full, server_wait)

    def failed(self, now: float, answered: bool = False) -> None:
        """No answer came or, with `answered`, none that says what was taken."""
        self.failures += 1
        self._timer.failed(now, self.failures, answered)

    def drop(self) -> None:
        """Forget the requests that have no answer."""
        self._unanswered.clear()
