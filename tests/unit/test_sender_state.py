"""The sender's pure parts: phases of a stream, steps of the exchange, orders of callers."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from nvflare_logstream.hashing import HASH_STEP, hash_range
from nvflare_logstream.site.batch import Batch
from nvflare_logstream.site.exchange import Exchange, Step
from nvflare_logstream.site.followed import FollowedStream, Phase
from nvflare_logstream.site.orders import FollowLog, Orders
from nvflare_logstream.site.state import SenderState
from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.testing import Clock, MemorySource
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply
from tests.unit.site_world import JOB

STREAM = StreamId(JOB, "log.txt")


# -- a stream ------------------------------------------------------------------------------------------------

EVENTS = {
    "place known": lambda stream: stream.go_to(0, b""),
    "place unknown": lambda stream: stream.forget_place(),
    "job over": lambda stream: stream.job_is_over("exit code 0", 0.0),
    "ended": lambda stream: stream.end(),
}


def stream_in(phase: Phase) -> FollowedStream:
    stream = FollowedStream(STREAM, Path(), MemorySource(bytearray()))
    stream.phase = phase
    return stream


@pytest.mark.parametrize(
    "phase, known, unknown, job_over",
    [
        (Phase.ASKING, Phase.FOLLOWING, Phase.ASKING, Phase.ASKING_LAST),
        (Phase.FOLLOWING, Phase.FOLLOWING, Phase.ASKING, Phase.CLOSING),
        (Phase.ASKING_LAST, Phase.CLOSING, Phase.ASKING_LAST, Phase.ASKING_LAST),
        (Phase.CLOSING, Phase.CLOSING, Phase.ASKING_LAST, Phase.CLOSING),
    ],
)
def test_every_event_leads_from_every_phase_to_the_next(phase, known, unknown, job_over):
    expected = {"place known": known, "place unknown": unknown, "job over": job_over, "ended": Phase.ENDED}
    for event, after in expected.items():
        stream = stream_in(phase)
        EVENTS[event](stream)
        assert stream.phase is after


@pytest.mark.parametrize("event", EVENTS)
def test_nothing_happens_to_a_stream_that_has_ended(event):
    with pytest.raises(KeyError):
        EVENTS[event](stream_in(Phase.ENDED))


def test_an_offset_without_its_cursor_is_no_place():
    stream = stream_in(Phase.FOLLOWING)
    stream.go_to(5, b"")
    assert stream.phase is Phase.ASKING and stream.source.offset == 0


# -- the exchange --------------------------------------------------------------------------------------------


def test_a_request_goes_its_way_and_the_prepared_one_follows():
    exchange, first, second = Exchange(0.0), Batch(0.0, []), Batch(0.0, [])
    assert exchange.step is Step.IDLE and exchange.under_way is None
    exchange.begin(first)
    assert exchange.step is Step.UNDER_WAY
    exchange.prepare(second)
    assert exchange.step is Step.AHEAD and exchange.under_way is first
    exchange.answered(1.0, 0.0)
    assert exchange.step is Step.UNDER_WAY and exchange.under_way is second
    exchange.answered(2.0, 0.0)
    assert exchange.step is Step.IDLE


def test_a_failure_keeps_the_requests_and_a_drop_forgets_them():
    exchange, batch = Exchange(0.0), Batch(0.0, [])
    exchange.begin(batch)
    exchange.failed(10.0)
    assert exchange.under_way is batch and exchange.failures == 1 and exchange.wait(10.0) > 0
    exchange.drop()
    assert exchange.step is Step.IDLE and exchange.failures == 1  # nobody has answered yet


# -- request and answer --------------------------------------------------------------------------------------


@pytest.fixture
def log():
    return bytearray(b"line\n")


@pytest.fixture
def state(log):
    state = SenderState(
        lambda directory, file: MemorySource(log), lambda stream: False, liveness_interval=10.0, now=0.0
    )
    state.obey(FollowLog(STREAM, Path("logs")))
    return state


def answer(state: SenderState, now: float = 0.0, **row):
    batch = state.next_batch(now, 0.0)
    return state.take_answer(batch, Reply((StreamReply(STREAM, Status.OK, **row),)), now)


def test_a_stream_is_asked_for_then_sent_then_quiet(state):
    assert answer(state) == [] and state.streams[STREAM].phase is Phase.FOLLOWING
    assert answer(state, end=5) == []
    assert state.next_batch(1.0, 0.0) is None and state.quiet_looks == 1
    assert not state.look_at_once


def test_a_sign_of_life_is_an_empty_request(state):
    answer(state)
    answer(state, end=5)
    assert state.next_batch(9.9, 0.0) is None
    assert state.next_batch(10.0, 0.0).writer.empty


def test_an_end_that_was_not_expected_is_gone_to(state):
    answer(state)
    answer(state, end=3, cursor=b"3")
    assert state.streams[STREAM].source.offset == 3 and state.look_at_once


def test_an_answer_that_the_prepared_request_does_not_fit_drops_it(state):
    answer(state)
    batch = state.next_batch(0.0, 0.0)
    state.exchange.prepare(Batch(0.0, []))
    state.take_answer(batch, Reply((StreamReply(STREAM, Status.GAP, 0),)), 0.0)
    assert state.exchange.step is Step.IDLE and state.streams[STREAM].phase is Phase.ASKING


def test_a_refused_stream_ends(state):
    batch = state.next_batch(0.0, 0.0)
    (ended,) = state.take_answer(
        batch, Reply((StreamReply(STREAM, Status.REFUSED, reason="takes no part"),)), 0.0
    )
    assert (ended.stream.id, ended.verdict, ended.reason) == (STREAM, Verdict.REFUSED, "takes no part")
    assert state.all_ended


def test_what_the_receiver_puts_off_is_tried_a_second_later(state):
    batch = state.next_batch(0.0, 0.0)
    state.take_answer(batch, Reply((StreamReply(STREAM, Status.LATER),)), 0.0)
    assert state.next_batch(0.5, 0.0) is None and state.quiet_looks == 0
    assert not state.next_batch(1.0, 0.0).writer.empty


# -- orders --------------------------------------------------------------------------------------------------


def test_those_who_wait_look_at_the_injected_clock():
    """Real time does not pass for them: they give up when the clock says so."""
    clock, woken = Clock(), []

    def wake() -> None:
        woken.append(clock.now)
        clock.advance(250)

    orders = Orders(clock, wake, lambda: True)
    assert not orders.wait_quiet(1000)
    assert len(woken) == 4
    orders.give(FollowLog(STREAM, Path()))
    assert not orders.wait_all_ended(1000)


def test_an_order_that_was_taken_is_waited_for_until_it_is_reported():
    orders = Orders(Clock(), lambda: None, lambda: True)
    assert orders.wait_all_ended(0)
    order = FollowLog(STREAM, Path())
    orders.give(order)
    assert not orders.wait_all_ended(0)
    assert orders.take() is order and orders.take() is None
    assert not orders.wait_all_ended(0)
    orders.report(0, all_ended=True)
    assert orders.wait_all_ended(0)


def test_of_two_that_wait_the_second_is_still_urgent_when_the_first_has_given_up():
    orders, begun = Orders(Clock(), lambda: begun.set(), lambda: True), threading.Event()
    second = threading.Thread(target=orders.wait_quiet, args=(1000.0,))
    second.start()
    assert begun.wait(20)
    assert not orders.wait_quiet(0) and orders.urgent
    for _ in range(2):
        orders.report(10**6, all_ended=True)
    second.join(20)
    assert not orders.urgent


# -- hashing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start, end", [(0, 0), (0, 5), (3, HASH_STEP + 3), (0, 2 * HASH_STEP + 7)])
def test_a_range_is_hashed_in_steps(start, end):
    data, steps = os.urandom(2 * HASH_STEP + 7), []

    def read(position: int, length: int) -> bytes:
        steps.append(length)
        return data[position : position + length]

    hasher = hashlib.sha256()
    assert hash_range(hasher, read, start, end) == end
    assert hasher.digest() == hashlib.sha256(data[start:end]).digest()
    assert max(steps, default=0) <= HASH_STEP


def test_hashing_says_where_the_bytes_end():
    assert hash_range(hashlib.sha256(), lambda position, length: b"12345"[position:][:length], 0, 9) == 5
