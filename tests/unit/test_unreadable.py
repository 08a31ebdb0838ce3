"""A log that the site cannot read: readers are told so, and since when, until it can be read again."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import msgpack
import pytest

from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import State, StreamId
from nvflare_logstream.wire.upload import RequestWriter, Unreadable
from nvflare_logstream.wire.upload_reply import Status, decode_reply
from tests.unit.site_world import JOB, World

LOG = StreamId(JOB, "log.txt")


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.close()


def standing(world: World, file: str = "log.txt") -> str:
    return world.info(file).as_of(world.clock(), 30.0).standing


def run(world: World, sender: Sender, seconds: float) -> None:
    end = world.clock() + seconds
    while world.clock() < end:
        sender.turn()


class Spoiled:
    """A log that is spoiled in one of many ways, and mended."""

    def __init__(self, log: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
        self.log, self.kind, self.patch = log, kind, monkeypatch
        self.saved = log.with_name("saved")

    def spoil(self) -> str:
        """Returns what readers are to be told."""
        if self.kind in ("EACCES", "EIO", "EMFILE"):
            number = getattr(errno, self.kind)
            self.real = os.pread, os.open

            def fail(*args: object, **more: object) -> int:
                raise OSError(number, os.strerror(number), "/a/path/of/the/site")

            for name in ("pread", "open"):
                real = getattr(os, name)
                self.patch.setattr(
                    os,
                    name,
                    lambda what, *args, real=real, **more: (
                        fail() if self.is_ours(what) else real(what, *args, **more)
                    ),
                )
            return os.strerror(number)
        self.log.rename(self.saved)
        if self.kind == "directory":
            self.log.mkdir()
        elif self.kind == "pipe":
            os.mkfifo(self.log)
        else:
            self.log.symlink_to(self.log if self.kind == "loop" else "/etc/passwd")
        return "a symbolic link" if self.kind in ("loop", "link") else "no regular file"

    def is_ours(self, what: object) -> bool:
        if isinstance(what, int):
            return Path(f"/proc/self/fd/{what}").readlink() == self.log
        return str(what) == str(self.log)

    def mend(self) -> None:
        if self.kind in ("EACCES", "EIO", "EMFILE"):
            self.patch.undo()
            return
        self.log.rmdir() if self.kind == "directory" else self.log.unlink()
        self.saved.rename(self.log)


KINDS = ["EACCES", "EIO", "EMFILE", "loop", "link", "directory", "pipe"]


@pytest.fixture
def spoiled(world, kind):
    with pytest.MonkeyPatch.context() as patch:
        yield Spoiled(world.logs / "log.txt", kind, patch)


@pytest.mark.parametrize("kind", KINDS)
def test_readers_are_told_that_a_log_cannot_be_read_and_that_it_can_again(world, spoiled):
    sender = world.sender("log.txt", "other.txt")
    world.write(b"first\n")
    world.write(b"first\n", "other.txt")
    run(world, sender, 3)
    world.write(b"second\n")
    why = spoiled.spoil()
    run(world, sender, 5)
    assert standing(world) == "streaming"
    run(world, sender, 10)
    assert standing(world).startswith("partial (unreadable at the site since 20") and why in standing(world)
    assert "/path" not in world.info().reason, "a path of the site is nobody's business"
    said = world.info().reason
    world.write(b"second\n", "other.txt")
    run(world, sender, 60)
    assert world.info().reason == said and abs(world.info().last_seen - world.clock()) < 20
    assert standing(world, "other.txt") == "streaming" and world.info("other.txt").end == 13
    spoiled.mend()
    run(world, sender, 6)
    assert standing(world) == "streaming" and world.stored() == b"first\nsecond\n"
    world.finish(sender)
    assert set(world.verdicts.values()) == {"complete"}


@pytest.mark.parametrize("kind", ["link", "EIO"])
def test_a_log_that_has_nothing_new_when_it_can_be_read_again_streams(world, spoiled):
    sender = world.sender("log.txt")
    world.write(b"first\n")
    run(world, sender, 3)
    spoiled.spoil()
    if spoiled.kind == "EIO":
        os.utime(spoiled.log)
    run(world, sender, 20)
    assert "unreadable" in standing(world)
    spoiled.mend()
    run(world, sender, 6)
    assert standing(world) == "streaming"


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_that_could_never_be_read(world, spoiled):
    world.write(b"first\n")
    why = spoiled.spoil()
    sender = world.sender("log.txt")
    run(world, sender, 20)
    assert "unreadable at the site" in standing(world) and why in standing(world)
    spoiled.mend()
    run(world, sender, 6)
    assert standing(world) == "streaming" and world.stored() == b"first\n"


@pytest.mark.parametrize("kind", ["EACCES", "EIO"])
def test_a_sender_started_anew_at_a_log_that_cannot_be_read(world, spoiled):
    world.write(b"first\n")
    first = world.sender("log.txt")
    run(world, first, 3)
    first.stop()
    world.write(b"second\n")
    spoiled.spoil()
    sender = world.sender("log.txt")
    run(world, sender, 20)
    said, before = world.info().reason, len(world.link.requests)
    assert "unreadable at the site" in standing(world)
    run(world, sender, 60)
    assert world.info().reason == said and len(world.link.requests) - before <= 15
    spoiled.mend()
    run(world, sender, 6)
    assert standing(world) == "streaming" and world.stored() == b"first\nsecond\n"


def test_a_verdict_about_an_unreadable_log_outlives_the_server(world):
    world.write(b"first\n")
    sender = world.sender("log.txt")
    run(world, sender, 3)
    (world.logs / "log.txt").rename(world.logs / "saved")
    (world.logs / "log.txt").symlink_to("saved")
    run(world, sender, 20)
    world.crash_server()
    assert "unreadable at the site" in standing(world)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("kind", ["EIO", "link", "directory"])
def test_a_log_that_cannot_be_read_when_its_job_is_over_is_given_up_in_the_end(world, spoiled, is_old):
    sender = world.sender("log.txt", "other.txt")
    world.write(b"first\n")
    run(world, sender, 3)
    world.write(b"second\n")
    spoiled.spoil()
    if is_old:  # a server of an earlier release ignores what it does not know
        deliver = world.link.deliver

        def forgetful(payload: bytes) -> bytes:
            fields = msgpack.unpackb(payload)
            fields.pop("unread", None)
            return deliver(msgpack.packb(fields))

        world.link.deliver = forgetful
    sender.finish(JOB, world.logs, (), "exit code 1")
    before = len(world.link.requests)
    run(world, sender, 5)
    assert world.verdicts == {StreamId(JOB, "other.txt"): "complete"}
    run(world, sender, 100)
    assert world.verdicts[LOG] == "partial" and sender._state.all_ended
    assert len(world.link.requests) - before < 50
    if not is_old:
        assert standing(world).startswith("partial (unreadable at the site since")
        assert world.info().state is State.STOPPED and world.info().outcome == "exit code 1"
    spoiled.mend()
    again = world.sender()
    again.finish(JOB, world.logs, ("log.txt",), "exit code 1", only_unclosed=True)
    run(world, again, 5)
    assert standing(world) == "complete" and world.stored() == b"first\nsecond\n"


def test_a_log_that_can_be_read_again_after_the_jobs_end_is_complete(world):
    sender = world.sender("log.txt")
    world.write(b"first\n")
    run(world, sender, 3)
    (world.logs / "log.txt").rename(world.logs / "saved")
    (world.logs / "log.txt").symlink_to("saved")
    sender.finish(JOB, world.logs, (), "exit code 0")
    run(world, sender, 40)
    assert "unreadable" in standing(world) and not world.verdicts
    (world.logs / "saved").rename(world.logs / "log.txt")
    run(world, sender, 10)
    assert world.verdicts == {LOG: "complete"} and standing(world) == "complete"


def test_bad_names_beside_the_log_stop_nothing(world):
    (world.logs / "log.txt.x").symlink_to("log.txt.x")
    (world.logs / "log.txt.7").symlink_to("log.txt.7")
    (world.logs / "log.txt.8").mkdir()
    os.mkfifo(world.logs / "log.txt.9")
    world.write(b"first\n")
    sender = world.sender("log.txt")
    run(world, sender, 3)
    (world.logs / "log.txt").rename(world.logs / "log.txt.1")
    world.write(b"second\n")
    run(world, sender, 30)
    assert standing(world) == "streaming" and world.stored() == b"first\nsecond\n"
    world.finish(sender)
    assert standing(world) == "complete"


def test_a_rotated_file_that_cannot_be_read_is_named_and_waited_for(world, monkeypatch):
    """It may hold lines of the log: what follows them comes after them."""
    sender = world.sender("log.txt")
    run(world, sender, 3)
    rotated, real = world.logs / "log.txt.1", os.open
    rotated.write_bytes(b"first\n")
    world.write(b"second\n")

    def refuse(path: object, *args: int, **more: int) -> int:
        if str(path) == str(rotated):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        run(world, sender, 20)
        assert standing(world).endswith(": 'log.txt.1': Permission denied)")
    run(world, sender, 6)
    assert standing(world) == "streaming" and world.stored() == b"first\nsecond\n"


def test_a_quiet_log_beside_a_busy_one_is_not_silent(world):
    """Requests that carry lines of the one are no signs of life of the other."""
    sender = world.sender("log.txt", "error_log.txt")
    for _ in range(100):
        world.write(b"line\n")
        sender.turn()
        world.clock.advance(1)
    assert standing(world, "error_log.txt") == standing(world) == "streaming"
    assert len(world.link.requests) < 110


# -- the server ----------------------------------------------------------------------------------------------


def tell(world: World, since: float, reason: str, outcome: str | None = None) -> Status | None:
    writer = RequestWriter(world.clock(), 0)
    writer.unreadable(Unreadable(LOG, since, reason, outcome))
    rows = decode_reply(world.deliver(writer.encode())).streams
    return rows[0].status if rows else None


@pytest.mark.parametrize("since", [0.0, 9e10])
def test_a_time_that_cannot_be_is_put_right(world, since):
    run(world, world.sender("log.txt"), 3)
    assert tell(world, since, "no") is Status.OK
    begin, end = (
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        for moment in (world.info().opened, world.clock())
    )
    told = world.info().reason.removeprefix("unreadable at the site since ").removesuffix(": no")
    assert begin <= told <= end


def test_what_is_closed_or_kept_back_is_not_unreadable(world):
    sender = world.sender("log.txt")
    world.write(b"all\n")
    world.finish(sender)
    assert tell(world, world.clock(), "no", "exit code 9") is Status.OK
    assert standing(world) == "complete" and world.info().outcome == "exit code 0"


def test_bytes_that_come_say_that_the_log_can_be_read(world):
    sender = world.sender("log.txt")
    run(world, sender, 3)
    tell(world, world.clock(), "no")
    assert "unreadable" in standing(world)
    world.write(b"line\n")
    sender.turn()
    assert standing(world) == "streaming"
