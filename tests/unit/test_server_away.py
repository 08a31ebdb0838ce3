"""The server is away while a log is rotated and its oldest backups are deleted.

What was on disk while the site looked arrives, or the ledger has an entry.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nvflare_logstream.errors import LinkError
from nvflare_logstream.site.tail import Tailer
from tests.unit.site_world import World


class Job:
    """A job whose log keeps `backups` rotated files, in a world whose server is away at first."""

    def __init__(self, root: Path, backups: int):
        self.world, self.backups, self.written = World(root), backups, b""
        self._deliver = self.world.link.deliver
        self.leave()

    def leave(self) -> None:
        """The server goes away."""

        def away(payload: bytes) -> bytes:
            raise LinkError("the server is away")

        self.world.link.deliver = away

    def come_back(self) -> None:
        """The server is there again."""
        self.world.link.deliver = self._deliver

    def write(self) -> None:
        data = random.Random(len(self.written)).randbytes(300)
        self.world.write(data)
        self.written += data

    def rotate(self, write: bool = True) -> None:
        names = ["log.txt", *(f"log.txt.{number + 1}" for number in range(self.backups))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if (self.world.logs / newer).exists():
                (self.world.logs / newer).replace(self.world.logs / older)
        if write:
            self.write()

    @property
    def is_whole(self) -> bool:
        """Whether the server has all; where it has not, the ledger has to say so."""
        whole = self.world.stored() == self.written
        assert whole or self.world.info().lost
        return whole


@pytest.fixture
def job(memory_path, backups):
    job = Job(memory_path, backups)
    yield job
    job.world.close()


@pytest.mark.parametrize("looks", [0, 2])
@pytest.mark.parametrize("last_is_empty", [False, True])
@pytest.mark.parametrize("rotations", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("backups", [1, 2, 3])
def test_what_is_deleted_while_the_server_is_away_from_the_start(
    job, backups, rotations, last_is_empty, looks
):
    sender = job.world.sender("log.txt")
    job.write()
    sender.turn()
    for left in reversed(range(rotations)):
        job.rotate(write=left > 0 or not last_is_empty)
        job.world.run(sender, looks)
    job.come_back()
    job.world.finish(sender)
    deleted = rotations - backups
    assert job.is_whole == (deleted <= 1)  # the first file was held open
    if looks or deleted < 1:
        assert bool(job.world.info().losses) == (deleted > 1)


@pytest.mark.parametrize("rotations", [1, 2, 4])
@pytest.mark.parametrize("backups", [1, 2])
def test_a_log_that_begins_while_the_server_is_away(job, backups, rotations):
    sender = job.world.sender("log.txt")
    job.world.run(sender, 3)
    job.write()
    for _ in range(rotations):
        job.world.run(sender, 3)
        job.rotate()
    job.come_back()
    job.world.finish(sender)
    assert job.is_whole == (rotations <= backups + 1)


@pytest.mark.parametrize("rotations", [1, 2, 3, 5])
@pytest.mark.parametrize("backups", [1, 2, 3])
def test_a_sender_started_anew_while_the_server_is_away_holds_what_it_finds(job, backups, rotations):
    first = job.world.sender("log.txt")
    job.write()
    job.world.run(first, 2)
    job.rotate()
    first.stop()
    sender = job.world.sender("log.txt")
    for _ in range(rotations):
        job.world.run(sender, 2)
        job.rotate()
    job.come_back()
    job.world.finish(sender)
    assert job.is_whole == (rotations <= backups)


@pytest.mark.parametrize("backups", [1])
def test_a_server_that_lost_its_last_bytes_gets_them_from_a_file_that_has_no_name_any_more(job):
    """It goes back to a place in the file that the site holds open."""
    job.come_back()
    sender = job.world.sender("log.txt")
    job.write()
    job.world.run(sender)
    job.world.store.commit()
    job.write()
    job.world.run(sender)
    job.leave()
    job.write()
    job.world.run(sender, 2)
    job.rotate()
    job.world.run(sender, 2)
    job.rotate()
    job.come_back()
    job.world.crash_server()
    job.world.finish(sender)
    assert job.is_whole and not job.world.info().losses


def test_what_follows_the_open_file_is_known_when_the_server_went_back_within_it(tmp_path):
    log, tailer = tmp_path / "log.txt", Tailer(tmp_path, "log.txt")
    log.write_bytes(b"one ")
    chunk = tailer.read(1000)
    log.rename(tmp_path / "log.txt.1")
    log.write_bytes(b"unread ")
    tailer.seek(4, chunk.cursor)
    (tmp_path / "log.txt.1").unlink()
    log.rename(tmp_path / "gone")  # and not deleted: its inode would be used again
    log.write_bytes(b"three")
    chunk = tailer.read(1000)
    assert chunk.data == b"three" and [loss.offset for loss in chunk.losses] == [4]
    tailer.close()
