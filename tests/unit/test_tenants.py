"""One site says what it likes to the server; another site's log, verdict and quota stay as they are.

By hand, with as many seeds as wanted: `python -m tests.unit.test_tenants FIRST COUNT`.
"""

from __future__ import annotations

import hashlib
import random
import sys
import zlib
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import pytest

from nvflare_logstream.server.receiver import Admission, Receiver
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import State, StreamId, StreamKey, Verdict
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload import Close, Frame, RequestWriter
from nvflare_logstream.wire.upload_reply import Status, StreamReply, decode_reply
from tests.unit.conftest import MEMORY

TRUTH = b"".join(b"line %d\n" % number for number in range(200))
LOG = StreamId("job-1", "log.txt")
KEY = StreamKey("job-1", "victim", "log.txt")
QUOTAS = Quotas(stream=3000, site=6000, job=20_000, store=100_000, files=6, free_share=0)
DAY = 86400.0
FILES = ["log.txt", "LOG.TXT", "log.txt.", "a", "b", "c", "d", "e", "f..", "index.sqlite", "-x", ".."]
JOBS = ["job-1", "job-1", "job-2", "job-9", "index.sqlite", "victim"]
NUMBERS = [0, 0, 1, 100, 2**63 - 1]
REASONS = ["gone", "the ledger is full, no further losses are listed", "\x00\x1b[2J"]


def admit(site: str, job_id: str) -> Admission:
    return Admission(Status.REFUSED, "takes no part") if job_id == "job-9" else Admission()


class World:
    """The server, its good site and its bad one."""

    def __init__(self, root: Path, seed: int):
        self.root, self.random = root, random.Random(seed)
        self.clock, self.uptime = Clock(), Clock(0.0)
        self.sent = 0  # bytes of the good site's log
        self.start()

    def start(self) -> None:
        self.store = LogStore(self.root, QUOTAS, self.clock, self.uptime)
        self.receiver = Receiver(self.store, admit, clock=self.clock)

    def restart(self) -> None:
        self.store.commit()  # what a crash takes away the good site would send again
        self.store.index.close()
        self.start()

    def good(self, part: Frame | Close) -> StreamReply:
        writer = RequestWriter(self.clock(), 0)
        (writer.frame if isinstance(part, Frame) else writer.close)(part)
        (reply,) = decode_reply(self.receiver.handle(writer.encode(), Peer("victim"))).streams
        return reply

    def write(self, size: int) -> None:
        data = TRUTH[self.sent : self.sent + size]
        reply = self.good(Frame(LOG, self.sent, data, b"cursor"))
        self.sent += len(data)
        assert (reply.status, reply.end) == (Status.OK, self.sent), reply

    def bad(self) -> None:
        names = ["Evil", "evil", "VICTIM", "victim.", "Victim"]
        peer = Peer(self.random.choice(names), self.random.choice(["", "", "job-1", "job-2"]))
        decode_reply(self.receiver.handle(msgpack.packb(self.request()), peer))

    def some(self, most: int) -> range:
        return range(self.random.randint(0, most))

    def row(self, **more: Any) -> dict[str, Any]:
        pick = self.random.choice
        return {
            "job": pick(JOBS),
            "file": pick(
                FILES[: pick([4, 9, 9, 9, 10, 10, 10, 12] if self.random.random() < 0.1 else [4, 10])]
            ),
            **more,
        }

    def request(self) -> dict[str, Any]:
        pick, data, frames = self.random.choice, b"", []
        for _ in self.some(5):
            part = self.random.randbytes(pick([0, 0, 1, 100, 2900, 3100]))
            lost = [[pick(NUMBERS), pick([None, *NUMBERS]), pick(REASONS)] for _ in self.some(3)]
            size, crc = pick([len(part)] * 20 + [5]), pick([zlib.crc32(part)] * 20 + [1])
            frames.append(self.row(at=pick(NUMBERS), n=size, crc=crc, cur=bytes(pick([0, 3])), lost=lost))
            data += part
        digests = ["", hashlib.sha256(b"").hexdigest(), "z" * 64]
        fields = {
            "v": pick([1] * 9 + [2]),
            "clock": pick([self.clock(), 0.0, 9e10]),
            "utc": pick([0, 86400]),
            "frames": frames,
            "open": [self.row() for _ in self.some(3)],
            "known": [pick(JOBS) for _ in self.some(3)],
            "close": [
                self.row(**{"total": pick(NUMBERS), "sha256": pick(digests), "from": 0, "outcome": "\x1b"})
                for _ in self.some(2)
            ],
            "refuse": [self.row(why="no") for _ in self.some(2)],
            "data": data,
            "full": pick([True, False]),
            "zstd": pick([False] * 20 + [True]),
        }
        return {name: value for name, value in fields.items() if name == "v" or self.random.random() < 0.99}

    def step(self) -> None:
        kind = self.random.random()
        if kind < 0.25:
            self.write(self.random.randint(0, 40))
        elif kind < 0.3:
            self.clock.advance(self.random.choice([1, -1, 100, 91 * DAY, -91 * DAY]))
            self.uptime.advance(60)
        elif kind < 0.35:
            self.store.commit()
        elif kind < 0.38:
            self.restart()
        elif kind < 0.4:
            assert self.store.sweep(90 * DAY, lambda job_id: False) == []
        else:
            self.bad()

    def check(self) -> None:
        stream = self.store.info(KEY)
        assert stream is None or (stream.end, stream.losses, stream.state) == (self.sent, (), State.OPEN)
        used = Counter[str]()
        files = Counter[tuple[str, str]]()
        for stored in self.store.streams():
            used[stored.site] += stored.end
            files[stored.key.job_id, stored.site] += 1
        assert all(size <= QUOTAS.site for size in used.values())
        assert all(count <= QUOTAS.files + 1 for count in files.values()), "one says that there were more"
        assert {site: size for site, size in self.store._usage._sites.items() if size} == +used


def search(root: Path, seed: int, steps: int = 60) -> None:
    world = World(root, seed)
    for _ in range(steps):
        world.step()
        world.check()
    while world.sent < len(TRUTH):
        world.write(500)
    reply = world.good(Close(LOG, len(TRUTH), hashlib.sha256(TRUTH).hexdigest(), 0, "exit code 0"))
    assert reply.verdict is Verdict.COMPLETE
    assert world.store.path(KEY).read_bytes() == TRUTH
    world.store.close()


@pytest.mark.parametrize("seed", range(8))
def test_a_site_that_says_what_it_likes_changes_nothing_of_another(memory_path, seed):
    search(memory_path, seed)


if __name__ == "__main__":
    for seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
        print("seed", seed, flush=True)
        with TemporaryDirectory(dir=MEMORY) as directory:
            search(Path(directory), seed)
