"""Cursors: what a tailer makes of its own, of those of other releases, and of bytes that are no cursor."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.site.cursor import Cursor, Segment
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import Loss, StreamId
from nvflare_logstream.wire.upload_reply import Reply, decode_reply
from tests.unit.site_world import JOB, World

ENOUGH = 1 << 24
GOOD = Cursor(0, b"ab", (Segment(1, 0, 2, "x", 2),))
NEXT_VERSION = b'{"v":2,"whatever":[]}'
NO_CURSORS = [
    b"",
    b"garbage",
    b"\xff\xfe",
    b"7",
    b'"v"',
    b"null",
    b"{}",
    b'{"base": Infinity, "anchor": "", "files": []}',
    b'{"base": 2, "anchor": "", "files": [[1, 2]]}',
    GOOD._replace(base=-1).encode(),
    GOOD._replace(anchor=b"abc").encode(),
    GOOD._replace(segments=(Segment(1, 1 << 80, 2, "x", 2),)).encode(),
    GOOD._replace(segments=(Segment(1, 0, 2, "x", 1 << 40),)).encode(),
]
EXTREME = [
    b"[" * 16_000,
    b'{"v":1,"files":' + b"[" * 1_000_000,
    b'{"a":' * 100_000,
    b'{"v":1,"base":0,"anchor":"","files":[[1,0,2,' + b"[" * 900 + b"]" * 900 + b",2]]}",
    b'{"v":1,"base":' + b"9" * 12_000 + b',"anchor":"","files":[]}',
    b'{"v":1,"base":0,"anchor":"","files":[' + b'[1,0,0,"",0],' * 500_000 + b'[1,0,0,"",0]]}',
    b'{"v":' + b"[" * 900 + b"]" * 900 + b"}",
]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


@pytest.fixture
def tailer(log):
    tailer = Tailer(log.parent, log.name)
    yield tailer
    tailer.close()


def rest(tailer: Tailer) -> tuple[bytes, list[Loss]]:
    """What the tailer still has, and what it says is missing."""
    chunks = list(iter(lambda: tailer.read(ENOUGH), None))
    return b"".join(chunk.data for chunk in chunks), [loss for chunk in chunks for loss in chunk.losses]


def rotate(log: Path, backups: int) -> None:
    for number in range(backups, 0, -1):
        log.with_name(f"log.txt.{number}").rename(log.with_name(f"log.txt.{number + 1}"))
    log.rename(log.with_name("log.txt.1"))


def write_chain(log: Path, *contents: bytes) -> None:
    """A chain of files, the oldest first."""
    for backups, content in enumerate(contents):
        if backups:
            rotate(log, backups - 1)
        log.write_bytes(content)


def test_a_cursor_says_its_version():
    assert json.loads(GOOD.encode())["v"] == 1 and Cursor.decode(GOOD.encode()) == GOOD


def test_a_cursor_as_release_0_1_0_wrote_it_is_read():
    """It had no version."""
    assert Cursor.decode(b'{"base":0,"anchor":"YWI=","files":[[1,0,2,"x",2]]}') == GOOD


def test_a_cursor_of_another_version_is_not_guessed_at():
    fields = json.loads(GOOD.encode())
    for version in (0, 2, "1", None, [], {}):
        assert Cursor.decode(json.dumps({**fields, "v": version}).encode()) is None


@pytest.mark.parametrize(
    "cursor", [NEXT_VERSION, *NO_CURSORS, *EXTREME], ids=lambda cursor: repr(cursor[:20])
)
def test_a_cursor_that_says_nothing_leaves_the_count_of_bytes(log, tailer, cursor):
    """It belongs to byte 7 of the stream: the chain holds that many bytes, so it goes on behind them."""
    log.write_bytes(b"all that is there")
    tailer.seek(7, cursor)
    assert tailer.stands_at(7, cursor)
    assert rest(tailer) == (b"t is there", [])
    assert tailer.digest() == (hashlib.sha256(b"all that is there").hexdigest(), 0)


@pytest.mark.parametrize(
    "cursor", [NEXT_VERSION, *NO_CURSORS, *EXTREME], ids=lambda cursor: repr(cursor[:20])
)
def test_where_the_chain_holds_fewer_bytes_what_is_there_is_read_behind_a_loss(log, tailer, cursor):
    write_chain(log, b"all ", b"that ", b"is there")
    tailer.seek(18, cursor)
    data, losses = rest(tailer)
    assert data == b"all that is there" and [loss.offset for loss in losses] == [18]
    assert tailer.digest() == (hashlib.sha256(data).hexdigest(), 18)


def test_a_cursor_of_another_place_is_a_loss(log, tailer):
    """It can be read, and does not belong to byte 7."""
    log.write_bytes(b"all that is there")
    tailer.seek(7, GOOD.encode())
    data, losses = rest(tailer)
    assert data == b"all that is there" and [loss.offset for loss in losses] == [7]
    assert tailer.digest() == (hashlib.sha256(data).hexdigest(), 7)


@pytest.mark.parametrize("offset", range(0, 18))
def test_the_count_of_bytes_leads_to_any_place_in_the_chain(log, tailer, offset):
    """Also to the ends of its files, with empty ones between, and on through rotations that come later."""
    write_chain(log, b"all ", b"", b"that ", b"is there", b"")
    tailer.seek(offset, NEXT_VERSION)
    data, losses = rest(tailer)
    log.write_bytes(b" now")
    rotate(log, 4)
    log.write_bytes(b" and then")
    data, losses = data + (more := rest(tailer))[0], losses + more[1]
    written = b"all that is there now and then"
    assert data == written[offset:] and losses == []
    assert tailer.digest() == (hashlib.sha256(written).hexdigest(), 0)


def test_from_a_place_that_was_counted_a_truncation_is_noticed(log, tailer):
    log.write_bytes(b"0123456789")
    tailer.seek(4, NEXT_VERSION)
    assert rest(tailer) == (b"456789", [])
    log.write_bytes(b"another file")
    data, losses = rest(tailer)
    assert data == b"another file" and [loss.offset for loss in losses] == [10]


def test_a_long_chain_is_counted_too(log, tailer):
    contents = [b"file number %d\n" % number for number in range(40)]
    write_chain(log, *contents)
    written = b"".join(contents)
    tailer.seek(len(written) - 3, NEXT_VERSION)
    chunk = tailer.read(ENOUGH)
    assert chunk.data == written[-3:] and len(chunk.cursor) < 2000
    again = Tailer(log.parent, log.name)
    again.seek(len(written), chunk.cursor)
    assert again.read(ENOUGH) is None
    again.close()


def test_a_rotation_between_the_scan_and_the_open_is_counted_anew(log, tailer, monkeypatch):
    write_chain(log, b"one ", b"two ", b"three")
    opened = []
    real = Tailer._open

    def open_late(self, file, *more):
        opened.append(file.path.name)
        if len(opened) == 2:
            rotate(log, 2)
            log.write_bytes(b" four")
        return real(self, file, *more)

    monkeypatch.setattr(Tailer, "_open", open_late)
    tailer.seek(10, NEXT_VERSION)
    assert rest(tailer) == (b"ree four", [])


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_break_the_cursor(data):
    cursor = Cursor.decode(data)
    assert cursor is None or Cursor.decode(cursor.encode()) == cursor


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["v", "base", "anchor", "files"]), JSON))
def test_no_json_breaks_the_cursor(fields):
    cursor = Cursor.decode(json.dumps(fields).encode())
    assert cursor is None or Cursor.decode(cursor.encode()) == cursor


# -- with a receiver -----------------------------------------------------------------------------------------


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.close()


def answer_with(world: World, cursor: bytes) -> None:
    """Let the receiver answer with another cursor than it was given."""

    def deliver(payload: bytes) -> bytes:
        reply = decode_reply(world.deliver(payload))
        rows = tuple(row._replace(cursor=cursor) if row.cursor else row for row in reply.streams)
        return Reply(rows, reply.not_before, reply.error, reply.jobs_later).encode()

    world.link.deliver = deliver


@pytest.mark.parametrize(
    "cursor", [NEXT_VERSION, b"garbage", b"[" * 16_000], ids=["version", "garbage", "nested"]
)
def test_a_sender_that_cannot_read_its_cursor_goes_on_where_the_bytes_say(world, cursor):
    """As after going back to an older release: nothing is lost or sent twice, and the digest proves it."""
    log, written = world.logs / "log.txt", b""
    for number in range(3):
        data = random.Random(number).randbytes(5000)
        world.write(data)
        written += data
        world.run(world.sender("log.txt"))
        answer_with(world, cursor)
        rotate(log, number)
        log.write_bytes(b"and more %d\n" % number)
        written += b"and more %d\n" % number
    world.finish(world.sender("log.txt"))
    assert world.stored() == written
    assert world.verdicts == {StreamId(JOB, "log.txt"): "complete"} and world.info().losses == ()


def test_a_place_that_was_counted_wrongly_is_found_out_at_the_close(world):
    """The log was written anew meanwhile: the bytes before the place are others than those that were sent."""
    world.write(b"first life of the log\n")
    world.run(world.sender("log.txt"))
    answer_with(world, NEXT_VERSION)
    (world.logs / "log.txt").write_bytes(b"a second life of the log, which is longer\n")
    world.finish(world.sender("log.txt"))
    assert world.verdicts == {StreamId(JOB, "log.txt"): "partial"}
