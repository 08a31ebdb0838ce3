"""What the receiver counts, what of it goes into its log, and that neither grows with what senders do."""

from __future__ import annotations

import logging
import os
import threading
import timeit

import pytest

from nvflare_logstream.flare.keeper import Keeper
from nvflare_logstream.server import counters as module
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.counters import Counters, Traffic
from nvflare_logstream.server.limits import Limits
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import StreamId
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.server_status import MAX_SHOWN, MAX_WORDS, Kind, Refused
from nvflare_logstream.wire.upload import Close, Frame, Refusal, RequestWriter
from nvflare_logstream.wire.upload_reply import Status

JOB = "job-1"
LOG, ERRORS = StreamId(JOB, "log.txt"), StreamId(JOB, "error_log.txt")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counters(clock):
    return Counters(clock, clock)


class World:
    """A receiver over a store."""

    def __init__(self, root, clock: Clock, counters: Counters, limits: Limits | None = None, **quotas: int):
        self.store, self.counters, self.clock = LogStore(root, Quotas(**quotas), clock), counters, clock
        self.admission = Admission()
        self.receiver = Receiver(
            self.store,
            lambda site, job_id: self.admission,
            clock=clock,
            limits=limits or Limits(),
            counters=counters,
        )

    def send(self, *parts: object, site: str = "site-1") -> None:
        writer = RequestWriter(self.clock(), 0)
        put = {StreamId: writer.open, Frame: writer.frame, Close: writer.close, Refusal: writer.refuse}
        for part in parts:
            put[type(part)](part)
        self.receiver.handle(writer.encode(), Peer(site))

    def kinds(self) -> dict[Kind, int]:
        return {row.kind: row.messages for row in self.counters.refusals()}


@pytest.fixture
def world(memory_path, clock, counters):
    world = World(memory_path, clock, counters)
    yield world
    world.store.close()


def frame(data: bytes, offset: int = 0, stream: StreamId = LOG) -> Frame:
    return Frame(stream, offset, data, b"c")


# -- counting ------------------------------------------------------------------------------------------------


def test_requests_and_their_bytes_are_counted_by_site(world, counters):
    world.send(LOG, frame(b"12345"), frame(b"678", stream=ERRORS))
    world.send()
    world.send(frame(b"1"), site="site-2")
    world.receiver.handle(b"noise", Peer("site-2"))
    sites, lately, _ = counters.traffic()
    assert sites == lately == {"site-1": Traffic(2, 8), "site-2": Traffic(2, 1)}
    assert not [kind for kind in world.kinds() if kind is not Kind.UNREADABLE], (
        "a good request is not refused"
    )


def test_a_rate_is_that_of_the_last_ten_seconds_or_more(counters, clock):
    counters.took("site-1", 1000)
    for second in range(35):
        clock.advance(1)
        counters.turn()
        if second >= 20:
            counters.took("site-1", 7)
    sites, lately, seconds = counters.traffic()
    assert sites["site-1"] == Traffic(16, 1000 + 15 * 7) and 10 <= seconds <= 20
    assert lately["site-1"].size / seconds == pytest.approx(7, abs=0.5)


def test_no_request_is_lost_between_threads(counters):
    def ask() -> None:
        for _ in range(2000):
            counters.took("site-1", 1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.traffic()[0] == {"site-1": Traffic(8000, 8000)}


def test_counting_costs_a_request_next_to_nothing(counters):
    """It is some 0.3 microseconds; a busy machine takes ten times as long for everything."""
    seconds = min(timeit.repeat(lambda: counters.took("site-1", 1), number=1000, repeat=20)) / 1000
    assert seconds < 20e-6


@pytest.mark.parametrize(
    ("quotas", "parts", "kind"),
    [
        ({"stream": 3}, [frame(b"1234")], Kind.OVER_QUOTA),
        ({"files": 1}, [LOG, ERRORS], Kind.OVER_QUOTA),
        ({"files": 1}, [LOG, Refusal(ERRORS, "policy")], Kind.OVER_QUOTA),
        ({"free_share": 1.0}, [frame(b"1")], Kind.NOT_STORED),
        ({}, [Frame(LOG, 0, b"1", b"c"), Close(LOG, 1, "0" * 64, 0, "")], None),
        ({}, [frame(b"1", 5)], None),  # a gap is no refusal
        ({}, [], None),
    ],
)
def test_what_a_store_does_not_take_has_its_kind(memory_path, clock, counters, quotas, parts, kind):
    world = World(memory_path, clock, counters, **quotas)
    world.send(*parts)
    assert world.kinds() == ({kind: 1} if kind else {})
    world.store.close()


def test_what_a_site_may_not_has_its_kind(memory_path, clock, counters):
    world = World(memory_path, clock, counters, Limits(requests=1, asked=1, hash_burst=0))
    world.receiver.handle(b"noise", Peer("site-1"))
    world.send(LOG, ERRORS)
    assert world.kinds() == {Kind.UNREADABLE: 1, Kind.TOO_MUCH: 1}
    world.send(LOG, site="../site")
    assert world.kinds()[Kind.BAD_NAME] == 1
    world.admission = Admission(Status.REFUSED, "takes no part")
    world.send(LOG, *(frame(b"x", stream=StreamId(JOB, f"log.{number}")) for number in range(9)))
    assert world.kinds()[Kind.NOT_ADMITTED] == 1, "messages are counted, not their parts"
    world.store.delete_job(JOB)
    world.admission = Admission()
    world.send(frame(b"x"))
    assert world.kinds()[Kind.ENDED] == 1
    world.store.close()


def test_a_site_that_keeps_its_logs_or_comes_too_early_is_no_matter(world):
    world.admission = Admission(Status.REFUSED, "the site does not allow it", by_policy=True)
    world.send(Refusal(LOG, "policy"), ERRORS)
    world.admission = Admission(Status.LATER, "not started yet")
    world.send(LOG)
    assert not world.kinds()


# -- the log -------------------------------------------------------------------------------------------------


def logged(caplog) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    caplog.clear()
    return lines


def test_a_thousand_bad_messages_of_three_kinds_and_two_sites_give_six_lines_a_minute(
    memory_path, clock, counters, caplog
):
    world = World(memory_path, clock, counters, stream=3)
    world.send(LOG, site="site-1")
    world.send(LOG, site="site-2")

    def flood() -> None:
        for number in range(1000):
            site, kind = f"site-{number % 2 + 1}", number // 2 % 3
            world.admission = Admission(Status.REFUSED, "takes no part") if kind == 2 else Admission()
            if kind == 0:
                world.receiver.handle(b"noise", Peer(site))
            else:
                world.send(frame(b"1234"), site=site)
            if not number % 20:
                clock.advance(1)
                counters.turn()

    flood()
    first = logged(caplog)
    assert len(first) == 6 and all("refused a message of site-" in line for line in first)
    flood()
    second = logged(caplog)
    assert len(second) == 6 and all(" messages of site-" in line for line in second)
    clock.advance(60)
    counters.turn()
    third = logged(caplog)
    assert len(third) == 6, "those left out are told of when the flood is over"
    told = 6 + sum(int(line.split()[1]) for line in second + third)
    assert told == 2000 == sum(row.messages for row in counters.refusals())
    clock.advance(600)
    counters.turn()
    assert not logged(caplog)
    world.store.close()


def test_a_line_in_the_log_is_one_line_and_short(counters, caplog):
    counters.refused("site-1", Kind.UNREADABLE, "a\nfake line\x1b[2J" + "\x00" * 10_000)
    (line,) = logged(caplog)
    assert line.isprintable() and len(line) < MAX_WORDS + 100
    assert line.startswith(r"refused a message of site-1 (unreadable): a\nfake line\x1b[2J")


def test_a_store_that_cannot_be_kept_is_told_of_and_the_keeper_logs_it(counters, caplog):
    def fail() -> None:
        raise OSError(28, "No space left on device")

    keeper = Keeper([fail], on_error=counters.failed)
    for _ in range(3):
        keeper.turn()
        counters.turn()
    (row,) = counters.refusals()
    assert (row.kind, row.messages, row.site) == (Kind.NOT_KEPT, 3, "server")
    assert counters.errors()[0].text == "OSError: [Errno 28] No space left on device"
    assert not logged(caplog)


# -- memory --------------------------------------------------------------------------------------------------


def test_memory_is_bounded_whatever_senders_call_themselves(counters, monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(module, "MAX_SITES", 50)
    for number in range(500):
        counters.took(f"site-{number}", 1)
        counters.refused(f"site-{number}", Kind.UNREADABLE, "x" * 100_000)
        counters.refused(f"other-{number}", Kind.TOO_MUCH, "x")
        counters.took("../" + "x" * 1000, 1)
    sites, _, _ = counters.traffic()
    assert len(sites) <= 51 and sum(traffic.requests for traffic in sites.values()) == 1000
    rows = counters.refusals()
    assert len(rows) <= 2 * 51 and sum(row.messages for row in rows) == 1000
    assert any(row == Refused(Kind.UNREADABLE, row.messages, row.last, "") for row in rows), "the others"
    problems = counters.errors()
    assert len(problems) == MAX_SHOWN and all(len(problem.text) <= MAX_WORDS for problem in problems)
    assert {problem.site for problem in problems} == {""} and problems[0].kind is Kind.TOO_MUCH


def test_the_disk_that_fails_under_a_request_is_told_of(world, monkeypatch, counters):
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    world.send(LOG)
    monkeypatch.setattr(os, "pwrite", full)
    world.send(frame(b"1"))
    (problem,) = counters.errors()
    assert (problem.site, problem.kind) == ("site-1", Kind.NOT_STORED) and "No space left" in problem.text
