"""Requests to which no answer is wanted: what is lost, late or refused of them comes to light soon."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.message import Message

from nvflare_logstream.errors import StoreError
from nvflare_logstream.flare.cell_channel import serve
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import StreamId
from nvflare_logstream.testing import Fault
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload import RequestWriter
from nvflare_logstream.wire.upload_reader import decode_request
from nvflare_logstream.wire.upload_reply import Status, decode_reply
from tests.unit.conftest import wait_for
from tests.unit.site_world import JOB, SITE, World


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.close()


def tell_and_lose(world: World, lost: Callable[[bytes], bool]) -> list[bytes]:
    """Lose the first told request that brings what is `lost`; returns what was told, up to that one."""
    told, tell = [], world.link.tell

    def lossy(payload):
        told.append(payload)
        if lost(b"".join(frame.data for frame in decode_request(payload).frames())):
            world.link.faults, world.link.tell = [Fault.LOSE_REQUEST], tell
        tell(payload)

    world.link.tell = lossy
    return told


def seconds_until_stored(world: World, sender: Sender, go_on: Callable[[], None]) -> float:
    """How long it takes until all that is now in log.txt is stored; `go_on` happens between two turns."""
    begun, end = world.clock.now, (world.logs / "log.txt").stat().st_size
    while len(world.stored()) < end:
        go_on()
        sender.turn()
        assert world.clock.now - begun < 900
    return world.clock.now - begun


def write_until_lost(world: World, sender: Sender, step: float = 0.0) -> list[bytes]:
    """Write until a told line was lost on its way."""
    told = tell_and_lose(world, lambda data: True)
    for number in range(400):
        world.write(b"line %d\n" % number)
        sender.turn()
        world.clock.advance(step)
        if told:
            break
    return told


def test_a_lost_line_of_a_silent_log_is_not_hidden_by_one_that_is_written_all_the_time(world):
    sender = world.sender("log.txt", "busy.txt")
    world.write(b"first\n")
    world.run(sender, turns=4)
    told = tell_and_lose(world, lambda data: b"the line" in data)
    while not any(
        b"the line" in frame.data for payload in told for frame in decode_request(payload).frames()
    ):
        world.write(b"the line\n")
        sender.turn()

    def go_on():
        world.write(b"busy\n", "busy.txt")
        world.clock.advance(0.02)

    assert seconds_until_stored(world, sender, go_on) < 2


@pytest.mark.parametrize("wait", [0.015, 1.0, 2.5, 10.0, 30.0])
def test_where_the_server_asks_for_a_wait_a_loss_comes_to_light_after_the_next(world, wait):
    deliver = world.link.deliver
    world.link.deliver = lambda payload: decode_reply(deliver(payload))._replace(not_before=wait).encode()
    sender = world.sender("log.txt")
    world.write(b"first\n")
    world.run(sender, turns=4)
    if not write_until_lost(world, sender, 0.05):
        assert wait >= 1.0, "then all requests are answered"
        return

    def go_on():
        world.write(b"another\n")
        world.clock.advance(0.05)

    assert seconds_until_stored(world, sender, go_on) <= 2 * wait + 2


@pytest.mark.parametrize("liveness", [10.0, 3600.0])
def test_the_receiver_is_asked_what_it_took_however_rarely_the_log_is_looked_at(world, liveness):
    clock = world.clock
    sender = Sender(
        world.link, 60.0, liveness, clock=clock, wall_clock=clock, watcher=world.watcher, cpu_clock=float
    )
    world.senders.append(sender)
    sender.follow(JOB, world.logs, "log.txt")
    world.write(b"first\n")
    world.run(sender, turns=6)
    world.write(b"second\n")
    sender.turn()
    assert write_until_lost(world, sender)
    assert seconds_until_stored(world, sender, lambda: None) <= 2


def test_a_quota_is_heard_of_while_the_log_is_written_all_the_time(memory_path):
    world = World(memory_path, stream=2000)
    sender, used_up = world.sender("log.txt"), 0.0
    while not world.verdicts:
        world.write(b"x" * 99 + b"\n")
        sender.turn()
        world.clock.advance(0.01)
        used_up = used_up or ((world.logs / "log.txt").stat().st_size > 2000) * world.clock.now
        assert not used_up or world.clock.now - used_up < 1
    world.close()


def test_a_disk_that_has_room_again_is_used_soon(world, monkeypatch):
    """The server puts the log off for five minutes, which the sender must not take for setbacks."""
    free, is_full = world.store._appending._free, False
    take = free.take

    def take_unless_full(size):
        if is_full:
            raise StoreError("the disk is full")
        take(size)

    monkeypatch.setattr(free, "take", take_unless_full)
    sender = world.sender("log.txt")

    def go_on():
        world.write(b"a line\n")
        world.clock.advance(0.02)

    for is_full in (False, True):
        until = world.clock.now + (300 if is_full else 5)
        while world.clock.now < until:
            go_on()
            sender.turn()
    is_full = False
    assert seconds_until_stored(world, sender, go_on) <= 62


@pytest.mark.parametrize("there_and_back", [0.01, 0.001])
def test_a_job_that_is_over_and_put_off_does_not_let_another_log_flood_the_server(world, there_and_back):
    sender, over = world.sender("log.txt"), False
    sender.follow("job-2", world.logs, "busy.txt")
    deliver = world.link.deliver

    def answer(payload):
        world.clock.advance(there_and_back)
        reply = decode_reply(deliver(payload))
        late = [over and row.stream.file == "log.txt" for row in reply.streams]
        rows = (
            row._replace(status=Status.LATER) if is_late else row
            for row, is_late in zip(reply.streams, late, strict=True)
        )
        return reply._replace(streams=tuple(rows)).encode()

    world.link.deliver = answer
    for number in range(5):
        world.write(b"line %d\n" % number)
        world.write(b"line %d\n" % number, "busy.txt")
        sender.turn()
    over = True
    sender.finish(JOB, world.logs, ("log.txt",), "exit code 0")
    world.run(sender, turns=2)
    before, begun = len(world.link.requests), world.clock.now
    while world.clock.now < begun + 10:
        world.write(b"busy\n", "busy.txt")
        sender.turn()
        world.clock.advance(0.0005)
    assert (len(world.link.requests) - before) / 10 < 60, "requests a second"


def test_what_is_told_leaves_room_for_what_is_asked(memory_path):
    """The server is held up for a moment, and told requests of one job wait there: another job is heard."""
    world = World(memory_path)
    receiver, told = Receiver(world.store, lambda site, job: Admission()), []
    sender, world.link.tell = world.sender("log.txt"), told.append
    world.write(b"first\n")
    world.run(sender, turns=3)
    for number in range(40):
        world.write(b"line %d\n" % number)
        sender.turn()
    ask, posted = RequestWriter(0.0, 0), {}
    ask.open(StreamId("job-2", "log.txt"))
    core = SimpleNamespace(
        register_request_cb=lambda channel, topic, cb: posted.update({topic: cb}),
        fire_and_forget=lambda *arguments, **more: None,
    )
    serve(SimpleNamespace(core_cell=core), receiver.handle)
    answers: list[bytes] = []
    asks = threading.Thread(target=lambda: answers.append(receiver.handle(ask.encode(), Peer(SITE, "job-2"))))
    messages = [Message({MessageHeaderKey.ORIGIN: SITE}, payload) for payload in told[:14]]
    tellers = [threading.Thread(target=posted["post"], args=(message,)) for message in messages]
    assert len(tellers) == 14
    with world.store._loaded.lock:  # a commit, say
        for thread in tellers:
            thread.start()
        wait_for(lambda: sum(thread.is_alive() for thread in tellers) <= 4)
        asks.start()
    for thread in (*tellers, asks):
        thread.join()
    assert not decode_reply(answers[0]).error
    world.close()


def test_what_is_told_to_a_restarted_server_does_not_hide_where_it_stands(world):
    """A relay delivers an old request late; the next sign of life must tell the site that bytes miss."""
    sender = world.sender("log.txt")
    world.write(b"first\n")
    world.run(sender, turns=4)
    world.store.commit()
    told = tell_and_lose(world, lambda data: False)
    for number in range(10):
        world.write(b"line %d\n" % number)
        sender.turn()
    world.run(sender, turns=10)
    written = (world.logs / "log.txt").read_bytes()
    assert world.stored() == written and told
    world.crash_server()
    world.deliver(told[-1])
    world.run(sender, turns=200)
    assert world.stored() == written


def test_what_is_told_and_comes_late_does_not_mix_with_what_was_read_again(world):
    """It is overtaken; the log is truncated before its bytes are read again; then it comes all the same."""
    sender, late = world.sender("log.txt"), []
    world.write(b"first line\n" * 10)
    world.run(sender, turns=6)
    tell = world.link.tell
    world.link.tell = lambda payload: tell(payload) if late else late.append(payload)
    while not late:
        world.write(b"old line\n" * 10)
        sender.turn()
    (world.logs / "log.txt").write_bytes(b"")
    new = b"".join(b"new line %d\n" % number for number in range(60))
    world.write(new)
    deliver, seen = world.link.deliver, []
    (old,) = decode_request(late[0]).frames()

    def overtaken(payload):
        """The told request is handled just before the first one that brings the new lines at its place."""
        frames = decode_request(payload).frames()
        if any(frame.offset == old.offset and frame.losses for frame in frames) and not seen:
            seen.append(deliver(late[0]))
        return deliver(payload)

    world.link.deliver = overtaken
    world.run(sender, turns=20)
    world.finish(sender)
    assert seen and new in world.stored()
