"""The store against a plain model: the bytes at rest, the committed place, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
import timeit
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream import hashing
from nvflare_logstream.errors import ArgumentError, GapError, QuotaError, StoreError
from nvflare_logstream.store.index import StoredPart
from nvflare_logstream.store.ledger import MAX_LOSSES
from nvflare_logstream.store.quotas import Usage
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import Loss, State, Stream, StreamId, StreamKey
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.upload import Close
from tests.unit.conftest import MEMORY

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
    store = LogStore(memory_path / "store", clock=clock)
    yield store
    store.close()


def crash(store: LogStore) -> None:
    """Make `store` what the next process finds after a crash of this one."""
    store.index.close()
    store.__init__(store.root, store._usage.quotas, store._clock)


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
                assert store.close_stream(KEY, close_of(SOURCE[:end])).agreed
            else:
                start = end if action == "next" else start
                stop = min(start + length, len(SOURCE))
                if start > end:
                    with pytest.raises(GapError) as gap:
                        put(store, start, stop)
                    assert (gap.value.end, gap.value.cursor) == (end, cursor_at(end) if end else b"")
                elif start < stop:
                    end = max(end, stop)
                    assert put(store, start, stop) == end
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


def test_a_close_with_another_total_is_a_gap(store):
    put(store, 0, 100)
    with pytest.raises(GapError) as gap:
        store.close_stream(KEY, close_of(SOURCE[:120]))
    assert (gap.value.end, gap.value.cursor) == (100, cursor_at(100))


def test_a_close_with_another_digest_is_partial_and_names_both(store, clock):
    put(store, 0, 100)
    info = store.close_stream(KEY, close_of(b"x" * 100))
    assert info.verdict == "partial"
    for named in (b"x" * 100, SOURCE[:100]):
        assert hashlib.sha256(named).hexdigest() in info.verdict_reason


@pytest.mark.parametrize("begins", [0, 1, 60, 100])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_digest_may_begin_anywhere(store, begins, restarted):
    put(store, 0, 50)
    put(store, 50, 100)
    store.commit()
    if restarted:
        crash(store)
    assert store.close_stream(KEY, close_of(SOURCE[:100], digest_from=begins)).agreed


def test_bytes_after_the_close_open_the_stream_again(store, clock):
    put(store, 0, 100)
    store.close_stream(KEY, close_of(SOURCE[:100]))
    put(store, 100, 150)
    assert store.streams()[0].as_of(clock(), 0).verdict == "streaming"
    assert store.close_stream(KEY, close_of(SOURCE[:150])).as_of(clock(), 0).verdict == "complete"


@pytest.mark.parametrize("start", [0, 50, 100])
@pytest.mark.parametrize("losses", [(), (Loss(100, None, "cut"),)])
def test_a_frame_that_is_repeated_after_the_close_leaves_it_closed(store, start, losses):
    """A delayed request may come when all is over."""
    put(store, 0, 100, losses=losses)
    closed = store.close_stream(KEY, close_of(SOURCE[:100]))
    assert put(store, start, 100, losses=losses) == 100
    assert store.streams() == [closed]


def test_a_repeated_close_changes_nothing(store):
    put(store, 0, 100)
    first = store.close_stream(KEY, close_of(SOURCE[:100]))
    assert store.close_stream(KEY, close_of(SOURCE[:100])) == first


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
    assert store.close_stream(KEY, close_of(SOURCE[:90])).agreed


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_stream_that_cannot_be_made_is_a_store_error(store, monkeypatch, error):
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", lambda *args, **more: (_ for _ in ()).throw(OSError(error, "no")))
        with pytest.raises(StoreError):
            store.open(KEY)
    assert store.open(KEY).end == 0


def test_a_commit_that_fails_is_made_up_for_by_the_next(store, monkeypatch):
    put(store, 0, 50)
    with monkeypatch.context() as patched:
        patched.setattr(
            os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error"))
        )
        with pytest.raises(StoreError):
            store.commit()
    store.commit()
    crash(store)
    assert store.open(KEY).end == 50


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
    info = store.close_stream(KEY, close_of(SOURCE[:150]))
    assert info.agreed and info.lines == SOURCE[:150].count(b"\n")


def test_a_file_that_was_left_without_its_index_is_overwritten(store):
    store.path(KEY).parent.mkdir(parents=True)
    store.path(KEY).write_bytes(b"left over from somewhere" * 100)
    put(store, 0, 10)
    assert store.path(KEY).read_bytes() == SOURCE[:10]


def test_an_index_of_another_version_is_refused(memory_path):
    LogStore(memory_path).close()
    with sqlite3.connect(memory_path / "index.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match="schema version 99, this release knows versions up to 1"):
        LogStore(memory_path)


# -- bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quota", ["stream", "site", "job", "store"])
def test_a_quota_stops_the_stream_at_its_last_byte_and_says_so(memory_path, clock, quota):
    store = LogStore(memory_path, Quotas(**{quota: 100}), clock)
    put(store, 0, 90)
    with pytest.raises(QuotaError, match=f"the {quota} quota of 100 bytes"):
        put(store, 90, 101)
    info = store.streams()[0]
    assert (
        str(info.as_of(clock(), 0).standing)
        == f"partial (server gave up at byte 90: the {quota} quota of 100 bytes is used up)"
    )
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
        "close": lambda key: store.close_stream(key, close_of(b"")),
        "refuse": lambda key: store.refuse(key, "policy"),
    }[way]
    keys = [StreamKey("job-1", "site-1", f"log.{number}") for number in range(3)]
    for key in keys:
        put(store, 0, 10, key)
    over = StreamKey("job-1", "site-1", "over.1")
    for key in (over, StreamKey("job-1", "site-1", "over.2"), over):
        with pytest.raises(
            QuotaError, match="its site has 3 log files in this job, the most that are allowed"
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
        store.close_stream(KEY, close_of(SOURCE[:100]))
    assert store.close_stream(KEY, close_of(SOURCE[:100])).agreed


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
    closed = store.close_stream(KEY, close_of(SOURCE[:10]))
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


def test_a_repeated_loss_is_recorded_once_and_survives_a_crash(store):
    loss = Loss(10, 5, "truncated")
    for _ in range(2):
        put(store, 0, 10, losses=(loss,))
    crash(store)
    assert store.streams()[0].losses == (loss,) and store.open(KEY).end == 10


# -- keeping -------------------------------------------------------------------------------------------------


def test_delete_job_removes_all_of_it_and_nothing_else(store):
    other = StreamKey("job-2", "site-1", "log.txt")
    put(store, 0, 10)
    put(store, 0, 20, other)
    store.delete_job(KEY.job_id)
    assert [info.key for info in store.streams()] == [other]
    assert not (store.root / KEY.job_id).exists() and store.path(other).read_bytes() == SOURCE[:20]


@pytest.mark.parametrize("name", ["..", "", "a/b", ".", "index.sqlite/.."])
def test_delete_job_refuses_what_is_no_name(store, name):
    with pytest.raises(ArgumentError):
        store.delete_job(name)


def test_sweep_removes_the_gone_and_the_old_but_nothing_that_is_busy(store, clock):
    day = 86400
    keys = {name: StreamKey(name, "site-1", "log.txt") for name in ("gone", "old", "new")}
    put(store, 0, 10, keys["old"])
    store.close_stream(keys["old"], close_of(SOURCE[:10]))
    clock.advance(80 * day)
    put(store, 0, 10, keys["gone"])
    put(store, 0, 10, keys["new"])
    clock.advance(20 * day)
    store.open(keys["new"])
    store.commit()
    assert sorted(store.sweep(90 * day, lambda job: job != "gone")) == ["gone", "old"]
    assert [info.key for info in store.streams()] == [keys["new"]]


def test_a_full_store_takes_nobodys_logs(memory_path, clock):
    """Whoever filled it is refused; what others have stored stays for as long as it was to be kept."""
    store = LogStore(memory_path, Quotas(store=1000), clock)
    for number in range(5):
        key = StreamKey(f"job-{number}", "site-1", "log.txt")
        put(store, 0, 190, key)
        store.close_stream(key, close_of(SOURCE[:190]))
        clock.advance(10)
    with pytest.raises(QuotaError, match="the store quota of 1000 bytes is used up"):
        put(store, 0, 100, StreamKey("job-6", "site-2", "log.txt"))
    store.commit()
    assert store.sweep(1e9, lambda job: True) == []
    store.close()


def test_release_forgets_in_memory_only(store):
    put(store, 0, 100)
    store.close_stream(KEY, close_of(SOURCE[:100]))
    store.release(KEY.job_id)
    assert store._loaded.files == {}
    assert store.close_stream(KEY, close_of(SOURCE[:100])).agreed


# -- states and verdicts -------------------------------------------------------------------------------------


def test_an_expected_stream_is_never_seen_until_it_comes(store, clock):
    store.expect(KEY, "nothing came")
    assert store.streams()[0].as_of(clock(), 30).verdict == "never seen"
    assert not store.path(KEY).exists()
    put(store, 0, 10)
    store.expect(KEY, "nothing came")
    assert store.streams()[0].as_of(clock(), 30).verdict == "streaming"


@pytest.mark.parametrize("came", ["opened", "refused", "sent"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_site_that_sends_another_file_is_no_longer_expected(store, came, restarted):
    """The expectation is of the site, whatever file it is noted under."""
    others = [StreamKey(KEY.job_id, "site-2", KEY.file), StreamKey("job-2", KEY.site, KEY.file)]
    for key in (KEY, *others):
        store.expect(key, "nothing came")
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
    store.expect(KEY, "nothing came")  # the server hears of the job's start later than of the stream
    crash(store)
    assert [stream.key for stream in store.streams()] == expected
    assert [str(stream.verdict) for stream in store.streams()][1:] == ["never seen", "never seen"]


def test_an_expected_stream_that_comes_is_the_same_stream(store):
    store.expect(KEY, "nothing came")
    store.open(KEY)
    store.open(StreamKey(KEY.job_id, KEY.site, "train.log"))
    store.commit()
    crash(store)
    assert [(s.file, s.state) for s in store.streams()] == [("log.txt", "open"), ("train.log", "open")]


def test_a_gap_in_an_expected_stream_opens_it(store):
    store.expect(KEY, "nothing came")
    with pytest.raises(GapError):
        put(store, 10, 20)
    assert store.streams()[0].state is State.OPEN


def test_a_refused_stream_says_why_and_keeps_what_came_before(store, clock):
    put(store, 0, 10)
    store.refuse(KEY, "the site changed its mind")
    crash(store)
    info = store.streams()[0]
    assert str(info.as_of(clock(), 30).standing) == "refused (the site changed its mind)" and info.end == 10
    assert store.path(KEY).read_bytes() == SOURCE[:10]


def test_a_refusal_before_anything_came_makes_no_file(store, clock):
    store.refuse(KEY, "no")
    store.commit()
    assert (
        store.streams()[0].as_of(clock(), 30).verdict == "refused" and not (store.root / KEY.job_id).exists()
    )


def test_a_refusal_does_not_undo_a_close(store, clock):
    put(store, 0, 10)
    store.close_stream(KEY, close_of(SOURCE[:10]))
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
