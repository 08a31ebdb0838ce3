"""The benchmark's job: an executor that writes lines at a rate or many bytes at once; its jobs' custom code.

It measures nothing: the benchmark reads this process's counters from outside, the same way for every set-up.
The two speak through files in a directory:

    ready-<site>  executor: {"pid": ..., "thread": ...}; streaming has begun and the work can
    go            benchmark: begin to write
    done-<site>   executor: {"began": ..., "ended": ..., "log_size": ...} all is written
    leave         benchmark: return from the task; not waited for if the job is to end at once
"""

import json
import logging
import logging.handlers
import os
import threading
import time
from pathlib import Path

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

_POLL_SECONDS = 0.1


class Worker(Executor):
    """Writes to the job's log.txt.

    Args:
        control: the directory the benchmark watches.
        lines: how many lines to log.
        interval: seconds before each line.
        content: a file to append to log.txt at once.
        leave_at_once: return from the task as soon as all is written.
    """

    def __init__(
        self,
        control: str,
        lines: int = 0,
        interval: float = 0.0,
        content: str = "",
        leave_at_once: bool = False,
    ) -> None:
        super().__init__()
        self._control, self._lines, self._interval = Path(control), lines, interval
        self._content, self._leave_at_once = content, leave_at_once

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        site, handler = fl_ctx.get_identity_name(), _log_handler()
        # The stock streamer loses what it has not read when the file is rotated: it would be measured on less
        # work.
        handler.maxBytes = 0
        self._tell(f"ready-{site}", {"pid": os.getpid(), "thread": threading.get_native_id()})
        self._wait("go", abort_signal)
        began = time.time()
        if self._content:
            _append(handler, self._content)
        self._log(began)
        log_size = os.stat(handler.baseFilename).st_size
        self._tell(f"done-{site}", {"began": began, "ended": time.time(), "log_size": log_size})
        if not self._leave_at_once:
            self._wait("leave", abort_signal)
        return DXO(DataKind.WEIGHTS, data={"w": np.zeros(1)}).to_shareable()

    def _log(self, began: float) -> None:
        for number in range(1, self._lines + 1):
            ahead = began + number * self._interval - time.time()
            if ahead > 0:
                time.sleep(ahead)
            loss = 2.0 / (1 + number % 1000)
            self.logger.info(f"epoch {number // 100} step {number} loss={loss:.6f} sent={time.time():.6f}")

    def _tell(self, name: str, fields: dict[str, float]) -> None:
        draft = self._control / f".{name}"
        draft.write_text(json.dumps(fields))
        draft.replace(self._control / name)

    def _wait(self, name: str, abort_signal: Signal) -> None:
        while not (self._control / name).exists() and not abort_signal.triggered:
            time.sleep(_POLL_SECONDS)


def _log_handler() -> logging.handlers.RotatingFileHandler:
    for handler in logging.getLogger().handlers:
        if (
            isinstance(handler, logging.handlers.RotatingFileHandler)
            and Path(handler.baseFilename).name == "log.txt"
        ):
            return handler
    raise RuntimeError("the runtime has set up no handler for log.txt")


def _append(handler: logging.handlers.RotatingFileHandler, content: str) -> None:
    """Append a file's bytes, inside the kernel: writing must cost this process next to nothing."""
    # sendfile() does not take a descriptor opened for appending; nobody else writes while we hold the
    # handler's lock.
    assert handler.lock is not None
    with handler.lock, Path(content).open("rb") as source, Path(handler.baseFilename).open("r+b") as log:
        log.seek(0, os.SEEK_END)
        while os.sendfile(log.fileno(), source.fileno(), None, 1 << 30):
            pass
