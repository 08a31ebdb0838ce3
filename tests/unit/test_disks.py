"""A disk that takes nothing more, and a process without descriptors: what is said of it, and what is lost.

The limits are the system's own (no root is needed for them); what they cannot do, a failing call does.
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from nvflare_logstream.errors import StoreError
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import StreamId, StreamKey
from nvflare_logstream.wire.upload import Close
from tests.unit.conftest import close_and_commit
from tests.unit.site_world import JOB, SITE, World

LINES = b"".join(b"line %d of a log that is to be kept\n" % number for number in range(3000))
THIRD = len(LINES) // 3


@contextmanager
def limited(which: int, value: int) -> Iterator[None]:
    old = resource.getrlimit(which)
    resource.setrlimit(which, (value, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, old)


def files_of(size: int) -> AbstractContextManager[None]:
    """No file may become larger: what a full disk says, also to SQLite."""
    return limited(resource.RLIMIT_FSIZE, size)


def no_more_files(more: int) -> AbstractContextManager[None]:
    """So many descriptors more may be open."""
    free = os.dup(0)
    os.close(free)
    return limited(resource.RLIMIT_NOFILE, free + more)


@contextmanager
def failing(name: str, number: int, fails: Callable[..., bool] = lambda *args: True) -> Iterator[None]:
    """A function of `os` that fails for some arguments."""
    real = getattr(os, name)

    def call(*args, **more):
        if fails(*args):
            raise OSError(number, os.strerror(number))
        return real(*args, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, name, call)
        yield


def writes(path: object, flags: int, *args: object) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


FAULTS = {
    "File too large": lambda: files_of(THIRD + 100),
    "No space left on device": lambda: failing("pwrite", errno.ENOSPC),
    "Read-only file system": lambda: failing("open", errno.EROFS, writes),
    "Input/output error": lambda: failing("pwrite", errno.EIO),
    "Too many open files": lambda: no_more_files(0),
    "5 % of the server's disk stay free": lambda: full_to_its_share(),
}


@contextmanager
def full_to_its_share() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        full = SimpleNamespace(f_blocks=1000, f_bavail=40, f_frsize=4096)
        patched.setattr(os, "statvfs", lambda path: full)
        yield


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def commit(world: World) -> None:
    """As the keeper does each second: whatever it says, the next time comes."""
    try:
        world.store.commit()
    except Exception as error:
        print(error)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ends_meanwhile", [False, True], ids=["goes on", "ends meanwhile"])
def test_what_the_server_cannot_keep_is_said_and_comes_afterwards(world, fault, ends_meanwhile):
    sender = world.sender("log.txt")
    world.write(LINES[:THIRD])
    world.run(sender)
    commit(world)
    world.write(LINES[THIRD : 2 * THIRD])
    with FAULTS[fault]():
        for _ in range(4):
            world.run(sender, turns=3)
            commit(world)
        stream = world.info()
        assert stream.verdict == "partial" and stream.end == THIRD, stream.standing
        assert stream.verdict_reason.startswith("the site waits: ") and fault in stream.verdict_reason
        assert str(world.root) not in stream.verdict_reason
        if ends_meanwhile:
            sender.finish(JOB, world.logs, ("log.txt",), "exit code 0")
            world.run(sender, turns=6)
    if not ends_meanwhile:
        world.run(sender)
        assert (world.info().standing, world.info().end) == ("streaming", 2 * THIRD)
        world.write(LINES[2 * THIRD :])
        world.finish(sender)
    world.run(sender, turns=60)
    world.crash_server()
    assert world.info().standing == "complete" and world.info().losses == ()
    assert world.stored() == LINES[: 2 * THIRD if ends_meanwhile else None]


def test_what_a_failing_disk_did_not_sync_comes_again_though_the_index_failed_with_it(world, monkeypatch):
    """The system tells only once that it dropped bytes: the next sync of the file says that all is well."""
    sender = world.sender("log.txt")
    world.write(LINES[:THIRD])
    world.run(sender)
    commit(world)
    world.write(LINES[THIRD:])
    world.run(sender)
    with failing("fdatasync", errno.EIO), monkeypatch.context() as patched:
        for name in ("save", "load"):
            patched.setattr(world.store.index, name, no_index)
        with pytest.raises(StoreError, match="cannot commit"):
            world.store.commit()
        with pytest.raises(StoreError):
            world.store.open(StreamKey(JOB, SITE, "log.txt"))
    commit(world)
    world.crash_server()
    assert world.info().end == THIRD, "what came after it may not be on the disk"
    world.run(sender, turns=60)
    assert world.stored() == LINES and world.store._usage._jobs[JOB] == len(LINES)


def no_index(*args: object) -> None:
    raise StoreError("the store's index: disk I/O error")


def test_a_copy_that_could_not_be_emptied_is_cut_before_it_grows_again(world):
    sender = world.sender("log.txt")
    world.write(LINES)
    world.run(sender)
    path = world.root / JOB / SITE / "log.txt"
    path.write_bytes(b"x" * len(LINES))  # somebody changed it: at the close it is to be taken again
    key, digest = StreamKey(JOB, SITE, "log.txt"), hashlib.sha256(LINES).hexdigest()
    with (
        failing("open", errno.EROFS, lambda path, flags, *args: flags & os.O_TRUNC),
        pytest.raises(StoreError),
    ):
        close_and_commit(
            world.store, key, Close(StreamId(JOB, "log.txt"), len(LINES), digest, 0, "exit code 0")
        )
    assert world.store.append(key, 0, LINES[:10], b"c") == 10
    assert path.read_bytes() == LINES[:10]


def test_a_sender_without_a_thread_leaves_nothing_open(world, monkeypatch):
    sender, before = Sender(world.link), len(os.listdir("/proc/self/fd"))

    def fails(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="new thread"):
            Sender(world.link).start()
    assert len(os.listdir("/proc/self/fd")) <= before
    sender.stop()


def test_what_many_new_streams_cost_the_disk(world, monkeypatch):
    """At a job's start a thousand sites open their logs at once, and each sync takes milliseconds."""
    calls: list[str] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, name=name, real=real: (calls.append(name), real(fd)))
    keys = [StreamKey(JOB, f"site-{number}", "log.txt") for number in range(50)]
    for key in keys:
        world.store.open(key)
        world.store.append(key, 0, b"line\n", b"c")
    assert calls == []
    world.store.commit()
    assert calls.count("fdatasync") == 50 and calls.count("fsync") == 50 + 2, "a directory is synced once"
