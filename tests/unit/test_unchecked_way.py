"""A log that the runtime's own streamer sends, the site's own sender, rotation and restarts, in any order.

What the server has once kept goes only with an entry that says so, and `complete` is said of nothing that has
a line twice or lacks one which the server once had. `python -m tests.unit.test_unchecked_way 1000 0` takes
1000 seeds from 0 on.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from nvflare_logstream.server.unchecked import Outcome, Part, UncheckedReceiver
from nvflare_logstream.streams import State, Stream, StreamKey, Verdict
from nvflare_logstream.wire.peer import Peer
from tests.unit.conftest import MEMORY
from tests.unit.site_world import JOB, SITE, Changes, World

KEY = StreamKey(JOB, SITE, "log.txt")
BACKUPS = 2


class Streamer:
    """The runtime's own: it reads by name, and what is in a file when that is rotated away it may lose."""

    def __init__(self, name: str):
        self.name, self.number, self.place, self.inode = name, 0, 0, -1

    def part(self, log: Path, size: int) -> Part:
        data = b""
        with suppress(FileNotFoundError), log.open("rb") as file:
            inode, whole = log.stat().st_ino, file.read()
            if inode != self.inode or len(whole) < self.place:
                self.inode, self.place = inode, 0
            data = whole[self.place :][:size]
        self.place += len(data)
        names = () if self.number else (JOB, "log.txt")
        self.number += 1
        return Part(self.name, self.number - 1, *names, data=data)


class Way:
    """One run."""

    def __init__(self, root: Path, seed: int):
        self.random, self.world = Random(seed), World(root)
        self.changes, self.log = Changes(), self.world.logs / "log.txt"
        self.lines = self.names = 0
        self.streamers: list[Streamer] = []
        self.sender = None
        self.is_cut = False  # the site itself no longer has all that it wrote
        self.kept: set[bytes] = set()  # lines that a commit has brought to disk
        self.receive()

    def receive(self) -> None:
        self.receiver = UncheckedReceiver(
            self.world.store, lambda site, job: self.world.admission, clock=self.world.clock
        )

    def run(self) -> None:
        actions = ["write"] * 5 + ["stream"] * 6 + ["turn"] * 4
        actions += [
            "begin",
            "begin",
            "give_up",
            "rotate",
            "truncate",
            "commit",
            "crash",
            "own",
            "own",
            "away",
        ]
        for _ in range(70):
            getattr(self, self.random.choice(actions))()
            self.check()
        self.streamers.clear()
        self.own()
        self.world.finish(self.sender)
        self.check()
        stream = self.world.store.info(KEY)
        assert stream is None or stream.ended, stream
        if stream is not None and not self.is_cut and not stream.lost and not stream.unchecked:
            assert stream.verdict is Verdict.COMPLETE

    def check(self) -> None:
        stream = self.world.store.info(KEY)
        if stream is None:
            assert not self.kept
            return
        path = self.world.store.path(KEY)
        stored = path.read_bytes()[: stream.end]
        assert len(stored) == stream.end and stored.count(b"\n") == stream.lines
        lines = stored.splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        # The runtime's own streamer reads a file that was cut from its beginning again.
        is_unsure = stream.unchecked or stream.lost
        assert is_unsure or len(set(whole)) == len(whole), "a line is there twice"
        missing = self.kept - set(whole)
        assert not missing or stream.lost, f"{len(missing)} lines went without a word: {stream}"
        if stream.verdict is Verdict.COMPLETE:
            assert not missing and whole == sorted(whole)
            assert self.is_cut or whole == [self.line(number) for number in range(self.lines)]
        assert sum(part.size for part in self.world.store.index.parts()) >= 0
        assert self.world.store._usage._total == stream.end

    @staticmethod
    def line(number: int) -> bytes:
        return b"line %06d\n" % number

    # -- the site --------------------------------------------------------------------------------------------

    def write(self) -> None:
        with self.log.open("ab") as file:
            for _ in range(self.random.randint(1, 4)):
                file.write(self.line(self.lines))
                self.lines += 1
        self.changes.happen_now(self.log)
        self.world.watcher.changed = True

    def rotate(self) -> None:
        if not self.log.exists() or not self.log.stat().st_size:
            return
        names = [self.log, *(Path(f"{self.log}.{number}") for number in range(1, BACKUPS + 1))]
        if names[-1].exists():
            self.is_cut = True
        for old, new in reversed(list(pairwise(names))):
            if old.exists():
                old.rename(new)
                self.changes.happen_now(new)
        self.world.watcher.changed = True

    def truncate(self) -> None:
        if self.random.random() < 0.4 and self.log.exists():
            size = self.log.stat().st_size
            with self.log.open("r+b") as file:
                file.truncate(self.random.choice([0, size // 24 * 12]))  # between two lines
            self.is_cut = True
            self.changes.happen_now(self.log)
            self.world.watcher.changed = True

    def own(self) -> None:
        """The site's own sender begins; or another one, which knows nothing of the first."""
        if self.sender is None:
            self.sender = self.world.sender("log.txt")

    def away(self) -> None:
        if self.sender is not None:
            self.sender.stop()
            self.sender = None

    def turn(self) -> None:
        self.world.clock.advance(1)
        if self.sender is not None:
            self.sender.turn()

    def begin(self) -> None:
        self.names += 1
        self.streamers.append(Streamer(str(self.names)))

    def stream(self) -> None:
        if self.streamers:
            streamer = self.random.choice(self.streamers)
            part = streamer.part(self.log, self.random.randrange(60))
            if self.receiver.take(part, Peer(SITE, JOB)) is not Outcome.TAKEN:
                self.streamers.remove(streamer)

    def give_up(self) -> None:
        if self.streamers:
            self.receiver.give_up(self.streamers.pop().name, Peer(SITE, JOB))

    # -- the server ------------------------------------------------------------------------------------------

    def commit(self) -> None:
        self.world.store.commit()
        stream: Stream | None = self.world.store.info(KEY)
        if stream is not None and stream.state is not State.EXPECTED:
            stored = self.world.store.path(KEY).read_bytes()[: stream.end]
            self.kept |= {line for line in stored.splitlines(keepends=True) if line.endswith(b"\n")}

    def crash(self) -> None:
        if self.random.random() < 0.4:
            self.world.crash_server()
            self.receive()
            self.receiver.end_earlier()


def run(seed: int) -> None:
    with TemporaryDirectory(dir=MEMORY) as directory:
        way = Way(Path(directory), seed)
        try:
            way.run()
        finally:
            way.world.close()


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_what_the_server_has_kept_goes_only_with_a_word(first, caplog):
    caplog.set_level("CRITICAL")
    for seed in range(first, first + 20):
        run(seed)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    failed = 0
    for seed in range(int(sys.argv[2]), int(sys.argv[2]) + int(sys.argv[1])):
        try:
            run(seed)
        except Exception as error:
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:600]}", flush=True)
    print(f"{failed} failures")
