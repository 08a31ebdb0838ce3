"""Reading stored logs: the runtime's `nvflare job logs` and our `nvflare-logstream logs`, on one federation.

A small job for every size runs to its end; then its log of site-1 is exchanged for one of that size, in
both places that hold it: our store, and the archived workspace that the runtime's command reads. Every
command is a process of its own, as a user starts it; what it prints is compared with the file, so that
nobody is measured on less work.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import product, takewhile
from pathlib import Path

from nvflare_logstream import LogClient, LogQuery, SessionPort
from nvflare_logstream.lab.federation import Federation
from nvflare_logstream.lab.kits import write_job
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.store.index import Index
from nvflare_logstream.store.store import INDEX_FILE
from nvflare_logstream.streams import StreamKey, Verdict
from tests.benchmark.cases import Sizes, Values, site_setups
from tests.benchmark.content import write_log
from tests.benchmark.measure import Meter, wait_until
from tests.benchmark.searching import search

_SITE, _FILE, _MEMBER = "site-1", "log.txt", "site-1/log.txt"
# In this order: what the runtime's command leaves behind in the server's memory would hide what ours needs.
_COMMANDS: dict[str, tuple[str, ...]] = {
    "ours": ("-c", "from nvflare_logstream.cli.main import main; main()", "logs"),
    "stock": ("-m", "nvflare.cli", "job", "logs"),
}
_GREETING = b"Connecting to FLARE ...\n"  # the runtime's command prints it before the log
_KINDS = ("tail", "since")
_FEW, _MANY = 10, 100_000  # lines asked for; many are more than the 5 MiB that the runtime's command can get
_READY_SECONDS, _END_SECONDS, _COMMAND_SECONDS = 120.0, 180.0, 300.0
_SETTLE_SECONDS = 3.0  # after the server's start: it is busy with itself until then
_SAMPLE_SECONDS = 0.05
_REPOSITORY = Path(__file__).parents[2]
# Linux counts a process's peak memory from that of the process that started it: the one that starts the
# commands has to be small.
_LAUNCHER = """
import os, sys, time
began = time.monotonic()
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(pid, 0)
print("\\n", time.monotonic() - began, usage.ru_maxrss, os.waitstatus_to_exitcode(status), file=sys.stderr)
"""


@dataclass(frozen=True)
class Log:
    """A stored log, and what to ask of it: options and the lines that answer them."""

    job: str
    megabytes: int
    wanted: dict[str, tuple[tuple[str, str], list[bytes]]]


@dataclass(frozen=True)
class Read:
    """What one command took, in seconds and MiB, and the server (CPU seconds, more MiB); and its output."""

    seconds: float
    memory: float
    server_cpu: float
    server_memory: float
    lines: list[bytes]


def logs(root: Path, sizes: Sizes, setups: Sequence[str]) -> dict[str, Values]:
    """Read logs of several sizes with the commands of these set-ups, in turn."""
    chosen = [setup for setup in _COMMANDS if setup in setups]
    if not chosen:
        return {}
    server, client = site_setups("ours", root)
    with Federation(root / "federation", (_SITE,), server=server, client=client) as federation:
        stored = _store(federation, root, sizes.logs)
        time.sleep(_SETTLE_SECONDS)
        reader = _Reader(federation, root / "home")
        first = {setup: reader.first_turn(setup, stored) for setup in chosen}
        if "ours" in chosen:
            first["ours"]["server_read"] = max(_bytes_read(federation, log) for log in stored)
        reads: dict[str, dict[tuple[str, int], list[Read]]] = {setup: defaultdict(list) for setup in chosen}
        for _ in range(sizes.reads):
            for log, kind, setup in product(stored, _KINDS, chosen):
                reads[setup][kind, log.megabytes].append(reader.read(setup, log, kind))
        found = {name: first[name] | _figures(reads[name], first[name]["server_memory"]) for name in chosen}
    searched = search(root, sizes, chosen)
    return {setup: found[setup] | searched[setup] for setup in chosen}


CASES: dict[str, Callable[[Path, Sizes, Sequence[str]], dict[str, Values]]] = {"logs": logs}


class _Reader:
    """Runs commands against a federation's server, and measures both."""

    def __init__(self, federation: Federation, home: Path):
        home.mkdir()
        self._home, self._kit, self._server = home, federation.admin_dir(), federation.pid(SERVER_SITE)

    def first_turn(self, setup: str, stored: list[Log]) -> Values:
        """Read everything once: fills the page cache, and what the server keeps counts in no later turn."""
        with Meter(self._server, every=_SAMPLE_SECONDS) as meter:
            for log, kind in product(stored, _KINDS):
                self.read(setup, log, kind)
        return {"server_memory": meter.memory - meter.memory_before, **self._read_many(setup, stored[-1])}

    def read(self, setup: str, log: Log, kind: str) -> Read:
        """Read what is wanted; fails if the command prints anything else."""
        options, lines = log.wanted[kind]
        read = self._run(setup, log.job, *options)
        if read.lines != lines:
            raise RuntimeError(
                f"{setup} {' '.join(options)} of {log.megabytes} MB prints something else: {read.lines[:3]!r}"
            )
        return read

    def _read_many(self, setup: str, log: Log) -> Values:
        """Ask for more than the runtime's command can get; what it does not print is counted."""
        options, lines = log.wanted["many"]
        read = self._run(setup, log.job, *options)
        pairs = zip(reversed(read.lines), reversed(lines), strict=False)
        printed = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        megabytes = sum(len(line) + 1 for line in read.lines) / 1e6
        figures = {"seconds": read.seconds, "mb": megabytes, "missing": len(lines) - printed}
        figures |= {"memory": read.memory, "server_memory": read.server_memory}
        return {f"many_{name}": value for name, value in figures.items()}

    def _run(self, setup: str, job: str, *options: str) -> Read:
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _LAUNCHER,
            *_COMMANDS[setup],
            job,
            "--site",
            _SITE,
            *options,
        ]
        command += ["--startup-kit", str(self._kit)]
        env = {**os.environ, "HOME": str(self._home), "PYTHONPATH": str(_REPOSITORY)}
        pipe = subprocess.PIPE
        with (
            Meter(self._server, every=_SAMPLE_SECONDS) as meter,
            subprocess.Popen(
                command, env=env, cwd=self._home, stdout=pipe, stderr=pipe, start_new_session=True
            ) as process,
        ):
            try:
                output, errors = process.communicate(timeout=_COMMAND_SECONDS)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)  # the command too, not only what waits for it
                raise
        *_, seconds, kilobytes, code = errors.split()
        if int(code):
            raise RuntimeError(
                f"{setup} {' '.join(options)} ended with exit code {int(code)}: {errors.decode()[-2000:]}"
            )
        lines = output.removeprefix(_GREETING).splitlines()
        return Read(
            float(seconds), int(kilobytes) / 1024, meter.cpu, meter.memory - meter.memory_before, lines
        )


def _bytes_read(federation: Federation, log: Log) -> int:
    """The most bytes that our server reads of a log for a short answer, by its count; fails above 1 MiB."""
    client, most = LogClient(SessionPort(federation.session())), 0
    for kind in _KINDS:
        option, value = log.wanted[kind][0]
        query = LogQuery((_SITE,), tail=int(value)) if option == "--tail" else LogQuery((_SITE,), since=value)
        (stream,) = query.choose(client.streams(log.job))
        part = next(client.parts(log.job, stream, query))
        most = max(most, part.read)
    if most >= 1 << 20:
        raise RuntimeError(
            f"the server read {most} bytes of the log of {log.megabytes} MB for a short answer"
        )
    return most


def _figures(reads: dict[tuple[str, int], list[Read]], first_turn: float) -> Values:
    """The figures of one set-up from what it read, by kind and megabytes."""
    found: Values = {}
    for (kind, megabytes), runs in reads.items():
        name, seconds = f"{kind}_{megabytes}", [read.seconds for read in runs]
        found |= {name: statistics.median(seconds), f"{name}_min": min(seconds), f"{name}_max": max(seconds)}
        # A mean: CPU time comes in steps of 10 ms, of which a command may need but one or two.
        found[f"{name}_cpu"] = statistics.fmean(read.server_cpu for read in runs)
        found[f"{name}_memory"] = statistics.median(read.memory for read in runs)
    least, most = min(megabytes for _, megabytes in reads), max(megabytes for _, megabytes in reads)
    for kind in _KINDS:
        found[f"{kind}_growth"] = found[f"{kind}_{most}"] / found[f"{kind}_{least}"]
        found[f"{kind}_cpu"] = found[f"{kind}_{most}_cpu"]
    found["memory"] = max(found[f"{kind}_{most}_memory"] - found[f"{kind}_{least}_memory"] for kind in _KINDS)
    found["server_memory"] = max(
        first_turn, *(read.server_memory for runs in reads.values() for read in runs)
    )
    return found


# -- stored logs ---------------------------------------------------------------------------------------------


def _store(federation: Federation, root: Path, sizes: Sequence[int]) -> list[Log]:
    """Run a job for every size, and exchange its log while the server is down."""
    federation.start(_READY_SECONDS)
    jobs = _run_jobs(federation, root, len(sizes))
    federation.kill(SERVER_SITE)
    index = Index(federation.server_dir / "logstream" / INDEX_FILE)
    try:
        stored = [_exchange(federation, index, job, size) for job, size in zip(jobs, sizes, strict=True)]
    finally:
        index.close()
    federation.start_site(SERVER_SITE)
    federation.wait_ready(_READY_SECONDS)
    return stored


def _run_jobs(federation: Federation, root: Path, count: int) -> list[str]:
    """Run small jobs side by side until their logs are closed, in the archive too."""
    jobs = []
    for number in range(count):
        control = root / f"control-{number}"
        control.mkdir()
        (control / "go").touch()
        args = {"control": str(control), "lines": 10, "leave_at_once": True}
        folder = write_job(
            root / f"job-{number}", "worker.Worker", args, custom=Path(__file__).with_name("worker.py")
        )
        jobs.append(federation.submit(folder))
    for job in jobs:
        federation.wait(job, _END_SECONDS)
    client = LogClient(SessionPort(federation.session()))
    for job in jobs:
        if not wait_until(partial(_is_complete, federation, client, job), _END_SECONDS, step=0.5):
            raise TimeoutError(f"the log of job {job} is not complete: {client.streams(job)}")
    return jobs


def _is_complete(federation: Federation, client: LogClient, job: str) -> bool:
    wanted = (_SITE, _FILE, Verdict.COMPLETE)
    found = [log.end for log in client.streams(job) if (log.site, log.file, log.verdict) == wanted]
    if not zipfile.is_zipfile(_archive(federation, job)):
        return False
    with zipfile.ZipFile(_archive(federation, job)) as archive:
        archived = [entry.file_size for entry in archive.infolist() if entry.filename == _MEMBER]
    return bool(found) and found == archived


def _archive(federation: Federation, job: str) -> Path:
    return federation.server_dir / "jobs-storage" / job / "workspace"


def _exchange(federation: Federation, index: Index, job: str, size: int) -> Log:
    """Put a log of about `size` bytes in place of the job's own, in our store and the runtime's archive."""
    path = federation.server_dir / "logstream" / job / _SITE / _FILE
    count, digest = write_log(path, size)
    info = index.load(StreamKey(job, _SITE, _FILE))
    if info is None or info.state != "closed":
        raise RuntimeError(f"the index does not know the log of job {job} as closed: {info}")
    end = path.stat().st_size
    index.save([info._replace(end=end, lines=count, total=end, digest=digest, digest_from=0, agreed=True)])
    archive, draft = _archive(federation, job), federation.root / "workspace.zip"
    with (
        zipfile.ZipFile(archive) as old,
        zipfile.ZipFile(draft, "w") as new,
    ):  # not compressed, as the runtime makes it
        for entry in old.infolist():
            if entry.filename != _MEMBER:
                new.writestr(entry, old.read(entry))
        new.write(path, _MEMBER)
    draft.replace(archive)
    return Log(job, size // 1_000_000, _wanted(path))


def _wanted(path: Path) -> dict[str, tuple[tuple[str, str], list[bytes]]]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 300 * _MANY))
        last = file.read().splitlines()[-_MANY:]
    since = str(datetime.fromisoformat(last[-1][:19].decode()) - timedelta(minutes=1))
    return {
        "tail": (("--tail", str(_FEW)), last[-_FEW:]),
        "since": (("--since", since), [line for line in last if line[:19] >= since.encode()]),
        "many": (("--tail", str(_MANY)), last),
    }
