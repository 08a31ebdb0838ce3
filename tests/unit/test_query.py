"""The server's answers to readers: text in parts, new text as it comes, errors with their code and field."""

import hashlib
import json
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.client.port import read_reply
from nvflare_logstream.errors import ErrorCode, LogStreamError, RetrievalError, StoreError
from nvflare_logstream.server import service
from nvflare_logstream.server.following import MAX_WAITING
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey, Verdict
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.queries import (
    MAX_WAIT,
    QUERY_VERSION,
    DigestRequest,
    ErrorReply,
    FetchRequest,
    FilterOptions,
    FollowRequest,
    Place,
    ReadRequest,
    ReplyT,
    Request,
    StreamsRequest,
)
from nvflare_logstream.wire.upload import Close
from tests.unit.conftest import close_and_commit

JOB = "job"
KEY = StreamKey(JOB, "site-1", "log.txt")
LOG = ("site-1", "log.txt")
WHERE = {"site": "site-1", "file": "log.txt"}


class Server:
    """A service, asked as over a wire."""

    def __init__(self, store: LogStore, clock=time.time):
        self.service = LogService(store, idle_timeout=30.0, job_status=lambda job_id: "RUNNING", clock=clock)

    def ask(self, request: Request[ReplyT]) -> ReplyT:
        answer = self.service.answer(JOB, json.loads(json.dumps(request.encode())))
        return read_reply(JOB, request, json.loads(json.dumps(answer)))

    def refusal(self, request: object, job_id: str = JOB) -> ErrorReply:
        """The error that answers what may be no request at all."""
        with pytest.raises(RetrievalError) as caught:
            read_reply(JOB, StreamsRequest(), self.service.answer(job_id, request))
        return ErrorReply(caught.value.code, str(caught.value))


@pytest.fixture
def server(store):
    return Server(store)


def add(store, data):
    end = store.open(KEY).end
    store.append(KEY, end, data, b"cursor")


def read_all(server, **filters):
    request, text = ReadRequest(*LOG, FilterOptions(**filters)), ""
    while True:
        reply = server.ask(request)
        text, request = text + reply.text, replace(request, reading=reply.reading)
        if reply.done:
            return text


def test_a_log_is_read_whole_in_parts(store, server, monkeypatch):
    monkeypatch.setattr(service, "MAX_PART", 1000)
    log = "".join(f"2026-04-28 10:00:{n % 60:02d},000 - n - INFO - line {n}\n" for n in range(5000))
    add(store, log.encode())
    assert read_all(server) == log
    assert read_all(server, tail=7) == "".join(log.splitlines(keepends=True)[-7:])


def test_streams_tell_their_verdicts(store, server):
    add(store, b"text\n")
    store.refuse(StreamKey(JOB, "site-2", "log.txt"), "the site does not allow it")
    store.expect({StreamKey(JOB, "site-3", "log.txt"): "not connected"})
    reply = server.ask(StreamsRequest())
    rows = {stream.site: (stream.verdict, stream.end) for stream in reply.job.streams}
    assert rows == {"site-1": ("streaming", 5), "site-2": ("refused", 0), "site-3": ("never seen", 0)}
    assert reply.job.status == "RUNNING"


def test_the_record_that_travels_is_the_stores_own_but_for_cursor_and_checksum(memory_path):
    """It is judged by the server's clock, and its reader comes to the same verdict."""
    clock = Clock()
    store = LogStore(memory_path, clock=clock)
    server = Server(store, clock)
    add(store, b"text\n")
    (live,) = server.ask(StreamsRequest()).job.streams
    clock.advance(31)
    reply = server.ask(StreamsRequest())
    (silent,) = reply.job.streams
    stored = store.info(KEY)._replace(cursor=b"", came="")
    assert live == stored and live.live and reply.job.now == clock.now
    assert silent == stored.as_of(clock.now, 30.0)
    assert silent.verdict is Verdict.PARTIAL and silent.verdict_reason.startswith("site silent since ")
    store.close()


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_following_gives_every_line_once(memory_path_factory, pieces):
    with memory_path_factory() as root:
        store = LogStore(root)
        server = Server(store)
        store.open(KEY)
        place, text = Place(*LOG, server.ask(ReadRequest(*LOG)).reading), ""
        for piece in [*pieces, None]:
            if piece is None:
                digest = hashlib.sha256(b"".join(pieces)).hexdigest()
                close_and_commit(store, KEY, Close(None, sum(map(len, pieces)), digest, 0, "exit code 0"))
            else:
                add(store, piece)
            for part in server.ask(FollowRequest((place,))).parts:
                place, text = part.place, text + part.text
        store.close()
        assert text == b"".join(pieces).decode(errors="replace")


@pytest.fixture
def following(store, server):
    """A request that waits: its reader has all of a log and knows all verdicts."""
    add(store, b"first\n")
    request = FollowRequest((Place(*LOG, server.ask(ReadRequest(*LOG)).reading),))
    return replace(request, wait=MAX_WAIT, mark=server.ask(request).mark)


def test_a_follower_is_woken_by_a_new_line(store, server, following):
    threading.Timer(0.1, add, (store, b"second\n")).start()
    began = time.monotonic()
    (part,) = server.ask(following).parts
    assert part.text == "second\n" and time.monotonic() - began < MAX_WAIT / 2


def test_a_follower_is_woken_by_a_site_that_joins(store, server, following):
    threading.Timer(0.1, store.open, (StreamKey(JOB, "site-2", "log.txt"),)).start()
    began = time.monotonic()
    reply = server.ask(following)
    assert not reply.parts and len(reply.job.streams) == 2 and reply.mark != following.mark
    assert time.monotonic() - began < MAX_WAIT / 2


def test_lines_that_the_filters_drop_wake_nobody_and_are_not_looked_at_again(store, server, following):
    add(store, b"second\n")
    request = replace(following, wait=0.0, filters=FilterOptions(grep="nowhere", tail=1))
    (part,) = server.ask(request).parts
    assert part.text == "" and part.place.reading.offset == len(b"first\nsecond\n")


def test_more_followers_than_the_server_lets_wait_are_sent_back(store, server, following):
    replies = []
    threads = [
        threading.Thread(target=lambda: replies.append(server.ask(following))) for _ in range(MAX_WAITING + 3)
    ]
    for thread in threads:
        thread.start()
    while len(replies) < 3:
        time.sleep(0.01)
    assert [reply.busy for reply in replies] == [True] * 3
    add(store, b"more\n")
    for thread in threads:
        thread.join()
    assert sum(bool(reply.parts) for reply in replies) == MAX_WAITING


def test_bytes_are_fetched_as_they_are(store, server):
    add(store, b"\xff\x00raw")
    assert server.ask(FetchRequest(*LOG, offset=1)).data == b"\x00raw"


@pytest.mark.parametrize("request_", [FetchRequest(*LOG, offset=6), DigestRequest(*LOG, 0, 6)])
def test_an_offset_beyond_the_end_says_that_the_copy_is_shorter_than_it_was(store, server, request_):
    add(store, b"text\n")
    refusal = server.refusal(request_.encode())
    changed = "the server's copy of log.txt of site-1 ends at byte 5 now"
    assert refusal == ErrorReply(ErrorCode.LOG_CHANGED, changed)


def test_a_server_says_which_of_the_later_filters_it_heeds(store, server):
    """An older one ignores a field that it does not know: what it sends is not what was asked for."""
    add(store, b"one\ntwo\n")
    older = {"exclude": ("x",)}, {"head": 3}, {"exclude": ("x",), "head": 3}
    for filters in older:
        request = ReadRequest(*LOG, FilterOptions(**filters))
        answer = server.service.answer(JOB, json.loads(json.dumps(request.encode())))
        assert answer.pop("filters") == list(filters)
        with pytest.raises(RetrievalError, match=" and ".join(f"no {name}" for name in filters)) as caught:
            read_reply(JOB, request, answer)
        assert caught.value.code is ErrorCode.SERVER_TOO_OLD and "older" in str(caught.value)
    follow = FollowRequest((), FilterOptions(exclude=("x",)))
    assert server.service.answer(JOB, follow.encode())["filters"] == ["exclude"]
    assert "filters" not in server.service.answer(JOB, ReadRequest(*LOG, FilterOptions(tail=1)).encode())


# -- what is refused -------------------------------------------------------------------------------------

ODD = {"at": 0, "end": 5, "stage": ""}


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"op": "shell"}, "op"),
        ({"op": ["read"]}, "op"),
        ({"op": "read", **WHERE, "filters": {"level": ["INFO"]}}, "filters.level"),
        ({"op": "read", **WHERE, "filters": {"level": "info"}}, "filters.level"),
        ({"op": "read", **WHERE, "filters": 3}, "filters"),
        ({"op": "read", "site": "../x", "file": "log.txt"}, "site"),
        ({"op": "read", "site": "site-1", "file": "a/b"}, "file"),
        ({"op": "read", **WHERE, "filters": {"tail": -1}}, "filters.tail"),
        ({"op": "read", **WHERE, "filters": {"since": 5}}, "filters.since"),
        ({"op": "read", **WHERE, "filters": {"since": "tomorrow"}}, "filters.since"),
        ({"op": "read", **WHERE, "filters": {"grep": "(("}}, "filters.grep"),
        ({"op": "read", **WHERE, "filters": {"before": 1001}}, "filters.before"),
        ({"op": "read", **WHERE, "filters": {"exclude": "x"}}, "filters.exclude"),
        ({"op": "read", **WHERE, "filters": {"exclude": ["x", 3]}}, "filters.exclude"),
        ({"op": "read", **WHERE, "filters": {"exclude": ["x"] * 101}}, "filters.exclude"),
        ({"op": "read", **WHERE, "filters": {"exclude": ["(("]}}, "filters.exclude"),
        ({"op": "read", **WHERE, "filters": {"head": -1}}, "filters.head"),
        ({"op": "read", **WHERE, "filters": {"head": 1, "tail": 1}}, "filters.head"),
        ({"op": "read", **WHERE, "whole_lines": "yes"}, "whole_lines"),
        ({"op": "read", **WHERE, "reading": {**ODD, "at": 99}}, "reading.at"),
        ({"op": "read", **WHERE, "reading": {"at": 0, "end": 1 << 63}}, "reading.end"),
        ({"op": "read", **WHERE, "reading": {**ODD, "stage": "sheep"}}, "reading.stage"),
        # Whose field has another name, and what it still counts, would be given out as text.
        ({"op": "read", **WHERE, "reading": {"at": 0, "end": 5, "counting": "lines"}}, "reading.stage"),
        ({"op": "read", **WHERE, "reading": {**ODD, "state": {"before": 3}}}, "reading.state.before"),
        (
            {"op": "read", **WHERE, "reading": {**ODD, "state": {"before": ["\ud800"]}}},
            "reading.state.before",
        ),
        (
            {"op": "read", **WHERE, "reading": {**ODD, "state": {"before": ["x"] * 1001}}},
            "reading.state.before",
        ),
        ({"op": "read", **WHERE, "reading": {**ODD, "state": {"after": -1}}}, "reading.state.after"),
        ({"op": "fetch", **WHERE, "offset": -1}, "offset"),
        ({"op": "fetch", **WHERE, "most": 1 << 30}, "most"),
        ({"op": "digest", **WHERE, "start": 2, "end": 1}, "start"),
        ({"op": "follow", "places": 3}, "places"),
        ({"op": "follow", "places": [3]}, "places[0]"),
        ({"op": "follow", "places": [{**WHERE, "reading": 3}]}, "places[0].reading"),
        ({"op": "follow", "places": [], "wait": 1e9}, "wait"),
        ({"op": "follow", "places": [], "wait": float("nan")}, "wait"),
        ([], "message"),
        (None, "message"),
    ],
)
def test_a_malformed_request_is_answered_with_the_field(store, server, request_, named):
    add(store, b"text\n")
    versioned = {"v": QUERY_VERSION, **request_} if isinstance(request_, dict) else request_
    refusal = server.refusal(versioned)
    assert refusal.text.startswith(f"{named}: ") and refusal.code is ErrorCode.INVALID_ARGS


@pytest.mark.parametrize("version", [0, 2, "1", True, None])
def test_a_request_of_another_version_is_refused_with_both(server, version):
    refusal = server.refusal({"op": "streams", "v": version})
    assert refusal.code is ErrorCode.INVALID_ARGS and refusal.text.startswith(
        f"v: {version!r} is not allowed; "
    )
    refusal = server.refusal({"op": "streams"})
    assert refusal.text == "v: None is not allowed; this side speaks version 1 of the query protocol"


def test_each_kind_of_error_has_its_code(store, server, monkeypatch, caplog):
    absent = DigestRequest(*LOG, 0, 0)
    assert server.refusal(absent.encode()) == ErrorReply(
        ErrorCode.LOG_NOT_FOUND, "the server has no log log.txt of site-1 for job job"
    )
    assert server.refusal(StreamsRequest().encode(), job_id="../x").code is ErrorCode.INVALID_ARGS
    for error, code in [
        (StoreError("gone"), ErrorCode.LOG_CHANGED),
        (RuntimeError("a defect"), ErrorCode.INTERNAL_ERROR),
        (LogStreamError("not listed"), ErrorCode.INTERNAL_ERROR),
    ]:
        monkeypatch.setattr(store, "streams", lambda job_id, error=error: (_ for _ in ()).throw(error))
        caplog.clear()
        refusal = server.refusal(StreamsRequest().encode())
        assert refusal.code is code and str(error) in refusal.text
        assert ("Traceback" in caplog.text) is (code is ErrorCode.INTERNAL_ERROR)
