"""When requests go: the site's own pacing, and the server's."""

from __future__ import annotations

import hashlib
import threading

import pytest

from nvflare_logstream.server.pace import Pace
from nvflare_logstream.server.receiver import Admission, Receiver
from nvflare_logstream.site.timer import RequestTimer
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamId
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload import Close, Frame, RequestWriter

# -- the site ------------------------------------------------------------------------------------------------


MUCH = 100_000  # bytes of log in a request


def test_the_first_request_and_the_first_after_a_quiet_time_go_at_once():
    pacer = RequestTimer()
    assert pacer.not_before <= 0
    pacer.sent(100.0, MUCH, 10.0, full=False, server_wait=0.0)
    assert pacer.not_before < 101


def test_requests_that_cost_little_go_soon_and_dear_ones_more_rarely():
    cheap, dear = RequestTimer(), RequestTimer()
    for now in range(30):
        cheap.sent(float(now), MUCH, 0.0001, full=False, server_wait=0.0)
        dear.sent(float(now), MUCH, 0.1, full=False, server_wait=0.0)
    assert cheap.not_before - 29 < 0.03
    assert 0.2 <= dear.not_before - 29 <= 0.25


@pytest.mark.parametrize("cost", [0.0001, 0.0005, 0.001, 0.002])
def test_a_log_that_is_written_all_the_time_costs_a_fiftieth_of_a_core(cost):
    """The runtime's own threads take nearly as much for a request as the sender's thread: 0.85 times that."""
    now, requests, timer = 0.0, 0, RequestTimer()
    while now < 300.0:
        timer.sent(now, MUCH, cost, full=False, server_wait=0.0)
        now, requests = timer.not_before, requests + 1
    assert requests * 1.85 * cost / 300.0 <= 0.02
    assert cost > 0.0006 or 300.0 / requests <= 0.07, "lines are young"


@pytest.mark.parametrize("lines", [1, 10, 40])
def test_a_log_of_few_lines_sends_each_alone_whatever_a_request_costs(lines):
    timer = RequestTimer()
    for number in range(300):
        timer.sent(number / lines, 100, 0.0025, full=False, server_wait=0.0)
    assert timer.not_before - 299 / lines <= 0.04


def test_a_request_that_read_a_backlog_makes_the_next_lines_no_older():
    timer = RequestTimer()
    for now in range(50):
        timer.sent(float(now), MUCH, 0.0005, full=False, server_wait=0.0)
    timer.sent(50.0, MUCH, 3.0, full=False, server_wait=0.0)
    assert timer.not_before - 50 < 0.08


def test_after_a_full_batch_the_next_goes_at_once_unless_the_server_asks_to_wait():
    pacer = RequestTimer()
    pacer.sent(5.0, MUCH, 0.1, full=True, server_wait=0.0)
    assert pacer.not_before == 5.0
    pacer.sent(6.0, MUCH, 0.1, full=True, server_wait=2.5)
    assert pacer.not_before == 8.5


def test_failures_wait_longer_and_longer_up_to_five_seconds():
    waits = []
    for attempt in (1, 2, 3, 5, 10, 10_000):
        pacer = RequestTimer()
        pacer.failed(0.0, attempt)
        waits.append(pacer.not_before)
    assert waits == sorted(waits) and waits[0] < 1 and waits[-1] == 5.0


# -- the server ----------------------------------------------------------------------------------------------


def settled(pace: Pace, clock: Clock, senders: int, seconds: float = 0.001) -> float:
    """What the senders are told once all of them are known."""
    for _ in range(2):
        waits = [pace.wait(f"site-{number}", False, seconds) for number in range(senders)]
        clock.advance(0.1)
    return max(waits)


@pytest.mark.parametrize("senders, most", [(1, 0.02), (10, 0.2), (1000, 10.0), (100_000, 10.0)])
def test_the_wait_grows_with_the_senders_within_bounds(senders, most):
    clock = Clock()
    assert 0 < settled(Pace(clock), clock, senders) <= most


@pytest.mark.parametrize("seconds", [0.0001, 0.0003])
@pytest.mark.parametrize("senders", [20, 100, 300, 1000])
def test_up_to_a_thousand_senders_have_young_lines_for_half_a_core(senders, seconds):
    """A small request costs the server about a millisecond in the runtime, and what is measured on top."""
    clock = Clock()
    wait = settled(Pace(clock), clock, senders, seconds)
    assert senders * (0.001 + seconds) / wait <= 0.5
    assert 0.95 * wait <= 3.0, "the age of a line that 95 of 100 do not exceed"


@pytest.mark.parametrize(
    "senders, seconds, wait", [(1000, 0.002, 6.67), (1000, 0.02, 10.0), (10, 0.02, 0.47)]
)
def test_a_slow_server_asks_its_senders_to_wait_longer(senders, seconds, wait):
    clock = Clock()
    pace = Pace(clock)
    settled(pace, clock, senders, seconds)
    for _ in range(100):
        found = settled(pace, clock, senders, seconds)
    assert found == pytest.approx(wait, abs=0.01)


def test_what_a_small_request_costs_is_what_it_computes(memory_path, monkeypatch):
    """Whoever else has the core or the lock meanwhile: else a busy machine makes lines old, and idles."""
    costs: list[float] = []
    monkeypatch.setattr(Pace, "wait", lambda pace, sender, full, seconds: costs.append(seconds) or 0.0)

    def admit(site: str, job_id: str) -> Admission:
        threading.Event().wait(0.2)
        return Admission()

    store, log = LogStore(memory_path / "store"), StreamId("job-1", "log.txt")
    receiver = Receiver(store, admit)
    first, small, full = RequestWriter(0.0, 0), RequestWriter(0.0, 0), RequestWriter(0.0, 0)
    full.full = True
    for number, writer in enumerate((first, small, full)):
        writer.frame(Frame(log, 5 * number, b"line\n", b"c"))
        receiver.handle(writer.encode(), Peer("site-1"))
    store.close()
    assert costs[1] < 0.15 < 0.2 < costs[2], "a full one also waits for the disk"


def test_what_comes_once_for_a_stream_makes_no_later_line_older(memory_path, monkeypatch):
    """A thousand sites that began at the same time waited five seconds with their next lines."""
    costs: list[float | None] = []
    monkeypatch.setattr(Pace, "wait", lambda pace, sender, full, seconds: costs.append(seconds) or 0.0)
    store, log = LogStore(memory_path / "store"), StreamId("job-1", "log.txt")
    receiver = Receiver(store, lambda site, job_id: Admission())
    opens, begins, grows, _, closes = writers = [RequestWriter(0.0, 0) for _ in range(5)]
    opens.open(log)
    begins.frame(Frame(log, 0, b"line\n", b"c"))
    grows.frame(Frame(log, 5, b"line\n", b"c"))
    closes.close(Close(log, 10, hashlib.sha256(b"line\nline\n").hexdigest(), 0, "exit code 0"))
    for writer in writers:
        receiver.handle(writer.encode(), Peer("site-1"))
    store.close()
    assert [cost is None for cost in costs] == [True, True, False, False, True]


@pytest.mark.parametrize("full", [False, True])
def test_a_request_that_says_nothing_of_the_next_is_not_looked_at(full):
    clock = Clock()
    pace = Pace(clock)
    for number in range(300):
        before = pace.wait(f"site-{number}", full, 0.0002)
    assert pace.wait("site-299", full, None) == before


def test_a_close_that_takes_long_slows_nobody_down():
    clock = Clock()
    pace = Pace(clock)
    before = settled(pace, clock, 300, 0.0002)
    pace.wait("site-0", False, 30.0)
    assert settled(pace, clock, 300, 0.0002) == pytest.approx(before, rel=0.1)


def test_many_senders_cost_less_than_one_each():
    """Twenty sites: what they write in a second travels together, and is hardly older than that."""
    clock = Clock()
    assert 1.0 <= settled(Pace(clock), clock, 20, 0.0002) <= 1.2


def test_a_site_with_a_thousand_names_makes_nobody_wait_longer():
    """A sender names its job itself: a site that made up jobs made all others wait for 10 s."""
    clock = Clock()
    pace = Pace(clock)
    before = settled(pace, clock, 10)
    for number in range(1000):
        pace.wait(f"site-x/job-{number}", False, 0.001)
        pace.wait(f"site-x/job-{number}", True, 0.02)
    assert settled(pace, clock, 10) < 3 * before
    assert pace.wait("site-0", True, 0.001) < 0.2


@pytest.mark.parametrize("senders", [10, 100, 1000])
def test_a_site_that_does_not_wait_makes_nobody_wait_longer(senders):
    """What its requests cost is counted as often as those of a site that waits, however many it sends."""
    clock = Clock()
    pace = Pace(clock)
    before = settled(pace, clock, senders, 0.0002)
    for _ in range(20):
        for number in range(400):
            pace.wait(f"site-x/job-{number % 9}", False, 0.02)
        found = settled(pace, clock, senders, 0.0002)
    assert found < 2.5 * before


def test_senders_that_went_away_are_forgotten():
    clock = Clock()
    pace = Pace(clock)
    many = settled(pace, clock, 500)
    clock.advance(60)
    pace.wait("site-0", False, 0.001)
    assert pace.wait("site-0", False, 0.001) < many / 100 and len(pace._last) == 1


def test_full_batches_of_many_senders_share_one_core():
    clock = Clock()
    pace = Pace(clock)
    assert pace.wait("site-0", True, 0.01) == 0
    for _ in range(50):
        waits = [pace.wait(f"site-{number}", True, 0.01) for number in range(20)]
    assert all(0.1 <= wait <= 0.2 for wait in waits)
