"""When a sender sleeps and what wakes it: it hardly looks of itself where the system reports every change."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.site.watch import Changes, Watcher
from nvflare_logstream.testing import Clock
from tests.unit.site_world import JOB, World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


class Reported(Watcher):
    """Waits on a clock: until what the system has reported by now, or else the whole time.

    Attributes:
        waits: how many seconds passed, each time; 0 if there was a report.
    """

    def __init__(self, clock: Clock):
        super().__init__()
        self._clock, self.waits = clock, []

    def wait(self, seconds: float) -> Changes:
        is_reported = bool(select.select([self._inotify], [], [], 0)[0])
        changed = super().wait(0)
        self.pause(0.0 if is_reported else seconds)
        return changed

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._clock.advance(seconds)


@pytest.fixture
def sleeper(world):
    """A world whose sender has nothing to do."""
    world.watcher = Reported(world.clock)
    world.write(b"line\n")
    world.rest_sender = world.sender("log.txt", "error_log.txt")
    world.run(world.rest_sender)
    while world.watcher.waits[-1] < 1.0:
        world.rest_sender.turn()
    return world


def changes(log: Path) -> dict[str, Callable[[], object]]:
    def append() -> None:
        with log.open("ab") as file:
            file.write(b"more\n")

    def rename_and_begin() -> None:
        log.rename(log.with_name(f"{log.name}.1"))
        log.write_bytes(b"more\n")

    def copy_and_truncate() -> None:
        log.with_name(f"{log.name}.1").write_bytes(log.read_bytes() + b"more\n")
        os.truncate(log, 0)

    def replace() -> None:
        log.with_name("new").write_bytes(b"line\nmore\n")
        log.with_name("new").rename(log)

    def make_directory_anew() -> None:
        log.parent.rename(log.parent.with_name("away"))
        log.parent.mkdir()

    return {
        "bytes come": append,
        "the log is rotated": rename_and_begin,
        "it is copied and truncated": copy_and_truncate,
        "another takes its place": replace,
        "it is removed": log.unlink,
        "the other log appears": lambda: log.with_name("error_log.txt").write_bytes(b"error\n"),
        "the directory is made anew": make_directory_anew,
    }


def test_where_all_is_reported_the_sender_sleeps(sleeper):
    sleeper.watcher.waits.clear()
    began = sleeper.clock.now
    sleeper.run(sleeper.rest_sender, turns=100)
    assert sleeper.clock.now - began > 300  # the others are pauses after signs of life
    assert max(sleeper.watcher.waits) <= 5.0


@pytest.mark.parametrize("what", list(changes(Path("log.txt"))))
def test_every_change_wakes_it(sleeper, what):
    changes(sleeper.logs / "log.txt")[what]()
    sleeper.watcher.waits.clear()
    sleeper.rest_sender.turn()
    assert sleeper.watcher.waits[-1] == 0.0  # before it there may be a pause after a request


def test_a_log_of_which_something_follows_unseen_is_looked_at_every_poll_interval(sleeper):
    """The writer owns a renamed file until its successor has data, and nobody watches that one yet."""
    log = sleeper.logs / "log.txt"
    log.rename(sleeper.logs / "log.txt.1")
    log.touch()
    sleeper.run(sleeper.rest_sender)
    assert sleeper.watcher.waits[-1] == 0.5
    sleeper.write(b"in the new file\n")
    sleeper.run(sleeper.rest_sender)
    assert sleeper.stored() == b"line\nin the new file\n"
    assert sleeper.watcher.waits[-1] > 0.5


def test_a_directory_that_goes_after_its_log_is_seen_to_be_made_anew(sleeper):
    """While we have the removed log open, the system does not tell that its directory goes too."""
    log = sleeper.logs / "log.txt"
    log.unlink()
    sleeper.rest_sender.turn()
    sleeper.logs.rmdir()
    sleeper.logs.mkdir()
    log.write_bytes(b"more\n")
    sleeper.watcher.waits.clear()
    sleeper.rest_sender.turn()
    sleeper.run(sleeper.rest_sender, turns=3)
    assert max(sleeper.watcher.waits) <= 0.5
    assert sleeper.stored() == b"line\nmore\n"


@pytest.fixture
def pair(world):
    """A world whose sender has looked at two logs, and in whose `looks` each further look at one is noted."""
    world.watcher, world.looks = Reported(world.clock), []

    class Noted(Tailer):
        def read(self, limit):
            world.looks.append(self._path.name)
            return super().read(limit)

    world.source = Noted
    world.write(b"line\n", "busy.txt")
    world.write(b"line\n", "still.txt")
    world.pair_sender = world.sender("busy.txt", "still.txt")
    world.run(world.pair_sender)
    return world


def looks_while_the_other_grows(world, turns: int) -> int:
    """How often the log without changes is looked at while the other one gets a line before each turn."""
    world.looks.clear()
    for _ in range(turns):
        world.write(b"line\n", "busy.txt")
        world.pair_sender.turn()
    assert world.looks.count("busy.txt") == turns
    return world.looks.count("still.txt")


def test_a_log_without_changes_is_not_looked_at_for_each_line_of_another(pair):
    began = pair.clock.now
    looks = looks_while_the_other_grows(pair, turns=200)
    passed = pair.clock.now - began
    assert passed / 0.5 - 2 <= looks <= passed / 0.5 + 2 and looks < 50


@pytest.mark.parametrize(
    "what", ["bytes come", "the log is rotated", "it is copied and truncated", "another takes its place"]
)
def test_a_change_of_it_is_seen_with_the_next_line_of_the_other(pair, what):
    assert looks_while_the_other_grows(pair, turns=2) <= 1
    changes(pair.logs / "still.txt")[what]()
    looks_while_the_other_grows(pair, turns=1)
    assert "still.txt" in pair.looks and pair.stored("still.txt").endswith(b"more\n")


def test_where_nothing_is_reported_every_log_is_looked_at(pair, monkeypatch):
    monkeypatch.setattr(pair.watcher, "reports", lambda directory, descriptor, owner: False)
    pair.run(pair.pair_sender)
    assert looks_while_the_other_grows(pair, turns=20) == 20


def test_it_ends_although_a_pause_has_taken_the_wake(world):
    """It is told to stop during the pause after a request, at whose end it would sleep."""
    sender = world.sender("log.txt")
    world.run(sender)
    world.write(b"line\n")
    sender.turn()
    pause, slept = world.watcher.pause, []

    def pause_and_stop(seconds: float) -> None:
        pause(seconds)
        sender.stop()

    world.watcher.pause, world.watcher.wait = pause_and_stop, slept.append
    sender._thread = threading.Thread()
    sender.turn()
    sender._thread = None
    assert sender._stopping and not slept


def test_a_log_that_cannot_be_read_is_looked_at_every_poll_interval(sleeper):
    sleeper.logs.joinpath("error_log.txt").symlink_to("log.txt")
    sleeper.run(sleeper.rest_sender)
    assert max(sleeper.watcher.waits[-10:]) == 0.5


def test_a_log_in_a_directory_that_is_not_there_keeps_no_core_busy(world):
    world.watcher = Reported(world.clock)
    sender = world.sender()
    sender.follow(JOB, world.logs / "later", "log.txt")
    world.run(sender)
    world.watcher.waits.clear()
    world.run(sender, turns=20)
    assert max(world.watcher.waits) == 0.5
    assert sum(world.watcher.waits) > 8
