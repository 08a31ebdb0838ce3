"""Following: how old a line is when `nvflare-logstream logs --site all -f` shows it, and what that costs.

Two sites write at a steady rate; the command is a process of its own, whose output is read as it comes. What
the server needs for the follower is what its parent process uses beyond the same seconds without one. There
is nothing to compare with: the runtime's command cannot follow.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from nvflare_logstream.names import SERVER_SITE
from tests.benchmark.cases import Bench, Job, Sizes, Values
from tests.benchmark.measure import wait_until

RATES = (10, 200)  # lines a second of each of two sites
_SITES = 2
_STAMP = re.compile(rb"sent=(\d+\.\d+)")
_COMMAND = ("-c", "from nvflare_logstream.cli.main import main; main()", "logs")
_REPOSITORY = Path(__file__).parents[2]
_START_SECONDS = 30.0
_SETTLE_SECONDS = 2.0  # from the command's first line until what is measured: it has loaded everything


def follow(root: Path, sizes: Sizes, setups: Sequence[str]) -> dict[str, Values]:
    """Follow a job whose sites write, at one rate after the other."""
    if "ours" not in setups:
        return {}
    values: Values = {}
    for rate in RATES:
        place = root / str(rate)
        place.mkdir()
        values |= _at(rate, Bench(place, "ours", replace(sizes, clients=_SITES)), sizes.seconds)
    return {"ours": values}


CASES: dict[str, Callable[[Path, Sizes, Sequence[str]], dict[str, Values]]] = {"follow": follow}


def _at(rate: int, bench: Bench, seconds: float) -> Values:
    lines = int(rate * (2 * seconds + _START_SECONDS))
    with bench.job(clients=_SITES, lines=lines, interval=1 / rate, leave_at_once=True) as job:
        server = psutil.Process(job.federation.pid(SERVER_SITE))
        job.go()
        time.sleep(_SETTLE_SECONDS)
        without = _share(server, seconds)
        with _follower(job, bench.root) as (command, ages):
            if not wait_until(lambda: bool(ages), _START_SECONDS):
                raise TimeoutError("the command shows no line")
            time.sleep(_SETTLE_SECONDS)
            ages.clear()
            began, cpu = time.monotonic(), _cpu(command)
            with_one = _share(server, seconds)
            share = (_cpu(command) - cpu) / (time.monotonic() - began)
            found = sorted(ages)
        job.federation.abort(job.id)
        return {
            f"age_ms_{rate}": 1000 * statistics.median(found),
            f"age_p95_ms_{rate}": 1000 * found[int(0.95 * len(found))],
            f"share_{rate}": 100 * share,
            f"server_share_{rate}": 100 * (with_one - without),
            f"lines_{rate}": len(found),
        }


@contextmanager
def _follower(job: Job, home: Path) -> Iterator[tuple[psutil.Process, list[float]]]:
    """The command at work, and the age in seconds of each line that it has shown."""
    options = [job.id, "--site", "all", "-f", "--tail", "1", "--startup-kit", str(job.federation.admin_dir())]
    env = {**os.environ, "HOME": str(home), "PYTHONPATH": str(_REPOSITORY)}
    with (home / "follow.err").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *_COMMAND, *options], env=env, stdout=subprocess.PIPE, stderr=errors, bufsize=0
        )
    ages: list[float] = []

    def read() -> None:
        assert process.stdout
        rest = b""
        while data := process.stdout.read(1 << 16):
            now = time.time()
            *lines, rest = (rest + data).split(b"\n")
            ages.extend(now - float(match[1]) for line in lines if (match := _STAMP.search(line)))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield psutil.Process(process.pid), ages
    finally:
        process.kill()
        process.wait()
        reader.join()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _share(process: psutil.Process, seconds: float) -> float:
    """The share of a core that a process uses in the next seconds."""
    before, began = _cpu(process), time.monotonic()
    time.sleep(seconds)
    return (_cpu(process) - before) / (time.monotonic() - began)
