"""When the next request may go.

At once after a quiet time, and without a pause while full batches wait. The more is written, the more rarely:
at a thousand lines a second as often as a small share of a core allows by what requests are seen to cost, so
that some dozens of lines travel together; at ten lines a second each travels alone.
"""

from __future__ import annotations

_SHARE = 0.0195  # of a core, for the requests of a log that is written all the time
_IN_ALL = 1.85  # times what is measured: the runtime's own threads take their part of a request
_MOST_COST = 0.0025  # seconds of CPU; what takes longer reads a backlog, or hashes a whole log at its close
_WEIGHT = 0.1  # of the last request in the mean of what requests cost
_SHORTEST = 0.02  # seconds between two requests while few bytes come
_MANY_BYTES = 60_000.0  # bytes a second from which requests go only as often as that share allows
_MEMORY = 1.0  # seconds over which the rate is taken
_QUICK = 0.2  # seconds between two requests, if it may go sooner than that
_LONGEST = 0.25  # seconds; a reader who follows still sees the log run
_LONGEST_SERVER_WAIT = 30.0  # seconds; what a server may ask for, whatever it says
_LONGEST_RETRY = 5.0  # seconds, while no answer comes
_LONGEST_RETRY_ANSWERED = 30.0  # seconds, while answers come that cannot be used


class RequestTimer:
    """Gives the earliest time of the next request; times are monotonic seconds."""

    def __init__(self) -> None:
        self._cost = 0.0  # of a request, in seconds of CPU
        self._rate = 0.0  # bytes a second
        self._last = float("-inf")
        self._not_before = float("-inf")

    def sent(self, now: float, size: int, cost: float, full: bool, server_wait: float) -> None:
        """Note a request that was sent, and answered if an answer is wanted.

        Args:
            now: the time.
            size: bytes of log in it.
            cost: seconds of CPU that the sender's thread took for it.
            full: it was a full batch, and the next one waits.
            server_wait: seconds for which the answer asks to wait.
        """
        self._cost += _WEIGHT * (min(cost, _MOST_COST) - self._cost)
        passed = max(now - self._last, 0.001)
        self._rate += min(1.0, passed / _MEMORY) * (size / max(passed, _SHORTEST) - self._rate)
        self._last = now
        affordable = min(max(_SHORTEST, _IN_ALL * self._cost / _SHARE), _LONGEST)
        own = 0.0 if full else _SHORTEST + min(1.0, self._rate / _MANY_BYTES) * (affordable - _SHORTEST)
        # In this order a wait that is no number (NaN) counts as the longest.
        self._not_before = now + max(own, min(_LONGEST_SERVER_WAIT, server_wait))

    def failed(self, now: float, attempt: int, answered: bool = False) -> None:
        """Note that a request failed, the `attempt`-th time in a row (from 1).

        Args:
            now: the time.
            attempt: the number of the attempt.
            answered: there was an answer, but it cannot be used: it will hardly be another one soon.
        """
        longest = _LONGEST_RETRY_ANSWERED if answered else _LONGEST_RETRY
        self._not_before = now + min(0.2 * 2 ** min(attempt, 10), longest)

    def in_quick_succession(self, now: float) -> bool:
        """Whether a request now comes about as soon after the last one as it may: more is being written."""
        return now - self._last < max(_QUICK, 1.5 * (self._not_before - self._last))

    @property
    def not_before(self) -> float:
        """The earliest time of the next request."""
        return self._not_before
