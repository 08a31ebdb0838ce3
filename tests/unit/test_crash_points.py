"""What the server asks of its disk is cut at every call, and what a site writes too.

Nothing is lost and no verdict is untrue then. `CRASH_POINTS=all pytest tests/unit/test_crash_points.py` cuts
at every call in every way; without it a test cuts at some of them, at others each time.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream.errors import GapError, JobConfigError, LinkError, StoreError
from nvflare_logstream.flare.job_config import JobConfig
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.store.index import INDEX_FILE, Index
from nvflare_logstream.store.repair import repair
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State, StreamKey
from nvflare_logstream.wire.peer import Peer
from tests.unit.site_world import JOB, SITE, World

ALL = os.environ.get("CRASH_POINTS") == "all"
CALLS = (
    "open", "pwrite", "pread", "fsync", "fdatasync", "truncate", "ftruncate", "mkdir", "unlink", "rmdir",
    "stat", "lstat", "scandir", "listdir", "rename", "replace", "write", "chmod", "link", "statvfs",
)  # fmt: skip
LINES = b"".join(b"line %d\n" % number for number in range(400))
DELETED = StreamKey("job-2", SITE, "log.txt")


class DeadError(BaseException):
    """The process dies here."""


class Cuts:
    """Counts calls of the system while it is `on`, and lets some of them fail.

    Args:
        at: which ones, from 1 on.
        fault: makes what they raise.
    """

    def __init__(self, at: Collection[int] = (), fault: Callable[[], BaseException] = DeadError):
        self.at, self.fault, self.on = at, fault, False
        self.calls: list[str] = []

    @contextmanager
    def counting(self) -> Iterator[None]:
        before, self.on = self.on, True
        try:
            yield
        finally:
            self.on = before

    def reached(self, call: str) -> None:
        if not self.on:
            return
        self.calls.append(call)
        if len(self.calls) in self.at:
            fault = self.fault()
            if call.startswith("index") and isinstance(fault, OSError):
                fault = sqlite3.OperationalError("disk I/O error")
            raise fault

    def install(self, patch: pytest.MonkeyPatch, disk: Disk | None = None) -> None:
        for name in CALLS:
            patch.setattr(os, name, self._cut(name, getattr(os, name), disk))
        transaction = Index._transaction

        @contextmanager
        def cut_transaction(index: Index) -> Iterator[sqlite3.Connection]:
            with transaction(index) as db:
                self.reached("index begins")
                yield db
                self.reached("index commits")

        patch.setattr(Index, "_transaction", cut_transaction)

    def _cut(self, name: str, call: Callable[..., Any], disk: Disk | None) -> Callable[..., Any]:
        def cut(*args: Any, **more: Any) -> Any:
            self.reached(name)
            result = call(*args, **more)
            if disk and self.on and name in ("fsync", "fdatasync"):
                on, self.on = self.on, False
                disk.synced(args[0])
                self.on = on
            return result

        return cut


class Disk:
    """What a loss of power leaves of the stored files: what was synced; the index keeps what was committed.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path):
        self.root = root
        self.files: dict[Path, bytes] = {}  # what of a file is on disk
        self.names: dict[Path, set[str]] = {}  # the names on disk, by directory

    def synced(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self.names[path] = set(os.listdir(path))
        else:
            self.files[path] = path.read_bytes()

    def lose_power(self, zeros: bool) -> None:
        """Leave what was synced; what was not is gone or, with `zeros`, has its length and nothing else."""
        lengths = {path: path.stat().st_size for path in self.root.glob("*/*/*")}
        for job in self.root.glob("*/"):
            shutil.rmtree(job)
        for path, data in self.files.items():
            parents = [path, *path.parents[:2]]
            if all(part.name in self.names.get(part.parent, ()) for part in parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data + bytes(max(0, lengths.get(path, 0) - len(data))) * zeros)


class CutWorld(World):
    """A world whose server is cut, and started again when it died."""

    def __init__(self, root: Path, cuts: Cuts, power: str):
        self.cuts, self.power = cuts, power
        self.disk = Disk(root / "store")
        self.escaped: list[BaseException] = []
        super().__init__(root)

    def deliver(self, payload: bytes, job_id: str = "") -> bytes:
        try:
            with self.cuts.counting():
                receiver = Receiver(self.store, lambda site, job_id: self.admission, clock=self.clock)
                return receiver.handle(payload, Peer(SITE, job_id))
        except DeadError:
            self.crash_server()
            raise LinkError("the server died") from None
        except Exception as error:
            self.escaped.append(error)
            raise LinkError("no answer") from None

    def keep(self, task: Callable[[], Any]) -> None:
        """What the server's own thread does: again after a failure, as at its next turn."""
        for _ in range(3):
            try:
                with self.cuts.counting():
                    task()
                break
            except DeadError:
                self.crash_server()
            except (StoreError, OSError):
                pass

    def crash_server(self) -> None:
        self.store.index.close()
        if self.power != "on":
            self.disk.lose_power(zeros=self.power == "zeros")
        for _ in range(3):
            with suppress(DeadError, StoreError, OSError), self.cuts.counting():
                self.store = LogStore(self.root, self.quotas, self.clock)
                return
        raise AssertionError("the server does not start any more")


def run_all(world: CutWorld) -> None:
    """Two logs from beginning to end, one of them damaged at the server; and a job that is deleted."""
    world.keep(lambda: world.store.expect({StreamKey(JOB, SITE, "log.txt"): "nothing came"}))
    sender = world.sender("log.txt", "error_log.txt")
    world.write(LINES[:1000])
    world.write(LINES[:500], "error_log.txt")
    world.run(sender, turns=4)
    world.keep(lambda: world.store.append(DELETED, 0, LINES, b"{}"))
    world.keep(lambda: world.store.commit())
    (world.logs / "log.txt").rename(world.logs / "log.txt.1")
    world.write(LINES[1000:2000])
    world.run(sender, turns=4)
    world.keep(lambda: world.store.delete_job(DELETED.job_id))
    copy = world.root / JOB / SITE / "error_log.txt"
    if copy.exists() and copy.stat().st_size:
        with copy.open("r+b") as file:
            file.write(b"damaged")
    world.keep(lambda: world.store.commit())
    world.write(LINES[2000:])
    world.finish(sender)
    world.clock.advance(100)
    world.run(sender, turns=20)
    world.keep(lambda: world.store.commit())


def check(world: CutWorld) -> None:
    """The site was told that all is well, and so it is, also after one more loss of power."""
    world.cuts.at = ()
    world.power = world.power if world.power != "on" else "off"
    world.crash_server()
    assert not world.escaped, world.escaped
    log, error_log = world.info("log.txt"), world.info("error_log.txt")
    assert world.stored("log.txt") == LINES and log.standing == "complete"
    assert (
        world.stored("error_log.txt") == LINES[:500] and error_log.state is State.CLOSED and error_log.agreed
    )
    assert error_log.verdict == "complete" or "taken again" in error_log.verdict_reason
    assert sorted(stream.file for stream in world.verdicts) == ["error_log.txt", "log.txt"]
    assert {stream.key.job_id for stream in world.store.streams()} == {JOB}
    assert not (world.root / DELETED.job_id).exists()
    assert not [path for path in world.root.iterdir() if path.name.startswith(".repair")]


FAULTS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "dies": (DeadError, "on"),
    "power": (DeadError, "off"),
    "power, zeros": (DeadError, "zeros"),
    "EIO": (lambda: OSError(errno.EIO, "Input/output error"), "on"),
    "ENOSPC": (lambda: OSError(errno.ENOSPC, "No space left on device"), "on"),
    "EMFILE": (lambda: OSError(errno.EMFILE, "Too many open files"), "on"),
}


def cut_at(numbers: Collection[int], fault: str, make_directory: Callable[[], Any]) -> list[str]:
    """Run all, cut at some calls, and check; returns the calls that were made."""
    raises, power = FAULTS[fault]
    cuts = Cuts(numbers, raises)
    with make_directory() as root, pytest.MonkeyPatch.context() as patch:
        world = CutWorld(root, cuts, power)
        cuts.install(patch, world.disk)
        run_all(world)
        calls = list(cuts.calls)
        check(world)
        world.close()
    return calls


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_is_cut_anywhere_tells_no_lie_and_loses_nothing(memory_path_factory, fault):
    calls = cut_at((), fault, memory_path_factory)
    assert {"pwrite", "fdatasync", "fsync", "mkdir", "index commits", "rmdir", "pread"} <= set(calls)
    seed = int(os.environ.get("CRASH_SEED") or random.randrange(10**6))
    choose = random.Random(seed)
    numbers = range(1, len(calls) + 1)
    cuts = [(number,) for number in (numbers if ALL else choose.sample(numbers, 8))]
    # A second time soon after: while the store comes back, say.
    cuts += [
        (number, number + choose.randrange(1, 40))
        for number in (numbers if ALL else choose.sample(numbers, 4))
    ]
    for at in cuts:
        try:
            cut_at(at, fault, memory_path_factory)
        except BaseException:
            print(f"CRASH_SEED={seed}: cut at calls {at} of {len(calls)}, the first is {calls[at[0] - 1]}")
            raise


def replace(world: CutWorld, key: StreamKey, data: bytes) -> None:
    """The site sends other bytes than the runtime's own streamer had sent."""
    world.store.append(key, 300, data, b"end")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_copy_that_is_replaced_is_the_old_one_or_the_new_one_wherever_that_was_cut(memory_path, fault):
    """What the runtime's own streamer had sent is not on disk yet, nor what the site found to be the same."""
    old, new, end = LINES[:800], LINES[:400] + LINES[900:2000], 0
    number, calls = 0, []
    while number <= len(calls):
        number += 1
        root, cuts = memory_path / str(number), Cuts((), FAULTS[fault][0])
        root.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            world = CutWorld(root, cuts, FAULTS[fault][1])
            cuts.install(patch, world.disk)
            key = StreamKey(JOB, SITE, "log.txt")
            with cuts.counting():
                world.store.unchecked.append(key, 0, old[:100])
                world.store.commit()
            world.store.unchecked.append(key, 100, old[100:])
            world.store.append(key, 0, new[:300], b"cursor")
            cuts.calls.clear()
            cuts.at = [number]
            with suppress(GapError):  # a server that died may stand before that
                world.keep(partial(replace, world, key, new[300:]))
            calls, cuts.at = list(cuts.calls), ()
            if world.power != "on":
                world.crash_server()
            stream = world.store.info(key)
            stored = world.stored("log.txt")[: stream.end]
            assert stored == (old if stream.unchecked else new)[: stream.end], (number, calls)
            end, cursor = stream.place
            assert (end, cursor) in ((0, b""), (300, b"cursor"), (len(new), b"end"))
            world.store.append(key, end, new[end:], b"end")
            assert world.stored("log.txt") == new and world.store.info(key).lines == new.count(b"\n")
            world.store.close()
    assert "index" in str(calls)


def test_all_that_a_close_says_is_on_disk_before_it_is_answered(memory_path):
    """The bytes, the names of a new file and its directories, and then the index."""
    cuts, handle = Cuts(), Receiver.handle
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Receiver, "handle", lambda *args: (handle(*args), cuts.reached("answer"))[0])
        world = CutWorld(memory_path, cuts, "on")
        cuts.install(patch)
        world.write(LINES)
        world.finish(world.sender("log.txt"))
        world.close()
    order = [call for call in cuts.calls if call in ("fdatasync", "fsync", "index commits", "answer")]
    synced = ["fdatasync", "fsync", "fsync", "fsync", "index commits", "answer"]
    assert any(order[at : at + len(synced)] == synced for at in range(len(order)))


@pytest.mark.parametrize("damage", ["gone", "damaged"])
@pytest.mark.parametrize("fault", ["dies", "EIO", "ENOSPC"])
def test_an_index_is_made_anew_wherever_that_was_cut(memory_path_factory, fault, damage):
    key, number, calls = StreamKey(JOB, SITE, "log.txt"), 0, [""]
    while number <= len(calls):
        cuts = Cuts((number,), FAULTS[fault][0])
        with memory_path_factory() as root, pytest.MonkeyPatch.context() as patch:
            store = LogStore(root)
            store.append(key, 0, LINES, b"{}")
            store.close()
            index = root / INDEX_FILE
            index.unlink() if damage == "gone" else index.write_bytes(b"garbage" * 1000)
            cuts.install(patch)
            for _ in range(3):  # whoever started it starts it again
                with suppress(DeadError, StoreError, OSError), cuts.counting():
                    if damage == "damaged" and repair(root).failures:
                        continue
                    LogStore(root).close()
            calls = calls if number else cuts.calls
            store = LogStore(root)
            stream = store.info(key)
            assert stream and (stream.end, stream.verdict) == (len(LINES), "partial"), (
                number,
                calls[number - 1],
            )
            assert store.path(key).read_bytes() == LINES
            store.close()
        number += 1 if ALL else 13


# -- what a site writes --------------------------------------------------------------------------------------


class CutFile:
    """A file whose writes are calls of the system, as `Cuts` counts them."""

    def __init__(self, file: Any, cuts: Cuts):
        self._file, self._cuts = file, cuts

    def __enter__(self) -> CutFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> None:
        self._cuts.reached("write")
        self._file.write(text)


def change_config(directory: Path, change: str, cuts: Cuts) -> bool:
    """Change a job's config as a site does, with cuts; says whether that went well."""
    config, fdopen = JobConfig(directory), os.fdopen
    with pytest.MonkeyPatch.context() as patch:
        cuts.install(patch)
        patch.setattr(os, "fdopen", lambda *args, **more: CutFile(fdopen(*args, **more), cuts))
        try:
            with cuts.counting():
                if change == "put":
                    config.put_streamer({"log_files": ["log.txt"]})
                else:
                    config.strip_streamers()
        except (DeadError, JobConfigError):
            return False
    return True


@pytest.mark.parametrize("change", ["put", "strip"])
@pytest.mark.parametrize("fault", ["dies", "EIO", "ENOSPC", "EMFILE"])
def test_a_jobs_config_is_the_old_one_or_the_new_one_wherever_the_site_is_cut(tmp_path, fault, change):
    path = tmp_path / "config_fed_client.json"
    args = {"log_files": ["train.csv"]}
    component = {"id": "own", "path": "nvflare_logstream.JobLogStreamer", "args": args}
    old = json.dumps({"components": [component]}).encode()

    def cut(*numbers: int) -> tuple[bool, Cuts]:
        path.write_bytes(old)
        path.chmod(0o640)
        cuts = Cuts(numbers, FAULTS[fault][0])
        return change_config(tmp_path, change, cuts), cuts

    is_done, whole = cut()
    new, calls = path.read_bytes(), whole.calls
    assert is_done and new != old
    assert calls.index("write") < calls.index("fsync") < calls.index("replace"), (
        "the new one is on disk first"
    )
    for number in range(1, len(calls) + 1):
        assert not cut(number)[0]
        is_replaced = path.read_bytes() == new
        assert is_replaced or path.read_bytes() == old, number
        assert path.stat().st_mode & 0o777 == 0o640
        left = [other for other in tmp_path.iterdir() if other != path]
        assert not left or fault == "dies", "only a process that dies leaves something behind"
        for other in left:
            other.unlink()
