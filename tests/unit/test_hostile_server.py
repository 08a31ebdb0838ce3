"""A server that is hostile or broken costs a site little: waits are bounded, and nothing is sent for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from nvflare_logstream.site.batch import Batch
from nvflare_logstream.site.exchange import Exchange
from nvflare_logstream.site.progress import SETBACK_WAITS, Progress
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import StreamId
from nvflare_logstream.testing import Clock, ClockWatcher, FaultyLink, MemorySource
from nvflare_logstream.wire.upload_reader import Request, decode_request
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply, decode_reply
from tests.unit.site_world import JOB

STREAM = StreamId(JOB, "log.txt")
LOG = bytes(range(256)) * 4096 * 8  # 8 MiB
HOUR = 3600.0


class Server:
    """Answers opens truthfully, and frames as `rule` says; counts the bytes of log that it is sent."""

    def __init__(self, rule: Callable[[Server, int], bytes]):
        self.rule = rule
        self.received = self.end = self.steps = 0

    def __call__(self, payload: bytes) -> bytes:
        request: Request = decode_request(payload)
        frames = list(request.frames())
        self.received += sum(len(frame.data) for frame in frames)
        if not frames:
            return self.answer(Status.OK) if request.opens else Reply().encode()
        return self.rule(self, frames[-1].offset + len(frames[-1].data))

    def answer(self, status: Status, end: int | None = None) -> bytes:
        self.end = self.end if end is None else end
        return Reply((StreamReply(STREAM, status, self.end, b"%d" % self.end),)).encode()


def take_all_then_go_back(server: Server, end: int) -> bytes:
    return server.answer(Status.OK, end) if end < len(LOG) else server.answer(Status.GAP, 0)


def creep(server: Server, end: int) -> bytes:
    """Of every request one byte is taken."""
    server.steps += 1
    return server.answer(Status.OK, server.steps)


RULES = {
    "gap at 0": lambda server, end: server.answer(Status.GAP, 0),
    "all taken, then gap at 0": take_all_then_go_back,
    "creeping": creep,
    "later": lambda server, end: server.answer(Status.LATER),
    "error": lambda server, end: Reply(error="no").encode(),
    "garbage": lambda server, end: b"\xff\xff",
}


def follow(link: FaultyLink, clock: Clock, log: bytes) -> Sender:
    sender = Sender(
        link,
        clock=clock,
        wall_clock=clock,
        cpu_clock=lambda: 0.0,
        watcher=ClockWatcher(clock),
        source=lambda directory, file: MemorySource(bytearray(log)),
    )
    sender.follow(JOB, Path(), STREAM.file)
    return sender


@pytest.mark.parametrize(
    "rule, seconds, most",
    [
        ("gap at 0", HOUR, 25),
        ("all taken, then gap at 0", HOUR, 25),
        ("creeping", HOUR, 25),
        ("later", HOUR / 6, 30),  # what says that it will take the bytes is asked twice a minute
        ("error", HOUR / 6, 30),
        ("garbage", HOUR / 6, 30),
    ],
)
def test_a_server_without_progress_is_sent_little_and_told_of_once(rule, seconds, most, caplog):
    clock, server = Clock(), Server(RULES[rule])
    sender, begin = follow(FaultyLink(server), clock, LOG), clock.now
    with caplog.at_level(logging.WARNING):
        while clock.now < begin + seconds:
            sender.turn()
    assert server.received <= most * len(LOG)
    assert 1 <= len(caplog.records) <= 3, caplog.text


def test_a_server_that_has_mended_gets_everything():
    clock, server = Clock(), Server(RULES["gap at 0"])
    sender = follow(FaultyLink(server), clock, LOG)
    begin = clock.now
    while clock.now < begin + 60:
        sender.turn()
    server.rule = lambda server, end: server.answer(Status.OK, end)
    while clock.now < begin + 2 * HOUR and server.end < len(LOG):
        sender.turn()
    assert server.end == len(LOG)


def test_a_server_that_loses_its_last_bytes_now_and_then_waits_for_nothing():
    progress = Progress()
    for end in range(1000, 20_000, 1000):
        progress.reached(end)
        assert progress.fell_back(500, SETBACK_WAITS) == 0.0


@pytest.mark.parametrize("wait", [30.1, 86_400, 9.9e10, 1e11, 1e300, 10**30])
def test_a_servers_wait_is_at_most_half_a_minute(wait):
    payload = msgpack.packb(msgpack.unpackb(Reply().encode()) | {"wait": min(wait, 2**64 - 1)})
    for asked in (decode_reply(payload).not_before, float(wait), float("inf"), float("nan")):
        exchange = Exchange(0.0)
        exchange.begin(Batch(0.0, []))
        exchange.answered(0.0, asked)
        assert 0 < exchange.wait(0.0) <= 30.0


@pytest.mark.parametrize("wait", [86_400.0, 9.9e10, float("inf")])
def test_a_sender_goes_on_whatever_wait_the_server_asks_for(wait):
    """A time that no clock of the system can wait for raised in the thread, again and again."""
    clock, requests = Clock(), []

    def serve(payload: bytes) -> bytes:
        requests.append(clock.now)
        return msgpack.packb(msgpack.unpackb(Reply().encode()) | {"wait": wait})

    sender, begin = follow(FaultyLink(serve), clock, b"line\n"), clock.now
    while clock.now < begin + 300:
        sender.turn()
    assert len(requests) >= 5
