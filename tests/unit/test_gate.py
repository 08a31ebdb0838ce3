"""A sender whose site says no while it runs: what goes from then on, and what becomes of its streams."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvflare_logstream.errors import LinkError
from nvflare_logstream.site.decision import Decision, always
from nvflare_logstream.streams import StreamId, StreamKey, Verdict
from nvflare_logstream.testing import Fault
from nvflare_logstream.wire.upload_reader import decode_request
from tests.unit.conftest import MEMORY
from tests.unit.site_world import JOB, SITE, World

NO = Decision(False, "the site does not allow it")
IN_DOUBT = Decision(False, "resources.json cannot be read", sure=False)
FIRST, SECRET = b"let out\n", b"written after the no\n"


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.close()


def started(world, *files):
    """A sender that has sent the first line of each log."""
    sender = world.sender(*(files or ("log.txt",)))
    for file in files or ("log.txt",):
        world.write(FIRST, file)
    world.run(sender, turns=5)
    world.link.requests.clear()
    return sender


def lets_out(payload: bytes) -> bool:
    """Whether a request says anything of what is in a log."""
    request = decode_request(payload)
    return bool(request.opens or request.heads or request.closes or request.unreadable)


@pytest.mark.parametrize("later", [always(), IN_DOUBT, NO])
def test_a_no_ends_the_streams_for_good(world, later):
    sender = started(world, "log.txt", "train.log")
    world.said = NO
    for file in ("log.txt", "train.log"):
        world.write(SECRET, file)
    world.run(sender, turns=10)
    world.said = later
    world.write(SECRET)
    world.finish(sender, ("log.txt", "train.log"))
    assert world.link.requests and not any(map(lets_out, world.link.requests))
    for file in ("log.txt", "train.log"):
        assert world.stored(file) == FIRST
        said = (world.info(file).verdict, world.info(file).verdict_reason)
        assert said == (Verdict.REFUSED, f"the site does not allow it, from byte {len(FIRST)} on")
    assert set(world.verdicts.values()) == {"refused"} and world.kept_back == {JOB: NO.reason}
    assert sender._state.all_ended and not sender._state.streams


def test_a_request_that_had_no_answer_is_not_sent_again(world):
    sender = started(world)
    world.link.faults = [Fault.LOSE_REQUEST]
    world.write(SECRET)
    world.run(sender, turns=1)
    assert sender._state.exchange.under_way
    world.link.requests.clear()
    world.said = NO
    world.run(sender, turns=20)
    assert world.stored() == FIRST and not any(map(lets_out, world.link.requests))
    assert world.info().verdict is Verdict.REFUSED


def test_a_request_that_was_prepared_ahead_does_not_go(world):
    sender = started(world)
    world.write(b"".join(b"%d\n" % number for number in range(2_000_000)))
    world.run(sender, turns=1)
    said = world.link.deliver

    def deliver(payload):
        world.said = NO  # while the first is under way
        return said(payload)

    world.link.deliver = deliver
    world.link.requests.clear()
    world.run(sender, turns=20)
    assert sum(map(lets_out, world.link.requests)) == 1
    assert world.info().verdict is Verdict.REFUSED


def test_a_policy_that_cannot_be_read_for_a_moment_holds_everything(world):
    """Somebody saves the file."""
    sender = started(world)
    world.said = IN_DOUBT
    world.write(SECRET)
    began = world.clock()
    while world.clock() - began < 5:
        sender.turn()
    assert not world.link.requests and world.stored() == FIRST and world.info().verdict is Verdict.STREAMING
    world.said = always()
    world.run(sender, turns=10)
    assert world.stored() == FIRST + SECRET
    world.finish(sender)
    assert world.info().verdict is Verdict.COMPLETE and not world.kept_back


def test_a_policy_that_stays_unreadable_is_a_no(world):
    sender = started(world)
    world.said = IN_DOUBT
    world.write(SECRET)
    world.run(sender, turns=30)
    assert world.info().verdict_reason == f"{IN_DOUBT.reason}, from byte {len(FIRST)} on"
    world.said = always()
    world.finish(sender, ("log.txt",))
    assert world.stored() == FIRST and world.info().verdict is Verdict.REFUSED


def test_the_rest_of_a_job_that_is_over_waits_until_the_policy_can_be_read(world):
    sender = started(world)
    world.write(SECRET)
    world.said = IN_DOUBT
    world.finish(sender, ("log.txt",))
    assert not any(map(lets_out, world.link.requests)) and world.stored() == FIRST
    world.said = always()
    world.run(sender, turns=10)
    assert world.info().verdict is Verdict.COMPLETE and world.stored() == FIRST + SECRET


@pytest.mark.parametrize("is_over", [False, True])
def test_what_another_process_sends_of_a_watched_job_is_refused(world, is_over):
    """One that sees no policy: its logs are refused by name, and those that only the server knows."""
    parent, job = world.sender(), world.sender("log.txt", "rank.log", link=None)
    parent.watch(JOB, ["log.txt", "*.log"])
    for file in ("log.txt", "rank.log"):
        world.write(FIRST, file)
    said, world.said = world.said, always()
    for sender in (parent, job):
        world.run(sender, turns=5)
    if is_over:
        parent.watch(JOB, is_over=True)
    world.said = NO
    world.run(parent, turns=5)
    world.said = said
    for file in ("log.txt", "rank.log"):
        assert (world.info(file).verdict is Verdict.REFUSED) is not is_over
    if not is_over:
        world.link.deliver = lambda payload: world.deliver(payload, JOB)
        for file in ("log.txt", "rank.log"):
            world.write(SECRET, file)
        world.run(job, turns=10)
        assert world.stored() == world.stored("rank.log") == FIRST
        world.link.deliver = world.deliver
        world.finish(parent, ("log.txt", "*.log"))
        assert world.stored() == world.stored("rank.log") == FIRST


def test_a_watched_job_of_which_nothing_came_is_refused_by_its_names(world):
    parent = world.sender()
    parent.watch(JOB, ["*.log"])
    world.run(parent, turns=3)
    world.said = NO
    world.run(parent, turns=5)
    assert [(stream.file, stream.verdict) for stream in world.store.streams(JOB)] == [
        ("log.txt", Verdict.REFUSED)
    ]


def test_a_site_is_asked_once_a_second_where_nothing_is_sent_and_not_at_all_without_a_job(world):
    sender, asked = world.sender(), []
    sender._gate._ask = lambda: asked.append(world.clock()) or always()
    world.run(sender, turns=5)
    assert not asked
    sender.watch(JOB, ["log.txt"])
    world.run(sender, turns=2)
    began = world.clock()
    asked.clear()
    while world.clock() - began < 60:
        sender.turn()
    assert 55 <= len(asked) <= 65


def test_a_refusal_that_cannot_be_taken_now_is_repeated_and_lets_nothing_out(world):
    sender = started(world)
    world.said = NO
    world.write(SECRET)

    def away(payload):
        raise LinkError("away")

    deliver, world.link.deliver = world.link.deliver, away
    world.run(sender, turns=10)
    world.link.deliver = deliver
    world.run(sender, turns=30)
    assert not any(map(lets_out, world.link.requests)) and world.info().verdict is Verdict.REFUSED


def test_lines_wake_nobody_while_the_site_is_not_known_to_allow_it(world):
    """A busy log would otherwise cost its job more than when it is sent."""
    sender, asked = started(world), []
    world.said = IN_DOUBT
    sender._gate._ask = lambda: asked.append(world.clock()) or world.said
    began = world.clock()
    while world.clock() - began < 5:
        world.write(SECRET)
        sender.turn()
    assert 4 <= len(asked) <= 8


@pytest.mark.parametrize("watched", [True, False])
def test_a_watched_job_keeps_no_log_waiting(world, watched):
    """Where no change is reported, a log is looked at as often as without it."""
    sender = started(world)
    if watched:
        sender.watch("job-2", ["log.txt"])
    world.run(sender, turns=5)
    world.watcher.waits.clear()
    world.run(sender, turns=20)
    assert world.watcher.waits and max(world.watcher.waits) <= 0.5


def test_a_watched_job_is_asked_for_each_second_while_the_server_is_away(world):
    """A no that is taken back before the next attempt counts too."""
    sender = started(world)
    sender.watch(JOB, ["log.txt"])
    world.link.faults = [Fault.LOSE_REQUEST] * 20
    world.write(SECRET)
    while sender._state.exchange.failures < 20:
        sender.turn()
    assert sender._state.exchange.wait(world.clock()) > 4.5
    asked = []
    sender._gate._ask = lambda: asked.append(world.clock()) or world.said
    began = world.clock()
    while world.clock() - began < 4:
        sender.turn()
    assert 3 <= len(asked) <= 6
    world.said = NO
    world.run(sender, turns=2)
    world.said = always()
    world.link.requests.clear()
    world.run(sender, turns=60)
    assert world.link.requests and not any(map(lets_out, world.link.requests))
    assert world.stored() == FIRST and world.info().verdict is Verdict.REFUSED


def test_all_names_of_a_job_are_refused_however_late_the_server_hears_of_it(world):
    """Each order about it names some; the server is away until the job is over."""
    parent = world.sender()
    parent.watch(JOB, ["log.txt", "error_log.txt"])
    world.run(parent, turns=3)
    deliver, world.link.deliver = world.link.deliver, lambda payload: b""
    world.said = NO
    world.run(parent, turns=3)
    parent.follow(JOB, world.logs, "train.log")
    parent.watch(JOB, is_over=True)
    world.run(parent, turns=3)
    world.link.deliver = deliver
    world.run(parent, turns=60)
    refused = {stream.file for stream in world.store.streams(JOB) if stream.verdict is Verdict.REFUSED}
    assert refused == {"log.txt", "error_log.txt", "train.log"}


def test_a_site_that_cannot_be_asked_lets_nothing_out(world, monkeypatch):
    sender = started(world)
    monkeypatch.setattr(sender._gate, "_ask", lambda: 1 / 0)
    world.write(SECRET)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            sender.turn()
    assert not world.link.requests


def test_whoever_is_told_of_a_job_cannot_hold_up_the_next(world, caplog):
    sender = world.sender("log.txt")
    other = world.logs / "other"
    other.mkdir()
    sender.follow("job-2", other, "log.txt")
    world.run(sender, turns=3)
    sender._gate._on_kept_back = lambda *told: 1 / 0
    world.write(SECRET)
    world.said = NO
    world.run(sender, turns=5)
    assert not sender._state.streams
    assert caplog.text.count("it could not be passed on that job") == 2


ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 300)),
    st.tuples(st.just("turn"), st.integers(1, 4)),
    st.tuples(st.just("fault"), st.sampled_from(list(Fault))),
    st.tuples(st.just("say"), st.sampled_from([always(), IN_DOUBT, IN_DOUBT])),
    st.tuples(st.sampled_from(["restart server", "no"]), st.none()),
)


@settings(max_examples=100)
@given(st.lists(ACTIONS, max_size=30))
def test_whatever_happens_nothing_is_sent_without_a_yes_nor_after_a_no(actions):
    with TemporaryDirectory(dir=MEMORY) as directory:
        world = World(Path(directory))
        sender, said_no, written = world.sender("log.txt"), False, b""
        deliver = world.deliver

        def checked(payload):
            may_go = world.said.allowed and not said_no
            # An old request comes late by the network's doing; that it was sent again is what must not be.
            assert may_go or not lets_out(payload) or payload in sent, "a byte left"
            sent.append(payload)
            return deliver(payload)

        sent: list[bytes] = []
        world.link.deliver = checked
        for action, value in actions:
            if action == "write":
                world.write(b"x" * (value - 1) + b"\n")
                written += b"x" * (value - 1) + b"\n"
            elif action == "turn":
                world.run(sender, turns=value)
            elif action == "fault":
                world.link.faults.append(value)
            elif action == "say":
                world.said = value
            elif action == "no":
                world.said = NO
                world.run(sender, turns=1)
                said_no = bool(world.kept_back)
            else:
                world.store.commit()
                world.crash_server()
        world.link.faults.clear()
        if not world.said.sure:
            world.said = always()
        world.finish(sender)
        try:
            info = world.store.info(StreamKey(JOB, SITE, "log.txt"))
            if said_no:
                assert info is None or info.verdict is Verdict.REFUSED
            elif not world.kept_back and written:
                assert info.verdict is Verdict.COMPLETE and world.stored() == written
                assert world.verdicts == {StreamId(JOB, "log.txt"): "complete"}
        finally:
            world.close()
