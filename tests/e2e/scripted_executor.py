"""An executor that does to its own log what the test asks for; copied into test jobs as custom code."""

import logging
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.executor import Executor


class ScriptedExecutor(Executor):
    """Runs `script`, a list of [action, arguments...]; `scripts` gives single sites their own."""

    def __init__(self, script=(), scripts=None):
        super().__init__()
        self.script = script
        self.scripts = scripts

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        self._handler = next(h for h in logging.getLogger().handlers if getattr(h, "baseFilename", "").endswith("/log.txt"))
        self._log = Path(self._handler.baseFilename)
        self._abort = abort_signal
        for action, *arguments in (self.scripts or {}).get(fl_ctx.get_identity_name(), self.script):
            getattr(self, f"_do_{action}")(*arguments)
            if abort_signal.triggered:
                break
        return DXO(DataKind.WEIGHTS, data={"w": np.zeros(1)}).to_shareable()

    # -- plain logging

    def _do_lines(self, count, seconds=0.0, text=""):
        for i in range(count):
            self.logger.info(f"line {i} {text}")
            if seconds:
                self._do_sleep(seconds)

    def _do_warning(self, text):
        self.logger.warning(text)

    def _do_traceback(self):
        try:
            raise ValueError("a value that\nbreaks over two lines")
        except ValueError:
            self.logger.exception("an exception")

    def _do_sleep(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._abort.triggered:
            time.sleep(min(0.05, seconds))

    def _do_wait_for(self, path, seconds=60):
        deadline = time.monotonic() + seconds
        while not os.path.exists(path) and time.monotonic() < deadline and not self._abort.triggered:
            time.sleep(0.02)

    def _do_mark(self, path):
        Path(path).write_text(str(time.time()))

    # -- writing around the logging module

    def _do_raw(self, hexadecimal, times=1):
        """Append bytes to log.txt as they are."""
        with self._handler.lock:
            with open(self._log, "ab", buffering=0) as file:
                file.write(bytes.fromhex(hexadecimal) * times)

    def _do_bulk(self, size, line=120):
        """Append `size` bytes of numbered lines at once."""
        with self._handler.lock:
            with open(self._log, "ab") as file:
                written, number = 0, 0
                while written < size:
                    stamp = time.strftime("%Y-%m-%d %H:%M:%S,000")
                    text = f"{stamp} - bulk - INFO - step {number} ".ljust(line - 1, "x") + "\n"
                    data = (text * 1000).encode()[: size - written]
                    written += file.write(data)
                    number += 1

    def _do_rotate(self):
        """The runtime's own rename rotation, now."""
        with self._handler.lock:
            self._handler.doRollover()

    def _do_truncate(self):
        with self._handler.lock:
            os.truncate(self._log, 0)

    def _do_copytruncate(self):
        with self._handler.lock:
            shutil.copyfile(self._log, str(self._log) + ".1")
            os.truncate(self._log, 0)

    # -- ends

    def _do_kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def _do_exit(self, code):
        os._exit(code)
