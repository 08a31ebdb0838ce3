"""What the runtime's own streamers send: kept, never doubled, never called complete, and it gives way."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from random import Random

import pytest

from nvflare_logstream.server import unchecked
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.server.unchecked import Outcome, Part, UncheckedReceiver
from nvflare_logstream.store.file import StreamFile
from nvflare_logstream.store.ledger import MAX_LOSSES
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import (
    UNCHECKED,
    UNCHECKED_CURSOR,
    Loss,
    State,
    Stream,
    StreamId,
    StreamKey,
    Verdict,
)
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload import Close, Frame, Refusal, RequestWriter, Unreadable
from nvflare_logstream.wire.upload_reply import Status, decode_reply

JOB, SITE, FILE = "job-1", "site-1", "log.txt"
KEY, LOG = StreamKey(JOB, SITE, FILE), StreamId(JOB, FILE)
PARENT, PROCESS = Peer(SITE), Peer(SITE, JOB)
TEXT = b"one\ntwo\nthree\n"


class Server:
    """Both receivers over one store, and what they were told."""

    def __init__(self, root, **quotas: int):
        self.root, self.quotas, self.clock = root, quotas, Clock()
        self.admission = Admission()
        self.opened: list[StreamKey] = []
        self.closed: list[StreamKey] = []
        self.start()

    def start(self) -> None:
        self.store = LogStore(self.root, Quotas(**self.quotas), self.clock)
        self.receiver = UncheckedReceiver(
            self.store, self.admit, self.opened.append, self.closed.append, clock=self.clock
        )
        self.own = Receiver(self.store, self.admit, clock=self.clock)

    def restart(self) -> None:
        self.store.close()
        self.start()

    def job_over_and_silent(self) -> None:
        self.receiver.job_over(JOB)
        self.clock.advance(13)
        self.receiver.turn()

    def admit(self, site: str, job_id: str) -> Admission:
        return self.admission

    def send(self, upload: str, *parts: bytes, peer: Peer = PROCESS, last: bool = False, **first) -> Outcome:
        """All parts of an upload; `last`: it ends with them."""
        outcome = Outcome.TAKEN
        first = {"job_id": JOB, "file": FILE, **first}
        for number, data in enumerate(parts):
            names = first if number == 0 else {}
            outcome = self.receiver.take(Part(upload, number, data=data, **names), peer)
        if last:
            outcome = self.receiver.take(Part(upload, len(parts), is_last=True), peer)
        return outcome

    def go_on(self, upload: str, number: int, data: bytes, peer: Peer = PROCESS) -> Outcome:
        return self.receiver.take(Part(upload, number, data=data), peer)

    def own_sender(self, *parts: object, peer: Peer = PARENT):
        """What the receiver answers the site's own sender about its one log."""
        writer = RequestWriter(self.clock(), 0)
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
        return decode_reply(self.own.handle(writer.encode(), peer))

    @property
    def stream(self) -> Stream:
        found = self.store.info(KEY)
        assert found is not None
        return found

    @property
    def stored(self) -> bytes:
        return self.store.path(KEY).read_bytes()


@pytest.fixture
def server(memory_path):
    server = Server(memory_path / "store")
    yield server
    server.store.close()


def close_of(data: bytes) -> Close:
    return Close(LOG, len(data), hashlib.sha256(data).hexdigest(), 0, "exit code 0")


def test_a_log_is_kept_and_its_verdict_says_what_it_is_worth(server):
    assert server.send("a", TEXT[:4], b"", TEXT[4:]) is Outcome.TAKEN
    assert server.stream.state is State.OPEN and server.stream.verdict is Verdict.PARTIAL
    assert server.receiver.take(Part("a", 3, is_last=True), PROCESS) is Outcome.TAKEN
    assert server.stored == TEXT and server.stream.lines == 3
    assert (server.stream.state, server.stream.verdict_reason) == (State.STOPPED, UNCHECKED)
    assert server.opened == [KEY] and server.closed == [KEY] and not server.receiver._uploads


def test_an_empty_log_is_one(server):
    server.send("a", b"", last=True)
    assert server.stream.available and server.stream.verdict_reason == UNCHECKED and server.stored == b""


# -- sent more than once -------------------------------------------------------------------------------------


def test_a_log_that_is_sent_again_is_stored_once_and_goes_on(server):
    """The runtime sends error_log.txt again when the job is over, from another process."""
    server.send("a", TEXT[:4], TEXT[4:8], last=True)
    server.send("b", TEXT[:6], TEXT[6:], peer=PARENT, last=True)
    assert server.stored == TEXT and server.stream.losses == ()


def test_two_streamers_of_one_log_at_the_same_time_store_it_once(server):
    server.send("a", TEXT[:4])
    server.send("b", TEXT[:8])
    server.go_on("a", 1, TEXT[4:])
    server.receiver.take(Part("a", 2, is_last=True), PROCESS)
    assert server.stream.state is State.OPEN, "the other one goes on"
    server.go_on("b", 1, TEXT[8:])
    server.receiver.take(Part("b", 2, is_last=True), PROCESS)
    assert server.stored == TEXT and server.stream.state is State.STOPPED


def test_a_copy_that_differs_changes_nothing_and_is_noted(server):
    """The log was rotated between the two, say."""
    server.send("a", TEXT, last=True)
    assert server.send("b", b"other\n", b"and more\n", last=True) is Outcome.TAKEN
    assert server.stored == TEXT
    (note,) = server.stream.losses
    assert note.is_note and "differs from byte 0 on" in note.reason
    assert server.stream.verdict_reason == UNCHECKED


def test_a_part_that_comes_twice_is_stored_once(server):
    server.send("a", TEXT[:4], TEXT[4:])
    assert server.go_on("a", 1, TEXT[4:]) is Outcome.TAKEN
    assert server.stored == TEXT


# -- broken off ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end, why",
    [
        (lambda server: server.job_over_and_silent(), "the job's process ended"),
        (lambda server: server.receiver.give_up("a", PROCESS), "the site gave it up"),
        (lambda server: (server.clock.advance(31), server.receiver.turn()), "nothing came for 30 s"),
        (lambda server: (server.restart(), server.receiver.end_earlier()), "the server was restarted"),
    ],
)
def test_a_stream_that_breaks_off_says_why_and_may_begin_again(server, end, why):
    server.send("a", TEXT[:4])
    end(server)
    assert server.stream.state is State.STOPPED
    assert server.stream.verdict_reason.startswith(f"{UNCHECKED}; broken off: ")
    assert why in server.stream.verdict_reason and why in server.stream.losses[0].reason
    assert server.go_on("a", 1, TEXT[4:]) is Outcome.REFUSED, "nobody knows what was between"
    server.send("b", TEXT, peer=PARENT, last=True)
    assert server.stored == TEXT and server.stream.verdict_reason == UNCHECKED


@pytest.mark.parametrize("upload", ["", "x" * 65])
def test_an_id_that_is_too_long_is_refused_in_its_own_words(server, caplog, upload):
    assert server.send(upload, TEXT) is Outcome.REFUSED
    assert f"an upload's id has {len(upload)} characters; 1 to 64 are allowed" in caplog.text


def test_a_log_that_is_begun_again_and_again_is_told_of_once(server, caplog):
    """A hostile site must not fill the server's own log."""
    with caplog.at_level("INFO"):
        for number in range(10):
            server.send(str(number), TEXT, last=True)
    assert len([line for line in caplog.messages if "the runtime's own streamer" in line]) == 1


def test_what_a_site_still_sends_when_the_servers_process_of_the_job_has_ended_is_taken(server):
    """A site's run ends after the server's, and a slow line carries its last bytes for a while."""
    server.send("a", TEXT[:4])
    server.receiver.job_over(JOB)
    for number, text in enumerate((TEXT[4:8], b"", TEXT[8:]), 1):
        server.clock.advance(10)
        server.receiver.turn()
        assert server.go_on("a", number, text) is Outcome.TAKEN
    server.receiver.give_up("a", PROCESS)
    assert server.stored == TEXT


def test_a_sign_of_life_is_one(server):
    server.send("a", TEXT)
    for number in range(1, 4):
        server.clock.advance(20)
        assert server.go_on("a", number, b"") is Outcome.TAKEN
        server.receiver.turn()
    assert server.stream.state is State.OPEN and server.stream.last_seen == server.clock()


def test_what_a_crash_of_the_server_takes_is_not_bridged(server):
    server.send("a", TEXT[:4])
    server.store.commit()
    server.go_on("a", 1, TEXT[4:8])
    server.store._loaded._unsure[KEY] = "the disk failed"
    server.store._loaded.commit()  # goes back
    assert server.go_on("a", 2, TEXT[8:]) is Outcome.REFUSED
    assert server.stored[: server.stream.end] == TEXT[:4]
    assert "has lost 4 bytes" in server.stream.losses[0].reason


def test_a_disk_that_takes_nothing_ends_the_stream_and_says_so(server, monkeypatch):
    server.send("a", TEXT[:4])

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StreamFile, "write", full)
    assert server.go_on("a", 1, TEXT[4:]) is Outcome.REFUSED
    assert "No space left" in server.stream.verdict_reason and server.stored == TEXT[:4]


@pytest.mark.parametrize("fails", ["admit", "append", "on_open", "stop", "on_close"])
def test_a_failure_that_nobody_foresaw_does_not_get_into_the_runtime(server, caplog, monkeypatch, fails):
    """It is logged once a minute, however often the sites come."""

    def fail(*args):
        raise TypeError("nobody foresaw this")

    if fails in ("append", "stop"):
        monkeypatch.setattr(server.store.unchecked, fails, fail)
    else:
        monkeypatch.setattr(server.receiver, f"_{fails}", fail)
    is_late = fails in ("stop", "on_close")
    for number in range(5):
        outcome = server.send(str(number), TEXT, file=f"{number}.txt", last=is_late)
        assert outcome is (Outcome.TAKEN if is_late else Outcome.REFUSED)
        server.receiver.give_up(str(number), PROCESS)
    assert caplog.messages.count(f"{SITE}: a request failed") == 1 and not server.receiver._uploads
    monkeypatch.undo()
    if fails == "on_open":
        (stream, *_) = server.store.streams()
        assert "broken off: the server failed over this request (TypeError)" in stream.verdict_reason


# -- beside a site's own sender ------------------------------------------------------------------------------


def test_the_sites_own_sender_takes_its_place_and_is_complete(server):
    server.send("a", TEXT[:8])
    (reply,) = server.own_sender(LOG).streams
    assert (reply.end, reply.cursor) == (0, b""), "it begins at the beginning"
    assert server.stored == TEXT[:8], "until it comes, what is there stays"
    server.own_sender(Frame(LOG, 0, TEXT, b"cursor"), close_of(TEXT))
    assert (server.stored, server.stream.verdict, server.stream.cursor) == (
        TEXT,
        Verdict.COMPLETE,
        b"cursor",
    )
    (note,) = server.stream.losses
    why = "the first 8 bytes, which the runtime's own streamer had sent, are as the site sends them"
    assert note == Loss(8, 0, why)


@pytest.mark.parametrize("size", [4, 8])
def test_a_file_that_is_shorter_than_what_is_there_takes_nothing_away(server, size):
    """It was cut or removed after the runtime's own streamer had read it, or the site was restored."""
    server.send("a", TEXT, last=True)
    for _ in range(2):
        server.own_sender(LOG, Frame(LOG, 0, TEXT[:size], b"cursor"))
        assert server.stream.verdict is Verdict.PARTIAL
        (answer,) = server.own_sender(close_of(TEXT[:size])).streams
        assert (answer.status, answer.end, answer.verdict) == (Status.OK, size, Verdict.PARTIAL)
        why = f"{UNCHECKED}; the site has only its first {size} bytes to compare"
        assert (server.stored, server.stream.verdict_reason) == (TEXT, why)
        assert server.stream.outcome == "exit code 0" and len(server.stream.losses) == 1
        server.restart()
    server.own_sender(Frame(LOG, size, TEXT[size:] + b"more\n", b"end"), close_of(TEXT + b"more\n"))
    assert server.stored == TEXT + b"more\n" and server.stream.verdict is Verdict.COMPLETE


@pytest.mark.parametrize("late", [TEXT[:2], TEXT[:4], TEXT[:6], TEXT, TEXT + b"more\n", TEXT[:4] + b"other"])
@pytest.mark.parametrize("is_given_up", [False, True])
def test_a_copy_that_its_site_has_ended_is_not_begun_again_by_what_comes_late(server, late, is_given_up):
    """From the job's own process, which waited for an answer to it: nobody would end the copy once more."""
    server.send("a", TEXT, last=True)
    server.own_sender(LOG, Frame(LOG, 0, TEXT[:4], b"cursor"))
    if is_given_up:
        server.own_sender(Unreadable(LOG, server.clock(), "Permission denied"))
        server.own_sender(Unreadable(LOG, server.clock(), "Permission denied", "exit code 0"))
    else:
        server.own_sender(close_of(TEXT[:4]))
    ended = server.stream
    assert ended.state is State.STOPPED
    (reply,) = server.own_sender(Frame(LOG, 0, late, b"late"), peer=PROCESS).streams
    assert reply.status is (Status.OK if len(late) <= 4 else Status.REFUSED)
    assert server.stream._replace(last_seen=0) == ended._replace(last_seen=0) and server.stored == TEXT
    # The parent of a site goes on with it where it has more, and the ledger says so.
    server.own_sender(Frame(LOG, 4, TEXT[4:6], b"more"))
    assert server.stream.state is State.OPEN
    assert [loss.is_note for loss in server.stream.losses].count(False) == 0
    assert "then the site went on with it" in str(server.stream.losses)


@pytest.mark.parametrize("damage", ["cut", "removed"])
@pytest.mark.parametrize("is_compared", [False, True])
def test_a_damaged_copy_is_begun_again_by_whoever_sends_it(server, damage, is_compared):
    """What the runtime's own streamer goes on with stays a copy of its own, which can be ended."""
    server.send("a", TEXT)
    if is_compared:
        server.own_sender(LOG, Frame(LOG, 0, TEXT[:4], b"cursor"))
    path = server.store.path(KEY)
    path.write_bytes(TEXT[:2]) if damage == "cut" else path.unlink()
    assert server.go_on("a", 1, b"four\n") is Outcome.REFUSED
    assert server.stream.unchecked and server.stream.state is State.STOPPED
    assert "was cut to 2 bytes" in str(server.stream.losses) or "was removed" in str(server.stream.losses)
    server.send("b", TEXT, last=True)  # it begins again
    assert server.stored == TEXT and server.stream.is_stock and server.stream.state is State.STOPPED
    assert server.stream.verdict is not Verdict.COMPLETE
    server.own_sender(LOG, Frame(LOG, 0, TEXT, b"end"), close_of(TEXT))
    assert server.stream.state is State.CLOSED and not server.stream.unchecked


def test_an_empty_copy_whose_file_is_gone_stays_one(server):
    server.send("a", b"")
    server.store.path(KEY).unlink()
    assert server.go_on("a", 1, TEXT) is Outcome.TAKEN
    assert server.stored == TEXT and server.stream.is_stock
    server.receiver.give_up("a", PROCESS)
    assert server.stream.state is State.STOPPED


def test_of_an_empty_copy_nothing_was_compared(server):
    server.send("a", b"", last=True)
    server.own_sender(LOG, Frame(LOG, 0, TEXT, b"end"), close_of(TEXT))
    assert server.stream.verdict is Verdict.COMPLETE and not server.stream.losses


@pytest.mark.parametrize("is_over", [False, True])
def test_a_copy_whose_site_says_no_grows_no_more(server, is_over):
    """Its streamer, which does not ask before each part or began it again, may go on."""
    server.send("a", TEXT, last=is_over)
    server.own_sender(Refusal(LOG, "the site says no"))
    said = f"the site says no, from byte {len(TEXT)} on"
    assert (server.stream.verdict, server.stream.verdict_reason) == (Verdict.REFUSED, said)
    if not is_over:
        assert server.go_on("a", 1, b"secret\n") is Outcome.REFUSED
    assert server.send("b", TEXT + b"secret\n") is Outcome.REFUSED
    assert server.stored == TEXT and server.stream.verdict is Verdict.REFUSED


def test_what_a_site_has_ended_is_not_refused_afterwards(server):
    server.send("a", TEXT, last=True)
    server.own_sender(LOG, Frame(LOG, 0, TEXT[:4], b"cursor"), close_of(TEXT[:4]))
    server.own_sender(Refusal(LOG, "the site says no"))
    assert server.stream.state is State.STOPPED


@pytest.mark.parametrize("own", [b"six\nseven\n", TEXT[:4] + b"two more\n" + TEXT[4:], b"one\nto\nthree\n"])
@pytest.mark.parametrize("first", [0, 2])
def test_a_file_that_differs_replaces_what_differs_and_is_not_complete(server, own, first):
    """Nobody knows whether the site still has what it once let out."""
    server.send("a", TEXT, last=True)
    if own[:first] == TEXT[:first]:
        server.own_sender(Frame(LOG, 0, own[:first], b"cursor"))
        assert server.stream.place == (first, b"cursor" if first else b"")
    else:
        first = 0
    (reply,) = server.own_sender(Frame(LOG, first, own[first:], b"end")).streams
    assert (reply.status, reply.end) == (Status.OK, len(own))
    assert (server.stored, server.stream.place) == (own, (len(own), b"end"))
    server.own_sender(close_of(own))
    assert server.stream.verdict is Verdict.LOST and server.stream.lines == own.count(b"\n")
    gone = f"{len(TEXT) - first} bytes from byte {first} on, which the runtime's own streamer had sent"
    assert gone in server.stream.verdict_reason
    assert server.store._usage._total == len(own)


def test_the_server_reads_no_more_of_a_copy_than_its_site_sends(server, monkeypatch):
    """It does so while no other log can be written, and a copy may have gigabytes."""
    text, read, pread = b"a line of it\n" * 20_000, [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: read.append(n) or pread(fd, n, at))
    opened, open_path = [], Path.open
    monkeypatch.setattr(Path, "open", lambda *args, **how: opened.append(args) or open_path(*args, **how))
    server.send("a", text, last=True)
    server.own_sender(Frame(LOG, 0, text[:-26], b"cursor"))
    server.restart()
    read.clear()
    server.own_sender(Frame(LOG, len(text) - 26, b"a line of it\nanother\nand one more\n", b"end"))
    assert sum(read) < 1000 and opened == []
    assert server.stored == text[:-26] + b"a line of it\nanother\nand one more\n"
    assert server.stream.lines == 20_001


def test_what_a_site_has_compared_is_known_after_a_restart_of_the_server(server):
    server.send("a", TEXT, last=True)
    server.own_sender(LOG, Frame(LOG, 0, TEXT[:4], b"cursor"))
    server.restart()
    server.receiver.end_earlier()
    for question in (LOG, JOB, Frame(LOG, 8, TEXT[8:], b"end"), close_of(TEXT)):
        (reply,) = server.own_sender(question).streams
        assert (reply.end, reply.cursor) == (4, b"cursor")
    (reply,) = server.own_sender(Frame(LOG, 2, TEXT[2:8], b"later")).streams
    assert (reply.status, reply.end) == (Status.OK, 8)
    (reply,) = server.own_sender(Frame(LOG, 0, TEXT[:4], b"earlier")).streams
    assert reply.end == 8 and server.stream.place == (8, b"later"), "an old request that came late"
    (reply,) = server.own_sender(Frame(LOG, 2, b"other bytes", b"earlier")).streams
    assert (reply.status, reply.end, reply.cursor) == (Status.GAP, 8, b"later")
    assert server.stored == TEXT


def test_the_runtimes_own_streamer_goes_on_while_the_site_has_less(server):
    server.send("a", TEXT[:8])
    server.own_sender(Frame(LOG, 0, TEXT[:4], b"cursor"))
    server.clock.advance(5)
    server.own_sender()
    assert server.stream.last_seen == server.clock(), "it is the site's own sender's sign of life"
    assert server.go_on("a", 1, TEXT[8:]) is Outcome.TAKEN
    server.receiver.take(Part("a", 2, is_last=True), PROCESS)
    assert server.stored == TEXT and server.stream.place == (4, b"cursor")
    assert server.stream.state is State.OPEN, "the site's own sender goes on"
    server.own_sender(Frame(LOG, 4, TEXT[4:], b"end"), close_of(TEXT))
    assert server.stream.verdict is Verdict.COMPLETE and server.stored == TEXT


@pytest.mark.parametrize("part", [Frame(LOG, 8, TEXT[8:], b"cursor"), close_of(TEXT)])
def test_the_sites_own_sender_that_stands_elsewhere_is_sent_to_the_beginning(server, part):
    server.send("a", TEXT[:8])
    (reply,) = server.own_sender(part).streams
    assert (reply.status, reply.end, reply.cursor) == (Status.GAP, 0, b"")
    assert server.stored == TEXT[:8]


def test_a_job_that_is_over_is_closed_by_its_site_whatever_the_runtimes_own_streamer_sent(server):
    server.send("a", TEXT, last=True)
    (reply,) = server.own_sender(JOB).streams
    assert (reply.end, reply.cursor, reply.verdict) == (0, b"", None)


def test_an_empty_log_is_closed_by_its_site(server):
    server.send("a", b"", last=True)
    server.own_sender(close_of(b""))
    assert server.stream.verdict is Verdict.COMPLETE


def test_a_log_that_the_site_cannot_read_keeps_what_is_there(server):
    server.send("a", TEXT)
    server.own_sender(LOG, Unreadable(LOG, server.clock(), "Permission denied", None))
    assert server.stored == TEXT and server.stream.verdict_reason == UNCHECKED


@pytest.mark.parametrize("size", [0, 4])
def test_a_log_whose_site_gives_it_up_is_over(server, size):
    """Its rest is where the site cannot read it, in a pod say, and the job is over."""
    server.send("a", TEXT[:8])
    server.own_sender(LOG, *([Frame(LOG, 0, TEXT[:size], b"cursor")] if size else []))
    (reply,) = server.own_sender(Unreadable(LOG, server.clock(), "it ran in a pod", "exit code 1")).streams
    assert (reply.status, reply.end) == (Status.OK, size)
    assert (server.stream.state, server.stream.outcome) == (State.STOPPED, "exit code 1")
    assert server.stream.verdict is Verdict.PARTIAL and server.stream.verdict_reason.startswith(UNCHECKED)
    assert server.stream.verdict_reason.endswith(": it ran in a pod")
    assert server.go_on("a", 1, TEXT[8:]) is Outcome.TAKEN
    server.receiver.take(Part("a", 2, is_last=True), PROCESS)
    assert server.stored == TEXT and server.stream.state is State.STOPPED
    server.own_sender(LOG, Frame(LOG, size, TEXT[size:], b"end"), close_of(TEXT))
    assert server.stream.verdict is Verdict.COMPLETE


def test_a_sign_of_life_of_the_sites_own_sender_is_none_of_the_other(server):
    server.send("a", TEXT)
    seen = server.stream.last_seen
    server.clock.advance(5)
    assert server.own_sender().streams == () and server.stream.last_seen == seen


def test_a_site_that_has_nothing_of_a_log_takes_nothing_away(server):
    """Its parent process may not see the files of the job's process, in a container say."""
    server.send("a", TEXT, last=True)
    for _ in range(2):
        (answer,) = server.own_sender(LOG, close_of(b"")).streams
        assert (answer.status, answer.verdict) == (Status.OK, Verdict.PARTIAL)
        assert server.stored == TEXT and server.stream.outcome == "exit code 0"
        assert server.stream.verdict_reason == f"{UNCHECKED}; the site has no bytes of it to compare"
        assert len(server.stream.losses) == 1
    server.own_sender(LOG, Frame(LOG, 0, TEXT, b"cursor"), close_of(TEXT))
    assert server.stream.verdict is Verdict.COMPLETE and server.stored == TEXT


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("data", [TEXT[:8], b""])
def test_nothing_is_written_into_what_the_sites_own_sender_sent(server, is_closed, data):
    server.own_sender(LOG, Frame(LOG, 0, data, b"cursor"), *([close_of(data)] if is_closed else []))
    before = server.stream
    assert server.send("a", TEXT, b"more\n", last=True) is Outcome.TAKEN, "no error in the site's log"
    assert server.stored == data and server.stream == before
    assert server.opened == [] and server.closed == []


def test_the_runtimes_own_streamer_does_not_go_on_after_the_sites_own_sender_came(server):
    server.send("a", TEXT[:4])
    server.own_sender(Frame(LOG, 0, TEXT[:6], b"cursor"))
    assert server.go_on("a", 1, TEXT[4:] + b"forged\n") is Outcome.TAKEN
    assert server.stored == TEXT[:6] and server.stream.cursor == b"cursor"


@pytest.mark.parametrize("cursor", [UNCHECKED_CURSOR, UNCHECKED_CURSOR + b" x"])
def test_no_sender_gives_its_own_copy_out_for_one_of_these(server, cursor):
    """Each of its frames would be compared."""
    reply = server.own_sender(Frame(LOG, 0, TEXT, cursor))
    assert "cur" in reply.error and server.store.streams() == []


@pytest.mark.parametrize("seed", range(60))
def test_whatever_comes_in_whatever_order_is_there_once_and_in_the_end_complete(memory_path, seed):
    """Streamers that begin, break off and begin again, restarts, and at some time the site's own sender."""
    random = Random(seed)
    server = Server(memory_path / "store")
    log, uploads, own_end = b"", {}, -1
    for step in range(60):
        log += b"".join(b"line %d\n" % number for number in range(random.randrange(4)))
        action = random.choice(["begin", "go on", "go on", "go on", "break", "restart", "own"])
        if action == "begin":
            uploads[str(step)] = [0, 0]
        elif action == "go on" and uploads:
            name = random.choice(list(uploads))
            number, place = uploads[name]
            data = log[place : place + random.randrange(40)]
            part = Part(name, number, *((JOB, FILE) if not number else ()), data=data)
            if server.receiver.take(part, PROCESS) is Outcome.TAKEN:
                uploads[name] = [number + 1, place + len(data)]
            else:
                del uploads[name]
        elif action == "break" and uploads:
            name, _ = uploads.popitem()
            server.receiver.give_up(name, PROCESS)
        elif action == "restart" and random.random() < 0.3:
            server.restart()
            server.receiver.end_earlier()
        elif action == "own" and step > 40:
            own_end = max(own_end, 0)
            data = log[own_end : own_end + random.randrange(60)]
            (reply,) = server.own_sender(Frame(LOG, own_end, data, b"cursor")).streams
            own_end = reply.end
        if server.store.info(KEY) is not None:
            assert log.startswith(server.stored) and server.stream.end == len(server.stored)
            assert server.stream.unchecked is (own_end < server.stream.end)
            assert server.stream.verdict is not Verdict.COMPLETE
    (reply,) = server.own_sender(LOG).streams
    server.own_sender(Frame(LOG, reply.end, log[reply.end :], b"end"), close_of(log))
    assert server.stored == log and server.stream.verdict is Verdict.COMPLETE
    server.store.close()


def test_what_the_site_keeps_back_is_not_taken(server):
    server.own_sender(Refusal(LOG, "it stays here"))
    assert server.send("a", TEXT) is Outcome.REFUSED
    assert server.stream.verdict is Verdict.REFUSED and server.stream.end == 0


# -- who may, and how much -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "peer, first",
    [
        (Peer(SITE, "job-2"), {}),
        (PROCESS, {"job_id": "../job-1"}),
        (PARENT, {"job_id": "../job-1"}),
        (PARENT, {"job_id": ""}),
        (PROCESS, {"file": "../log.txt"}),
        (PROCESS, {"file": ""}),
        (PROCESS, {"file": ".index"}),
        (Peer(""), {}),
        (Peer("../site"), {}),
    ],
)
def test_what_is_not_the_senders_own_is_refused(server, peer, first):
    assert server.send("a", TEXT, peer=peer, **first) is Outcome.REFUSED
    assert server.store.streams() == [] and not server.receiver._uploads


def test_a_site_that_may_not_write_into_the_job_writes_nothing(server):
    server.admission = Admission(Status.REFUSED, "no part in it")
    assert server.send("a", TEXT) is Outcome.REFUSED
    assert server.store.streams() == [] and server.closed == []


def test_a_job_that_cannot_be_judged_yet_is_asked_for_again(server):
    server.admission = Admission(Status.LATER, "not started yet")
    assert server.send("a", TEXT) is Outcome.LATER
    assert server.store.streams() == []
    server.admission = Admission()
    assert server.go_on("a", 1, TEXT) is Outcome.TAKEN
    server.admission = Admission(Status.LATER, "the job store does not answer")
    assert server.go_on("a", 2, b"more\n") is Outcome.TAKEN, "it was judged once"
    assert server.stored == TEXT + b"more\n"


def test_nobody_goes_on_with_the_upload_of_another(server):
    server.send("a", TEXT[:4])
    for peer in (Peer("site-2", JOB), PARENT, Peer(SITE, "job-2")):
        assert not server.receiver.knows("a", peer)
        server.receiver.give_up("a", peer)
        assert server.go_on("a", 1, b"forged\n", peer=peer) is Outcome.REFUSED
    assert server.go_on("a", 1, TEXT[4:]) is Outcome.TAKEN
    assert server.stored == TEXT


@pytest.mark.parametrize(
    "part",
    [
        Part("a", 2, data=b"after a gap"),
        Part("b", 1, JOB, FILE, b"no part before it"),
        Part("b", 0, JOB, FILE, b"x" * ((1 << 20) + 1)),
        Part("b" * 65, 0, JOB, FILE, b"a long id"),
        Part("", 0, JOB, FILE, b"no id"),
        Part("b", -1, JOB, FILE, b"before the first"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_of_it_is_kept(server, part):
    server.send("a", TEXT)
    assert server.receiver.take(part, PROCESS) is Outcome.REFUSED
    assert server.stored == TEXT and len(server.receiver._uploads) <= 1


def test_a_site_may_have_so_many_uploads_and_others_theirs(server, monkeypatch):
    monkeypatch.setattr(unchecked, "_MOST_UPLOADS", 2)
    outcomes = [server.send(str(number), b"x", file=f"{number}.txt") for number in range(3)]
    assert outcomes == [Outcome.TAKEN, Outcome.TAKEN, Outcome.REFUSED]
    assert server.send("3", b"x", peer=Peer("site-2", JOB)) is Outcome.TAKEN


def test_quotas_hold_and_the_verdict_names_them(memory_path):
    server = Server(memory_path / "store", stream=8, files=1)
    assert server.send("a", TEXT[:4]) is Outcome.TAKEN
    assert server.go_on("a", 1, TEXT[4:]) is Outcome.REFUSED
    assert "max_stream_gib" in server.stream.verdict_reason and server.stored == TEXT[:4]
    assert server.send("b", b"x", file="other.txt") is Outcome.REFUSED
    server.store.close()


def test_copies_that_differ_everywhere_do_not_fill_the_ledger_nor_leave_anything_in_memory(server):
    """A hostile job's process sends what it likes."""
    text = b"x" * (MAX_LOSSES + 50)
    server.send("first", text, last=True)
    for number in range(len(text)):
        assert server.send(str(number), text[:number], b"y", b"more", last=True) is Outcome.TAKEN
    assert server.stored == text and len(server.stream.losses) == MAX_LOSSES - 1
    assert not server.receiver._uploads and not server.receiver._limits._under_way
    server.own_sender(Frame(LOG, 0, text, b"cursor", (Loss(9, 1, "gone"),)), close_of(text))
    assert server.stream.verdict is Verdict.LOST, "the last place is that of a loss"


def test_streams_that_nobody_ends_are_ended(server):
    for number in range(20):
        assert server.send(str(number), TEXT, file=f"{number}.txt") is Outcome.TAKEN
    assert len(server.receiver._uploads) == 20
    server.clock.advance(31)
    server.receiver.turn()
    assert not server.receiver._uploads
    assert all("nothing came for 30 s" in stream.verdict_reason for stream in server.store.streams())


def test_removed_logs_do_not_come_back(server):
    server.send("a", TEXT)
    server.store.delete_job(JOB)
    assert server.go_on("a", 1, b"more\n") is Outcome.REFUSED
    assert server.send("b", TEXT) is Outcome.REFUSED
    assert server.store.streams() == []


def test_many_at_once_store_each_log_once(server):
    text = b"".join(b"line %d\n" % number for number in range(200))
    parts = [text[start : start + 100] for start in range(0, len(text), 100)]

    def run(upload: str) -> None:
        assert server.send(upload, *parts, last=True) is Outcome.TAKEN

    threads = [threading.Thread(target=run, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert server.stored == text and server.stream.state is State.STOPPED


def test_a_copy_is_known_for_what_it_is_after_a_restart(server):
    server.send("a", TEXT, last=True)
    server.restart()
    assert server.stream.unchecked and server.stream.verdict_reason == UNCHECKED
    server.own_sender(LOG, Frame(LOG, 0, TEXT, b"cursor"), close_of(TEXT))
    assert server.stream.verdict is Verdict.COMPLETE
