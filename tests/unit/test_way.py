"""The whole way of a log against a model: writer, rotation, tailer, sender, link, receiver, store on disk.

A run is a random sequence of steps, from a seed that a failure names. What may be believed at its end:

* The stored bytes are what was written, in order; where some are missing, an entry of the ledger says so.
* `complete` is said of a copy that equals what was written, and of no other.
* Where nothing was destroyed before it was on the server's disk, the copy is complete.

`pytest` takes a bounded share. The whole search is run by hand, for a number of steps from a seed on:

    python -m tests.unit.test_way 100000 1
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from nvflare_logstream.errors import StoreError
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import StreamId, StreamKey
from nvflare_logstream.testing import Clock, Fault
from tests.unit.conftest import MEMORY
from tests.unit.site_world import JOB, SITE, Changes, World

SHARE = 100  # runs in pytest
KEY = StreamKey(JOB, SITE, "log.txt")
AT_SITE = ("open", "pread", "fstat", "lstat", "scandir")
AT_SERVER = ("open", "pwrite", "fdatasync", "fsync", "pread", "truncate")


class SystemCalls:
    """Lets a system call of the site or of the server fail now and then."""

    def __init__(self) -> None:
        self.side = ""  # whose code runs
        self.due: dict[tuple[str, str], list[int]] = {}  # what fails: the call's number, how often, and how

    @contextmanager
    def of(self, side: str) -> Iterator[None]:
        before, self.side = self.side, side
        try:
            yield
        finally:
            self.side = before

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            plan = self.due.get((self.side, name)) if self.due else None
            if plan:
                plan[0] -= 1
                if plan[0] < 0:
                    plan[1] -= 1
                    if plan[1] <= 0:
                        del self.due[self.side, name]
                    raise OSError(plan[2], os.strerror(plan[2]))
            return real(*args, **more)

        return call


CALLS = SystemCalls()


@contextmanager
def failing_system_calls() -> Iterator[None]:
    """System calls go through `CALLS`."""
    real = {name: getattr(os, name) for name in {*AT_SITE, *AT_SERVER}}
    for name, function in real.items():
        setattr(os, name, CALLS.wrap(name, function))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


class Piece:
    """What was written into one file from its making, or its truncation, on."""

    def __init__(self) -> None:
        self.data = b""
        self.seen = False  # a look at the directory has found something in it
        self.gone = False  # it was destroyed before it was on the server's disk
        self.late = False  # its last line came when its successor had data


class Looking(Tailer):
    """A tailer that tells the model when it looks at the directory."""

    way: Way

    def _scan(self) -> list[Any]:
        self.way.before_look(self)
        chain = super()._scan()
        self.way.after_look(self)
        return chain

    def seek(self, offset: int, cursor: bytes) -> None:
        way = self.way
        unknown = way.vanished or (way.fresh and way.at_risk)
        if way.fresh and way.has_orphaned_copy():
            way.blind = way.blind or "a new reader, and a copy of a file that is gone"
        way.forget()
        super().seek(offset, cursor)
        way.fresh = False
        if unknown and (way.is_named(self) or way.is_followed(self)):
            way.blind = way.blind or "a file went of which a new reader knows nothing"


class Way:
    """One run."""

    def __init__(self, root: Path, seed: int):
        self.random = random.Random(seed)
        self.world = World(root)
        self.world.server_clock = Clock()
        self.world.crash_server()
        self.world.source = self.source
        self.deliver, self.world.link.deliver = self.world.deliver, self.at_server
        self.log = self.world.logs / "log.txt"
        self.pieces: list[Piece] = []
        self.files: dict[str, Piece] = {}  # by name, copies included
        self.tick, self.changes = 0, Changes()
        self.doubt = ""  # why bytes may be missing, or be thought to be
        self.copies: dict[Piece, Piece] = {}  # made by an operator under a backup's name, and of what
        self.blind = ""  # why bytes may be missing although nobody can know
        self.vanished = 0  # files that came and went since the last look
        self.at_risk = self.fresh = False  # bytes went that were not committed; a new reader begins
        self.nameless = False  # at the last look, the file that is read had no name
        pick = self.random.choice
        self.scheme = pick(["shift", "shift", "rising", "date", "copytruncate"])
        self.backups = pick([1, 2, 3, 5, 10])
        self.creates = pick([True, False])
        self.rotations = 0
        every = ["write"] * 6 + ["turn"] * 6 + ["fault"] * 2 + ["rotate"] * 3
        every += ["commit", "crash_server", "restart_sender"]
        rare = ["outage", "late_line", "too_late_line", "copy", "numbered_copy", "truncate", "outgrow"]
        rare += ["delete", "stranger", "clock", "fail_at_site", "fail_at_server", "nothing"]
        actions = every + 2 * self.random.sample(rare, self.random.randint(0, 4))
        steps = self.random.randint(1, 60)
        # Each step has its own seed: what it does stays the same if others are left out.
        self.steps = [(pick(actions), self.random.getrandbits(32)) for _ in range(steps)]
        if self.random.random() < 0.2:
            self.world.logs.rmdir()
        self.sender = self.new_sender()

    def source(self, directory: Path, file: str) -> Looking:
        tailer = Looking(directory, file)
        tailer.way = self
        return tailer

    def new_sender(self) -> Sender:
        self.fresh = True
        self.forget()
        return self.world.sender("log.txt")

    # -- what the model knows --------------------------------------------------------------------------------

    @property
    def truth(self) -> bytes:
        return b"".join(piece.data for piece in self.pieces)

    def committed(self) -> int:
        stream = self.world.store.index.load(KEY)
        return stream.end if stream else 0

    def drop(self, name: str) -> None:
        """A file loses its bytes or its name."""
        piece = self.files.pop(name)
        if piece in self.files.values() or not piece.data:
            return
        after = sum(len(other.data) for other in self.pieces[: self.pieces.index(piece) + 1])
        if self.committed() <= after:
            self.doubt, self.at_risk, piece.gone = self.doubt or f"{name} went", True, True
            if not self.committed():
                self.blind = self.blind or f"{name} went before anything was on the server's disk"
        if piece.late:
            self.blind = self.blind or f"{name} went, which had got a late line"
        self.vanished += not piece.seen

    def forget(self) -> None:
        """A new reader knows what its cursor says."""
        self.nameless = False
        for piece in self.pieces:
            piece.seen = False

    def is_named(self, tailer: Tailer) -> bool:
        return tailer.descriptor is not None and os.stat(tailer.descriptor).st_nlink > 0

    def is_followed(self, tailer: Tailer) -> bool:
        """Whether the file that follows is known, and there: what came and went behind it leaves no trace."""
        files = [self.world.logs / name for name in self.files]
        return bool(tailer._next.expected[:1]) and tailer._next.expected[0].inode in [
            path.stat().st_ino for path in files
        ]

    def has_orphaned_copy(self) -> bool:
        """Whether a copy is there and the file that it was made of is not."""
        there = self.files.values()
        return any(copy in there and original not in there for copy, original in self.copies.items())

    def before_look(self, tailer: Tailer) -> None:
        is_open, named = tailer.descriptor is not None, self.is_named(tailer) or self.is_followed(tailer)
        nothing_there = "log.txt" not in self.files
        if self.vanished and (named or self.nameless or nothing_there or not (is_open or tailer.offset)):
            self.blind = self.blind or "a file came and went between two looks"
        self.vanished = 0
        self.nameless = is_open and not named

    def after_look(self, tailer: Tailer) -> None:
        for piece in self.files.values():
            piece.seen = bool(piece.data)

    # -- the writer ------------------------------------------------------------------------------------------

    def touch(self, path: Path) -> None:
        """Two changes never bear the same time."""
        self.tick += 1
        os.utime(path, (self.tick, self.tick))
        self.changes.happen_now(path)

    def append(self, name: str, data: bytes) -> None:
        with (self.world.logs / name).open("ab") as file:
            file.write(data)
        self.files[name].data += data
        self.touch(self.world.logs / name)
        self.world.watcher.changed = True

    def begin(self, name: str = "log.txt") -> None:
        """The writer makes its file."""
        self.world.logs.mkdir(exist_ok=True)
        self.files[name] = Piece()
        self.pieces.append(self.files[name])
        (self.world.logs / name).touch()
        self.touch(self.world.logs / name)

    def write(self) -> None:
        if "log.txt" not in self.files:
            self.begin()
        size = self.random.choice([9, 9, 30, 300, 3000])
        self.append("log.txt", self.random.randbytes(size - 1).replace(b"\n", b"-") + b"\n")

    def backup(self, age: int) -> str:
        """The name of a backup; the newest has the age 1."""
        number = age if self.scheme in ("shift", "copytruncate") else self.rotations + 1 - age
        return f"log.txt.{20261100 + number if self.scheme == 'date' else number}"

    def rotate(self) -> None:
        if not self.files.get("log.txt", Piece()).data:
            return
        self.rotations += 1
        shifted = self.scheme in ("shift", "copytruncate")
        oldest = self.backup(self.backups + (not shifted))
        if oldest in self.files:
            (self.world.logs / oldest).unlink()
            self.drop(oldest)
        for age in range(self.backups - 1, 0, -1) if shifted else ():
            if self.backup(age) in self.files:
                self.rename(self.backup(age), self.backup(age + 1))
        newest = self.backup(1)
        if newest in self.files:  # a copy that an operator made
            self.drop(newest)
        if self.scheme == "copytruncate":
            shutil.copyfile(self.log, self.world.logs / newest)
            self.touch(self.world.logs / newest)
            self.files[newest] = self.files["log.txt"]
            self.empty()
        else:
            self.rename("log.txt", newest)
            if self.creates:
                self.begin()

    def rename(self, old: str, new: str) -> None:
        (self.world.logs / old).rename(self.world.logs / new)
        self.changes.happen_now(self.world.logs / new)
        self.files[new] = self.files.pop(old)

    def empty(self) -> None:
        """The log is truncated in place; who has read nothing of it cannot know."""
        piece = self.files["log.txt"]
        begins = sum(len(other.data) for other in self.pieces[: self.pieces.index(piece)])
        if self.committed() <= begins and piece not in [p for n, p in self.files.items() if n != "log.txt"]:
            self.blind = self.blind or "truncated before it was read"
        os.truncate(self.log, 0)
        self.touch(self.log)
        self.drop("log.txt")
        self.begin()

    def renamed(self) -> str:
        """The newest backup, if that is a file that the writer may still have open."""
        name = self.backup(1)
        return name if self.files.get(name) in self.pieces[-2:] and self.scheme != "copytruncate" else ""

    def late_line(self) -> None:
        """A line for the renamed file while its successor has no data."""
        name = self.renamed()
        if name and (self.files[name] is self.pieces[-1] or not self.pieces[-1].data):
            self.append(name, b"late %d\n" % self.random.getrandbits(60))

    def too_late_line(self) -> None:
        name = self.renamed()
        if name and self.files.get("log.txt", Piece()).data:
            self.append(name, b"too late %d\n" % self.random.getrandbits(60))
            self.files[name].late = True
            self.doubt = "a line came too late"

    def copy(self) -> None:
        if "log.txt" in self.files:
            shutil.copyfile(self.log, f"{self.log}.{self.random.choice(['bak', '1.bak', 'orig'])}")

    def numbered_copy(self) -> None:
        name = f"log.txt.{self.random.choice([1, 1, self.rotations + 1, 99])}"
        if len(self.files.get("log.txt", Piece()).data) >= 16 and name not in self.files:
            shutil.copyfile(self.log, self.world.logs / name)
            self.files[name] = Piece()  # none of the truth
            self.copies[self.files[name]] = self.files["log.txt"]
            self.touch(self.world.logs / name)
            self.doubt = "an operator's copy has a backup's name"

    def truncate(self) -> None:
        if self.files.get("log.txt", Piece()).data:
            if self.copies:
                self.blind = self.blind or "a copy, then a truncation: so does copytruncate"
            self.doubt = self.doubt or "truncated"
            self.empty()

    def outgrow(self) -> None:
        """Truncate; when the reader looks again, the file is longer than it was."""
        size = len(self.files.get("log.txt", Piece()).data)
        if 0 < size < 10_000:
            self.truncate()
            while len(self.files["log.txt"].data) <= size:
                self.write()

    def delete(self) -> None:
        if "log.txt" in self.files:
            self.log.unlink()
            self.drop("log.txt")
            self.doubt = self.doubt or "deleted"
            if self.random.random() < 0.7:
                self.write()

    def stranger(self) -> None:
        """What is no file of the log, under a name that one may have."""
        path = Path(f"{self.log}.0{self.random.randint(1, 9)}")
        if not self.world.logs.exists():
            return
        path.unlink(missing_ok=True)
        secret = self.world.logs / "secret"
        secret.write_bytes(b"a secret")
        self.random.choice([os.mkfifo, lambda p: p.symlink_to(secret), lambda p: p.symlink_to(p)])(path)

    # -- the rest of the world -------------------------------------------------------------------------------

    def turn(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            with CALLS.of("site"):
                self.sender.turn()

    def at_server(self, payload: bytes) -> bytes:
        with CALLS.of("server"):
            return self.deliver(payload)

    def fault(self) -> None:
        self.world.link.faults.append(self.random.choice(list(Fault)))

    def outage(self) -> None:
        self.world.link.faults += [Fault.LOSE_REQUEST] * self.random.randint(3, 12)

    def commit(self) -> None:
        with CALLS.of("server"), suppress(StoreError):
            self.world.store.commit()

    def crash_server(self) -> None:
        self.world.crash_server()

    def restart_sender(self) -> None:
        self.sender.stop()
        self.sender = self.new_sender()

    def clock(self) -> None:
        self.world.server_clock.advance(self.random.choice([-1e6, -10, 60, 1e7]))

    def fail_at_site(self) -> None:
        kind = self.random.choice([errno.EIO, errno.EMFILE])
        plan = [self.random.randint(0, 10), self.random.randint(1, 6), kind]
        CALLS.due["site", self.random.choice(AT_SITE)] = plan

    def fail_at_server(self) -> None:
        kind = self.random.choice([errno.EIO, errno.ENOSPC, errno.EMFILE])
        plan = [self.random.randint(0, 4), self.random.randint(1, 3), kind]
        CALLS.due["server", self.random.choice(AT_SERVER)] = plan

    def nothing(self) -> None:
        self.world.clock.advance(self.random.choice([0.1, 5, 100]))

    # -- the run ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Take the steps, finish, check; return how many steps that were."""
        for action, seed in self.steps:
            self.random = random.Random(seed)
            getattr(self, action)()
        CALLS.due.clear()
        self.world.link.faults.clear()
        self.world.logs.mkdir(exist_ok=True)
        self.sender.finish(JOB, self.world.logs, (), "exit code 0")
        for _ in range(60):
            self.turn()
            if self.world.verdicts:
                break
        self.check()
        return len(self.steps)

    def check(self) -> None:
        stored, stream, verdicts = self.world.stored(), self.world.info(), self.world.verdicts
        assert list(verdicts) == [StreamId(JOB, "log.txt")], f"no verdict: {verdicts}, {stream}"
        assert stream.verdict == verdicts[StreamId(JOB, "log.txt")]
        if self.blind:
            return
        if stream.verdict == "complete":
            assert stored == self.truth, "complete, and not so"
        if any("another one" in loss.reason for loss in stream.lost):
            return  # an entry says that the order is not sure from there on
        # One entry may stand for what went at several places between two looks.
        places = [key for key, _ in groupby(piece.gone for piece in self.pieces if piece.data)]
        if places.count(True) < 2 or not stream.lost:
            assert_explained(self.truth, stored, {loss.offset for loss in stream.lost})
        assert self.doubt or stream.verdict == "complete", f"for no reason: {stream.standing}"
        assert self.doubt or stored == self.truth


def assert_explained(written: bytes, stored: bytes, losses: set[int]) -> None:
    """`stored` is `written` in order, and bytes are missing only at the offsets in `losses`."""
    cuts = sorted({0, len(stored), *losses})
    explained = 0
    for start, end in pairwise(cuts):
        begins = written.find(stored[start:end], explained)
        assert begins >= 0, f"bytes {start}-{end} are out of order, changed or there twice"
        assert begins == explained or start in losses, f"bytes {explained}-{begins} miss at {start}, no entry"
        explained = begins + end - start
    assert explained == len(written) or len(stored) in losses, f"bytes {explained}-{len(written)} miss at end"


class RunFailed(AssertionError):
    """A run that ended as none may."""

    def __init__(self, message: str, steps: list[tuple[str, int]]):
        super().__init__(message)
        self.steps = steps


def least(seed: int, failed: RunFailed) -> RunFailed:
    """The same failure, or another, without the steps that it does not need."""
    number = 0
    while number < len(failed.steps):
        try:
            run(seed, failed.steps[:number] + failed.steps[number + 1 :])
            number += 1
        except RunFailed as smaller:
            failed = smaller
    return failed


def run(seed: int, steps: list[tuple[str, int]] | None = None) -> int:
    """One run, of the given steps or of the seed's own; returns how many they were."""
    with TemporaryDirectory(dir=MEMORY) as directory:
        way = Way(Path(directory), seed)
        way.steps = way.steps if steps is None else steps
        try:
            return way.run()
        except Exception as error:
            facts = f"seed {seed}: {way.scheme}, {way.backups} backups, doubt {way.doubt!r}: {way.steps}"
            raise RunFailed(f"{error!r}\n{facts}", way.steps) from error
        finally:
            CALLS.due.clear()
            way.world.close()


FOUND = {  # runs that failed once: seed and steps
    "the newest of several unread files was deleted, and made anew with the same inode": (
        5003841,
        "write 4098005851, turn 657174831, rotate 1944351795, restart_sender 2500626065, write 3479387691, "
        "rotate 2612350180, write 2523410503, turn 2124938477, delete 2072833894, rotate 66294070",
    ),
    "an entry that only the reader's memory knew was refused, and the receiver went back again": (
        900017,
        "write 317560081, turn 2160113576, restart_sender 2555170341, fail_at_server 867932177, "
        "rotate 2145796502, turn 3100631183, write 1431375842, turn 3688645580, delete 973580045, "
        "turn 3657301796, turn 2701327445",
    ),
    "an operator's copy under a high number turned the order of the backups round once it was read": (
        901621,
        "write 3125397509, turn 3167680154, rotate 1559161841, write 3430559223, numbered_copy 773335030, "
        "rotate 3289767937, write 833200452, rotate 2668412148",
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_once_is_mended(caplog, what):
    caplog.set_level("CRITICAL")
    seed, steps = FOUND[what]
    with failing_system_calls():
        run(seed, [(name, int(number)) for name, number in map(str.split, steps.split(", "))])


def test_complete_is_never_said_of_another_copy(caplog):
    caplog.set_level("CRITICAL")
    with failing_system_calls():
        for seed in range(SHARE):
            try:
                run(seed)
            except RunFailed as failed:
                raise least(seed, failed) from failed.__cause__


if __name__ == "__main__":
    wanted, seed, failed, kinds = int(sys.argv[1]), int(sys.argv[2]), 0, 0
    import logging

    logging.disable(logging.CRITICAL)
    with failing_system_calls():
        while wanted > 0:
            try:
                wanted -= run(seed)
            except RunFailed as error:
                failed += 1
                print(least(seed, error), end="\n\n", flush=True)
                wanted -= len(error.steps)
            seed += 1
    print(f"{failed} failures, up to seed {seed}")
