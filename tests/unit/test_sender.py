"""Sender and receiver over a link that loses, repeats and reorders: what is stored is what was written."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvflare_logstream.errors import LinkError
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.site.exchange import Step
from nvflare_logstream.site.orders import FinishJob
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.site.source import Chunk
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import StreamId, StreamKey
from nvflare_logstream.testing import ClockWatcher, Fault, FaultyLink, MemorySource
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload_reader import decode_request
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply, decode_reply
from tests.unit.conftest import MEMORY
from tests.unit.site_world import JOB, SITE, World


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.close()


# -- faults --------------------------------------------------------------------------------------------------

ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(8, 3000)),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("fault"), st.sampled_from(list(Fault))),
    st.tuples(
        st.sampled_from(["rotate", "copytruncate", "commit", "crash server", "restart sender"]), st.none()
    ),
)


@settings(max_examples=200)
@given(st.lists(ACTIONS, max_size=40))
def test_nothing_is_lost_or_doubled_whatever_the_link_the_server_and_the_sender_suffer(actions):
    with TemporaryDirectory(dir=MEMORY) as directory:
        world = World(Path(directory))
        written, log, rotations = b"", world.logs / "log.txt", 0
        sender = world.sender("log.txt")
        for action, value in actions:
            if action == "write":
                # Logs do not repeat themselves from their first byte on.
                data = random.Random(len(written)).randbytes(value)
                world.write(data)
                written += data
            elif action == "turn":
                for _ in range(value):
                    sender.turn()
            elif action == "fault":
                world.link.faults.append(value)
            elif action == "commit":
                world.store.commit()
            elif action == "crash server":
                world.crash_server()
            elif action == "restart sender":
                sender.stop()
                sender = world.sender("log.txt")
            elif log.exists() and log.stat().st_size:
                for number in range(rotations, 0, -1):
                    (world.logs / f"log.txt.{number}").rename(world.logs / f"log.txt.{number + 1}")
                rotations += 1
                if action == "rotate":
                    log.rename(world.logs / "log.txt.1")
                else:
                    shutil.copyfile(log, world.logs / "log.txt.1")
                    os.truncate(log, 0)
        world.finish(sender)
        try:
            assert world.stored() == written
            assert world.verdicts == {StreamId(JOB, "log.txt"): "complete"}
            assert world.info().end == len(written) and world.info().losses == ()
        finally:
            world.close()


@pytest.mark.parametrize(
    "fault", [Fault.LOSE_REQUEST, Fault.LOSE_REPLY, Fault.REPEAT, Fault.REPLAY, Fault.DAMAGE_REPLY]
)
def test_a_fault_on_every_early_request(world, fault):
    world.link.faults = [fault] * 8
    world.write(b"some lines\n" * 100)
    world.finish(world.sender("log.txt"))
    assert world.stored() == b"some lines\n" * 100
    assert world.info().as_of(world.clock(), 0).verdict == "complete"


@settings(max_examples=15)
@given(st.lists(st.sampled_from(list(Fault)), max_size=12), st.sets(st.integers(0, 11)))
def test_logs_that_grow_faster_than_they_are_sent_survive_every_fault(faults, crashes):
    """Full batches, of which the next is prepared while one is under way."""
    with TemporaryDirectory(dir=MEMORY) as directory:
        world = World(Path(directory))
        logs = {file: random.Random(file).randbytes(3 << 20) for file in ("a.txt", "b.txt")}
        for file, data in logs.items():
            world.write(data, file)
        world.link.faults = list(faults)
        sender = world.sender(*logs)
        for turn in range(12):
            sender.turn()
            if turn in crashes:
                world.crash_server()
        world.finish(sender)
        try:
            assert {file: world.stored(file) for file in logs} == logs
            assert set(world.verdicts.values()) == {"complete"}
        finally:
            world.close()


def test_two_senders_on_one_stream_neither_lose_nor_double(world):
    """The job process and the parent process, turn by turn, while the log grows."""
    written, senders = b"", [world.sender("log.txt"), world.sender("log.txt")]
    randoms = random.Random(7)
    for number in range(100):
        line = b"line %d\n" % number
        world.write(line)
        written += line
        randoms.choice(senders).turn()
    world.finish(senders[1])
    assert world.stored() == written
    assert world.info().state == "closed" and world.info().agreed


def test_a_loss_outlives_a_server_crash_right_after_it(world):
    sender = world.sender("log.txt")
    world.write(b"first\n")
    world.run(sender)
    world.store.commit()
    os.truncate(world.logs / "log.txt", 0)
    world.run(sender)
    world.crash_server()
    world.finish(sender)
    assert world.info().as_of(world.clock(), 0).verdict == "lost"


def test_a_loss_in_a_batch_that_was_refused_is_told_again(world):
    sender = world.sender("log.txt")
    world.write(b"first\n")
    world.run(sender)
    os.truncate(world.logs / "log.txt", 0)
    deliver, world.link.deliver = world.link.deliver, lambda payload: Reply(error="no").encode()
    sender.turn()
    sender.turn()
    world.link.deliver = deliver
    world.finish(sender)
    assert [loss.offset for loss in world.info().losses] == [6]


def test_a_loss_without_bytes_that_was_refused_is_told_again(world):
    """The place in the log is the same before and after it."""
    sender, log = world.sender("log.txt"), world.logs / "log.txt"
    world.write(b"one ")
    world.run(sender)
    log.rename(world.logs / "log.txt.1")
    world.write(b"two")
    world.run(sender)
    world.write(b"too late", "log.txt.1")
    deliver, refused = world.link.deliver, []

    def refuse_once(payload: bytes) -> bytes:
        if not refused and any(frame.losses for frame in decode_request(payload).frames()):
            refused.append(payload)
            return Reply(error="no").encode()
        return deliver(payload)

    world.link.deliver = refuse_once
    world.finish(sender)
    assert refused and [loss.offset for loss in world.info().losses] == [4]
    assert world.stored() == b"one two" and world.info().verdict == "lost"


def test_a_log_whose_directory_is_gone_before_the_first_look_is_never_complete(world):
    world.logs.rmdir()
    world.finish(world.sender(), ("log.txt",))
    assert world.info().verdict == "lost" and "directory is not there" in str(world.info().losses)


# -- what is sent, and when ----------------------------------------------------------------------------------


def test_the_first_line_after_a_quiet_time_goes_at_once(world):
    sender = world.sender("log.txt")
    world.run(sender)
    world.clock.advance(5)
    world.write(b"at last\n")
    before = world.clock()
    sender.turn()
    assert world.clock() == before
    assert world.stored() == b"at last\n"


def test_an_idle_sender_sleeps(world):
    """Without streams there is nothing to look for, however long that takes."""
    sender = world.sender()
    before = world.clock()
    world.run(sender, turns=10)
    assert world.clock() - before >= 100
    assert world.link.requests == []


def test_a_sign_of_life_goes_out_while_nothing_is_written(world):
    sender = world.sender("log.txt")
    world.run(sender, turns=3)
    world.clock.advance(-world.clock() + world.info().last_seen)
    world.run(sender, turns=100)
    assert world.clock() - world.info().last_seen < 15


def test_a_batch_is_bounded_and_incompressible_logs_share_it(world):
    """Two logs grow faster than they can be sent: both advance, and no message outgrows a MiB and a frame."""
    for file in ("a.txt", "b.txt"):
        world.write(random.Random(file).randbytes(12 << 20), file)
    sender = world.sender("a.txt", "b.txt")
    for _ in range(8):
        sender.turn()
    assert max(map(len, world.link.requests)) < (2 << 20) + 10_000  # what a batch may carry, and one frame
    ends = [world.info(file).end for file in ("a.txt", "b.txt")]
    assert min(ends) > 0 and max(ends) <= 2 * min(ends)


def test_a_batch_of_logs_that_compress_well_is_bounded_too(world):
    files = [f"{number}.txt" for number in range(10)]
    for file in files:
        world.write(bytes(2 << 20), file)
    world.finish(world.sender(*files))
    carried = [
        sum(len(frame.data) for frame in request.frames())
        for request in map(decode_request, world.link.requests)
    ]
    assert sum(carried) == 20 << 20 and max(carried) <= 7 << 20


def test_without_faults_every_byte_is_sent_once(world):
    """Also where one log has much to send and another gets a line now and then."""
    written = {"a.txt": random.Random(1).randbytes(6 << 20), "b.txt": b""}
    world.write(written["a.txt"], "a.txt")
    sender = world.sender("a.txt", "b.txt")
    for number in range(20):
        world.write(b"line %d\n" % number, "b.txt")
        written["b.txt"] += b"line %d\n" % number
        sender.turn()
    world.finish(sender)
    assert {file: world.stored(file) for file in written} == written
    requests = list(map(decode_request, world.link.requests))
    opens = sum(len(request.opens) for request in requests)
    assert opens == 2  # nobody had to ask again where the receiver stands
    frames = [frame for request in requests for frame in request.frames()]
    assert sum(len(frame.data) for frame in frames) == sum(map(len, written.values()))


@pytest.mark.parametrize("lost", range(8))
def test_a_log_written_all_the_time_needs_few_answers_and_loses_nothing_without_them(world, lost):
    """Of eight requests in quick succession seven are told; one of them is lost on its way."""
    sender, written, told = world.sender("log.txt"), b"", []
    tell = world.link.tell

    def lose_one(payload):
        told.append(payload)
        world.link.faults = [Fault.LOSE_REQUEST] * (len(told) == lost)
        tell(payload)

    world.link.tell = lose_one
    for number in range(30):
        world.write(b"line %d\n" % number)
        written += b"line %d\n" % number
        world.run(sender, turns=2)
    assert 15 <= len(told) < len(world.link.requests)
    world.run(sender)
    assert world.stored() == written, "without another line the receiver is asked what it took"
    world.finish(sender)
    assert world.stored() == written and world.info().verdict == "complete"


def test_a_drain_waits_for_an_answer(world):
    """What was only told counts as taken when the receiver says so."""
    sender, stream = world.sender("log.txt"), StreamId(JOB, "log.txt")
    sender.turn()
    for number in range(20):
        world.write(b"line %d\n" % number)
        sender.turn()
        if sender._state.streams[stream].unconfirmed:
            break
    assert sender._state.streams[stream].unconfirmed
    looks = sender._state.quiet_looks
    sender.turn()
    assert sender._state.quiet_looks == looks, "this turn asks"
    world.run(sender, turns=3)
    assert sender._state.quiet_looks > looks


def test_many_streams_travel_in_few_requests_and_finish(memory_path):
    world = World(memory_path, files=700)
    files = [f"log-{number}.txt" for number in range(700)]
    for file in files:
        world.write(file.encode() * 10, file)
    world.finish(world.sender(*files))
    assert all(world.stored(file) == file.encode() * 10 for file in files)
    assert set(world.verdicts.values()) == {"complete"} and len(world.verdicts) == 700
    assert len(world.link.requests) < 20
    world.close()


def test_a_job_that_cannot_be_judged_yet_is_asked_for_once_a_second(world):
    world.admission = Admission(Status.LATER, "not started")
    sender = world.sender()
    sender.finish(JOB, world.logs, ["log.txt"], "exit code 0")
    before = world.clock()
    world.run(sender, turns=60)
    assert len(world.link.requests) <= world.clock() - before + 2
    world.admission = Admission()
    world.clock.advance(1)
    world.run(sender)
    assert world.verdicts == {StreamId(JOB, "log.txt"): "complete"}


def is_sign_of_life(payload: bytes) -> bool:
    request = decode_request(payload)
    return not (request.opens or request.known or request.refusals)


@pytest.mark.parametrize("what", ["over", "refused", "followed"])
def test_what_cannot_be_judged_for_long_is_asked_for_more_and_more_rarely(world, what):
    """A job that was deleted is in doubt for ten minutes, and for longer on a server that has no other."""
    world.admission = Admission(Status.LATER, "the job store does not give it")
    sender = world.sender("log.txt") if what == "followed" else world.sender()
    if what == "over":
        sender.finish(JOB, world.logs, ["log.txt"], "exit code 0")
    elif what == "refused":
        sender.refuse(JOB, ["log.txt"], "the site says no")
    before = world.clock()
    while world.clock() < before + 3600:
        world.run(sender, turns=1)
    assert sum(not is_sign_of_life(request) for request in world.link.requests) < 150
    if what != "followed":  # what is new is asked for at once
        asked = len(world.link.requests)
        sender.finish("job-2", world.logs, ["log.txt"], "exit code 0")
        world.run(sender, turns=2)
        assert len(world.link.requests) == asked + 1
    world.admission = Admission()
    world.run(sender, turns=200)
    if what == "over":
        assert world.verdicts[StreamId(JOB, "log.txt")] == "complete"
    elif what == "refused":
        assert world.info().verdict == "refused"
    else:
        assert world.info().verdict == "streaming"


def test_jobs_that_cannot_be_judged_keep_no_other_waiting(world):
    """A request asks for 256 jobs: those before it in the queue may be in doubt for long."""

    def admit(site: str, job_id: str) -> Admission:
        return Admission() if job_id == JOB else Admission(Status.LATER, "unsure")

    receiver = Receiver(world.store, admit, clock=world.clock)
    sender = world.sender(link=FaultyLink(lambda payload: receiver.handle(payload, Peer(SITE))))
    for number in range(300):
        sender.finish(f"job-x{number}", world.logs, ["log.txt"], "exit code 0")
        sender.refuse(f"job-y{number}", ["log.txt"], "the site says no")
    sender.finish(JOB, world.logs, ["log.txt"], "exit code 0")
    sender.refuse(JOB, ["other.txt"], "the site says no")
    world.run(sender, turns=40)
    assert world.verdicts == {StreamId(JOB, "log.txt"): "complete"}
    assert world.info("other.txt").verdict == "refused"


def test_a_job_that_cannot_be_judged_is_no_reason_to_hurry(world):
    state = world.sender()._state
    state.obey(FinishJob(JOB, world.logs, ("log.txt",), "exit code 0", False))
    assert state.hurried
    batch = state.next_batch(0.0, 0.0)
    state.take_answer(batch, Reply(jobs_later=(JOB,)), 0.0)
    assert not state.hurried
    state.obey(FinishJob("job-2", world.logs, ("log.txt",), "exit code 0", False))
    assert state.hurried


def test_a_refusal_is_repeated_until_the_receiver_takes_it(world):
    world.admission = Admission(Status.LATER, "not started")
    sender = world.sender()
    sender.refuse(JOB, ["log.txt"], "the site says no")
    world.run(sender, turns=10)
    world.admission = Admission()
    world.run(sender, turns=10)
    assert str(world.info().as_of(world.clock(), 0).standing) == "refused (the site says no)"
    count = len(world.link.requests)
    world.run(sender, turns=10)
    assert len(world.link.requests) == count


def test_a_refused_stream_is_let_go(world):
    world.admission = Admission(Status.REFUSED, "takes no part")
    sender = world.sender("log.txt")
    world.write(b"secret\n")
    world.run(sender, turns=5)
    assert world.verdicts == {StreamId(JOB, "log.txt"): "refused"}
    assert not (world.root / JOB).exists()


def test_a_full_quota_ends_the_stream_with_its_reason(memory_path):
    world = World(memory_path, stream=10)
    world.write(b"12345678")
    sender = world.sender("log.txt")
    world.run(sender, turns=5)
    world.write(b"9abcdef")
    world.run(sender, turns=5)
    assert world.verdicts == {StreamId(JOB, "log.txt"): "refused"}
    assert world.info().as_of(world.clock(), 0).verdict == "partial"
    assert "stream quota of 10 bytes" in world.info().reason and world.stored() == b"12345678"
    world.close()


def test_finish_goes_on_with_streams_of_another_life_of_the_process(world):
    world.write(b"begun, ", "custom.log")
    world.run(world.sender("custom.log"), turns=5)
    world.write(b"done\n", "custom.log")
    world.finish(world.sender(), ("custom.log",))
    assert world.stored("custom.log") == b"begun, done\n"
    assert world.info("custom.log").state == "closed"


def test_a_server_cannot_ask_for_a_file_that_the_site_does_not_send(world):
    """It may name any file of the log directory as a stream that it knows."""
    world.write(b"name,age\n", "train.csv")
    deliver, opened = world.link.deliver, []
    world.source = lambda directory, file: opened.append(file) or Tailer(directory, file)

    def hostile(payload: bytes) -> bytes:
        reply = decode_reply(deliver(payload))
        names = ("train.csv", "custom.log") if decode_request(payload).known else ()
        return reply._replace(
            streams=reply.streams + tuple(StreamReply(StreamId(JOB, name), Status.OK) for name in names)
        ).encode()

    world.link.deliver = hostile
    world.finish(world.sender("log.txt"), ("error_log.txt",))
    assert opened == ["log.txt", "error_log.txt"]
    assert {stream.file for stream in world.verdicts} == {"log.txt", "error_log.txt"}


def test_only_unclosed_leaves_closed_streams_alone(world):
    world.write(b"all\n")
    world.finish(world.sender("log.txt"))
    closed = world.info().closed
    world.clock.advance(100)
    world.verdicts.clear()
    world.finish(world.sender(), ("log.txt", "error_log.txt"), only_unclosed=True)
    assert world.info().closed == closed
    assert world.verdicts == {StreamId(JOB, "error_log.txt"): "complete"}


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xc1",
        Reply(error="no").encode(),
        Reply((StreamReply(StreamId("other", "log.txt"), Status.OK, 5),)).encode(),
        Reply((StreamReply(StreamId(JOB, "log.txt"), Status.OK, 1 << 40, b"garbage"),)).encode(),
    ],
)
def test_a_nonsense_reply_does_no_harm(world, reply):
    deliver, world.link.deliver = world.link.deliver, lambda payload: reply
    sender = world.sender("log.txt")
    world.write(b"one\n")
    world.run(sender, turns=5)
    world.link.deliver = deliver
    world.finish(sender)
    assert world.stored() == b"one\n"


def test_a_log_that_cannot_be_read_now_is_sent_when_it_can(world, monkeypatch, caplog):
    world.write(b"late\n")
    sender = world.sender("log.txt")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", lambda *args: (_ for _ in ()).throw(PermissionError(13, "no")))
        world.run(sender, turns=10)
    assert len([r for r in caplog.records if "cannot read" in r.message]) == 1
    world.finish(sender)
    assert world.stored() == b"late\n"


def test_a_log_that_cannot_be_read_when_its_place_is_known_does_not_hold_up_the_others(
    world, monkeypatch, caplog
):
    """A sender started anew goes to the place of each log; at one of them it is not let in."""
    files = ("log.txt", "other.txt")
    for file in files:
        world.write(b"first\n", file)
    world.run(world.sender(*files), turns=5)
    for file in files:
        world.write(b"second\n", file)
    real = os.open

    def open_but_one(path: Path, *args: int, **more: int) -> int:
        if path == world.logs / "log.txt":
            raise PermissionError(13, "no")
        return real(path, *args, **more)

    sender = world.sender(*files)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_but_one)
        world.run(sender, turns=10)
        assert world.info("other.txt").end == 13 and world.info("log.txt").end == 6
    assert len([r for r in caplog.records if "cannot read" in r.message]) == 1
    world.finish(sender)
    assert world.stored("log.txt") == world.stored("other.txt") == b"first\nsecond\n"


def test_a_verdict_that_cannot_be_passed_on_keeps_no_other_back(world, caplog):
    told = []

    def tell(stream: StreamId, verdict: str, reason: str) -> None:
        told.append(stream.file)
        raise ValueError("nobody listens")

    sender = world.sender("a.txt", "b.txt")
    sender._on_verdict = tell
    world.finish(sender)
    assert sorted(told) == ["a.txt", "b.txt"] and "nobody listens" in caplog.text


def test_a_job_process_may_not_write_another_jobs_logs(world):
    world.link.deliver = lambda payload: world.deliver(payload, job_id="job-2")
    world.write(b"forged\n")
    world.run(world.sender("log.txt"), turns=5)
    assert world.verdicts == {StreamId(JOB, "log.txt"): "refused"}
    assert world.store.streams() == []


def test_every_reply_names_each_stream_once(world):
    world.write(b"x\n")
    replies = []
    world.link.deliver = lambda payload: replies.append(world.deliver(payload)) or replies[-1]
    world.finish(world.sender("log.txt"), ("log.txt",))
    for reply in map(decode_reply, replies):
        assert len({row.stream for row in reply.streams}) == len(reply.streams)


# -- the thread ----------------------------------------------------------------------------------------------


class Blocked:
    """A link that answers nobody until told to."""

    def __init__(self) -> None:
        self.asked, self.free = threading.Event(), threading.Event()

    def send(self, payload: bytes) -> bytes:
        self.asked.set()
        self.free.wait(30)
        raise LinkError("no answer")


@pytest.fixture
def real(world):
    """A sender with its thread, on the real clock."""
    sender = Sender(world.link, poll_interval=0.05)
    sender.start()
    yield sender
    sender.stop(10)


def test_drain_waits_until_all_was_taken(world, real):
    real.follow(JOB, world.logs, "log.txt")
    world.write(b"line\n" * 10_000)
    assert real.drain(20)
    assert world.stored() == b"line\n" * 10_000


def test_drain_ends_where_each_request_makes_the_log_grow(world, real):
    """At level DEBUG the runtime's cell writes lines of each of our own requests into the log."""

    def deliver(payload):
        world.write(b"sending a request\n")
        return world.deliver(payload)

    world.link.deliver = deliver
    world.write(b"before the call\n")
    real.follow(JOB, world.logs, "log.txt")
    assert real.drain(20)
    assert world.stored().startswith(b"before the call\n")


def test_wait_finished_waits_until_all_is_closed(world, real):
    world.write(b"line\n")
    real.finish(JOB, world.logs, ["log.txt", "error_log.txt"], "exit code 0")
    assert real.wait_finished(20)
    assert {info.state for info in world.store.streams()} == {"closed"}


def test_nothing_blocks_while_the_server_does_not_answer(world):
    link = Blocked()
    sender = Sender(link)
    sender.start()
    sender.follow(JOB, world.logs, "log.txt")
    assert link.asked.wait(10)
    began = time.monotonic()
    sender.follow(JOB, world.logs, "error_log.txt")
    sender.refuse(JOB, ["secret.txt"], "no")
    assert not sender.drain(0.2)
    sender.finish(JOB, world.logs, [], "exit code 0")
    assert not sender.wait_finished(0.2)
    sender.stop()
    assert time.monotonic() - began < 5
    link.free.set()
    sender.stop(10)


def test_waiting_is_measured_by_the_senders_own_clock(world):
    """An hour passes in no time: who waits goes by the clock that the sender was given."""
    link = Blocked()
    sender = Sender(link, clock=world.clock, wall_clock=world.clock)
    sender.start()
    sender.follow(JOB, world.logs, "log.txt")
    assert link.asked.wait(10)
    began, results = time.monotonic(), []
    waiting = [
        threading.Thread(target=lambda wait=wait: results.append(wait(3600)))
        for wait in (sender.drain, sender.wait_finished)
    ]
    for thread in waiting:
        thread.start()
    while any(thread.is_alive() for thread in waiting) and time.monotonic() < began + 20:
        world.clock.advance(600)
        time.sleep(0.01)
    assert results == [False, False] and time.monotonic() < began + 20
    link.free.set()
    sender.stop(10)


def test_drain_is_not_done_while_the_receiver_says_later(world, real):
    world.admission = Admission(Status.LATER, "not started")
    real.follow(JOB, world.logs, "log.txt")
    world.write(b"x")
    assert not real.drain(0.5)


@pytest.mark.parametrize("wait", ["drain", "wait_finished"])
def test_who_waits_for_what_cannot_be_done_yet_keeps_no_core_busy(world, wait):
    """The thread looks when somebody begins to wait, and a few times a second from then on."""
    world.admission = Admission(Status.LATER, "not started")
    sender, turns = Sender(world.link), []
    turn, sender.turn = sender.turn, lambda: (turns.append(1), turn())
    sender.start()
    sender.follow(JOB, world.logs, "log.txt")
    assert not getattr(sender, wait)(1.0)
    assert len(turns) < 200
    sender.stop(10)


def test_an_unexpected_error_does_not_end_the_thread(world, caplog):
    calls = []

    def deliver(payload: bytes) -> bytes:
        calls.append(payload)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return world.deliver(payload)

    world.link.deliver = deliver
    sender = Sender(world.link)
    sender.start()
    sender.follow(JOB, world.logs, "log.txt")
    assert sender.drain(20)
    sender.stop(10)
    assert "a bug" in caplog.text


def test_stop_ends_the_thread_and_gives_back_every_descriptor(world):
    before, threads = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    sender = Sender(world.link)
    sender.start()
    sender.follow(JOB, world.logs, "log.txt")
    world.write(b"x\n")
    assert sender.drain(20)
    sender.stop(10)
    # Those of tests before this one may be ending meanwhile.
    assert set(os.listdir("/proc/self/fd")) <= before and set(threading.enumerate()) <= threads


def test_calls_after_stop_touch_no_descriptor(world, tmp_path):
    """A descriptor's number is given to the next file that is opened: a late wake must not write into it."""
    sender = Sender(world.link)
    sender.start()
    sender.stop(10)
    victims = [(tmp_path / f"victim-{number}").open("wb") for number in range(8)]
    sender.follow(JOB, world.logs, "log.txt")
    sender.finish(JOB, world.logs, [], "exit code 0")
    sender.stop()
    for victim in victims:
        victim.close()
        assert Path(victim.name).read_bytes() == b""


def test_a_request_that_goes_out_is_one_the_receiver_can_read(world):
    world.write(b"x" * 2000)
    world.run(world.sender("log.txt"), turns=5)
    frames = [frame for request in map(decode_request, world.link.requests) for frame in request.frames()]
    assert b"".join(frame.data for frame in frames) == b"x" * 2000
    assert world.store.path(StreamKey(JOB, SITE, "log.txt")).read_bytes() == b"x" * 2000


def test_a_sender_that_has_finished_holds_nothing(world):
    sender = world.sender("log.txt")
    for number in range(200):
        world.write(b"line %d\n" % number)
        sender.turn()
    world.finish(sender)
    state = sender._state
    assert not state.streams and not state.questions.jobs and state.exchange.step is Step.IDLE


def test_an_order_given_in_the_last_instant_of_a_pause_is_taken_at_once(world):
    """The pause takes the wake with it, so nothing else ends the wait that follows."""

    class OneWake(ClockWatcher):
        """A wake is one byte, which whoever sleeps next takes, as with the real watcher."""

        woken, order = False, None

        def wake(self) -> None:
            self.woken = True

        def pause(self, seconds: float) -> None:
            super().pause(seconds)
            order, self.order = self.order, None
            if order:
                order()
            self.woken = False

        def wait(self, seconds: float) -> None:
            if not self.woken:
                super().pause(seconds)
            self.woken = False

    world.watcher = watcher = OneWake(world.clock)
    world.write(b"a line\n")
    sender = world.sender()
    sender.refuse("another", ["log.txt"], "no")
    sender.turn()  # a request: the next turn begins with a pause
    watcher.order = lambda: sender.follow(JOB, world.logs, "log.txt")
    before = world.clock.now
    while not world.store.streams(JOB):
        sender.turn()
    assert world.clock.now - before < 1.0


def test_the_servers_expectation_does_not_make_a_site_send_a_file_that_it_does_not_stream(world):
    world.write(b"not to leave\n")
    world.write(b"epoch 1\n", "train.log")
    world.store.expect({StreamKey(JOB, SITE, "log.txt"): "nothing arrived"})
    world.finish(world.sender(), ("train.log",))
    assert [(stream.file, stream.verdict) for stream in world.store.streams(JOB)] == [
        ("train.log", "complete")
    ]


def test_a_source_that_fails_in_a_way_of_its_own_holds_up_no_other_log(world, caplog):
    class Broken(MemorySource):
        def read(self, limit: int) -> Chunk | None:
            raise RuntimeError("a defect of this source")

    logs = {"bad.txt": Broken(bytearray(b"lost")), "log.txt": MemorySource(bytearray(b"all of it"))}
    world.source = lambda directory, file: logs[file]
    world.run(world.sender(*logs))
    assert world.stored() == b"all of it" and "a defect of this source" in caplog.text


def test_a_cursor_of_thousands_of_digits_is_no_place(world):
    source = MemorySource(bytearray(b"a log"))
    source.seek(3, b"9" * 6000)
    assert source.read(100).losses


def test_a_close_by_a_site_that_did_not_see_the_jobs_end_does_not_silence_the_job(world):
    """In a container, say, the job's process outlives its parent unseen."""
    world.write(b"a\n")
    job = world.sender("log.txt", link=FaultyLink(lambda payload: world.deliver(payload, JOB)))
    world.run(job)
    parent = world.sender()
    parent.finish(JOB, world.logs, ("log.txt",), "not known: the site restarted", only_unclosed=True)
    world.run(parent, turns=40)
    assert world.info().state == "closed"
    world.write(b"still running\n" * 100)
    world.run(job, turns=60)
    assert world.stored() == (world.logs / "log.txt").read_bytes()
    (note,) = world.info().losses
    assert note.length == 0 and "then the site went on" in note.reason and world.info().state == "open"
