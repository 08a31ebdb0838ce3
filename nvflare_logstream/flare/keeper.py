"""The threads that look after a receiver's store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

TURN_SECONDS = 1.0  # between commits: what a crash of the server makes the sites send again
WAIT_FOR_TURN = (
    2.0  # seconds, where a process ends: a commit is done in that time, a large archive may not be
)
SLOW_TURNS = 60  # turns between two rounds of the slow work
_logger = logging.getLogger(__name__)

Task = Callable[[], None]


class Keeper:
    """Does what has to be done each second, and what has to be done each minute.

    Args:
        tasks: run at every turn, in order.
        slow_tasks: run after them at every 60th turn.
        on_error: told of each task that fails.
        due: set by others while there is something to do; without it there always may be.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        slow_tasks: Sequence[Task] = (),
        on_error: Callable[[str], None] = lambda problem: None,
        due: threading.Event | None = None,
    ):
        self._tasks, self._slow_tasks, self._on_error = tuple(tasks), tuple(slow_tasks), on_error
        self._turns = 0
        self._told: dict[tuple[Task, type[Exception]], int] = {}  # the turn at which an error was logged last
        self._stopping = threading.Event()
        self._due = due
        self._thread = threading.Thread(target=self._run, name="nvflare_logstream_store", daemon=True)

    def start(self) -> None:
        """Start the thread, which ends with the process or at `stop`."""
        self._thread.start()

    def stop(self, seconds: float = 0.0) -> None:
        """End the thread after the turn under way; wait at most `seconds` for that."""
        self._stopping.set()
        if self._due:
            self._due.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def turn(self) -> None:
        """Run what is due; a task that fails stops no other, and is run again next time.

        Its error is logged once a minute: a disk that is full stays so for hours, and may hold the log too.
        """
        self._turns += 1
        slow = self._slow_tasks if self._turns % SLOW_TURNS == 0 else ()
        for task in (*self._tasks, *slow):
            try:
                task()
            except Exception as error:  # a full disk, say: it may have room at the next turn
                self._log(task, error)
                self._on_error(f"{type(error).__name__}: {error}")

    def _log(self, task: Task, error: Exception) -> None:
        kind = task, type(error)
        if self._turns >= self._told.get(kind, -SLOW_TURNS) + SLOW_TURNS:
            self._told[kind] = self._turns
            _logger.error("keeping the log store: %s: %s", type(error).__name__, error)

    def _run(self) -> None:
        while not self._stopping.wait(TURN_SECONDS):
            if self._due:
                self._due.wait()
            if not self._stopping.is_set():
                self.turn()
