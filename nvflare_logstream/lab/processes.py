"""The parent processes of a federation, and whatever they start.

Every process carries a mark in its environment, and so does its offspring. To end a federation is to end the
processes with its mark: job processes whose parent was killed are found too, and nothing else ever is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

CONSOLE = "console.txt"  # in each site's kit: what its parent process prints

_MARK = "NVFLARE_LOGSTREAM_FEDERATION"
_LOOK_INTERVAL = 0.1  # seconds
_TERM_SECONDS = 1.5  # until what does not end by itself is killed
_PACKAGE_ROOT = str(Path(__file__).parents[2])


class Processes:
    """Starts and ends them; one parent process a name."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._parents: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parent processes that were started and not ended by `kill`."""
        return tuple(self._parents)

    def start(self, name: str, command: Sequence[str], kit: Path) -> None:
        """Start a parent process in its kit's directory."""
        python_path = os.pathsep.join(filter(None, [_PACKAGE_ROOT, os.environ.get("PYTHONPATH")]))
        # What a killed process leaves there goes with the federation.
        temporary = kit.with_name(".tmp")
        temporary.mkdir(mode=0o700, exist_ok=True)
        with (kit / CONSOLE).open("ab") as console:
            self._parents[name] = subprocess.Popen(
                command,
                cwd=kit,
                # MALLOC_ARENA_MAX as in the kit's own start script; a job's python3 is the one that we run on
                env={
                    "MALLOC_ARENA_MAX": "4",
                    **os.environ,
                    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
                    "PYTHONPATH": python_path,
                    "TMPDIR": str(temporary),
                    _MARK: self._mark,
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal must not reach it: `stop` ends it
            )

    def pid(self, name: str) -> int:
        """The process id of a parent process."""
        return self._parents[name].pid

    def find(self, words: set[str]) -> int | None:
        """The id of a process that has all these words in its command line; None if there is none now."""
        for process in self._alive():
            with suppress(psutil.Error):
                if words <= set(process.cmdline()):
                    return int(process.pid)
        return None

    def kill(self, name: str, sig: signal.Signals) -> bool:
        """Send a signal to a parent process only; True if the signal is one that ends it, after its end."""
        self._parents[name].send_signal(sig)
        if sig not in (signal.SIGKILL, signal.SIGTERM):
            return False
        self._parents.pop(name).wait(timeout=10)
        return True

    def ended(self) -> tuple[str, int] | None:
        """The name and exit code of a parent process that has ended by itself; None if all run."""
        for name, process in self._parents.items():
            code = process.poll()
            if code is not None:
                return name, code
        return None

    def stop(self) -> None:
        """End every process with the mark within about two seconds; may be called again."""
        began = time.monotonic()
        # Look again each time: a process may have started another one since the last look.
        while alive := self._alive():
            late = time.monotonic() - began > _TERM_SECONDS
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL if late else signal.SIGTERM)
            time.sleep(_LOOK_INTERVAL)
        for parent in self._parents.values():
            parent.wait()
        self._parents.clear()

    def _alive(self) -> list[psutil.Process]:
        alive = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive
