"""What processes use and when lines arrive, seen from outside of the processes."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.2
_LOOK_SECONDS = 0.002
_STAMP = re.compile(rb"sent=(\d+\.\d+)")


class Meter:
    """CPU time of some processes while the `with` block runs, and the most threads and memory they had.

    CPU time comes in steps of 10 ms a process; memory is the resident set in MiB.

    Args:
        pids: the processes.
        writer: id of a thread whose CPU time `background_cpu` leaves out.
        every: seconds between two looks at threads and memory.
    """

    def __init__(self, *pids: int, writer: int = 0, every: float = _SAMPLE_SECONDS):
        self._processes, self._writer, self._every = [psutil.Process(pid) for pid in pids], writer, every
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.cpu = self.background_cpu = 0.0
        self.threads = 0
        self.memory = self.memory_before = 0.0

    def __enter__(self) -> Meter:
        self.memory_before = self._memory_now()
        self.cpu, self.background_cpu = (-seconds for seconds in self._cpu_now())
        self._sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(psutil.NoSuchProcess):
            total, background = self._cpu_now()
            self.cpu, self.background_cpu = self.cpu + total, self.background_cpu + background
        self._stop.set()
        self._sampler.join()

    def _cpu_now(self) -> tuple[float, float]:
        times = [process.cpu_times() for process in self._processes]
        threads = [
            thread for process in self._processes for thread in process.threads() if thread.id == self._writer
        ]
        total = sum(time.user + time.system for time in times)
        return total, total - sum(thread.user_time + thread.system_time for thread in threads)

    def _memory_now(self) -> float:
        return float(sum(process.memory_info().rss for process in self._processes) / (1 << 20))

    def _sample(self) -> None:
        with suppress(psutil.NoSuchProcess):
            while True:
                self.threads = max(self.threads, sum(process.num_threads() for process in self._processes))
                self.memory = max(self.memory, self._memory_now())
                if self._stop.wait(self._every):
                    return


class Arrivals:
    """Follows the server's copy of a log while the `with` block runs, and notes how old each line arrives."""

    def __init__(self, copy: Path):
        self._copy = copy
        self._stop = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self.latencies: list[float] = []  # seconds

    def __enter__(self) -> Arrivals:
        self._follower.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._follower.join()

    def _follow(self) -> None:
        position, rest = size_of(self._copy), b""
        while not self._stop.wait(_LOOK_SECONDS):
            if size_of(self._copy) <= position:
                continue
            now = time.time()
            with self._copy.open("rb") as file:
                file.seek(position)
                data = file.read()
            position += len(data)
            *lines, rest = (rest + data).split(b"\n")
            self.latencies += [now - float(match[1]) for line in lines if (match := _STAMP.search(line))]


class Growth:
    """Notes the largest size of a file while the `with` block runs: a complete file may soon be moved."""

    def __init__(self, path: Path):
        self._path = path
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._grown = time.monotonic()
        self.size = 0

    def __enter__(self) -> Growth:
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._watcher.join()

    @property
    def stalled(self) -> float:
        """Seconds since the file last grew."""
        return time.monotonic() - self._grown

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            if (size := size_of(self._path)) > self.size:
                self.size, self._grown = size, time.monotonic()


def size_of(path: Path) -> int:
    """The file's size; 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_until(reached: Callable[[], bool], timeout: float, step: float = 0.02) -> bool:
    """Wait for a condition; False if it was not met in time."""
    deadline = time.monotonic() + timeout
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(step)
    return True


def has_ended(pid: int) -> bool:
    """Whether a process has ended, also one that its parent has not taken notice of yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def machine() -> dict[str, object]:
    """What the figures depend on beside the code."""
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "memory_gib": psutil.virtual_memory().total >> 30,
    }
