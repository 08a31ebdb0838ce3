"""A site and a server in one process: what the server loses or damages comes again from the site."""

from __future__ import annotations

import pytest

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
