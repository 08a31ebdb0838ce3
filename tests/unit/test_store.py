"""The store against a plain model: the bytes at rest, the committed place, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
import shutil
import sqlite3
import stat
import threading
import time
import timeit
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream import hashing
from nvflare_logstream.errors import (
    ArgumentError,
    CommitError,
    GapError,
    QuotaError,
    RefusedError,
    StoreError,
)
from nvflare_logstream.flare.job_log_receiver import JobLogReceiver
from nvflare_logstream.site.cursor import Cursor
from nvflare_logstream.store import closing, file, rebuild
from nvflare_logstream.store.index import StoredPart
from nvflare_logstream.store.ledger import MAX_LOSSES
from nvflare_logstream.store.migrations import STEPS
from nvflare_logstream.store.quotas import Usage
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import Loss, State, Stream, StreamId, StreamKey
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.upload import Close
from tests.unit.conftest import MEMORY, close_and_commit

KEY = StreamKey("job-1", "site-1", "log.txt")
SOURCE = b"".join(b"line %d\n" % number for number in range(200))  # what the site has


def cursor_at(offset: int) -> bytes:
    return b"at %d" % offset


def close_of(data: bytes, total: int | None = None, digest_from: int = 0) -> Close:
    digest = hashlib.sha256(data[digest_from:]).hexdigest()
    return Close(
        StreamId(KEY.job_id, KEY.file),
        len(data) if total is None else total,
        digest,
        digest_from,
        "exit code 0",
    )


def put(store: LogStore, start: int, end: int, key: StreamKey = KEY, losses: tuple[Loss, ...] = ()) -> int:
    return store.append(key, start, SOURCE[start:end], cursor_at(end), losses)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(memory_path, clock):
    store = LogStore(memory_path / "store", clock=clock, uptime=clock)
    yield store
    store.close()


def crash(store: LogStore) -> None:
    """Make `store` what the next process finds after a crash of this one."""
    store.index.close()
    store.__init__(store.root, store._usage.quotas, store._clock, store._retention._uptime)


ACTIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 1500), st.integers(0, 300)),
    st.tuples(st.just("next"), st.just(0), st.integers(0, 300)),
    st.tuples(st.sampled_from(["open", "commit", "crash", "close"]), st.just(0), st.just(0)),
)


@given(st.lists(ACTIONS, max_size=30))
def test_bytes_at_rest_are_always_a_prefix_and_a_crash_goes_back_to_a_committed_place(actions):
    with TemporaryDirectory(dir=MEMORY) as directory:
        store, end, committed = LogStore(Path(directory) / "store"), 0, 0
        for action, start, length in actions:
            if action == "open":
                info = store.open(KEY)
                assert (info.end, info.cursor) == (end, cursor_at(end) if end else b"")
            elif action == "commit":
                store.commit()
                committed = end
            elif action == "crash":
                crash(store)
                end = committed
            elif action == "close":
                assert close_and_commit(store, KEY, close_of(SOURCE[:end])).agreed
                committed = end
            else:
                start = end if action == "next" else start
                stop = min(start + length, len(SOURCE))
                if start > end:
                    with pytest.raises(GapError) as gap:
                        put(store, start, stop)
                    assert (gap.value.end, gap.value.cursor) == (end, cursor_at(end) if end else b"")
                elif start < stop:
                    before, end = store.info(KEY), max(end, stop)
                    assert put(store, start, stop) == end
                    if before and before.state is State.CLOSED and end > before.end:
                        committed = end  # at once, with the note in the ledger
            if KEY in store._loaded.files:  # looked at since it was opened
                assert store.path(KEY).read_bytes() == SOURCE[:end]
        store.close()
        store = LogStore(store.root)
        assert store.open(KEY).end == end and store.path(KEY).read_bytes() == SOURCE[:end]
        assert store.open(KEY).lines == SOURCE[:end].count(b"\n")
        store.close()


def test_files_and_directories_are_private(store):
    old = os.umask(0)
    try:
        put(store, 0, 10)
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in store.root.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (store.root, *store.path(KEY).parents[:2])} == {
        0o700
    }


# -- closing -------------------------------------------------------------------------------------------------


def test_bytes_that_follow_others_than_those_stored_are_a_gap(store):
    """A request from before a crash of the server came late, and the site has gone on from elsewhere."""
    put(store, 0, 20)
    with pytest.raises(GapError) as gap:
        store.append(KEY, 10, b"0123456789, and so on", b"", ())
    assert (gap.value.end, gap.value.cursor) == (20, cursor_at(20))
    assert put(store, 10, 30) == 30, "the same bytes may come twice"
    store.commit()
    assert (store.root / KEY.job_id / KEY.site / KEY.file).read_bytes() == SOURCE[:30]


def test_a_close_with_another_total_is_a_gap(store):
    put(store, 0, 100)
    with pytest.raises(GapError) as gap:
        close_and_commit(store, KEY, close_of(SOURCE[:120]))
    assert (gap.value.end, gap.value.cursor) == (100, cursor_at(100))


def test_a_close_with_another_digest_is_partial_and_names_both(store, clock):
    """What is on disk as it came stays: the site's file has changed since."""
    put(store, 0, 100)
    info = close_and_commit(store, KEY, close_of(b"x" * 100))
    assert info.verdict == "partial" and info.end == 100 and info.losses == ()
    for named in (b"x" * 100, SOURCE[:100]):
        assert hashlib.sha256(named).hexdigest() in info.verdict_reason


@pytest.mark.parametrize("restarted", [False, True])
def test_a_copy_that_was_changed_on_disk_is_taken_again_once(store, restarted):
    put(store, 0, 100)
    store.commit()
    with store.path(KEY).open("r+b") as file:  # such as through its name in the run directory
        file.write(b"changed")
    if restarted:
        crash(store)
    with pytest.raises(GapError) as gap:
        close_and_commit(store, KEY, close_of(SOURCE[:100]))
    assert (gap.value.end, gap.value.cursor) == (0, b"") and store.path(KEY).read_bytes() == b""
    put(store, 0, 100)
    with store.path(KEY).open("r+b") as file:
        file.write(b"changed")
    assert close_and_commit(store, KEY, close_of(SOURCE[:100])).agreed is False


@pytest.mark.parametrize("restarted", [False, True])
def test_a_copy_that_was_taken_again_is_complete_where_that_can_be_known(store, restarted):
    """A server that was restarted does not know whether the site's file is what it once sent."""
    put(store, 0, 100)
    store.commit()
    with store.path(KEY).open("r+b") as file:
        file.write(b"changed")
    if restarted:
        crash(store)
    with pytest.raises(GapError):
        close_and_commit(store, KEY, close_of(SOURCE[:100]))
    put(store, 0, 100)
    info = close_and_commit(store, KEY, close_of(SOURCE[:100]))
    assert info.agreed and info.verdict == ("lost" if restarted else "complete")
    assert "was taken again" in str(info.losses[0]) and store.path(KEY).read_bytes() == SOURCE[:100]


@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_a_copy_that_is_as_it_came_stays_where_the_sites_file_was_rewritten(store, restarts):
    """Also after a restart of the server it is known what came."""
    for start in range(0, 150, 50):
        put(store, start, start + 50)
        store.commit()
        if start < restarts * 50:
            put(store, start + 50, start + 60)  # comes again
            crash(store)
    info = close_and_commit(store, KEY, close_of(b"x" * 150))
    assert info.verdict == "partial" and info.losses == () and store.path(KEY).read_bytes() == SOURCE[:150]


def test_a_copy_of_which_nobody_knows_how_it_came_stays(store):
    """An earlier release wrote it, and the server was restarted with this one."""
    put(store, 0, 100)
    store.commit()
    with store.index._transaction() as db:
        db.execute("UPDATE streams SET came = ''")
    crash(store)
    put(store, 100, 120)
    info = close_and_commit(store, KEY, close_of(b"x" * 120))
    assert info.verdict == "partial" and store.path(KEY).read_bytes() == SOURCE[:120]


def test_a_copy_that_differs_stays_where_the_site_has_less(store):
    put(store, 0, 100)
    with store.path(KEY).open("r+b") as file:
        file.seek(80)
        file.write(b"changed")
    info = close_and_commit(store, KEY, close_of(SOURCE[:100], digest_from=60))
    assert info.verdict == "partial" and info.end == 100


def test_a_copy_is_read_outside_the_lock_and_once(store, monkeypatch):
    """Others write meanwhile; a close that is repeated costs nothing more."""
    other, reads = StreamKey("job-2", "site-1", "log.txt"), []
    read = closing.digest_of

    def digest_of(*args):
        reads.append(args)
        writer = threading.Thread(target=put, args=(store, 0, 10, other))
        writer.start()
        writer.join(5)
        assert not writer.is_alive()
        return read(*args)

    monkeypatch.setattr(closing, "digest_of", digest_of)
    put(store, 0, 100)
    for _ in range(3):
        assert close_and_commit(store, KEY, close_of(SOURCE[:100])).agreed
    assert len(reads) == 1


def test_bytes_that_come_while_the_copy_is_read_make_the_close_a_gap(store, monkeypatch):
    put(store, 0, 100)
    read = closing.digest_of
    monkeypatch.setattr(closing, "digest_of", lambda *args: (put(store, 100, 120), read(*args))[1])
    with pytest.raises(GapError) as gap:
        close_and_commit(store, KEY, close_of(SOURCE[:100]))
    assert gap.value.end == 120 and store.streams()[0].state is State.OPEN


@pytest.mark.parametrize("begins", [0, 1, 60, 100])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_digest_may_begin_anywhere(store, begins, restarted):
    put(store, 0, 50)
    put(store, 50, 100)
    store.commit()
    if restarted:
        crash(store)
    assert close_and_commit(store, KEY, close_of(SOURCE[:100], digest_from=begins)).agreed


@pytest.mark.parametrize("restarted", [False, True])
def test_bytes_after_the_close_open_the_stream_again_and_the_ledger_says_so(store, clock, restarted):
    put(store, 0, 100)
    closed = close_and_commit(store, KEY, close_of(SOURCE[:100])).closed
    put(store, 100, 150)
    put(store, 100, 200)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(closed))
    note = Loss(100, 0, f"closed at {when}, then the site went on with it")
    if restarted:
        crash(store)
    (stream,) = store.streams()
    assert stream.losses == (note,) and stream.as_of(clock(), 0).verdict == "streaming"
    put(store, stream.end, 200)
    stream = close_and_commit(store, KEY, close_of(SOURCE[:200]))
    assert stream.as_of(clock(), 0).standing == "complete" and stream.losses == (note,)


@pytest.mark.parametrize("losses", [(), (Loss(100, 5, "cut"),)])
def test_who_may_not_open_a_closed_stream_again_changes_nothing(store, losses):
    put(store, 0, 100)
    closed = close_and_commit(store, KEY, close_of(SOURCE[:100]))
    stop = 100 if losses else 101
    with pytest.raises(RefusedError, match="was closed"):
        store.append(KEY, 100, SOURCE[100:stop], b"c", losses, may_reopen=False)
    assert store.append(KEY, 50, SOURCE[50:100], cursor_at(100), may_reopen=False) == 100
    assert store.streams() == [closed] and store.path(KEY).read_bytes() == SOURCE[:100]


@pytest.mark.parametrize("start", [0, 50, 100])
@pytest.mark.parametrize("losses", [(), (Loss(100, None, "cut"),)])
def test_a_frame_that_is_repeated_after_the_close_leaves_it_closed(store, start, losses):
    """A delayed request may come when all is over."""
    put(store, 0, 100, losses=losses)
    closed = close_and_commit(store, KEY, close_of(SOURCE[:100]))
    assert put(store, start, 100, losses=losses) == 100
    assert store.streams() == [closed]


def test_a_repeated_close_changes_nothing(store):
    put(store, 0, 100)
    first = close_and_commit(store, KEY, close_of(SOURCE[:100]))
    assert close_and_commit(store, KEY, close_of(SOURCE[:100])) == first


# -- what the disk does --------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 7])
def test_a_full_disk_changes_nothing(store, monkeypatch, taken):
    """Also when it takes a few bytes before it says so."""
    put(store, 0, 20)
    pwrite, calls = os.pwrite, []

    def full(fd, data, at):
        calls.append(at)
        if len(calls) == 1 and taken:
            return pwrite(fd, data[:taken], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StoreError, match="No space left"):
            put(store, 20, 90)
    assert store.path(KEY).read_bytes() == SOURCE[:20]
    assert (store.open(KEY).end, store.open(KEY).cursor) == (20, cursor_at(20))
    assert put(store, 20, 90) == 90
    assert close_and_commit(store, KEY, close_of(SOURCE[:90])).agreed


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_stream_that_cannot_be_made_is_a_store_error(store, monkeypatch, error):
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", lambda *args, **more: (_ for _ in ()).throw(OSError(error, "no")))
        with pytest.raises(StoreError):
            store.open(KEY)
    assert store.open(KEY).end == 0


def fails(*args, **more):
    raise OSError(errno.EIO, "Input/output error")


def test_after_a_sync_that_failed_the_bytes_come_again(store, monkeypatch):
    """The system may have dropped them, and tells of it only once."""
    put(store, 0, 50)
    store.commit()
    put(store, 50, 90)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fails)
        with pytest.raises(StoreError, match="Input/output error"):
            store.commit()
    with pytest.raises(GapError) as gap:
        put(store, 90, 100)
    assert (gap.value.end, gap.value.cursor) == (50, cursor_at(50))
    assert store.path(KEY).read_bytes() == SOURCE[:50]
    put(store, 50, 100)
    store.commit()
    crash(store)
    assert store.open(KEY).end == 100 and store._usage._jobs[KEY.job_id] == 100


def test_a_file_that_cannot_be_read_fails_its_own_commit_only(store):
    other = StreamKey("job-2", "site-1", "log.txt")
    put(store, 0, 50)
    put(store, 0, 60, other)
    store.path(KEY).unlink()
    store.path(KEY).symlink_to(KEY.file)
    with pytest.raises(CommitError) as error:
        store.commit()
    assert list(error.value.failed) == [KEY]
    store.commit(other)
    store.unload(other.job_id)
    assert list(store._loaded.files) == [KEY]
    with pytest.raises(StoreError, match="not a plain file"):
        put(store, 50, 60)
    crash(store)
    assert store.open(other).end == 60


def test_no_link_in_the_store_is_followed(store, memory_path):
    (memory_path / "secret").write_bytes(b"secret")
    store.path(KEY).parent.mkdir(parents=True)
    store.path(KEY).symlink_to(memory_path / "secret")
    with pytest.raises(StoreError):
        put(store, 0, 10)
    assert (memory_path / "secret").read_bytes() == b"secret"


def test_a_new_files_name_is_on_disk_when_its_stream_is_committed(store, monkeypatch):
    synced, sync = [], file.sync_directory
    monkeypatch.setattr(file, "sync_directory", lambda path: (synced.append(path), sync(path)))
    put(store, 0, 10)
    store.commit()
    assert synced == [store.root / "job-1" / "site-1", store.root / "job-1", store.root]
    put(store, 10, 20)
    store.commit()
    assert len(synced) == 3
    crash(store)
    put(store, 20, 30)
    store.commit()
    assert len(synced) == 6, "the process that made it may have died before that"
    assert store.index._db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


def test_a_new_stores_own_name_is_on_disk_before_anything_is_kept_in_it(memory_path, monkeypatch):
    synced = []
    monkeypatch.setattr(rebuild, "sync_directory", synced.append)
    for _ in range(2):
        LogStore(memory_path / "new" / "store").close()
    root = memory_path / "new" / "store"
    assert synced == [root.parent, memory_path, root, root]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("damage", ["cut", "removed", "directory removed"])
def test_a_damaged_copy_is_taken_again_from_the_start(store, running, damage):
    put(store, 0, 100)
    store.commit()
    path = store.path(KEY)
    if damage == "cut":
        os.truncate(path, 40)
    else:
        path.unlink()
    if damage == "directory removed":
        path.parent.rmdir()
    if not running:
        crash(store)
    with pytest.raises(GapError) as gap:
        put(store, 100, 150)
    assert (gap.value.end, gap.value.cursor) == (0, b"")
    put(store, 0, 150)
    assert path.read_bytes() == SOURCE[:150]
    info = close_and_commit(store, KEY, close_of(SOURCE[:150]))
    assert info.agreed and info.lines == SOURCE[:150].count(b"\n")
    what = "cut to 40 bytes" if damage == "cut" else "removed"
    assert f"the stored copy, 100 bytes, was {what} at the server" in info.verdict_reason
    assert info.verdict == "lost", "nobody can know whether the site still had all of it"


@pytest.mark.parametrize("closes", ["equal", "other", "later part"])
def test_a_file_of_which_the_index_knows_nothing_is_kept_and_compared(memory_path, closes):
    store = LogStore(memory_path, Quotas(stream=150))
    store.path(KEY).parent.mkdir(parents=True)
    store.path(KEY).write_bytes(SOURCE[:100])
    with pytest.raises(GapError) as gap:
        put(store, 110, 120)
    assert gap.value.end == 100 and Cursor.decode(gap.value.cursor) is None and gap.value.cursor
    assert put(store, 100, 120) == 120 and store.info(KEY).lines == SOURCE[:120].count(b"\n")
    store.commit()
    crash(store)
    digest_from = 50 if closes == "later part" else 0
    data = b"x" * 120 if closes == "other" else SOURCE[:120]
    info = close_and_commit(store, KEY, close_of(data, digest_from=digest_from))
    assert info.verdict == ("complete" if closes == "equal" else "partial")
    assert "index was rebuilt" in str(info.losses)
    assert store.path(KEY).read_bytes() == SOURCE[:120], "nothing that is stored goes"
    if closes == "later part":
        assert "the site no longer has the first 50 bytes to compare" in info.verdict_reason
    with pytest.raises(QuotaError):
        put(store, 120, 151)
    store.close()


def test_an_index_of_another_version_is_refused(memory_path):
    LogStore(memory_path).close()
    with sqlite3.connect(memory_path / "index.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(
        StoreError, match=f"schema version 99, this release knows versions up to {len(STEPS)}"
    ):
        LogStore(memory_path)


# -- bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quota", ["stream", "site", "job", "store"])
def test_a_quota_stops_the_stream_at_its_last_byte_and_says_so(memory_path, clock, quota):
    store = LogStore(memory_path, Quotas(**{quota: 100}), clock)
    put(store, 0, 90)
    with pytest.raises(QuotaError, match=f"the {quota} quota of 100 bytes"):
        put(store, 90, 101)
    info = store.streams()[0]
    assert str(info.as_of(clock(), 0).standing) == (
        f"partial (server gave up at byte 90: the {quota} quota of 100 bytes is used up, see max_{quota}_gib)"
    )
    assert f"max_{quota}_gib" in inspect.signature(JobLogReceiver).parameters
    assert store.path(KEY).read_bytes() == SOURCE[:90]
    assert put(store, 0, 90) == 90  # what is held already is still success
    store.close()


def test_a_sites_quota_counts_all_its_jobs_and_holds_for_no_other_site(memory_path):
    store = LogStore(memory_path, Quotas(site=100))
    put(store, 0, 60)
    with pytest.raises(QuotaError, match="server gave up at byte 0: the site quota of 100 bytes is used up"):
        put(store, 0, 41, StreamKey("job-2", "site-1", "log.txt"))
    assert put(store, 0, 100, StreamKey("job-2", "site-2", "log.txt")) == 100
    store.close()
    store = LogStore(memory_path, Quotas(site=100))
    with pytest.raises(QuotaError):
        put(store, 60, 101)
    store.delete_job(KEY.job_id)
    assert put(store, 0, 100, StreamKey("job-3", "site-1", "log.txt")) == 100
    store.close()


@pytest.mark.parametrize("way", ["open", "append", "close", "refuse"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_site_has_so_many_files_in_a_job_and_readers_see_that_there_were_more(memory_path, way, restarted):
    store = LogStore(memory_path, Quotas(files=3))
    make = {
        "open": store.open,
        "append": lambda key: put(store, 0, 10, key),
        "close": lambda key: close_and_commit(store, key, close_of(b"")),
        "refuse": lambda key: store.refuse(key, "policy"),
    }[way]
    keys = [StreamKey("job-1", "site-1", f"log.{number}") for number in range(3)]
    for key in keys:
        put(store, 0, 10, key)
    over = StreamKey("job-1", "site-1", "over.1")
    for key in (over, StreamKey("job-1", "site-1", "over.2"), over):
        with pytest.raises(
            QuotaError, match="its site has 3 log files in this job, the most allowed, see max_site_files"
        ):
            make(key)
    if restarted:
        store.commit()
        crash(store)
        with pytest.raises(QuotaError):
            make(over)
    assert [stream.key for stream in store.streams()] == [*keys, over], "one record says it for all"
    assert store.info(over).standing.startswith("partial (server gave up at byte 0: its site has 3 log files")
    assert not store.path(over).exists()
    for key in (keys[0], StreamKey("job-1", "site-2", "log.1"), StreamKey("job-2", "site-1", "log.1")):
        assert put(store, 0, 20, key) == 20
    store.close()
    store = LogStore(memory_path, Quotas(files=4))
    assert put(store, 0, 10, over) == 10, "the operator has allowed more"
    store.close()


def test_a_share_of_the_disk_stays_free_and_the_sender_waits_for_room(memory_path, clock, monkeypatch):
    free = [1000]

    def statvfs(path):
        assert path == memory_path
        return SimpleNamespace(f_frsize=1, f_blocks=10_000, f_bavail=free[0])

    monkeypatch.setattr(os, "statvfs", statvfs)
    store = LogStore(memory_path, Quotas(free_share=0.05), clock)
    put(store, 0, 300)
    free[0] -= 300
    with pytest.raises(StoreError, match="5 % of the server's disk stay free") as error:
        put(store, 300, 501)
    assert not isinstance(error.value, QuotaError), "it is nobody's fault: the site comes again"
    assert store.info(KEY).state is State.OPEN and store.info(KEY).end == 300
    assert put(store, 0, 300) == 300
    free[0] = 2000
    assert put(store, 300, 501) == 501
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_frsize=0, f_blocks=0, f_bavail=0))
    clock.advance(10)
    assert put(store, 501, 1500) == 1500, "a file system that says nothing of its size has no bound"
    store.close()


def test_the_cost_of_a_frame_does_not_grow_with_what_is_kept():
    """It was 11 microseconds a frame, and 68 with 10,000 finished jobs in the index."""

    def cost(jobs: int) -> float:
        usage = Usage(Quotas(), [StoredPart(f"job-{number}", "site-1", 10) for number in range(jobs)])
        return min(timeit.repeat(lambda: usage.check(KEY, 10, 10), number=200, repeat=10))

    assert cost(20_000) < 5 * cost(1)


def test_quotas_count_what_a_crash_left_and_not_what_was_deleted(memory_path):
    store = LogStore(memory_path, Quotas(store=100))
    put(store, 0, 60)
    store.commit()
    put(store, 60, 100)
    crash(store)
    other = StreamKey("job-2", "site-1", "log.txt")
    with pytest.raises(QuotaError):
        put(store, 0, 41, other)
    store.delete_job(KEY.job_id)
    assert put(store, 0, 100, other) == 100
    store.close()


def test_a_copy_that_cannot_be_read_at_the_close_is_compared_at_the_next(store, monkeypatch):
    """The digest goes on where the last good reading ended, not where a failed one did."""
    monkeypatch.setattr(hashing, "HASH_STEP", 30)
    put(store, 0, 100)
    store.commit()
    crash(store)
    pread, calls = os.pread, []

    def fail_once(fd, length, offset):
        calls.append(offset)
        if len(calls) == 3:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", fail_once)
    with pytest.raises(StoreError, match="Input/output error"):
        close_and_commit(store, KEY, close_of(SOURCE[:100]))
    assert close_and_commit(store, KEY, close_of(SOURCE[:100])).agreed


def test_a_damaged_stream_is_counted_once(memory_path):
    store = LogStore(memory_path, Quotas(job=100))
    put(store, 0, 80)
    os.truncate(store.path(KEY), 0)
    assert store.open(KEY).end == 0
    assert put(store, 0, 100) == 100
    store.close()


def test_the_ledger_is_bounded(store):
    losses = tuple(Loss(number, 1, "gone") for number in range(MAX_LOSSES + 50))
    store.append(KEY, 0, b"", b"c", losses[:600])
    store.append(KEY, 0, b"", b"c", losses[600:])
    assert len(store.streams()[0].losses) == MAX_LOSSES == len(store.index.find()[0].losses)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_ledger_that_is_full_says_so_and_takes_nothing_more(store, restarted):
    losses = tuple(Loss(0, number, "gone") for number in range(MAX_LOSSES + 50))
    put(store, 0, 10)
    for number in range(0, MAX_LOSSES - 1, 333):
        store.append(KEY, 10, b"", b"c", tuple(Loss(number + n, 1, "gone") for n in range(333)))
    assert store.streams()[0].standing.endswith("; and 996 more)")
    store.append(KEY, 10, b"", b"c", losses[999:])
    closed = close_and_commit(store, KEY, close_of(SOURCE[:10]))
    store.commit()
    if restarted:
        crash(store)
    (stream,) = store.streams()
    (full,) = [loss for loss in stream.losses if "no further losses are listed" in loss.reason]
    assert len(stream.losses) == MAX_LOSSES and full.length is None
    assert stream.verdict == "lost" and stream.standing.endswith("; and at least 997 more)")
    store.append(KEY, 10, b"", b"c", losses[1010:])
    assert store.streams() == [closed._replace(losses=stream.losses)], (
        "what it cannot list opens nothing again"
    )


@pytest.mark.parametrize("loaded", [True, False])
def test_who_asks_for_streams_only_reads_no_ledgers(store, loaded):
    """64 full ones took the index 1.5 s, for each request of 30 bytes that asked what is known of a job."""
    notes, losses = (tuple(Loss(number, length, "why") for number in range(300)) for length in (0, 1))
    for name, ledger in (("a", ()), ("b", notes), ("c", losses)):
        key = KEY._replace(file=name)
        put(store, 0, 10, key, losses=ledger)
        close_and_commit(store, key, close_of(SOURCE[:10]))
    store.commit()
    if not loaded:
        store.unload(KEY.job_id)
    brief, full = store.streams("job-1", "site-1", brief=True), store.streams("job-1", "site-1")
    assert [stream.verdict for stream in brief] == ["complete", "complete", "lost"]
    assert [stream._replace(losses=()) for stream in brief] == [stream._replace(losses=()) for stream in full]
    assert loaded or sum(len(stream.losses) for stream in brief) == 1
    assert [len(stream.losses) for stream in full] == [0, 300, 300]


def test_a_note_does_not_fill_a_ledger(store):
    """Its last place says that losses are missing; a note is none."""
    put(store, 0, 10)
    store.append(KEY, 10, b"", b"c", tuple(Loss(0, 0, f"note {number}") for number in range(MAX_LOSSES - 1)))
    close_and_commit(store, KEY, close_of(SOURCE[:10]))
    put(store, 10, 20)
    stream = close_and_commit(store, KEY, close_of(SOURCE[:20]))
    assert (stream.verdict, len(stream.losses)) == ("complete", MAX_LOSSES - 1)
    store.append(KEY, 20, b"", b"c", (Loss(20, 5, "gone"),))
    assert store.info(KEY).verdict == "lost" and len(store.info(KEY).losses) == MAX_LOSSES


def statements(store: LogStore, call) -> list[str]:
    """What the index is asked during a call."""
    asked: list[str] = []
    store.index._db.set_trace_callback(asked.append)
    try:
        call()
    finally:
        store.index._db.set_trace_callback(None)
    return asked


@pytest.mark.parametrize("restarted", [False, True])
def test_an_entry_of_the_ledger_is_written_once(store, restarted):
    """64 ledgers of 1,000 entries took 0.4 s of the index at each commit, one a second."""
    put(store, 0, 10, losses=tuple(Loss(number, 1, "gone") for number in range(100)))
    if restarted:
        crash(store)
        store.open(KEY)
    store.touch("site-1")
    written = [line for line in statements(store, store.commit) if "INTO losses" in line]
    assert not written
    put(store, 10, 20, losses=(Loss(200, 1, "gone"),))
    written = statements(store, lambda: put(store, 20, 30, losses=(Loss(201, 1, "gone"),)))
    assert len([line for line in written if "INTO losses" in line]) == 1
    assert len(store.index.load(KEY).losses) == 102


def test_the_cost_of_a_sign_of_life_after_a_restart_does_not_grow_with_what_is_kept(memory_path, clock):
    """100,000 streams made each site's first one take half a second, in which nobody else could write."""
    store = LogStore(memory_path, clock=clock)
    for number in range(50):
        key = StreamKey(f"old-{number}", "site-1", "log.txt")
        put(store, 0, 10, key)
        close_and_commit(store, key, close_of(SOURCE[:10]))
    put(store, 0, 10)
    store.close()
    store = LogStore(memory_path, clock=clock)
    for site, job_id in (("site-1", "job-x"), ("site-2", ""), ("site-1", "")):
        asked = statements(store, lambda site=site, job_id=job_id: store.touch(site, job_id))
        assert all("job = " in line for line in asked if "SELECT" in line)
    assert list(store._loaded.files) == [KEY]
    store.close()


def test_a_clock_that_was_once_ahead_keeps_no_stream_from_being_resumed(memory_path, clock):
    store = LogStore(memory_path, clock=clock)
    clock.advance(91 * 86400)
    put(store, 0, 10, StreamKey("job-2", "site-1", "log.txt"))
    clock.advance(-91 * 86400)
    put(store, 0, 10)
    store.close()
    store = LogStore(memory_path, clock=clock)
    clock.advance(10)
    store.touch("site-1")
    assert store.info(KEY).last_seen == clock()
    store.close()


def test_a_repeated_loss_is_recorded_once_and_survives_a_crash(store):
    loss = Loss(10, 5, "truncated")
    for _ in range(2):
        put(store, 0, 10, losses=(loss,))
    crash(store)
    assert store.streams()[0].losses == (loss,) and store.open(KEY).end == 10


def test_a_loss_at_a_place_that_another_request_has_passed_is_recorded(store):
    """An old request was delayed and came first: what the site lost since, it has lost."""
    put(store, 0, 20)
    before = store.info(KEY)
    loss = Loss(10, None, "removed")
    assert store.append(KEY, 10, b"", b"an older place", (loss,)) == 20
    stream = store.info(KEY)
    assert (stream.losses, stream.end, stream.cursor) == ((loss,), 20, before.cursor)
    assert store.path(KEY).read_bytes() == SOURCE[:20]


# -- keeping -------------------------------------------------------------------------------------------------


def test_delete_job_removes_all_of_it_and_nothing_else(store):
    other = StreamKey("job-2", "site-1", "log.txt")
    put(store, 0, 10)
    put(store, 0, 20, other)
    store.delete_job(KEY.job_id)
    assert [info.key for info in store.streams()] == [other]
    assert not (store.root / KEY.job_id).exists() and store.path(other).read_bytes() == SOURCE[:20]


def test_to_remove_a_jobs_files_holds_up_nobody(store, monkeypatch):
    """A file of 16 GiB takes the disk a second and more."""
    other = StreamKey("job-2", "site-1", "log.txt")
    put(store, 0, 10)
    rmtree, alive = shutil.rmtree, []

    def remove(path, **more):
        writer = threading.Thread(target=lambda: (put(store, 0, 20, other), store.commit()), daemon=True)
        writer.start()
        writer.join(20)
        alive.append(writer.is_alive())
        rmtree(path, **more)

    monkeypatch.setattr(shutil, "rmtree", remove)
    store.delete_job(KEY.job_id)
    assert alive == [False] and not (store.root / KEY.job_id).exists()


def test_the_ledgers_of_a_removed_job_go_outside_the_lock_and_after_a_crash(memory_path, monkeypatch):
    """64 full ones of 20 sites took 9 s, in which nobody else could write."""
    store = LogStore(memory_path)
    for number in range(3):
        put(store, 0, 10, KEY._replace(file=f"log.{number}"), losses=(Loss(1, 1, "gone"), Loss(2, 1, "gone")))
    other = KEY._replace(job_id="job-2")
    put(store, 0, 10, other, losses=(Loss(1, 1, "gone"),))
    delete, crashed = store.index.delete_ledgers, []

    def crash_half_way(job_id: str) -> None:
        writer = threading.Thread(target=put, args=(store, 10, 20, other), daemon=True)
        writer.start()
        writer.join(20)
        assert not writer.is_alive()
        crashed.append(job_id)
        raise StoreError("the server crashed")

    monkeypatch.setattr(store.index, "delete_ledgers", crash_half_way)
    with pytest.raises(StoreError):
        store.delete_job(KEY.job_id)
    monkeypatch.setattr(store.index, "delete_ledgers", delete)
    assert crashed == [KEY.job_id] and [stream.key for stream in store.streams()] == [other]
    store.close()
    store = LogStore(memory_path)
    with store.index._transaction() as db:
        assert db.execute("SELECT job FROM losses").fetchall() == [("job-2",)]
    store.delete_job("job-2")
    with store.index._transaction() as db:
        assert db.execute("SELECT job FROM losses").fetchall() == []
    store.close()


def test_what_a_crash_left_of_a_removed_job_goes_at_the_next_start(memory_path, monkeypatch):
    store = LogStore(memory_path)
    for name in ("job-1", "job-2", "job-3"):
        put(store, 0, 10, StreamKey(name, "site-1", "log.txt"))
    store.commit()
    monkeypatch.setattr(shutil, "rmtree", lambda path, **more: None)
    store.delete_job("job-1")
    monkeypatch.undo()
    (memory_path / ".archive-x1").mkdir()
    (memory_path / ".archive-x1" / "workspace.zip").write_bytes(b"half")
    store.index.close()
    store = LogStore(memory_path)
    assert sorted(entry.name for entry in memory_path.iterdir() if entry.is_dir()) == ["job-2", "job-3"]
    store.close()


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_failure_left_of_a_removed_job_is_removed_later(store, monkeypatch, restarted):
    put(store, 0, 10)
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fails)
        store.delete_job(KEY.job_id)
    assert store.path(KEY).exists()
    if restarted:
        crash(store)
    else:
        store.sweep(90 * DAY, nobody)
    assert not (store.root / KEY.job_id).exists()


@pytest.mark.parametrize("name", ["..", "", "a/b", ".", "index.sqlite/.."])
def test_delete_job_refuses_what_is_no_name(store, name):
    with pytest.raises(ArgumentError):
        store.delete_job(name)


DAY = 86400.0


def test_sweep_removes_the_gone_and_the_old_but_nothing_that_is_busy(store, clock):
    keys = {name: StreamKey(name, "site-1", "log.txt") for name in ("gone", "old", "new")}
    put(store, 0, 10, keys["old"])
    close_and_commit(store, keys["old"], close_of(SOURCE[:10]))
    store.commit()
    assert store.sweep(90 * DAY, lambda job: False) == []
    clock.advance(80 * DAY)
    put(store, 0, 10, keys["gone"])
    put(store, 0, 10, keys["new"])
    clock.advance(20 * DAY)
    store.open(keys["new"])
    store.commit()
    assert sorted(store.sweep(90 * DAY, lambda job: job == "gone")) == [
        ("gone", "the job was deleted"),
        ("old", "nothing was heard of it for 90 days"),
    ]
    assert [info.key for info in store.streams()] == [keys["new"]]


def nobody(job_id: str) -> bool:
    """No job was deleted."""
    return False


def test_what_a_sweep_asks_of_the_job_store_is_bounded_and_each_job_has_its_turn(store, clock):
    """To ask for 10,000 finished jobs each minute took two seconds in which nothing was committed."""
    jobs = [f"job-{number}" for number in range(1200)]
    store.index.save([Stream(StreamKey(job, "site-1", "log.txt"), last_seen=clock()) for job in jobs])
    sweeps: list[list[str]] = []
    for _ in range(3):
        sweeps.append([])
        store.sweep(1e9, lambda job: bool(sweeps[-1].append(job)))
    assert max(map(len, sweeps)) < 500
    assert sorted(job for sweep in sweeps for job in sweep) == sorted(jobs)
    assert store.sweep(1e9, lambda job: True) and len(store.index.jobs()) > 700


def test_a_sweep_holds_up_nobody_who_needs_the_index(store):
    """100,000 streams took it 0.2 s each minute."""
    put(store, 0, 10)
    store.commit()
    with store.index._lock:
        looks = threading.Thread(target=store.index.jobs, daemon=True)
        looks.start()
        looks.join(20)
        assert not looks.is_alive()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_a_clock_that_jumps_takes_no_logs_away(memory_path, closed, restarted):
    """Closed logs stay for a day in which the server really ran; open ones for as long as they are kept."""
    clock, uptime = Clock(), Clock(0.0)
    store = LogStore(memory_path, clock=clock, uptime=uptime)
    put(store, 0, 10)
    if closed:
        close_and_commit(store, KEY, close_of(SOURCE[:10]))
    store.commit()
    assert store.sweep(90 * DAY, nobody) == []
    clock.advance(91 * DAY)
    for hours in range(1, (1 if closed else 90) * 24 + 1):
        assert store.sweep(90 * DAY, nobody) == [], hours
        uptime.advance(3600)
        if restarted and hours % 20 == 10:  # uptime is what all lives of the server have together
            store.sweep(90 * DAY, nobody)
            uptime.now = float(hours)  # a monotonic clock begins anywhere
            crash(store)
    assert [removal.job_id for removal in store.sweep(90 * DAY, nobody)] == [KEY.job_id]
    store.close()


def test_a_clock_that_jumped_and_was_set_right_takes_no_logs_away(store, clock):
    put(store, 0, 10)
    close_and_commit(store, KEY, close_of(SOURCE[:10]))
    store.commit()
    clock.advance(91 * DAY)
    assert store.sweep(90 * DAY, nobody) == []
    clock.advance(-90 * DAY)
    assert store.sweep(90 * DAY, nobody) == [] and store.open(KEY).end == 10


@pytest.mark.parametrize("file", [KEY.file, "other.txt"])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_removed_does_not_come_back(store, restarted, file):
    put(store, 0, 10)
    store.delete_job(KEY.job_id, "nothing was heard of it for 90 days")
    if restarted:
        crash(store)
    key = KEY._replace(file=file)
    for come_back in (
        lambda: store.open(key),
        lambda: put(store, 0, 10, key),
        lambda: close_and_commit(store, key, close_of(b"")),
        lambda: store.refuse(key, "policy"),
    ):
        with pytest.raises(RefusedError, match="has removed the logs of job job-1: nothing was heard of it"):
            come_back()
    store.expect({key: "nothing came"})
    assert store.streams() == [] and not (store.root / KEY.job_id).exists()
    assert put(store, 0, 10, StreamKey("job-2", "site-1", "log.txt")) == 10


def test_a_full_store_takes_nobodys_logs(memory_path, clock):
    """Whoever filled it is refused; what others have stored stays for as long as it was to be kept."""
    store = LogStore(memory_path, Quotas(store=1000), clock)
    for number in range(5):
        key = StreamKey(f"job-{number}", "site-1", "log.txt")
        put(store, 0, 190, key)
        close_and_commit(store, key, close_of(SOURCE[:190]))
        clock.advance(10)
    with pytest.raises(QuotaError, match="the store quota of 1000 bytes is used up"):
        put(store, 0, 100, StreamKey("job-6", "site-2", "log.txt"))
    store.commit()
    assert store.sweep(1e9, nobody) == []
    store.close()


def test_unload_forgets_in_memory_only(store):
    put(store, 0, 100)
    close_and_commit(store, KEY, close_of(SOURCE[:100]))
    store.unload(KEY.job_id)
    assert store._loaded.files == {}
    assert close_and_commit(store, KEY, close_of(SOURCE[:100])).agreed


# -- states and verdicts -------------------------------------------------------------------------------------


def test_an_expected_stream_is_never_seen_until_it_comes(store, clock):
    store.expect({KEY: "nothing came"})
    assert store.streams()[0].as_of(clock(), 30).verdict == "never seen"
    assert not store.path(KEY).exists()
    put(store, 0, 10)
    store.expect({KEY: "nothing came"})
    assert store.streams()[0].as_of(clock(), 30).verdict == "streaming"


def test_what_a_job_expects_of_a_thousand_sites_is_one_commit_and_stops_nobody(store):
    """It was one for each site, all under the lock that every frame needs."""
    done = []
    store.index._db.set_trace_callback(done.append)
    keys = [KEY._replace(site=f"site-{number}") for number in range(1000)]
    with store._loaded.lock:
        thread = threading.Thread(target=store.expect, args=[dict.fromkeys(keys, "nothing came")])
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert sum(statement.startswith("COMMIT") for statement in done) == 1
    assert [stream.key for stream in store.streams()] == sorted(keys)


@pytest.mark.parametrize("came", ["opened", "refused", "sent"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_site_that_sends_another_file_is_no_longer_expected(store, came, restarted):
    """The expectation is of the site, whatever file it is noted under."""
    others = [StreamKey(KEY.job_id, "site-2", KEY.file), StreamKey("job-2", KEY.site, KEY.file)]
    for key in (KEY, *others):
        store.expect({key: "nothing came"})
    if restarted:
        crash(store)
    other_file = StreamKey(KEY.job_id, KEY.site, "train.log")
    if came == "opened":
        store.open(other_file)
    elif came == "refused":
        store.refuse(other_file, "the site keeps it")
    else:
        put(store, 0, 10, other_file)
    expected = [other_file, *others]
    assert [stream.key for stream in store.streams()] == expected
    store.expect({KEY: "nothing came"})  # the server hears of the job's start later than of the stream
    crash(store)
    assert [stream.key for stream in store.streams()] == expected
    assert [str(stream.verdict) for stream in store.streams()][1:] == ["never seen", "never seen"]


def test_an_expected_stream_that_comes_is_the_same_stream(store):
    store.expect({KEY: "nothing came"})
    store.open(KEY)
    store.open(StreamKey(KEY.job_id, KEY.site, "train.log"))
    store.commit()
    crash(store)
    assert [(s.file, s.state) for s in store.streams()] == [("log.txt", "open"), ("train.log", "open")]


def test_a_gap_in_an_expected_stream_opens_it(store):
    store.expect({KEY: "nothing came"})
    with pytest.raises(GapError):
        put(store, 10, 20)
    assert store.streams()[0].state is State.OPEN


def test_a_refused_stream_says_why_and_keeps_what_came_before(store, clock):
    put(store, 0, 10)
    store.refuse(KEY, "the site changed its mind")
    crash(store)
    info = store.streams()[0]
    standing = str(info.as_of(clock(), 30).standing)
    assert standing == "refused (the site changed its mind, from byte 10 on)" and info.end == 10
    assert store.path(KEY).read_bytes() == SOURCE[:10]


def test_a_refusal_before_anything_came_makes_no_file(store, clock):
    store.refuse(KEY, "no")
    store.commit()
    assert (
        store.streams()[0].as_of(clock(), 30).verdict == "refused" and not (store.root / KEY.job_id).exists()
    )


@pytest.mark.parametrize("before", ["nothing", "bytes"])
def test_a_refusal_wakes_readers(store, before):
    if before == "bytes":
        put(store, 0, 10)
    seen = store.changes(KEY.job_id)
    store.refuse(KEY, "no")
    assert store.changes(KEY.job_id) > seen


def test_a_refusal_does_not_undo_a_close(store, clock):
    put(store, 0, 10)
    close_and_commit(store, KEY, close_of(SOURCE[:10]))
    store.refuse(KEY, "no")
    assert store.streams()[0].as_of(clock(), 30).verdict == "complete"


def test_a_sign_of_life_keeps_a_stream_from_going_silent(store, clock):
    put(store, 0, 10)
    clock.advance(29)
    store.touch("site-1")
    clock.advance(29)
    assert store.streams()[0].as_of(clock(), 30).verdict == "streaming"
    clock.advance(2)
    silent = store.streams()[0].as_of(clock(), 30)
    assert silent.verdict == "partial" and silent.verdict_reason.startswith("site silent since 20")


@pytest.mark.parametrize("site, job", [("site-2", ""), ("site-1", "job-2")])
def test_a_sign_of_life_is_for_the_senders_own_streams(store, clock, site, job):
    put(store, 0, 10)
    seen = store.streams()[0].last_seen
    clock.advance(10)
    store.touch(site, job)
    assert store.streams()[0].last_seen == seen


@pytest.mark.parametrize(
    "fields, verdict",
    [
        ({}, "streaming"),
        ({"last_seen": -100.0}, "partial (site silent since"),
        ({"state": State.CLOSED, "agreed": True}, "complete"),
        ({"state": State.CLOSED, "reason": "other digest"}, "partial (other digest)"),
        ({"state": State.STOPPED, "reason": "quota"}, "partial (quota)"),
        ({"state": State.REFUSED, "reason": "policy"}, "refused (policy)"),
        ({"state": State.EXPECTED, "reason": "nothing came"}, "never seen (nothing came)"),
        (
            {"state": State.CLOSED, "agreed": True, "losses": (Loss(10, 5, "cut"), Loss(20, None, "gone"))},
            "lost (bytes 10-15 of the source: cut; from byte 20, length unknown: gone)",
        ),
        ({"losses": tuple(Loss(n, 1, "x") for n in range(5))}, "lost (bytes 0-1 of the source: x; bytes 1-2"),
    ],
)
def test_every_verdict_and_its_reason(fields, verdict):
    assert Stream(KEY, **fields).as_of(0.0, 30.0).standing.startswith(verdict)


def test_a_returned_info_does_not_change_afterwards(store):
    first = store.open(KEY)
    put(store, 0, 10, losses=(Loss(0, 1, "x"),))
    assert first.end == 0 and first.losses == ()


def test_readers_are_told_of_a_close_only_once_it_is_on_disk(store, monkeypatch):
    store.append(KEY, 0, SOURCE[:100], cursor_at(100))
    seen: list[State] = []
    save, fdatasync = store.index.save, os.fdatasync

    def look(call):
        def looked(*args, **kwargs):
            seen.append(store.info(KEY).state)
            seen.extend(stream.state for stream in store.streams(KEY.job_id))
            return call(*args, **kwargs)

        return looked

    monkeypatch.setattr(store.index, "save", look(save))
    monkeypatch.setattr(os, "fdatasync", look(fdatasync))
    close_and_commit(store, KEY, close_of(SOURCE[:100]))
    assert len(seen) >= 4 and set(seen) == {State.OPEN}
    assert store.info(KEY).state is State.CLOSED and store.info(KEY).agreed


def test_a_reader_is_woken_by_the_commit_that_brings_a_close_to_disk(store, monkeypatch):
    """Also by one that comes later than the close, since the disk did not take it before."""
    put(store, 0, 100)
    store.commit()

    def save(*args):
        raise StoreError("database is locked")

    with monkeypatch.context() as locked:
        locked.setattr(store.index, "save", save)
        with pytest.raises(StoreError, match="database is locked"):
            close_and_commit(store, KEY, close_of(SOURCE[:100]))
    assert store.info(KEY).state is State.OPEN
    seen = store.changes(KEY.job_id)
    store.commit()
    assert store.info(KEY).state is State.CLOSED
    assert store.changes(KEY.job_id) > seen


def test_readers_are_told_of_a_second_close_only_once_it_is_on_disk(store, clock):
    put(store, 0, 100)
    assert not close_and_commit(store, KEY, close_of(b"x" * 100)).agreed
    clock.now += 1
    assert store.close_stream(KEY, close_of(SOURCE[:100])).agreed
    assert not store.info(KEY).agreed
    store.commit()
    assert store.info(KEY).agreed


def test_readers_are_told_at_once_that_a_copy_is_begun_again(store):
    put(store, 0, 100)
    store.close_stream(KEY, close_of(SOURCE[:100]))
    os.truncate(store.path(KEY), 50)
    with pytest.raises(GapError):
        store.close_stream(KEY, close_of(SOURCE[:100]))
    assert store.info(KEY).end == 0 and store.info(KEY).losses
