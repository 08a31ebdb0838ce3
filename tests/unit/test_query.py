"""The server's answers to readers: text in parts, new text as it comes, and errors that name the field."""

import base64
import hashlib
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.client.model import MAX_WAIT
from nvflare_logstream.server import service as query
from nvflare_logstream.server.service import MAX_WAITING, LogService
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey
from nvflare_logstream.wire.upload import Close

JOB = "job"
KEY = StreamKey(JOB, "site-1", "log.txt")
WHERE = {"site": "site-1", "file": "log.txt"}


@pytest.fixture
def store(memory_path):
    store = LogStore(memory_path)
    yield store
    store.close()


@pytest.fixture
def ask(store):
    service = LogService(store, idle_timeout=30.0, job_status=lambda job: "RUNNING")
    return lambda **request: service.answer(JOB, request)


def add(store, data):
    end = store.open(KEY).end
    store.append(KEY, end, data, b"cursor")


def read_all(ask, **filters):
    text, reading = "", None
    while True:
        reply = ask(op="read", **WHERE, filters=filters, **({"reading": reading} if reading else {}))
        text, reading = text + reply["text"], reply["reading"]
        if reply["done"]:
            return text


def test_a_log_is_read_whole_in_parts(store, ask, monkeypatch):
    monkeypatch.setattr(query, "MAX_PART", 1000)
    log = "".join(f"2026-04-28 10:00:{n % 60:02d},000 - n - INFO - line {n}\n" for n in range(5000))
    add(store, log.encode())
    assert read_all(ask) == log
    assert read_all(ask, tail=7) == "".join(log.splitlines(keepends=True)[-7:])


def test_streams_tell_their_verdicts(store, ask):
    add(store, b"text\n")
    store.refuse(StreamKey(JOB, "site-2", "log.txt"), "the site does not allow it")
    store.expect(StreamKey(JOB, "site-3", "log.txt"), "not connected")
    rows = {row["site"]: (row["verdict"], row["bytes"]) for row in ask(op="streams")["streams"]}
    assert rows == {"site-1": ("streaming", 5), "site-2": ("refused", 0), "site-3": ("never seen", 0)}


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_following_gives_every_line_once(memory_path_factory, pieces):
    with memory_path_factory() as root:
        store = LogStore(root)
        ask = LogService(store, 30.0).answer
        store.open(KEY)
        reading, text = ask(JOB, {"op": "read", **WHERE})["reading"], ""
        for piece in [*pieces, None]:
            if piece is None:
                digest = hashlib.sha256(b"".join(pieces)).hexdigest()
                store.close_stream(KEY, Close(None, sum(map(len, pieces)), digest, 0, "exit code 0"))
            else:
                add(store, piece)
            for part in ask(JOB, {"op": "follow", "places": [{**WHERE, "reading": reading}], "wait": 0})[
                "parts"
            ]:
                reading, text = part["reading"], text + part["text"]
        store.close()
        assert text == b"".join(pieces).decode(errors="replace")


def test_a_follower_is_woken_by_a_new_line(store, ask):
    add(store, b"first\n")
    place = {**WHERE, "reading": ask(op="read", **WHERE)["reading"]}
    verdicts = ask(op="follow", places=[place], wait=0)["verdicts"]
    threading.Timer(0.1, add, (store, b"second\n")).start()
    began = time.monotonic()
    (part,) = ask(op="follow", places=[place], wait=MAX_WAIT, verdicts=verdicts)["parts"]
    assert part["text"] == "second\n" and time.monotonic() - began < MAX_WAIT / 2


def test_more_followers_than_the_server_lets_wait_are_sent_back(store, ask):
    add(store, b"text\n")
    place = {**WHERE, "reading": ask(op="read", **WHERE)["reading"]}
    verdicts = ask(op="follow", places=[place], wait=0)["verdicts"]
    replies = []

    def follow():
        replies.append(ask(op="follow", places=[place], wait=MAX_WAIT, verdicts=verdicts))

    threads = [threading.Thread(target=follow) for _ in range(MAX_WAITING + 3)]
    for thread in threads:
        thread.start()
    while len(replies) < 3:
        time.sleep(0.01)
    assert [reply["busy"] for reply in replies] == [True] * 3
    add(store, b"more\n")
    for thread in threads:
        thread.join()
    assert sum(bool(reply["parts"]) for reply in replies) == MAX_WAITING


def test_bytes_are_fetched_as_they_are(store, ask):
    add(store, b"\xff\x00raw")
    assert base64.b64decode(ask(op="fetch", **WHERE, at=1)["data"]) == b"\x00raw"


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"op": "shell"}, "op"),
        ({"op": ["read"]}, "op"),
        ({"op": "read", **WHERE, "filters": {"level": ["INFO"]}}, "level"),
        ({"op": "read", "site": "../x", "file": "log.txt"}, "site"),
        ({"op": "read", "site": "site-1", "file": "a/b"}, "file"),
        ({"op": "read", **WHERE, "filters": {"tail": -1}}, "tail"),
        ({"op": "read", **WHERE, "filters": {"since": 5}}, "since"),
        ({"op": "read", **WHERE, "filters": {"grep": "(("}}, "grep"),
        ({"op": "read", **WHERE, "reading": {"at": 99}}, "reading.at"),
        ({"op": "read", **WHERE, "reading": {"state": {"before": 3}}}, "reading.state"),
        ({"op": "fetch", **WHERE, "at": -1}, "at"),
        ({"op": "follow", "places": 3}, "places"),
        ({"op": "follow", "places": [], "wait": 1e9}, "wait"),
    ],
)
def test_a_malformed_request_is_answered_with_the_field(store, ask, request_, named):
    add(store, b"text\n")
    assert ask(**request_)["error"].startswith(f"{named}: ")
