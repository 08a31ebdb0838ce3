"""What the receiver answers, stream by stream, and what it lets nobody do."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from types import SimpleNamespace

import pytest

from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.limits import Limits, SiteLimits
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import END_UNSEEN, Loss, State, StreamId, StreamKey, Verdict
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.queries import StreamsRequest
from nvflare_logstream.wire.upload import Close, Frame, Refusal, RequestWriter, Unreadable
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply, decode_reply
from tests.unit.conftest import wait_for

JOB, SITE = "job-1", "site-1"
LOG, ERRORS, TRAIN = (StreamId(JOB, name) for name in ("log.txt", "error_log.txt", "train.log"))
KEY = StreamKey(JOB, SITE, "log.txt")
PARENT, JOB_PROCESS = Peer(SITE), Peer(SITE, JOB)


class Server:
    """A receiver over a store, with what it was asked and told."""

    def __init__(self, root, **quotas: int):
        self.clock = Clock()
        self.store = LogStore(root, Quotas(**quotas), self.clock)
        self.admission = Admission()
        self.asked: list[tuple[str, str]] = []
        self.opened: list[StreamKey] = []
        self.closed: list[StreamKey] = []
        self.receiver = Receiver(
            self.store, self.admit, self.opened.append, self.closed.append, clock=self.clock
        )

    def admit(self, site: str, job_id: str) -> Admission:
        self.asked.append((site, job_id))
        return self.admission

    def send(self, *parts: object, peer: Peer = PARENT, clock: float = 0.0, utc_offset: int = 0) -> Reply:
        """One request: a stream is opened, a text is a job to list."""
        writer = RequestWriter(clock or self.clock(), utc_offset)
        put = {
            StreamId: writer.open,
            str: writer.known,
            Frame: writer.frame,
            Close: writer.close,
            Refusal: writer.refuse,
            Unreadable: writer.unreadable,
        }
        for part in parts:
            put[type(part)](part)
        return decode_reply(self.receiver.handle(writer.encode(), peer))

    def reply(self, *parts: object, **more) -> StreamReply:
        """The reply to a request about one stream."""
        (reply,) = self.send(*parts, **more).streams
        return reply

    def info(self, stream: StreamId = LOG, site: str = SITE):
        return self.store.info(StreamKey(stream.job_id, site, stream.file))


@pytest.fixture
def server(memory_path):
    server = Server(memory_path / "store")
    yield server
    server.store.close()


def close(content: bytes, stream: StreamId = LOG) -> Close:
    return Close(stream, len(content), hashlib.sha256(content).hexdigest(), 0, "exit code 0")


# -- one request ---------------------------------------------------------------------------------------------


def test_open_frames_and_close_may_come_in_one_request(server):
    reply = server.reply(
        LOG, Frame(LOG, 0, b"one\n", b"c4"), Frame(LOG, 4, b"two\n", b"c8"), close(b"one\ntwo\n")
    )
    assert reply == StreamReply(LOG, Status.OK, 8, verdict=Verdict.COMPLETE)
    key = StreamKey(JOB, SITE, "log.txt")
    assert server.opened == server.closed == [key]
    assert server.store.path(key).read_bytes() == b"one\ntwo\n"
    assert server.store.index.load(key).state is State.CLOSED, "on disk before the sender hears of it"


def test_an_open_tells_where_the_stream_stands_and_notes_the_sites_clock(server):
    server.send(LOG, Frame(LOG, 0, b"12345", b"c5"))
    reply = server.reply(LOG, clock=server.clock() + 2.5, utc_offset=-3600)
    assert reply == StreamReply(LOG, Status.OK, 5, b"c5")
    assert (server.info().skew, server.info().utc_offset) == (2.5, -3600)


def test_a_gap_is_answered_with_the_end_and_its_cursor_and_ends_the_streams_part(server):
    server.send(LOG, Frame(LOG, 0, b"12345", b"c5"))
    reply = server.send(
        Frame(LOG, 9, b"x", b"c10"), Frame(LOG, 5, b"6", b"c6"), close(b"12345"), Frame(ERRORS, 0, b"e", b"c")
    )
    assert reply.streams == (
        StreamReply(LOG, Status.GAP, 5, b"c5"),
        StreamReply(ERRORS, Status.OK, 1),
    )
    assert (server.info().end, server.info().state) == (5, State.OPEN)


def test_a_close_with_another_total_is_a_gap(server):
    server.send(LOG, Frame(LOG, 0, b"12345", b"c5"))
    assert server.reply(close(b"123456")) == StreamReply(LOG, Status.GAP, 5, b"c5")
    assert not server.closed


def test_a_quota_refuses_the_stream_for_good_and_no_other(memory_path):
    server = Server(memory_path, stream=5)
    reply = server.send(
        Frame(LOG, 0, b"123456", b"c"), Frame(LOG, 0, b"1", b"c"), Frame(ERRORS, 0, b"1", b"c")
    )
    assert [row.status for row in reply.streams] == [Status.REFUSED, Status.OK]
    assert "the stream quota of 5 bytes is used up" in reply.streams[0].reason
    server.store.close()


@pytest.mark.parametrize(
    "part", [TRAIN, Frame(TRAIN, 0, b"1", b"c"), Close(TRAIN, 0, "", 0, ""), Refusal(TRAIN, "policy")]
)
def test_a_file_too_many_is_refused_for_good_and_no_other(memory_path, part):
    server = Server(memory_path, files=2)
    server.send(LOG, ERRORS)
    reply = server.send(part, Frame(LOG, 0, b"1", b"c"))
    refused, taken = sorted(reply.streams, key=lambda row: row.stream.file, reverse=True)
    assert (refused.stream, refused.status, taken.status) == (TRAIN, Status.REFUSED, Status.OK)
    assert "its site has 2 log files in this job" in refused.reason
    assert server.reply(TRAIN, peer=Peer("site-2")).status is Status.OK
    server.store.close()


def test_a_full_disk_makes_the_sender_wait_and_say_why(memory_path):
    server = Server(memory_path, free_share=1.0)
    reply = server.reply(Frame(LOG, 0, b"1", b"c"))
    assert reply.status is Status.LATER and "100 % of the server's disk stay free" in reply.reason
    server.store.close()


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"stream": 5}, "server gave up at byte 4: the stream quota of 5 bytes is used up"),
        ({"site": 5}, "server gave up at byte 4: the site quota of 5 bytes is used up"),
        ({"job": 5}, "server gave up at byte 4: the job quota of 5 bytes is used up"),
        ({"store": 5}, "server gave up at byte 4: the store quota of 5 bytes is used up"),
        ({"free_share": 0.05}, "the site waits: 5 % of the server's disk stay free"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_the_verdict_names_the_limit_that_a_stream_has_met(memory_path, monkeypatch, limit, said):
    free = [200]
    disk = lambda path: SimpleNamespace(f_frsize=1, f_blocks=1000, f_bavail=free[0])  # noqa: E731
    monkeypatch.setattr(os, "statvfs", disk)
    server = Server(memory_path, **limit)
    server.send(Frame(LOG, 0, b"1234", b"c"))
    free[0] = 0
    server.clock.advance(60)
    server.reply(Frame(LOG, 4, b"567", b"c"))
    service = LogService(server.store, 30.0, clock=server.clock)
    reply = StreamsRequest().decode_reply(JOB, Fields(service.answer(JOB, StreamsRequest().encode())))
    (stream,) = reply.job.streams
    assert stream.standing.startswith(f"partial ({said}")
    if stream.state is State.OPEN:  # there is room again
        free[0] = 200
        server.clock.advance(2)
        assert server.reply(Frame(LOG, 4, b"567", b"c")).status is Status.OK
        assert server.info().standing == "streaming"
    server.store.close()


def test_the_verdict_names_the_limit_of_files(memory_path):
    server = Server(memory_path, files=1)
    server.send(LOG, ERRORS)
    said = "partial (server gave up at byte 0: its site has 1 log files in this job, "
    said += "the most allowed, see max_site_files)"
    assert (server.info(ERRORS).standing, server.info(LOG).standing) == (said, "streaming")
    server.store.close()


def test_a_disk_that_takes_nothing_makes_the_sender_come_again(server, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    server.send(LOG)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        reply = server.reply(Frame(LOG, 0, b"1", b"c"))
        assert reply.status is Status.LATER and "No space left" in reply.reason
        assert (
            server.info().standing == "partial (the site waits: the server's disk: No space left on device)"
        )
        patched.setattr(os, "open", full)
        reply = server.reply(ERRORS)
        assert reply.status is Status.LATER and "No space left" in reply.reason
    assert server.reply(Frame(LOG, 0, b"1", b"c")) == StreamReply(LOG, Status.OK, 1)


def test_a_commit_that_fails_at_a_close_is_no_close(server, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    server.send(LOG, Frame(LOG, 0, b"1", b"c"))
    server.send(LOG, Frame(LOG, 1, b"2", b"d"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        reply = server.reply(close(b"12"))
        assert reply.status is Status.LATER and "Input/output error" in reply.reason
    assert not server.closed
    gap = StreamReply(LOG, Status.GAP, 1, b"c")
    assert server.reply(close(b"12")) == gap, "of the second byte nobody knows whether it is on disk"
    assert (
        server.reply(Frame(LOG, 1, b"2", b"d"), close(b"12")).verdict is Verdict.COMPLETE
        and len(server.closed) == 1
    )


@pytest.mark.parametrize("payload", [b"", b"noise", None, 5, "text"])
def test_what_is_no_request_is_answered_with_an_error(server, payload):
    reply = decode_reply(server.receiver.handle(payload, PARENT))
    assert reply.error and not reply.streams and not server.asked


def test_a_frame_that_was_damaged_on_the_way_is_not_stored(server):
    writer = RequestWriter(server.clock(), 0)
    writer.frame(Frame(LOG, 0, b"first", b"c"))
    writer.frame(Frame(LOG, 5, b"other", b"c"))
    reply = decode_reply(server.receiver.handle(writer.encode().replace(b"other", b"0ther"), PARENT))
    assert reply.error.startswith("frames[1].checksum")
    assert server.info().end == 5


# -- what a request may cost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["losses", "gap after losses", "refusals", "closes"])
def test_in_the_one_commit_of_a_request_only_what_the_disk_does_not_take_is_put_off(
    server, monkeypatch, kind
):
    for stream in (LOG, ERRORS):
        server.send(stream, Frame(stream, 0, b"one\n", b"c4"))
    loss = (Loss(4, 1, "gone"),)
    parts = {
        "losses": lambda stream: [Frame(stream, 4, b"two\n", b"c8", loss)],
        "gap after losses": lambda stream: [
            Frame(stream, 4, b"two\n", b"c8", loss),
            Frame(stream, 9, b"x", b"c"),
        ],
        "refusals": lambda stream: [Refusal(stream, "policy")],
        "closes": lambda stream: [close(b"one\n", stream)],
    }[kind]
    fdatasync, bad = os.fdatasync, server.store.path(StreamKey(JOB, SITE, ERRORS.file))

    def fail(fd: int) -> None:
        if os.fstat(fd).st_ino == bad.stat().st_ino:
            raise OSError(5, "Input/output error")
        fdatasync(fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        good, failed = server.send(*parts(LOG), *parts(ERRORS)).streams
    assert good.status is not Status.LATER
    assert failed.status is Status.LATER and "Input/output error" in failed.reason
    assert [key.file for key in server.closed] == ([LOG.file] if kind == "closes" else [])
    stored = server.store.index.load(StreamKey(JOB, SITE, LOG.file))
    assert stored == server.info(LOG), "on disk before the sender hears of it"


def counted_commits(server, monkeypatch) -> list[int]:
    commits, commit = [], server.store.commit
    monkeypatch.setattr(server.store, "commit", lambda *keys: (commits.append(1), commit(*keys)))
    return commits


@pytest.mark.parametrize("kind", ["losses", "refusals", "closes"])
def test_a_request_costs_one_commit(server, monkeypatch, kind):
    """A frame with a loss cost one each: 4,096 in 216 KB."""
    streams = [StreamId(JOB, f"log.{number}") for number in range(50)]
    parts = {
        "losses": [Frame(LOG, 0, b"", b"c", (Loss(number, 1, "gone"),)) for number in range(50)],
        "refusals": [Refusal(stream, "policy") for stream in streams],
        "closes": [close(b"", stream) for stream in streams],
    }[kind]
    commits = counted_commits(server, monkeypatch)
    server.send(*parts)
    assert commits == [1]
    streams = server.store.index.find()
    told = [len(streams[0].losses)] if kind == "losses" else [len(streams)]
    assert told == [50], "on disk before the sender hears of it"


def test_what_a_request_asks_beyond_the_limit_comes_again(server):
    jobs = [f"job-{number}" for number in range(300)]
    streams = [StreamId(job, "log.txt") for job in jobs]
    for kind in (lambda stream: stream, lambda stream: Refusal(stream, "policy")):
        rows = server.send(*map(kind, streams)).streams
        later = [row.stream for row in rows if row.status is Status.LATER]
        assert later == streams[256:] and "may" in rows[-1].reason + rows[0].reason
    assert server.send(*jobs).jobs_later == tuple(jobs[256:])
    rows = server.send(*(close(b"", stream) for stream in streams)).streams
    assert [row.stream for row in rows if row.status is Status.LATER] == streams[256:]
    assert len(server.closed) == 256


def test_what_is_hashed_for_a_site_is_bounded(memory_path):
    """5.5 KB of closes cost 6.4 s of hashing, in which nobody else could write."""
    server = Server(memory_path)
    clock = Clock()
    server.receiver._sites = SiteLimits(Limits(hash_burst=100, hash_rate=10), clock)
    for stream in (LOG, ERRORS, TRAIN):
        server.send(Frame(stream, 0, bytes(60), b"c"))
    server.send(Frame(LOG, 60, bytes(440), b"c"))

    def statuses(*closes: Close) -> list[str]:
        return [str(row.status) for row in server.send(*closes).streams]

    assert statuses(close(bytes(500)), close(bytes(60), ERRORS)) == ["ok", "later"], "a long one goes alone"
    clock.advance(44)
    assert statuses(close(bytes(60), ERRORS)) == ["later"]
    clock.advance(3)
    assert statuses(close(bytes(60), ERRORS), close(bytes(60), TRAIN)) == ["ok", "later"]
    clock.advance(60)
    assert statuses(close(bytes(60), TRAIN)) == ["ok"]
    server.send(Frame(LOG, 0, b"1", b"c"), peer=Peer("site-2"))
    assert server.reply(close(b"1"), peer=Peer("site-2")).verdict is Verdict.COMPLETE
    server.store.close()


def test_what_jobs_a_request_names_are_judged_once_each_and_so_many(server):
    """A look into the job store for each of 4,096 frames took a request of 300 KB some seconds."""
    streams = [StreamId(f"job-{number}", "log.txt") for number in range(300)]
    rows = server.send(*(Frame(stream, 0, b"", b"c") for stream in [*streams, *streams])).streams
    assert len(server.asked) == len(set(server.asked)) == 256
    assert [row.stream for row in rows if row.status is Status.LATER] == streams[256:]
    server.asked.clear()
    server.send(JOB, LOG, Refusal(TRAIN, "policy"), Frame(LOG, 0, b"1", b"c"), close(b"1"))
    assert len(server.asked) == 1


def test_the_frames_of_a_request_are_of_so_many_streams(memory_path):
    """Each name beyond the files of a site costs three questions to the index."""
    server = Server(memory_path, files=1000)
    streams = [StreamId(JOB, f"log.{number}") for number in range(300)]
    rows = server.send(*(Frame(stream, 0, b"1", b"c") for stream in [*streams, *streams])).streams
    assert [row.stream for row in rows if row.status is Status.LATER] == streams[256:]
    assert len(server.store.streams()) == 256
    server.store.close()


def test_a_job_that_is_asked_for_again_and_again_is_listed_once(server, monkeypatch):
    listed, streams = [], server.store.streams
    monkeypatch.setattr(
        server.store, "streams", lambda *which, **more: (listed.append(which), streams(*which))[1]
    )
    server.send(*[JOB] * 4000)
    assert listed == [(JOB, SITE)]


def test_a_reply_about_known_jobs_is_bounded(server):
    jobs = [f"job-{number}" for number in range(8)]
    for job in jobs:
        frames = [Frame(StreamId(job, f"log.{number}"), 0, b"1", bytes(16 << 10)) for number in range(60)]
        server.send(*frames)
    learned: set[str] = set()
    for _ in range(3):
        reply = server.send(*[job for job in jobs if job not in learned])
        assert len(reply.encode()) < 6 << 20
        learned |= {row.stream.job_id for row in reply.streams}
        if not reply.jobs_later:
            break
    assert learned == set(jobs) and not reply.jobs_later


def test_a_close_costs_a_site_what_is_there_to_be_hashed_and_not_what_it_says(server):
    """One wrong total made the site's closes wait for some centuries."""
    server.send(LOG, Frame(LOG, 0, b"1", b"c"), ERRORS, Frame(ERRORS, 0, b"1", b"c"))
    for total in (2**62, 2, 0):
        assert server.reply(Close(LOG, total, "", 0, "")).status is Status.GAP
    assert server.reply(Close(TRAIN, 2**62, "", 0, "")).status is Status.GAP
    assert server.reply(close(b"1", ERRORS)).verdict is Verdict.COMPLETE


def test_a_site_has_so_many_requests_at_a_time_and_no_other_waits_for_it(memory_path):
    """Eight threads that were busy for one site made the lines of all others a second old."""
    server = Server(memory_path)
    judged, free, replies = threading.Semaphore(0), threading.Event(), []

    def admit(site: str, job_id: str) -> Admission:
        if site == SITE:
            judged.release()
            assert free.wait(20)
        return Admission()

    server.receiver._admit = admit
    threads = [threading.Thread(target=lambda: replies.append(server.send(LOG))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert judged.acquire(timeout=20) and judged.acquire(timeout=20)
    wait_for(lambda: server.receiver._sites._under_way[SITE].count == 8)
    assert not judged.acquire(timeout=0.05), "two are worked on, and six wait"
    assert server.send(LOG).error == "8 requests of site-1 are being handled, as many as may be; come again"
    assert server.reply(LOG, peer=Peer("site-2")).status is Status.OK
    free.set()
    for thread in threads:
        thread.join(20)
    assert [reply.streams[0].status for reply in replies] == [Status.OK] * 8
    assert server.reply(LOG).status is Status.OK
    assert not server.receiver._sites._under_way
    server.store.close()


def test_a_copy_that_is_compared_keeps_its_site_from_nothing_else(memory_path, monkeypatch):
    """A long log takes a minute to compare."""
    server = Server(memory_path)
    server.send(*(Frame(stream, 0, b"1", b"c") for stream in (LOG, ERRORS, TRAIN)))
    close_stream, begun, free = server.store.close_stream, threading.Semaphore(0), threading.Event()

    def slow(*args, **options):
        begun.release()
        assert free.wait(20)
        return close_stream(*args, **options)

    monkeypatch.setattr(server.store, "close_stream", slow)
    threads = [
        threading.Thread(target=server.send, args=[close(b"1", stream)]) for stream in (LOG, ERRORS, TRAIN)
    ]
    for thread in threads:
        thread.start()
    assert all(begun.acquire(timeout=20) for _ in threads)
    assert server.reply(Frame(LOG, 1, b"2", b"c")).status is Status.OK
    free.set()
    for thread in threads:
        thread.join(20)
    server.store.close()


# -- who may what --------------------------------------------------------------------------------------------

EVERYTHING = (LOG, Frame(LOG, 0, b"1", b"c"), close(b"1"))


@pytest.mark.parametrize("status", [Status.LATER, Status.REFUSED])
@pytest.mark.parametrize("part", EVERYTHING, ids=lambda part: type(part).__name__)
def test_who_is_not_admitted_writes_nothing_and_hears_why(server, status, part):
    server.admission = Admission(status, "because")
    assert server.reply(part) == StreamReply(LOG, status, reason="because")
    assert server.store.streams() == [] and not server.opened


@pytest.mark.parametrize("part", [*EVERYTHING, Refusal(LOG, "policy")], ids=lambda part: type(part).__name__)
def test_a_jobs_process_writes_its_own_job_only(server, part):
    reply = server.reply(part, peer=Peer(SITE, "job-2"))
    assert reply.status is Status.REFUSED
    assert reply.reason == "a process of job job-2 may not write logs of job job-1"
    assert server.store.streams() == [] and not server.asked
    assert server.reply(LOG, peer=JOB_PROCESS).status is Status.OK


def test_a_late_frame_of_a_jobs_process_does_not_open_a_closed_stream_again(server):
    server.send(LOG, Frame(LOG, 0, b"1", b"c"), peer=JOB_PROCESS)
    server.send(close(b"1"))
    reply = server.reply(Frame(LOG, 1, b"2", b"c"), peer=JOB_PROCESS)
    assert reply.status is Status.REFUSED and "was closed" in reply.reason
    assert server.info().verdict is Verdict.COMPLETE
    assert server.reply(Frame(LOG, 1, b"2", b"c")) == StreamReply(LOG, Status.OK, 2)
    assert server.info().verdict is Verdict.STREAMING and server.info().losses[0].is_note


def test_a_late_frame_of_a_jobs_process_leaves_a_stream_ended_that_its_site_has_given_up(server):
    """The log may be gone when the parent looks: these bytes are kept, but nobody ends it once more."""
    server.send(Frame(LOG, 0, b"1", b"c"), peer=JOB_PROCESS)
    server.send(Unreadable(LOG, server.clock(), "No such file", "exit code 0"))
    given_up = server.info()
    assert given_up.state is State.STOPPED and "No such file" in given_up.standing
    server.send(LOG, peer=JOB_PROCESS)
    assert server.info().standing == given_up.standing
    assert server.reply(Frame(LOG, 1, b"2", b"d"), peer=JOB_PROCESS) == StreamReply(LOG, Status.OK, 2)
    assert server.store.path(KEY).read_bytes() == b"12" and server.info().standing == given_up.standing
    server.send(Frame(LOG, 2, b"3", b"e"))  # its parent can read it again
    assert server.info().standing == "streaming"


def test_a_jobs_process_goes_on_with_a_stream_that_its_site_gave_up_without_seeing_the_end(server):
    """The process may be alive, in a container say."""
    server.send(Frame(LOG, 0, b"1", b"c"), peer=JOB_PROCESS)
    server.send(Unreadable(LOG, server.clock(), "No such file", f"{END_UNSEEN}the site restarted"))
    server.send(Frame(LOG, 1, b"2", b"d"), peer=JOB_PROCESS)
    assert server.info().standing == "streaming"


@pytest.mark.parametrize("part", [LOG, Frame(LOG, 1, b"2", b"d")], ids=lambda part: type(part).__name__)
def test_a_refusal_that_comes_while_a_jobs_process_is_answered_stands(server, part, monkeypatch):
    """Both requests are under way at the same time, each in a thread of its own."""
    server.send(Frame(LOG, 0, b"1", b"c"), peer=JOB_PROCESS)
    admitted = server.receiver._admitted

    def refuse_just_then(*args):
        is_admitted = admitted(*args)
        monkeypatch.setattr(server.receiver, "_admitted", admitted)
        server.send(Refusal(LOG, "policy"))
        return is_admitted

    monkeypatch.setattr(server.receiver, "_admitted", refuse_just_then)
    reply = server.reply(part, peer=JOB_PROCESS)
    assert reply.status is Status.REFUSED and "policy" in reply.reason
    assert (
        server.info().standing == "refused (policy, from byte 1 on)"
        and server.store.path(KEY).read_bytes() == b"1"
    )


@pytest.mark.parametrize("part", EVERYTHING, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("loaded", [True, False])
def test_a_jobs_process_does_not_undo_its_sites_refusal(server, part, loaded):
    """An empty log that the site keeps back was `complete` when the job's own process closed it."""
    if loaded:
        server.send(LOG)
    server.send(Refusal(LOG, "policy"))
    for again in (part, close(b"")):
        reply = server.reply(again, peer=JOB_PROCESS)
        assert (reply.status, reply.reason) == (Status.REFUSED, "policy")
    assert server.info().standing == "refused (policy)" and server.info().end == 0
    server.send(LOG)  # the site's admin allows it again
    assert server.reply(Frame(LOG, 0, b"1", b"c"), peer=JOB_PROCESS).status is Status.OK
    assert server.info().standing == "streaming"


def test_a_site_writes_under_its_own_name(server):
    server.send(LOG, Frame(LOG, 0, b"1", b"c"), peer=Peer("site-2"))
    assert server.asked and {site for site, _ in server.asked} == {"site-2"}
    assert server.info() is None and server.info(site="site-2").end == 1


def test_a_refusal_is_recorded_of_a_site_that_is_kept_out_by_its_own_policy_and_of_no_other(server):
    server.admission = Admission(Status.REFUSED, "no such job")
    assert server.reply(Refusal(LOG, "policy")).reason == "no such job"
    assert server.store.streams() == []
    server.admission = Admission(Status.REFUSED, "the site does not allow it", by_policy=True)
    assert server.reply(Refusal(LOG, "policy")).status is Status.REFUSED
    assert server.info().standing == "refused (policy)"


@pytest.mark.parametrize("part", [*EVERYTHING, Refusal(LOG, "policy")], ids=lambda part: type(part).__name__)
def test_a_site_does_not_bring_back_what_was_removed(server, part):
    server.send(LOG, Frame(LOG, 0, b"1", b"c"), close(b"1"))
    server.store.delete_job(JOB, "nothing was heard of it for 90 days")
    reply = server.reply(part)
    assert reply.status is Status.REFUSED
    assert "nothing was heard of it for 90 days" in reply.reason or reply.reason == "policy"
    assert server.store.streams() == []


def test_a_refused_stream_takes_no_bytes_from_the_same_request(server):
    reply = server.reply(Refusal(LOG, "policy"), Frame(LOG, 0, b"1", b"c"), close(b""))
    assert reply == StreamReply(LOG, Status.REFUSED, reason="policy")
    assert server.info().state is State.REFUSED and server.info().end == 0


# -- what is known, and signs of life ------------------------------------------------------------------------


def test_a_site_is_told_of_its_own_streams_and_of_closed_ones_the_verdict(server):
    server.send(LOG, Frame(LOG, 0, b"1", b"c1"), close(b"1"), ERRORS, Frame(ERRORS, 0, b"22", b"c2"))
    server.send(LOG, peer=Peer("site-2"))
    assert server.send(JOB).streams == (
        StreamReply(ERRORS, Status.OK, 2, b"c2"),
        StreamReply(LOG, Status.OK, 1, b"c1", Verdict.COMPLETE),
    )


@pytest.mark.parametrize("status, later", [(Status.LATER, (JOB,)), (Status.REFUSED, ())])
def test_of_a_job_that_cannot_be_judged_yet_the_site_asks_again(server, status, later):
    server.send(LOG)
    server.admission = Admission(status, "because")
    reply = server.send(JOB)
    assert reply.jobs_later == later and reply.streams == ()


def test_a_request_that_says_nothing_is_a_sign_of_life_of_the_senders_streams(server):
    other = StreamId("job-2", "log.txt")
    server.send(LOG, other)
    seen = server.clock()
    server.clock.advance(10)
    server.send(peer=JOB_PROCESS)
    assert (server.info().last_seen, server.info(other).last_seen) == (seen + 10, seen)
    server.send()
    assert server.info(other).last_seen == seen + 10


# -- sites that are expected ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [TRAIN, Refusal(TRAIN, "policy")], ids=["opened", "refused"])
def test_a_site_that_streams_another_file_only_is_not_missed(server, part):
    """The server expects every site of a job under log.txt."""
    for site in (SITE, "site-2"):
        server.store.expect({StreamKey(JOB, site, "log.txt"): "nothing arrived from it"})
    server.send(part)
    assert [(stream.site, stream.file) for stream in server.store.streams(JOB)] == [
        (SITE, "train.log"),
        ("site-2", "log.txt"),
    ]


@pytest.mark.parametrize("site", ["../x", ".", "a/b", "a\x1b[2J", "\u202e1-etis", "x" * 256])
def test_a_site_whose_name_is_not_allowed_is_told_so_and_stores_nothing(server, site):
    reply = server.send(LOG, peer=Peer(site))
    assert reply.error.startswith("site: ") and "a site's name is" in reply.error
    assert server.store.streams() == []


# IMPORT


def test_what_nobody_foresaw_is_told_at_both_ends(server, caplog):
    """The runtime answers for a receiver that raises with a code that says nothing, and logs nothing."""

    def raises(site: str, job_id: str) -> Admission:
        raise AttributeError("'Client' object has no attribute 'get_site_config'")

    receiver = Receiver(server.store, raises, clock=server.clock)
    writer = RequestWriter(server.clock(), 0)
    writer.open(LOG)
    told = "the server failed over this request (AttributeError); its log says more"
    for _ in range(3):
        assert decode_reply(receiver.handle(writer.encode(), PARENT)).error == told
    assert [record.getMessage() for record in caplog.records] == [f"{SITE}: a request failed"]
    assert caplog.records[0].exc_info
    server.clock.now += 61
    receiver.handle(writer.encode(), PARENT)
    assert len(caplog.records) == 2
