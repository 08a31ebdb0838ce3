"""Turns for those who read: few at a time, in the order in which they came, each for a bounded time.

A pattern may take minutes for a long log. The server has jobs to run, and every reader waits for its answer
with a patience of its own. So work is cut by time, and the more there are who want to work, the shorter is
the turn of each.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

AT_A_TIME = 2  # readers that work: each keeps a core busy
MOST_WAITING = 24  # the runtime has 64 threads for all admins' commands, and each who waits holds one
TURN_SECONDS = 2.0  # where nobody waits for long
ROUND_SECONDS = 3.0  # in which everybody has had a turn, if all come again; far below a client's patience
SHORT_SECONDS = 0.1  # a turn of those who need not wait


class Turns:
    """Lets readers work in turns; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working = 0
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self, waits: bool = True) -> Iterator[float]:
        """Wait for a turn; gives the seconds that it may take.

        Args:
            waits: wait if others work. Otherwise, and where too many wait already, the turn comes at once and
                is short: long enough for what is quick, and for what is not to come a little further.
        """
        queued = None
        with self._lock:
            has_place = self._working < AT_A_TIME and not self._waiting
            if has_place:
                self._working += 1
            elif waits and len(self._waiting) < MOST_WAITING:
                queued = threading.Event()
                self._waiting.append(queued)
        if not has_place and queued is None:
            yield SHORT_SECONDS
            return
        if queued is not None:
            queued.wait()  # who ends a turn gives it on
        try:
            yield self._share()
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._working -= 1

    def _share(self) -> float:
        readers = self._working + len(self._waiting)
        return min(TURN_SECONDS, ROUND_SECONDS * AT_A_TIME / readers)
