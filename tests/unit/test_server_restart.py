"""A site and a server in one process: what the server loses or damages comes again from the site."""

from __future__ import annotations

import pytest

from nvflare_logstream.testing import Fault
from tests.unit.site_world import JOB, SITE, World

LINES = b"".join(b"line %d\n" % number for number in range(1000))


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.close()


def test_a_copy_that_was_changed_at_the_server_is_taken_again_at_the_close(world):
    sender = world.sender("log.txt")
    world.write(LINES)
    world.run(sender)
    with (world.root / JOB / SITE / "log.txt").open("r+b") as copy:
        copy.write(b"changed")
    world.finish(sender)
    assert world.stored() == LINES and world.info().standing == "complete"
    assert "taken again" in str(world.info().losses)


def test_an_idle_stream_is_still_streaming_after_a_restart_of_the_server(world):
    sender = world.sender("log.txt")
    world.write(LINES)
    world.run(sender)
    world.store.commit()
    world.crash_server()
    world.run(sender, turns=200)  # signs of life alone
    assert world.info().as_of(world.clock(), 30.0).standing == "streaming"


def test_bytes_that_were_not_committed_come_again_at_the_next_sign_of_life(world):
    sender = world.sender("log.txt", "error_log.txt")
    world.write(LINES[:500])
    world.run(sender)
    world.store.commit()
    world.write(LINES[500:])
    world.run(sender)
    assert world.stored() == LINES
    world.crash_server()
    world.link.faults = [Fault.LOSE_REPLY]  # of the first sign of life
    world.run(sender, turns=60)
    assert world.info().end == len(LINES) and world.info().losses == ()
    assert world.stored() == LINES
    requests = len(world.link.requests)
    began = world.clock()
    world.run(sender, turns=200)
    assert len(world.link.requests) - requests <= (world.clock() - began) / 10 + 1, "signs of life only"


def test_a_stream_that_was_silent_when_the_server_went_down_stays_silent(world):
    """Signs of life of its site are about the logs that the site follows now."""
    world.write(b"old\n", "old.txt")
    old = world.sender("old.txt")
    world.run(old)
    world.clock.advance(1000)
    sender = world.sender("log.txt")
    world.write(LINES)
    world.run(sender, turns=5)
    world.store.commit()
    world.crash_server()
    world.run(sender, turns=200)
    assert world.info("old.txt").as_of(world.clock(), 30.0).silent
    assert not world.info().as_of(world.clock(), 30.0).silent


@pytest.mark.parametrize("restarted", [False, True])
def test_a_log_whose_first_file_is_gone_when_the_server_comes_back_is_never_complete(world, restarted):
    """The server goes down before its group commit; rotation deletes what it had taken."""
    sender = world.sender("log.txt")
    world.write(b"taken, but not committed\n")
    world.run(sender, turns=3)
    assert world.stored() == b"taken, but not committed\n"
    world.crash_server()
    (world.logs / "log.txt").unlink()
    world.write(b"what the log is by now\n")
    if restarted:
        sender.stop()
        sender = world.sender("log.txt")
    world.finish(sender)
    expected = b"taken, but not committed\nwhat the log is by now\n"
    assert world.stored() == expected or world.info().verdict == "lost"


def test_a_log_whose_first_file_is_gone_when_a_damaged_copy_is_taken_again_is_never_complete(world):
    sender, log = world.sender("log.txt"), world.logs / "log.txt"
    world.write(LINES)
    world.run(sender)
    log.rename(world.logs / "log.txt.1")
    world.write(b"the second file\n")
    world.run(sender)
    with (world.root / JOB / SITE / "log.txt").open("r+b") as copy:
        copy.write(b"changed")

    def deliver(payload: bytes) -> bytes:
        reply = world.deliver(payload)
        if not world.info().end:
            (world.logs / "log.txt.1").unlink(missing_ok=True)
        return reply

    world.link.deliver = deliver
    world.finish(sender)
    assert world.stored() == b"the second file\n" and world.info().verdict == "lost"
