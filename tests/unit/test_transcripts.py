"""What earlier releases said on the wire is understood, and what another version says is refused in one line.

`python -m tests.unit.test_transcripts DIRECTORY` records what this release says, when it is made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from nvflare_logstream.client.port import read_reply
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Loss, StreamId, StreamKey, Verdict
from nvflare_logstream.testing import Clock, FaultyLink
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.queries import (
    DigestRequest,
    FetchRequest,
    FilterOptions,
    FollowRequest,
    Operation,
    Place,
    ReadReply,
    ReadRequest,
    Request,
    StreamsRequest,
    decode_reply,
    decode_request,
)
from nvflare_logstream.wire.upload import Close, Frame, Refusal, RequestWriter, Unreadable
from nvflare_logstream.wire.upload_reply import Reply, Status
from nvflare_logstream.wire.upload_reply import decode_reply as decode_upload_reply
from tests.unit.site_world import World

FIXTURES = Path(__file__).parents[1] / "fixtures"
RELEASES = ("wire-0.1.0", "wire-0.2.0")
NOW = 1_790_000_000.0
SITE, JOB = "site-1", "job-1"
LOG, ERRORS, TRAIN = (StreamId(JOB, name) for name in ("log.txt", "error_log.txt", "train.log"))
TEXT = b"".join(b"2026-09-21 14:13:%02d,000 - train - INFO - epoch %d\n" % (n % 60, n) for n in range(40))
EMPTY = hashlib.sha256(b"").hexdigest()


def uploads() -> Iterator[tuple[str, Callable[[RequestWriter], None]]]:
    """One of each thing that a site says; 0.1.0 was recorded with the same, but for what it had not yet."""
    yield "asks", lambda writer: (writer.open(LOG), writer.open(ERRORS), writer.known(JOB))
    yield "plain", lambda writer: writer.frame(Frame(LOG, 0, TEXT[:100], b'{"at":100}'))
    losses = Loss(100, 30, "truncated before it was read"), Loss(100, None, "rotated away")
    yield "compressed", lambda writer: writer.frame(Frame(LOG, 100, TEXT[100:], b'{"at":2000}', losses))
    yield "again", lambda writer: writer.frame(Frame(LOG, 0, TEXT[:100], b'{"at":100}'))
    yield "gap", lambda writer: writer.frame(Frame(ERRORS, 7, b"behind a gap\n", b"{}"))
    yield "keeps back", lambda writer: writer.refuse(Refusal(TRAIN, "the site does not allow it"))
    yield "cannot read", lambda writer: writer.unreadable(Unreadable(ERRORS, NOW, "Permission denied"))
    yield "can read again", lambda writer: writer.unreadable(Unreadable(ERRORS, NOW, ""))
    yield "alive", lambda writer: None
    digest = hashlib.sha256(TEXT).hexdigest()
    yield "closes", lambda writer: writer.close(Close(LOG, len(TEXT), digest, 0, "exit code 0"))
    yield "closes an empty one", lambda writer: writer.close(Close(ERRORS, 0, EMPTY, 0, "exit code 0"))
    yield "not in the job", lambda writer: writer.open(StreamId("job-2", "log.txt"))


def queries() -> Iterator[Request[Any]]:
    """One of each thing that a reader asks."""
    filters = FilterOptions(
        since="2026-09-21 14:13:05",
        until="2026-09-21 14:13:35",
        level="INFO",
        grep="epoch",
        ignore_case=True,
        before=1,
        after=1,
        tail=3,
        max_bytes=1000,
        exclude=("epoch 7",),
    )
    yield StreamsRequest()
    yield ReadRequest(SITE, "log.txt")
    yield ReadRequest(SITE, "log.txt", filters)
    yield ReadRequest(SITE, "log.txt", FilterOptions(head=2), whole_lines=True, as_text=True)
    yield FetchRequest(SITE, "log.txt", 100, 50)
    yield DigestRequest(SITE, "log.txt", 0, len(TEXT))
    yield ReadRequest(SITE, "not-there.txt")


class Server:
    """A receiver and a reader service over one store, on a clock that stands."""

    def __init__(self, root: Path):
        self.clock = Clock(NOW)
        self.store = LogStore(root, clock=self.clock)
        refused = Admission(Status.REFUSED, "site-1 takes no part in job job-2")
        self.receiver = Receiver(
            self.store,
            lambda site, job_id: Admission() if job_id == JOB else refused,
            clock=self.clock,
        )
        self.service = LogService(self.store, 30.0, lambda job_id: "RUNNING", self.clock)

    def take(self, request: bytes) -> bytes:
        return self.receiver.handle(request, Peer(SITE))

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(self.service.answer(JOB, request)))

    def follow(self) -> FollowRequest:
        """The request that goes on where a read has ended."""
        request = ReadRequest(SITE, "log.txt", FilterOptions(tail=1))
        reply = decode_reply(JOB, request, self.answer(request.encode()))
        assert isinstance(reply, ReadReply)
        return FollowRequest((Place(SITE, "log.txt", reply.reading),), push="p", pace=0.1, growing=True)


@pytest.fixture
def server(memory_path):
    server = Server(memory_path / "store")
    yield server
    server.store.close()


def recorded(release: str, name: str) -> list[dict[str, Any]]:
    return json.loads((FIXTURES / release / name).read_text())


def holds(reply: Any, earlier: Any) -> bool:
    """Whether a reply says all that an earlier release's said, whatever it says besides."""
    if isinstance(earlier, dict):
        return isinstance(reply, dict) and all(
            name in reply and holds(reply[name], value) for name, value in earlier.items()
        )
    if isinstance(earlier, list):
        same_length = isinstance(reply, list) and len(reply) == len(earlier)
        return same_length and all(map(holds, reply, earlier))
    return bool(reply == earlier)


@pytest.mark.parametrize("release", RELEASES)
def test_a_site_of_an_earlier_release_is_understood(server, release):
    for row in recorded(release, "uploads.json"):
        reply = msgpack.unpackb(server.take(base64.b64decode(row["request"])))
        earlier = msgpack.unpackb(base64.b64decode(row["reply"]))
        if "err" not in earlier:
            del earlier["wait"]  # the server's pace, not what it understood
            assert holds(reply, earlier), row["name"]
        else:
            assert "protocol version 2" in reply["err"] and "version 1" in reply["err"]
    stream = server.store.info(StreamKey(JOB, SITE, "log.txt"))
    assert server.store.path(stream.key).read_bytes() == TEXT
    assert (stream.verdict, stream.utc_offset, stream.skew) == (Verdict.LOST, 7200, 0.5)
    assert [(loss.offset, loss.length) for loss in stream.losses] == [(100, 30), (100, None)]
    assert server.store.info(StreamKey(JOB, SITE, "error_log.txt")).verdict is Verdict.COMPLETE
    assert server.store.info(StreamKey(JOB, SITE, "train.log")).verdict is Verdict.REFUSED


@pytest.mark.parametrize("release", RELEASES)
def test_a_server_of_an_earlier_release_is_understood(release):
    replies = {
        row["name"]: decode_upload_reply(base64.b64decode(row["reply"]))
        for row in recorded(release, "uploads.json")
    }
    assert [(stream.status, stream.end) for stream in replies["gap"].streams] == [(Status.GAP, 0)]
    (closed,) = replies["closes"].streams
    assert (closed.stream, closed.status, closed.end, closed.verdict) == (LOG, "ok", len(TEXT), Verdict.LOST)
    assert [stream.status for stream in replies["not in the job"].streams] == [Status.REFUSED]
    assert "version 2" in replies["a later version"].error


@pytest.mark.parametrize("release", RELEASES[1:])  # 0.1.0 had no protocol between reader and server
def test_a_reader_of_an_earlier_release_is_understood(server, release):
    for row in recorded("wire-0.2.0", "uploads.json"):
        server.take(base64.b64decode(row["request"]))
    for row in recorded(release, "queries.json"):
        assert holds(server.answer(row["request"]), row["reply"]), row["request"]


@pytest.mark.parametrize("release", RELEASES[1:])
def test_the_answers_of_an_earlier_release_are_understood(release):
    rows = recorded(release, "queries.json")
    assert {row["request"]["op"] for row in rows} == set(Operation)
    for row in rows:
        if "error" in row["reply"]:
            with pytest.raises(RetrievalError) as caught:
                read_reply(JOB, decode_request(row["request"]), row["reply"])
            assert caught.value.code is ErrorCode.LOG_NOT_FOUND
        else:
            read_reply(JOB, decode_request(row["request"]), row["reply"])
    texts = [
        row["reply"]["text"] for row in rows if row["request"]["op"] == "read" and "text" in row["reply"]
    ]
    assert texts[0].encode() == TEXT and texts[2].endswith("epoch 1\n")


# -- another version -----------------------------------------------------------------------------------------

SPOKEN = "protocol version 2 is not supported; this side supports version 1"


def test_a_server_says_in_one_line_that_a_site_speaks_a_later_version(server, caplog):
    reply = decode_upload_reply(server.take(msgpack.packb({"v": 2, "of": "a later version"})))
    assert reply == Reply(error=SPOKEN)
    assert [record.getMessage() for record in caplog.records] == [
        f"refused a message of {SITE} (unreadable): {SPOKEN}"
    ]


@pytest.mark.parametrize(
    "answer, told",
    [
        (
            Reply(error=SPOKEN).encode(),
            f"the log receiver refused a message: {SPOKEN}",
        ),
        (
            msgpack.packb({"v": 2, "of": "a later version"}),
            f"no answer from the log receiver that can be read: {SPOKEN}",
        ),
    ],
)
def test_a_site_says_in_one_line_that_the_server_speaks_another_version(memory_path, caplog, answer, told):
    caplog.set_level(logging.WARNING)
    world = World(memory_path)
    try:
        world.write(b"line 1\n")
        world.run(world.sender("log.txt", link=FaultyLink(lambda payload: answer)), turns=5)
        assert [record.getMessage() for record in caplog.records] == [f"{told}; trying again (attempt 1)"]
    finally:
        world.close()


def test_both_ends_of_a_query_say_in_one_line_that_the_other_speaks_another_version(server):
    reply = server.answer({"v": 2, "op": "streams"})
    with pytest.raises(RetrievalError) as caught:
        read_reply(JOB, StreamsRequest(), reply)
    told = "v: 2 is not allowed; this side speaks version 1 of the query protocol"
    assert str(caught.value) == told
    with pytest.raises(RetrievalError) as caught:
        read_reply(JOB, StreamsRequest(), {"v": 2, "of": "a later version"})
    assert str(caught.value) == f"the server's reply cannot be read: {told}"


# -- recording -----------------------------------------------------------------------------------------------


def record(directory: Path) -> None:
    """Write down what this release says; done once for each release."""
    directory.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        server, rows = Server(Path(scratch, "store")), []
        for name, put in uploads():
            writer = RequestWriter(NOW + 0.5, 7200)
            put(writer)
            rows.append((name, writer.encode()))
        rows.append(("a later version", msgpack.packb({"v": 2})))
        texts = [
            {
                "name": name,
                "request": base64.b64encode(request).decode(),
                "reply": base64.b64encode(server.take(request)).decode(),
            }
            for name, request in rows
        ]
        (directory / "uploads.json").write_text(json.dumps(texts, indent=1) + "\n")
        asked = [request.encode() for request in (*queries(), server.follow())]
        answered = [{"request": request, "reply": server.answer(request)} for request in asked]
        (directory / "queries.json").write_text(json.dumps(answered, indent=1) + "\n")
        server.store.close()


if __name__ == "__main__":
    record(Path(sys.argv[1]))
