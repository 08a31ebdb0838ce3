"""The store of an earlier release opens, reads and goes on; a migration is done as a whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nvflare_logstream.errors import StoreError
from nvflare_logstream.store import migrations
from nvflare_logstream.store.index import Index
from nvflare_logstream.store.store import INDEX_FILE, LogStore
from nvflare_logstream.streams import Loss, State, Stream, StreamId, StreamKey
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.upload import Close
from tests.unit.conftest import close_and_commit

FIXTURE = Path(__file__).parents[1] / "fixtures" / "store-0.1.0"
NOW = len(migrations.STEPS)  # the schema version of this release
OPEN = StreamKey("job-2", "site-1", "log.txt")
ADD_LEVEL = ("ALTER TABLE streams ADD COLUMN level TEXT NOT NULL DEFAULT 'full'",)


def log_of(site: str, count: int) -> bytes:
    """What the fixture's streams hold."""
    return b"".join(
        b"2026-09-21 14:13:%02d,%03d - train - INFO - %s epoch %d\n" % (n % 60, n, site.encode(), n)
        for n in range(count)
    )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def old(memory_path):
    """A copy of the store that release 0.1.0 wrote."""
    return Path(shutil.copytree(FIXTURE, memory_path / "old"))


def dump(path: Path) -> tuple[int, list[str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0], list(db.iterdump())


# -- what release 0.1.0 wrote --------------------------------------------------------------------------------


def records(store: LogStore) -> list[Stream]:
    one, two = log_of("site-1", 40), log_of("site-2", 20)
    start = 1_790_000_000.0
    key = StreamKey("job-1", "site-1", "log.txt")
    complete = Stream(
        key,
        end=len(one),
        cursor=b"{}",
        lines=40,
        state=State.CLOSED,
        total=len(one),
        digest=sha256(one),
        agreed=True,
        outcome="exit code 0",
        opened=start,
        last_seen=start + 2,
        last_data=start + 1,
        closed=start + 2,
        utc_offset=7200,
        skew=0.25,
    )
    lost = complete._replace(
        key=StreamKey(key.job_id, "site-2", key.file),
        end=len(two),
        lines=20,
        total=len(two),
        digest=sha256(two),
        outcome="signal 9",
        opened=start + 2,
        last_seen=start + 3,
        last_data=start + 2,
        closed=start + 3,
        utc_offset=0,
        skew=0.0,
        losses=(Loss(500, None, "rotated away"), Loss(500, 300, "truncated before it was read")),
    )
    expected = Stream(
        StreamKey(key.job_id, "site-3", key.file),
        state=State.EXPECTED,
        reason="the site was not connected when the job was started",
        opened=start + 3,
        last_seen=start + 3,
    )
    still_open = Stream(
        OPEN,
        end=1700,
        cursor=store.info(OPEN).cursor,
        lines=30,
        opened=start + 3,
        last_seen=start + 3.5,
        last_data=start + 3.5,
        utc_offset=-3600,
        skew=-1.5,
    )
    refused = expected._replace(
        key=StreamKey("job-2", "site-2", "log.txt"),
        state=State.REFUSED,
        reason="the site keeps its logs (allow_log_streaming is not true)",
    )
    return [complete, lost, expected, still_open, refused]


def test_a_store_of_release_0_1_0_opens_with_every_record_and_every_byte(old):
    store = LogStore(old)
    streams = store.streams()
    assert streams == records(store)
    assert [str(stream.verdict) for stream in streams] == [
        "complete",
        "lost",
        "never seen",
        "streaming",
        "refused",
    ]
    assert streams[0].agreed is True and streams[0].state is State.CLOSED
    for key, content in (
        (streams[0].key, log_of("site-1", 40)),
        (streams[1].key, log_of("site-2", 20)),
        (OPEN, log_of("site-1", 30)),
    ):
        assert store.path(key).read_bytes() == content
    cursor = json.loads(streams[3].cursor)
    assert base64.b64decode(cursor["anchor"]) == log_of("site-1", 30)[-64:] and len(cursor["files"]) == 2
    store.close()


def test_a_stream_of_release_0_1_0_goes_on_and_is_closed(old):
    content, clock = log_of("site-1", 35), Clock()
    store = LogStore(old, clock=clock)
    before = store.streams()
    assert store.open(OPEN).end == 1700
    assert store.append(OPEN, 1700, content[1700:], b"cursor") == len(content)
    closed = close_and_commit(
        store, OPEN, Close(StreamId(OPEN.job_id, OPEN.file), len(content), sha256(content), 0, "exit code 0")
    )
    assert str(closed.verdict) == "complete" and closed.lines == 35
    store.open(StreamKey("job-1", "site-3", "train.log"))
    store.close()
    store = LogStore(old)
    after = {stream.key: stream for stream in store.streams()}
    assert after.pop(OPEN) == closed and store.path(OPEN).read_bytes() == content
    assert after.pop(StreamKey("job-1", "site-3", "train.log")).state is State.OPEN
    assert list(after.values()) == [s for s in before if s.key != OPEN and s.state is not State.EXPECTED]
    store.close()


def test_what_an_earlier_release_expected_of_a_site_that_sent_another_file_is_gone(old):
    """It kept "never seen" beside what had come."""
    with closing(sqlite3.connect(old / INDEX_FILE)) as db, db:
        db.execute("CREATE TEMP TABLE more AS SELECT * FROM streams WHERE state = 'expected'")
        db.execute("UPDATE more SET file = 'train.log', state = 'open'")
        db.execute("INSERT INTO streams SELECT * FROM more")
    with closing(sqlite3.connect(old / INDEX_FILE)) as db, db:  # one of another job, which stays
        db.execute("UPDATE streams SET job = 'job-3' WHERE site = 'site-2' AND job = 'job-2'")
    states = {"/".join(stream.key): str(stream.state) for stream in records_in(old)}
    assert states["job-1/site-3/train.log"] == "open" and "job-1/site-3/log.txt" not in states
    assert len(states) == 5, "all others are there"


def test_a_new_store_has_the_tables_of_an_old_one(old, memory_path):
    LogStore(memory_path / "new").close()
    LogStore(old).close()  # takes the steps that it lacks
    with (
        closing(sqlite3.connect(old / INDEX_FILE)) as one,
        closing(sqlite3.connect(memory_path / "new" / INDEX_FILE)) as other,
    ):
        for table in ("streams", "losses", "uptime", "heard", "forgotten"):
            columns = [db.execute(f"PRAGMA table_info({table})").fetchall() for db in (one, other)]
            assert columns[0] == columns[1]


# -- the next step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["old", "new"])
def test_a_new_field_of_a_stream_is_one_more_step(old, monkeypatch, name):
    """The same for the store of a release before it and for a new one."""
    root = old.with_name(name)
    before = records_in(root) if name == "old" else []
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, ADD_LEVEL))
    store = LogStore(root)
    store.open(StreamKey("job-3", "site-1", "log.txt"))
    store.close()
    with closing(sqlite3.connect(root / INDEX_FILE)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (NOW + 1,)
        levels = db.execute("SELECT level FROM streams").fetchall()
        assert levels == [("full",)] * (len(before) + 1)
    assert records_in(root)[: len(before)] == before


def records_in(root: Path) -> list[Stream]:
    with closing(Index(root / INDEX_FILE)) as index:
        return index.find()


@pytest.mark.parametrize("failing", ["no such statement", "INSERT INTO nowhere VALUES (1)"])
def test_a_step_that_fails_leaves_the_old_version_whole(old, monkeypatch, failing):
    steps = migrations.STEPS
    before = dump(old / INDEX_FILE)
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "STEPS", (*steps, ADD_LEVEL, ("DELETE FROM losses", failing)))
        with pytest.raises(StoreError, match=INDEX_FILE):
            LogStore(old)
    assert dump(old / INDEX_FILE) == before
    store = LogStore(old)
    assert store.streams() == records(store)
    store.close()
    monkeypatch.setattr(migrations, "STEPS", (*steps, ADD_LEVEL))
    LogStore(old).close()
    assert dump(old / INDEX_FILE)[0] == NOW + 1


def die_in_a_migration(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.create_function("crash", 0, lambda: os._exit(7))
        migrations.STEPS += (ADD_LEVEL, ("DELETE FROM losses", "SELECT crash()"))
        migrations.migrate(db, path)


def test_a_process_that_dies_in_a_migration_leaves_the_old_version_whole(old):
    before = dump(old / INDEX_FILE)
    process = multiprocessing.get_context("spawn").Process(
        target=die_in_a_migration, args=(old / INDEX_FILE,)
    )
    process.start()
    process.join()
    assert process.exitcode == 7
    assert dump(old / INDEX_FILE) == before


def test_a_store_of_release_0_1_0_that_died_at_its_first_start_opens(old):
    """It made the tables first, and noted the version after them."""
    with closing(sqlite3.connect(old / INDEX_FILE)) as db:
        db.execute("PRAGMA user_version=0")
    store = LogStore(old)
    assert store.streams() == records(store)
    store.close()
    assert dump(old / INDEX_FILE)[0] == NOW


# -- what is refused -----------------------------------------------------------------------------------------


def test_a_store_of_a_later_release_is_refused_and_left_alone(old):
    with closing(sqlite3.connect(old / INDEX_FILE)) as db:
        db.execute(f"PRAGMA user_version={NOW + 1}")
    content = (old / INDEX_FILE).read_bytes()
    with pytest.raises(StoreError) as refused:
        LogStore(old)
    assert str(refused.value) == (
        f"{old / INDEX_FILE} was written by a later release: it has schema version {NOW + 1}, "
        f"this release knows versions up to {NOW}"
    )
    assert (old / INDEX_FILE).read_bytes() == content


@pytest.mark.parametrize("version", [0, 1, 2, -1])
def test_a_database_of_something_else_is_refused_and_left_alone(memory_path, version):
    path = memory_path / INDEX_FILE
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url)")
        db.execute(f"PRAGMA user_version={version}")
    content = path.read_bytes()
    with pytest.raises(StoreError, match=f"{INDEX_FILE} is not the index of a log store"):
        LogStore(memory_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"not a database " * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_database_is_refused_and_left_alone(memory_path, content):
    path = memory_path / INDEX_FILE
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"cannot open the store's index .*{INDEX_FILE}: "):
        LogStore(memory_path)
    assert path.read_bytes() == content


def test_a_row_that_no_release_wrote_is_refused_by_its_name(old):
    with closing(sqlite3.connect(old / INDEX_FILE)) as db, db:
        db.execute("UPDATE streams SET state = 'asleep' WHERE job = 'job-1' AND site = 'site-1'")
    store = LogStore(old)
    with pytest.raises(StoreError, match=r"job-1/site-1/log\.txt: state: 'asleep' is not allowed; one of"):
        store.streams()
