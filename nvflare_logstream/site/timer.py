"""When the next request may go.

At once after a quiet time, more rarely the more is written, and without a pause while full batches wait. A
request costs the training process about a millisecond whatever it carries: so at a thousand lines a second a
few hundred of them travel together, and at ten lines a second each travels alone.
"""

from __future__ import annotations

_SHORTEST = 0.02  # seconds between two requests while few bytes come
_LONGEST = 0.25  # seconds; a reader who follows still sees the log run
_BYTES_AT_LONGEST = 60_000.0  # bytes a second from which requests go at the longest interval
_MEMORY = 1.0  # seconds over which the rate is taken
_LONGEST_SERVER_WAIT = 30.0  # seconds; what a server may ask for, whatever it says
_LONGEST_RETRY = 5.0  # seconds, while no answer comes
_LONGEST_RETRY_ANSWERED = 30.0  # seconds, while answers come that cannot be used


class RequestTimer:
    """Gives the earliest time of the next request; times are monotonic seconds."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._last = float("-inf")
        self._not_before = float("-inf")

    def sent(self, now: float, size: int, full: bool, server_wait: float) -> None:
        """Note an answered request with `size` bytes of log; the answer asks for `server_wait` seconds."""
        passed = max(now - self._last, 0.001)
        weight = min(1.0, passed / _MEMORY)
        self._rate += weight * (size / max(passed, _SHORTEST) - self._rate)
        self._last = now
        share = min(1.0, self._rate / _BYTES_AT_LONGEST)
        own = 0.0 if full else _SHORTEST + share * (_LONGEST - _SHORTEST)
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

    @property
    def not_before(self) -> float:
        """The earliest time of the next request."""
        return self._not_before
