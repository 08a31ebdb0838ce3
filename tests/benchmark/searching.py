"""Searching a stored log: our filters, as the server runs them for a reader, and GNU grep, on the same file.

Both read the file from the page cache. Ours gives out text in parts as replies carry it, with the place to go
on as it travels; what grep prints is read through a pipe. The number of lines has to be the same.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from nvflare_logstream.filters import Filters
from nvflare_logstream.filters.bounds import plan
from nvflare_logstream.filters.log import FileLog, LogLines
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.queries import MAX_PART
from nvflare_logstream.wire.query_values import decode_reading, encode_reading
from tests.benchmark.cases import Sizes, Values
from tests.benchmark.content import write_log

_RUNS = 3  # of each row; the median counts
# One line in so many, between the others; the first is rare, the second an error, the third 0.1 %.
_PLANTED = {
    1_000_000: b" - Trainer - ERROR - the needle in the haystack\n",
    10_000: b" - Trainer - ERROR - out of memory\n",
    1_000: b" - Trainer - INFO - checkpoint written\n",
}
# Name, text, filters, and what grep is told.
ROWS: tuple[tuple[str, str, Filters, tuple[str, ...]], ...] = (
    ("rare", "a rare word", Filters(grep="needle"), ("needle",)),
    ("rare_tail", "a rare word, its last 5 lines", Filters(grep="needle", tail=5), ("needle",)),
    ("caret", "'^2026-12'", Filters(grep="^2026-12"), ("^2026-12",)),
    ("class", "'[^ ]eedle in'", Filters(grep="[^ ]eedle in"), ("[^ ]eedle in",)),
    ("many", "a word in 0.1 % of lines", Filters(grep="checkpoint"), ("checkpoint",)),
    ("inverted", "all lines without a rare word", Filters(grep="needle", invert=True), ("-v", "needle")),
    ("context", "a rare word, 3 lines around", Filters(grep="needle", before=3, after=3), ("-C3", "needle")),
    ("level", "level ERROR", Filters(level="ERROR"), (" - ERROR - ",)),
)


def search(root: Path, sizes: Sizes, setups: Sequence[str]) -> dict[str, Values]:
    """Seconds of every row: ours, and grep's as those of the set-up `stock`."""
    path = root / "searched.txt"
    found: dict[str, Values] = {setup: {} for setup in ("stock", "ours") if setup in setups}
    write_log(path, sizes.logs[-1], _PLANTED)
    for name, _, filters, arguments in ROWS:
        runs: dict[str, list[tuple[float, int]]] = {
            setup: [
                _grep(path, arguments) if setup == "stock" else _ours(path, filters) for _ in range(_RUNS)
            ]
            for setup in found
        }
        for setup, measured in runs.items():
            found[setup][f"search_{name}"] = sorted(seconds for seconds, _ in measured)[_RUNS // 2]
        if len(runs) == 2 and not filters.tail and runs["stock"][0][1] != runs["ours"][0][1]:
            raise RuntimeError(f"{name}: grep finds {runs['stock'][0][1]} lines, ours {runs['ours'][0][1]}")
    if "ours" in found:
        filters = Filters(since=_late(path))
        found["ours"]["search_since"] = sorted(_ours(path, filters)[0] for _ in range(_RUNS))[_RUNS // 2]
    path.unlink()
    return found


def _ours(path: Path, filters: Filters) -> tuple[float, int]:
    """Seconds for all parts of the answer, and the lines in it."""
    began, count = time.perf_counter(), 0
    log = LogLines(FileLog(path, path.stat().st_size))
    reading = plan(log, filters)
    while not reading.done:
        reading, text = decode_reading(Fields(encode_reading(reading))).part(log, filters, MAX_PART)
        count += text.count("\n")
    return time.perf_counter() - began, count


def _grep(path: Path, arguments: tuple[str, ...]) -> tuple[float, int]:
    """Seconds until grep has printed everything into a pipe, and the lines of it."""
    command = ["grep", "--no-group-separator", *arguments, str(path)]
    began, count = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout
        while data := process.stdout.read(1 << 20):
            count += data.count(b"\n")
    return time.perf_counter() - began, count


def _late(path: Path) -> datetime:
    """The time that the last tenth of the log begins with."""
    with path.open("rb") as file:
        file.seek(path.stat().st_size * 9 // 10)
        file.readline()
        return datetime.fromisoformat(file.read(19).decode())


CASES: dict[str, Callable[[Path, Sizes, Sequence[str]], dict[str, Values]]] = {"search": search}
