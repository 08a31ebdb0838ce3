"""The work that is measured: each case runs one job on a federation of its own, the same for every set-up.

CPU time is counted from the moment the executor is told to begin until the server's copy holds everything, in
the client job and in the server's two processes (parent and job). The set-up without streaming tells what the
work itself costs.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvflare_logstream.lab.federation import Federation
from nvflare_logstream.lab.kits import SiteSetup, write_job
from nvflare_logstream.names import SERVER_SITE
from tests.benchmark.content import write_content
from tests.benchmark.measure import Arrivals, Growth, Meter, has_ended, size_of, wait_until
from tests.benchmark.proxy import DelayProxy

SETUPS = ("none", "stock", "ours")
Values = dict[str, float]

_SITE = "site-1"
_SETTLE_SECONDS = (
    3.0  # from the start of the job until the work begins: the runtime is busy with itself until then
)
_READY_SECONDS = 120.0
_STALLED_SECONDS = 10.0  # a copy that has not grown for so long is taken as all that arrives
_END_TIMEOUT = 300.0
_ONE_WAY_SECONDS = 0.025


@dataclass(frozen=True)
class Sizes:
    """How much work the cases do."""

    burst: int = 200_000_000
    end: int = 1_000_000_000
    far: int = 20_000_000
    seconds: float = 30.0
    quiet: float = 60.0
    quiet_times: int = 3
    clients: int = 20
    logs: tuple[int, ...] = (10_000_000, 100_000_000, 1_000_000_000)
    reads: int = 5
    senders: tuple[int, ...] = (10, 100, 1000)


FULL = Sizes()
QUICK = Sizes(
    burst=20_000_000,
    end=100_000_000,
    far=4_000_000,
    seconds=5.0,
    quiet=10.0,
    quiet_times=1,
    clients=4,
    logs=(10_000_000, 50_000_000),
    reads=3,
    senders=(10, 100),
)


class Bench:
    """Runs cases for one set-up.

    Args:
        root: an empty directory.
        setup: one of `SETUPS`.
        sizes: how much work to do.
    """

    def __init__(self, root: Path, setup: str, sizes: Sizes):
        self.root, self.setup, self.sizes = root, setup, sizes

    @property
    def streams(self) -> bool:
        """Whether this set-up streams at all."""
        return self.setup != "none"

    def content(self, size: int) -> Path:
        """A file of log lines to append."""
        path = self.root / "content.txt"
        write_content(path, size)
        return path

    @contextmanager
    def job(self, *, clients: int = 1, one_way: float = 0.0, **work: Any) -> Iterator[Job]:
        """A job whose executors stand before their work, on a federation that is ended afterwards."""
        control = self.root / "control"
        control.mkdir()
        names = tuple(f"site-{number + 1}" for number in range(clients))
        staging = self.root / "staging"
        server, client = site_setups(self.setup, staging)
        folder = write_job(
            self.root / "job",
            "worker.Worker",
            {"control": str(control), **work},
            custom=Path(__file__).with_name("worker.py"),
            min_clients=clients,
        )
        with ExitStack() as stack:
            federation = stack.enter_context(
                Federation(self.root / "federation", names, server=server, client=client)
            )
            federation.prepare()
            if one_way:
                _lengthen_way(federation, names, one_way, stack)
            federation.start(_READY_SECONDS)
            job_id = federation.submit(folder)
            copies = federation.server_dir / "logstream" if self.setup == "ours" else staging
            job = Job(federation, job_id, control, names, copies / job_id)
            job.wait_ready()
            yield job


@dataclass
class Job:
    """A running job of a federation."""

    federation: Federation
    id: str
    control: Path
    clients: tuple[str, ...]
    copies: Path  # the server's copies of the job's logs, `<site>/log.txt`
    _done: dict[str, Any] = field(default_factory=dict)

    def wait_ready(self) -> None:
        """Wait until all executors are ready, and the runtime has settled."""
        self._wait_files("ready", _READY_SECONDS)
        time.sleep(_SETTLE_SECONDS)

    def go(self) -> None:
        """Let the executors begin."""
        (self.control / "go").touch()

    def leave(self) -> None:
        """Let the executors return, and wait for the job's end."""
        (self.control / "leave").touch()
        self.federation.wait(self.id, _END_TIMEOUT)

    def wait_done(self, timeout: float) -> None:
        """Wait until the executors have written everything."""
        self._wait_files("done", timeout)

    def done(self, site: str = _SITE) -> Values:
        """What a site's executor told when it had written everything."""
        told: Values = json.loads((self.control / f"done-{site}").read_text())
        return told

    def copy(self, site: str = _SITE) -> Path:
        """The server's copy of a site's log."""
        return self.copies / site / "log.txt"

    def wait_copied(self, size: int) -> float:
        """Wait until the server's copy has `size` bytes, and return the time; fails if it stops growing."""
        seen, grown = 0, time.time()
        while (now := size_of(self.copy())) < size:
            if now > seen:
                seen, grown = now, time.time()
            elif time.time() - grown > 60:
                raise TimeoutError(f"{seen} of {size} bytes have arrived, and for a minute no more")
            time.sleep(0.005)
        return time.time()

    def ready(self) -> dict[str, int]:
        """What the first site's executor told of itself: its process and its thread."""
        told: dict[str, int] = json.loads((self.control / f"ready-{_SITE}").read_text())
        return told

    def client_meter(self) -> Meter:
        """Measures the client job's process."""
        return Meter(self.ready()["pid"], writer=self.ready()["thread"])

    def server_meter(self) -> Meter:
        """Measures the server's processes, parent and job."""
        return Meter(self.federation.pid(SERVER_SITE), self.federation.job_pid(SERVER_SITE, self.id))

    def _wait_files(self, prefix: str, timeout: float) -> None:
        if not wait_until(
            lambda: all((self.control / f"{prefix}-{name}").exists() for name in self.clients), timeout
        ):
            raise TimeoutError(
                f"the executors are not {prefix} after {timeout:g} s, see {self.federation.root}"
            )


def site_setups(setup: str, staging: Path) -> tuple[SiteSetup, SiteSetup]:
    """The set-ups of the server and of the clients; the runtime's own log streaming is always removed."""
    stock = "nvflare.app_common.logging"
    paths: dict[str, tuple[str, str, dict[str, str]]] = {
        "stock": (
            f"{stock}.job_log_receiver.JobLogReceiver",
            f"{stock}.site_log_streamer.SiteLogStreamer",
            {"dest_dir": str(staging)},
        ),
        "ours": ("nvflare_logstream.JobLogReceiver", "nvflare_logstream.SiteLogStreamer", {}),
    }
    if setup not in paths:
        return SiteSetup(), SiteSetup()
    receiver, streamer, args = paths[setup]
    return (
        SiteSetup([{"id": "job_log_receiver", "path": receiver, "args": args}]),
        SiteSetup([{"id": "site_log_streamer", "path": streamer, "args": {}}]),
    )


def _lengthen_way(federation: Federation, clients: tuple[str, ...], one_way: float, stack: ExitStack) -> None:
    """Put a proxy between the clients (their parents and jobs alike) and the server."""
    for name in clients:
        path = federation.client_dir(name) / "startup" / "fed_client.json"
        config = json.loads(path.read_text())
        service = config["servers"][0]["service"]
        host, port = service["target"].split(":")
        proxy = stack.enter_context(DelayProxy(int(port), one_way))
        service["target"] = f"{host}:{proxy.port}"
        path.write_text(json.dumps(config, indent=2))


# -- cases ---------------------------------------------------------------------------------------------------


def burst(bench: Bench) -> Values:
    """Many bytes at once, copied inside the kernel in a moment, and the job stays until they have arrived."""
    return _drain(bench, bench.sizes.burst)


def far(bench: Bench) -> Values:
    """The same through a round trip of 50 ms."""
    return _drain(bench, bench.sizes.far, one_way=_ONE_WAY_SECONDS)


def _drain(bench: Bench, size: int, one_way: float = 0.0) -> Values:
    with bench.job(content=str(bench.content(size)), one_way=one_way) as job:
        with job.client_meter() as client, job.server_meter() as server:
            job.go()
            job.wait_done(60)
            ended = job.wait_copied(int(job.done()["log_size"])) if bench.streams else job.done()["ended"]
        job.leave()
        return {**_use(client, server), "mb_per_s": size / 1e6 / (ended - job.done()["began"])}


def end(bench: Bench) -> Values:
    """Very many bytes at once, and the job ends in the same moment."""
    with (
        bench.job(content=str(bench.content(bench.sizes.end)), leave_at_once=True) as job,
        Growth(job.copy()) as copy,
    ):
        pid, log = job.ready()["pid"], job.federation.job_log_dir(_SITE, job.id) / "log.txt"
        job.go()
        job.wait_done(60)
        if not wait_until(lambda: has_ended(pid), _END_TIMEOUT, step=0.005):
            raise TimeoutError(f"the client job has not ended after {_END_TIMEOUT:g} s")
        values = {"end_seconds": time.time() - job.done()["ended"]}
        if bench.streams:
            wait_until(lambda: copy.size >= size_of(log) or copy.stalled > _STALLED_SECONDS, _END_TIMEOUT)
            values |= {"arrived_mb": copy.size / 1e6, "missing": size_of(log) - copy.size}
        job.federation.wait(job.id, _END_TIMEOUT)
        return values


def busy(bench: Bench) -> Values:
    """A thousand lines a second."""
    return _steady(bench, 1000)


def calm(bench: Bench) -> Values:
    """Ten lines a second."""
    return _steady(bench, 10)


def _steady(bench: Bench, rate: int) -> Values:
    seconds = bench.sizes.seconds
    with bench.job(lines=int(rate * seconds), interval=1 / rate) as job:
        return _watch(bench, job, 3 * seconds + 30)


def quiet(bench: Bench) -> Values:
    """Nothing for a minute, then a line, some times over."""
    sizes = bench.sizes
    with bench.job(lines=sizes.quiet_times, interval=sizes.quiet) as job:
        values = _watch(bench, job, sizes.quiet * sizes.quiet_times + 30)
        return {**values, "client_share": 100 * values["client_cpu"] / (sizes.quiet * sizes.quiet_times)}


def _watch(bench: Bench, job: Job, timeout: float) -> Values:
    """Let the lines be written, and measure what that takes and when they arrive."""
    with ExitStack() as stack:
        arrivals = stack.enter_context(Arrivals(job.copy()))
        client, server = stack.enter_context(job.client_meter()), stack.enter_context(job.server_meter())
        job.go()
        job.wait_done(timeout)
        if bench.streams:
            job.wait_copied(int(job.done()["log_size"]))
    job.leave()
    values = _use(client, server)
    if arrivals.latencies:
        values |= {"latency_ms": 1000 * statistics.median(arrivals.latencies)}
        values |= {"p95_ms": 1000 * sorted(arrivals.latencies)[int(0.95 * len(arrivals.latencies))]}
    return values


def crowd(bench: Bench) -> Values:
    """Twenty clients with fifty lines a second each."""
    seconds, clients = bench.sizes.seconds, bench.sizes.clients
    with bench.job(clients=clients, lines=int(50 * seconds), interval=1 / 50) as job:
        with job.server_meter() as server:
            job.go()
            # The same time for all set-ups: what the clients' own jobs cost the server goes on while they
            # last.
            time.sleep(seconds + 5)
        job.wait_done(300)
        job.leave()
        slowest = max(job.done(name)["ended"] - job.done(name)["began"] for name in job.clients)
        return {"server_cpu": server.cpu, "server_threads": server.threads, "slowest_seconds": slowest}


def _use(client: Meter, server: Meter) -> Values:
    return {
        "client_cpu": client.cpu,
        "client_background_cpu": client.background_cpu,
        "server_cpu": server.cpu,
        "cpu": client.cpu + server.cpu,
        "threads": client.threads,
        "memory": client.memory,
    }


CASES: dict[str, Callable[[Bench], Values]] = {
    case.__name__: case for case in (burst, end, busy, calm, quiet, far, crowd)
}
