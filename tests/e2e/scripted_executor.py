"""An executor that does to its own log what the test asks for; copied into test jobs as custom code.

Paths in a script are relative to the job's log directory at the site.
"""

import ctypes
import logging
import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReservedKey
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellMessageHeaderKeys

from nvflare_logstream.flare.cell_channel import CHANNEL, TOPIC
from nvflare_logstream.streams import StreamId
from nvflare_logstream.wire.upload import Frame, RequestWriter

TRUTH = "truth-"  # before a log's name: what was in it when it was truncated


class ScriptedExecutor(Executor):
    """Runs `script`, a list of [action, arguments...]; `scripts` gives single sites their own."""

    def __init__(self, script=(), scripts=None):
        super().__init__()
        self.script = script
        self.scripts = scripts

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        self._handler = next(
            h for h in logging.getLogger().handlers if getattr(h, "baseFilename", "").endswith("/log.txt")
        )
        self._log = Path(self._handler.baseFilename)
        self._abort, self._fl_ctx = abort_signal, fl_ctx
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
            if self._abort.triggered:
                break

    def _do_lines_until(self, path, seconds=0.01, level="info"):
        """Write lines until the file `path` appears or the job is aborted."""
        number = 0
        while not (self._log.parent / path).exists() and not self._abort.triggered:
            getattr(self.logger, level)(f"line {number}")
            number += 1
            time.sleep(seconds)

    def _do_append(self, path, text, times=1):
        """Append lines to a log of the trainer's own, beside the runtime's."""
        with (self._log.parent / path).open("a") as file:
            for number in range(times):
                file.write(f"{text} {number}\n")
                file.flush()

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

    def _do_wait_for(self, path, seconds=3600):
        deadline = time.monotonic() + seconds
        while (
            not (self._log.parent / path).exists()
            and time.monotonic() < deadline
            and not self._abort.triggered
        ):
            time.sleep(0.1)

    def _do_mark(self, path):
        (self._log.parent / path).write_text(str(time.time()))

    def _do_sign(self, path):
        """Leave a sign that takes no descriptor."""
        (self._log.parent / path).mkdir()

    def _do_threads(self, path):
        """Write down the names of this process's threads."""
        (self._log.parent / path).write_text(
            "\n".join(sorted(thread.name for thread in threading.enumerate()))
        )

    # -- writing around the logging module

    def _do_raw(self, hexadecimal, times=1):
        """Append bytes to log.txt as they are."""
        with self._handler.lock, self._log.open("ab", buffering=0) as file:
            file.write(bytes.fromhex(hexadecimal) * times)

    def _do_bulk(self, size, line=120):
        """Append `size` bytes of numbered lines at once."""
        with self._handler.lock, self._log.open("ab") as file:
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

    def _do_rotate_or_not(self):
        """As the handler does it by itself while it logs: where it cannot, the training goes on."""
        with suppress(OSError):
            self._do_rotate()

    def _do_truncate(self, regrow=0):
        """Cut log.txt to nothing, keep what was in it as truth, and at once write `regrow` bytes."""
        with self._handler.lock:
            with self._log.with_name(TRUTH + self._log.name).open("ab") as truth:
                truth.write(self._log.read_bytes())
            os.truncate(self._log, 0)
            if regrow:
                self._do_bulk(regrow, 100)

    def _do_copytruncate(self):
        with self._handler.lock:
            shutil.copyfile(self._log, str(self._log) + ".1")
            os.truncate(self._log, 0)

    # -- a job that means harm

    def _do_forge(self, claimed_site, job, answer, headers=None):
        """Send a line for `job` (default: this one) in another site's name, and keep the receiver's reply.

        `headers` are set after the runtime's own code has set its: as by a site that runs other code.
        """
        stream, writer = (
            StreamId(job or self._fl_ctx.get_job_id(), "forged.txt"),
            RequestWriter(time.time(), 0),
        )
        writer.frame(Frame(stream, 0, b"forged\n", b""))
        request = Message(headers={CellMessageHeaderKeys.CLIENT_NAME: claimed_site}, payload=writer.encode())
        cell = self._fl_ctx.get_engine().get_cell().core_cell

        def overwrite(message):
            if message.payload is request.payload:
                message.headers.update(headers)

        if headers:
            cell.add_outgoing_request_filter("*", "*", overwrite)
        reply = cell.send_request(CHANNEL, TOPIC, "server", request, timeout=5.0, optional=True)
        (self._log.parent / answer).write_bytes(reply.payload or b"")

    def _do_forge_stock(self, claimed_site):
        """Send a file in another site's name, as the runtime's own streamer (since 2.8) sends a log."""
        from nvflare.app_common.logging.constants import LIVE_LOG_TOPIC, Channels
        from nvflare.app_common.streamers.log_streamer import LogStreamer

        path = self._log.with_name("forged.txt")
        path.write_text("forged\n")
        over = threading.Event()
        over.set()
        with self._fl_ctx.get_engine().new_context() as fl_ctx:
            fl_ctx.put(ReservedKey.IDENTITY_NAME, claimed_site, private=False, sticky=False)
            LogStreamer.stream_log(
                channel=Channels.LOG_STREAMING_CHANNEL,
                topic=LIVE_LOG_TOPIC,
                stream_ctx={"client_name": claimed_site, "job_id": fl_ctx.get_job_id()},
                targets=["server_parent"],
                file_name=str(path),
                fl_ctx=fl_ctx,
                stop_event=over,
                poll_interval=0.1,
            )

    def _do_print(self, text):
        print(text)

    # -- ends

    def _do_segfault(self):
        """Die in native code."""
        ctypes.string_at(0)

    def _do_kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def _do_exit(self, code):
        os._exit(code)
