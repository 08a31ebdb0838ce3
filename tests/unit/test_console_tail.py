"""The log of what a job prints, whose old bytes may be gone: no zeros are sent, no loss is silent."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvflare_logstream.site.console_tail import ConsoleTailer, source_of
from nvflare_logstream.site.holes import STEP, can_make_holes, end_of_hole, make_hole
from nvflare_logstream.site.openfile import OpenFile
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import Verdict
from tests.unit.conftest import MEMORY
from tests.unit.site_world import World

NAME = "console.txt"


class Printed:
    """A log that only grows, and what was written to it."""

    def __init__(self, directory: Path):
        self.path, self.whole = directory / NAME, b""
        self.path.touch()

    def write(self, size: int) -> None:
        data = random.Random(len(self.whole)).randbytes(size)
        self.whole += data
        with self.path.open("ab") as file:
            file.write(data)

    def let_go(self, end: int) -> None:
        """Make a hole up to the last full step before `end`."""
        end = end // STEP * STEP
        if end > STEP:
            with self.path.open("r+b") as file:
                make_hole(file.fileno(), end)


@pytest.fixture
def printed(memory_path: Path) -> Printed:
    return Printed(memory_path)


@pytest.fixture
def world(memory_path: Path) -> Iterator[World]:
    world = World(memory_path)
    world.source = source_of
    yield world
    world.close()


class Reader:
    """Puts together what a tailer delivers; what is lost is taken from the truth."""

    def __init__(self, printed: Printed):
        self.printed, self.tailer = printed, ConsoleTailer(printed.path.parent, NAME)
        self.got, self.lost, self.places = b"", 0, [(0, b"", 0)]

    def read(self, limit: int) -> bool:
        chunk = self.tailer.read(limit)
        if chunk is None:
            return False
        assert chunk.offset == len(self.got)
        for loss in chunk.losses:
            assert loss.offset == len(self.got) and loss.length, loss
            self.lost += loss.length
        begins = len(self.got) + self.lost
        assert chunk.data == self.printed.whole[begins : begins + len(chunk.data)]
        self.got += chunk.data
        self.places.append((len(self.got), chunk.cursor, self.lost))
        return True

    def go_back(self, number: int, anew: bool) -> None:
        """The receiver is at an earlier place; with `anew` in another process."""
        if anew:
            self.tailer.close()
            self.tailer = ConsoleTailer(self.printed.path.parent, NAME)
        del self.places[number % len(self.places) + 1 :]
        offset, cursor, lost = self.places[-1]
        self.tailer.seek(offset, cursor)
        self.got, self.lost = self.got[:offset], lost

    def finish(self) -> None:
        while self.read(1 << 24):
            pass
        assert len(self.got) + self.lost == len(self.printed.whole)
        digest, begins = self.tailer.digest()
        assert self.tailer.read(1 << 24) is None
        assert digest == hashlib.sha256(self.got[begins:]).hexdigest()


ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 2 * STEP)),
    st.tuples(st.just("read"), st.integers(1, 2 * STEP)),
    st.tuples(st.just("let go"), st.integers(0, 2 * STEP)),
    st.tuples(st.just("go back"), st.integers(0, 99)),
    st.tuples(st.just("restart"), st.integers(0, 99)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=30))
def test_what_is_delivered_is_what_was_written_but_for_what_is_said_to_be_lost(actions) -> None:
    with TemporaryDirectory(dir=MEMORY) as directory:
        printed = Printed(Path(directory))
        reader = Reader(printed)
        for action, value in actions:
            if action == "write":
                printed.write(value)
            elif action == "read":
                reader.read(value)
            elif action == "let go":
                printed.let_go(len(printed.whole) - value)
            else:
                reader.go_back(value, action == "restart")
        reader.finish()


def test_a_hole_that_grows_while_it_is_read(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the hole and the read, and between the read and the next look."""
    reader = Reader(printed)
    printed.write(8 * STEP)
    assert reader.read(STEP) and reader.read(STEP // 2)
    plain = OpenFile.read

    def read(self: OpenFile, status: os.stat_result, limit: int) -> bytes | None:
        monkeypatch.setattr(OpenFile, "read", plain)
        printed.let_go(4 * STEP)
        return plain(self, status, limit)

    monkeypatch.setattr(OpenFile, "read", read)
    reader.finish()
    assert reader.lost == 4 * STEP - STEP - STEP // 2


def test_a_hole_that_grows_while_it_is_hashed(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(printed)
    printed.write(8 * STEP)
    while reader.read(1 << 24):
        pass
    plain = Tailer.digest

    def digest(self: Tailer) -> tuple[str, int]:
        monkeypatch.setattr(Tailer, "digest", plain)
        printed.let_go(4 * STEP)
        return plain(self)

    monkeypatch.setattr(Tailer, "digest", digest)
    reader.finish()
    assert reader.tailer.digest()[1] == 4 * STEP and not reader.lost


def test_what_was_sent_before_it_went_is_not_lost(world: World) -> None:
    """The parent process that closes never read it: the copy is complete all the same."""
    printed = Printed(world.logs)
    sender = world.sender(NAME)
    printed.write(6 * STEP)
    world.run(sender)
    printed.let_go(4 * STEP)
    printed.write(100)
    sender.stop()
    world.finish(world.sender(), (NAME,))
    info = world.info(NAME)
    assert (info.verdict, info.end, info.digest_from) == (Verdict.COMPLETE, 6 * STEP + 100, 4 * STEP)
    assert world.stored(NAME) == printed.whole


def test_what_went_before_it_was_sent_is_lost_with_its_length(world: World) -> None:
    printed = Printed(world.logs)
    printed.write(6 * STEP)
    printed.let_go(4 * STEP)
    world.finish(world.sender(), (NAME,))
    info = world.info(NAME)
    (loss,) = info.lost
    assert info.verdict is Verdict.LOST and (loss.offset, loss.length) == (STEP, 3 * STEP)
    assert world.stored(NAME) == printed.whole[:STEP] + printed.whole[4 * STEP :]


def test_what_follows_a_loss_comes_with_it(world: World) -> None:
    """The last look was at the file's end, and that is not known any more once a place was passed over."""
    printed = Printed(world.logs)
    sender = world.sender(NAME)
    printed.write(2 * STEP)
    world.run(sender)
    (stream,) = sender._state.streams.values()
    printed.write(7)
    assert stream.source.read(STEP) and stream.source.settled
    printed.write(4 * STEP)
    printed.let_go(4 * STEP)
    chunk = stream.source.read(STEP)
    assert chunk and chunk.losses and not chunk.data and not stream.source.settled
    assert stream.source.read(STEP)


def test_a_log_that_was_emptied(world: World) -> None:
    """A script that opens /dev/stdout anew does that."""
    printed = Printed(world.logs)
    sender = world.sender(NAME)
    printed.write(6 * STEP)
    world.run(sender)
    printed.let_go(4 * STEP)
    os.truncate(printed.path, 0)
    world.write(b"words\n", NAME)
    world.run(sender)
    assert world.stored(NAME) == printed.whole + b"words\n"
    world.finish(sender, (NAME,))
    (loss,) = world.info(NAME).lost
    assert "truncated in place" in loss.reason and loss.offset == 6 * STEP


def test_only_the_console_is_read_so(tmp_path: Path) -> None:
    assert type(source_of(tmp_path, NAME)) is ConsoleTailer
    assert type(source_of(tmp_path, "log.txt")) is Tailer


def test_whether_there_can_be_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_make_holes(tmp_path)
    assert not can_make_holes(tmp_path / "not there")
    monkeypatch.setattr(os, "SEEK_DATA", 99)  # a file system that tells no reader
    assert not can_make_holes(tmp_path)


def test_zeros_that_the_job_printed_are_no_hole(printed: Printed) -> None:
    printed.whole = bytes(4 * STEP)
    printed.path.write_bytes(printed.whole)
    with printed.path.open("rb") as file:
        assert not end_of_hole(file.fileno())
    Reader(printed).finish()
