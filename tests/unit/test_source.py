"""The seam between a log and what is sent of it: a source in memory, and one that wraps the tailer."""

from __future__ import annotations

import base64
import doctest
import hashlib
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvflare_logstream import testing
from nvflare_logstream.site.source import Chunk, Source
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import Loss, StreamId
from nvflare_logstream.testing import Fault, MemorySource
from tests.unit.conftest import MEMORY
from tests.unit.site_world import JOB, World

ENOUGH = 1 << 24


class Censor:
    """Lets out whole lines in capitals; of lines with "secret" it tells only how many there were.

    All that it remembers between two reads is in its cursors: the unfinished line, what could not be given
        out yet, and how
    many lines it has dropped since the last one that it kept.
    """

    def __init__(self, directory: Path, file: str):
        self._place, self._tailer = (directory, file), Tailer(directory, file)
        self._reset()

    def _reset(self) -> None:
        self.offset, self._cursor = 0, b""
        self._unfinished, self._ready, self._dropped = b"", b"", 0
        self._losses: list[Loss] = []

    @property
    def descriptor(self) -> int | None:
        return self._tailer.descriptor

    @property
    def settled(self) -> bool:
        return self._tailer.settled

    def read(self, limit: int) -> Chunk | None:
        while not self._ready and not self._losses:
            chunk = self._tailer.read(100)
            if chunk is None:
                return None
            self._inner = (self._tailer.offset, chunk.cursor)
            self._losses += [loss._replace(offset=self.offset) for loss in chunk.losses]
            *lines, self._unfinished = (self._unfinished + chunk.data).split(b"\n")
            for line in lines:
                self._let_out(line)
        start, data, losses = self.offset, self._ready[:limit], tuple(self._losses)
        self._ready, self._losses = self._ready[limit:], []
        self.offset += len(data)
        held = [base64.b64encode(part).decode() for part in (self._unfinished, self._ready, self._inner[1])]
        self._cursor = json.dumps(
            {"v": 1, "dropped": self._dropped, "at": self._inner[0], "held": held}
        ).encode()
        return Chunk(start, data, self._cursor, losses)

    def _let_out(self, line: bytes) -> None:
        if b"secret" in line:
            self._dropped += 1
            return
        if self._dropped:
            self._ready += b"[%d dropped]\n" % self._dropped
        self._ready, self._dropped = self._ready + line.upper() + b"\n", 0

    def seek(self, offset: int, cursor: bytes) -> None:
        self._reset()
        self._tailer.seek(0, b"")
        if cursor:
            fields = json.loads(cursor)
            self._unfinished, self._ready, inner = map(base64.b64decode, fields["held"])
            self._dropped, self._inner = fields["dropped"], (fields["at"], inner)
            self._tailer.seek(*self._inner)
            self.offset, self._cursor = offset, cursor

    def stands_at(self, offset: int, cursor: bytes) -> bool:
        return (offset, cursor) == (self.offset, self._cursor)

    def digest(self) -> tuple[str, int]:
        again, hasher = Censor(*self._place), hashlib.sha256()
        while again.offset < self.offset and (chunk := again.read(self.offset - again.offset)):
            hasher.update(chunk.data)
        again.close()
        return hasher.hexdigest(), 0

    def close(self) -> None:
        self._tailer.close()


def censored(log: bytes) -> bytes:
    """The same in one go."""
    out, dropped = b"", 0
    for line in log.split(b"\n")[:-1]:
        if b"secret" in line:
            dropped += 1
            continue
        out += (b"[%d dropped]\n" % dropped if dropped else b"") + line.upper() + b"\n"
        dropped = 0
    return out


ACTIONS = st.one_of(
    st.tuples(
        st.just("write"), st.sampled_from([b"a line\n", b"a secret\n", b"half a ", b"sec", b"ret\n", b"\n"])
    ),
    st.tuples(st.just("write much"), st.integers(1, 400)),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("fault"), st.sampled_from(list(Fault))),
    st.tuples(st.sampled_from(["rotate", "commit", "crash server", "restart sender"]), st.none()),
)


@settings(max_examples=150)
@given(st.lists(ACTIONS, max_size=40))
def test_a_source_around_the_tailer_streams_exactly_across_restarts(actions):
    with TemporaryDirectory(dir=MEMORY) as directory:
        world = World(Path(directory))
        world.source = Censor
        written, log, rotations = b"", world.logs / "log.txt", 0
        sender = world.sender("log.txt")
        for number, (action, value) in enumerate([*actions, ("write", b"the last line\n")]):
            if action in ("write", "write much"):
                words = (
                    random.Random(number).choices([b"secret ", b"word ", b"\n"], k=value)
                    if value and action != "write"
                    else []
                )
                data = b"%d " % number + b"".join(words) if words else value
                world.write(data)
                written += data
            elif action == "turn":
                for _ in range(value):
                    sender.turn()
            elif action == "fault":
                world.link.faults.append(value)
            elif action == "commit":
                world.store.commit()
            elif action == "crash server":
                world.crash_server()
            elif action == "restart sender":
                sender.stop()
                sender = world.sender("log.txt")
            elif log.exists() and log.stat().st_size:
                for backup in range(rotations, 0, -1):
                    log.with_name(f"log.txt.{backup}").rename(log.with_name(f"log.txt.{backup + 1}"))
                log.rename(log.with_name("log.txt.1"))
                rotations += 1
        world.finish(sender)
        try:
            assert world.stored() == censored(written)
            assert world.verdicts == {StreamId(JOB, "log.txt"): "complete"}
            assert world.info().losses == ()
        finally:
            world.close()


# -- in memory -----------------------------------------------------------------------------------------------


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.close()


def test_a_log_in_memory_is_streamed_across_restarts_of_sender_and_server(world):
    logs = {"log.txt": bytearray(), "error_log.txt": bytearray()}
    world.source = lambda directory, file: MemorySource(logs[file])
    sender = world.sender(*logs)
    for number in range(200):
        logs["log.txt"] += b"line %d\n" % number
        if number % 50 == 20:
            logs["error_log.txt"] += b"error %d\n" % number
            world.crash_server()
        if number % 60 == 30:
            sender = world.sender(*logs)
        world.watcher.changed = True
        sender.turn()
    world.finish(sender)
    assert {file: world.stored(file) for file in logs} == logs
    assert set(world.verdicts.values()) == {"complete"}


def test_a_log_in_memory_that_became_shorter_is_a_loss():
    source = MemorySource(bytearray(b"new"))
    source.seek(7, b"7")
    chunk = source.read(ENOUGH)
    assert (chunk.offset, chunk.data, [loss.offset for loss in chunk.losses]) == (7, b"new", [7])
    again = MemorySource(bytearray(b"new and"))
    again.seek(10, chunk.cursor)
    assert again.read(ENOUGH).data == b" and"
    assert again.digest() == (hashlib.sha256(b"new and").hexdigest(), 7)


@pytest.mark.parametrize(
    "make", [Tailer, Censor, lambda directory, file: MemorySource(bytearray(b"A LINE\n"))]
)
def test_every_source_keeps_the_protocol(tmp_path, make):
    """Read, come back to where a cursor leads, close, and come back again."""
    (tmp_path / "log.txt").write_bytes(b"A LINE\n")
    source: Source = make(tmp_path, "log.txt")
    assert source.offset == 0 and source.stands_at(0, b"") and source.descriptor is None
    first = source.read(3)
    assert (first.offset, first.data, source.offset) == (0, b"A L", 3)
    assert source.stands_at(3, first.cursor) and not source.stands_at(0, b"")
    assert source.read(ENOUGH).data == b"INE\n" and source.read(ENOUGH) is None
    source.seek(3, first.cursor)
    assert source.stands_at(3, first.cursor) and source.read(ENOUGH).data == b"INE\n"
    assert source.digest() == (hashlib.sha256(b"A LINE\n").hexdigest(), 0)
    source.close()
    source.seek(0, b"")
    assert source.read(ENOUGH).data == b"A LINE\n"
    source.close()


def test_the_examples_of_the_fakes_run():
    assert doctest.testmod(testing).failed == 0
