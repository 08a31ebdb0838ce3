"""Archives of finished jobs get what came after them, over a fake of the server's engine and job store."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from nvflare_logstream.client.model import UNKNOWN
from nvflare_logstream.errors import StoreError
from nvflare_logstream.flare.archive import ArchiveKeeper
from nvflare_logstream.store.store import INDEX_FILE, LogStore
from nvflare_logstream.streams import StreamKey
from nvflare_logstream.testing import Clock
from tests.unit.fake_runtime import Engine, upload

LOG = StreamKey("job-1", "site-1", "log.txt")
OTHER = StreamKey("job-1", "site-2", "log.txt")
WHOLE = b"line 1\nline 2\n"


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path / "server")
    engine.run("job-1", "site-1", "site-2")
    return engine


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keeper(engine, store, clock):
    return ArchiveKeeper(engine, store, clock)


def archive(engine, tmp_path, **files):
    """What the runtime put into the archive, with its own log beside it; then the job is over."""
    names = {"site_1": "site-1/log.txt", "site_2": "site-2/log.txt"}
    contents = {names[name]: data for name, data in files.items()}
    engine.job_def_manager.archive(tmp_path / "job-1.zip", "job-1", {"log.txt": b"server\n", **contents})
    engine.end("job-1")


def test_it_is_due_from_the_end_of_a_job_until_its_archive_is_complete(
    engine, store, keeper, clock, tmp_path
):
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path, site_1=WHOLE[:7])
    assert not keeper.due.is_set()
    keeper.job_archived("job-1")
    assert keeper.due.is_set()
    keeper.update()
    assert not keeper.due.is_set()
    keeper.stream_closed(LOG)
    assert keeper.due.is_set()
    clock.advance(2.0)
    keeper.update()
    assert not keeper.due.is_set()


def test_what_is_missing_is_added_and_the_rest_stays(engine, store, keeper, tmp_path):
    upload(store, LOG, WHOLE)
    upload(store, OTHER, b"other\n")
    archive(engine, tmp_path, site_1=WHOLE[:7])
    keeper.job_archived("job-1")
    keeper.update()
    assert engine.job_def_manager.archived("job-1") == {
        "log.txt": b"server\n",
        "site-1/log.txt": WHOLE,
        "site-2/log.txt": b"other\n",
    }
    keeper.update()
    assert engine.job_def_manager.saved == ["job-1"]
    assert not list(store.root.glob(".archive-*"))


ERRORS = StreamKey("job-1", "site-1", "error_log.txt")


def test_error_logs_stand_where_the_runtimes_own_receiver_puts_them(engine, store, keeper, tmp_path):
    """Its `download_job_components` brings them, also those of a job that a restart of the server cut off."""
    upload(store, LOG, WHOLE)
    upload(store, ERRORS, WHOLE)
    engine.end("job-1")
    keeper.stream_closed(ERRORS)
    keeper.update()
    assert engine.job_def_manager.client_data == {("job-1", "ERRORLOG_site-1"): WHOLE}
    assert store.path(ERRORS).read_bytes() == WHOLE
    assert not list(store.root.glob(".archive-*"))


def test_an_error_log_is_there_as_soon_as_it_is_closed(engine, store, keeper, tmp_path):
    """The runtime's own receiver waits for no other site either, and a server may be killed meanwhile."""
    upload(store, ERRORS, WHOLE)
    upload(store, OTHER, b"other\n", closed=False)
    keeper.stream_closed(ERRORS)
    assert keeper.due.is_set()
    keeper.update()
    assert engine.job_def_manager.client_data == {("job-1", "ERRORLOG_site-1"): WHOLE}
    assert not keeper.due.is_set()


def test_an_error_log_that_the_job_store_does_not_take_keeps_no_archive_from_being_completed(
    engine, store, keeper, clock, tmp_path, monkeypatch
):
    upload(store, LOG, WHOLE)
    upload(store, ERRORS, WHOLE)
    archive(engine, tmp_path, site_1=WHOLE[:7])
    keeper.job_archived("job-1")
    take = engine.job_def_manager.set_client_data

    def fail(*args):
        raise RuntimeError("the storage takes no components")

    monkeypatch.setattr(engine.job_def_manager, "set_client_data", fail)
    with pytest.raises(RuntimeError, match="takes no components"):
        keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE
    monkeypatch.setattr(engine.job_def_manager, "set_client_data", take)
    clock.advance(61.0)
    keeper.update()
    assert engine.job_def_manager.client_data == {("job-1", "ERRORLOG_site-1"): WHOLE}
    assert engine.job_def_manager.saved == ["job-1"] and not keeper.due.is_set()


@pytest.mark.parametrize("kept", [WHOLE[:7], WHOLE + b"line 3\n"])
def test_the_longer_error_log_stays(engine, store, keeper, kept):
    """The runtime's own receiver may have kept one before the server changed over."""
    engine.job_def_manager.client_data["job-1", "ERRORLOG_site-1"] = kept
    upload(store, ERRORS, WHOLE)
    engine.end("job-1")
    keeper.stream_closed(ERRORS)
    keeper.update()
    assert engine.job_def_manager.client_data["job-1", "ERRORLOG_site-1"] == max(kept, WHOLE, key=len)


def test_a_deleted_job_gets_no_error_log(engine, store, keeper):
    upload(store, ERRORS, WHOLE)
    engine.end("job-1")
    del engine.job_def_manager.metas["job-1"]
    keeper.stream_closed(ERRORS)
    keeper.update()
    assert not engine.job_def_manager.client_data and not keeper._pending


@pytest.fixture
def restarted(engine, store, clock):
    """The keeper of the server's next life, over the same store and job store."""

    def make() -> ArchiveKeeper:
        store.commit()
        keeper = ArchiveKeeper(engine, store, clock)
        keeper.start()
        return keeper

    return make


def test_what_a_server_left_undone_at_its_end_is_done_at_the_next_start(
    engine, store, keeper, restarted, tmp_path
):
    """It may be killed just after a job's end, before the archive had all."""
    upload(store, LOG, WHOLE)
    upload(store, ERRORS, WHOLE)
    archive(engine, tmp_path, site_1=WHOLE[:7])
    keeper.job_archived("job-1")
    keeper = restarted()
    assert keeper.due.is_set()
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE
    assert engine.job_def_manager.client_data["job-1", "ERRORLOG_site-1"] == WHOLE
    assert not keeper.due.is_set()


def test_an_archive_that_has_all_is_not_looked_at_at_each_start(
    engine, store, keeper, restarted, tmp_path, monkeypatch
):
    """A server has those of years."""
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path, site_1=WHOLE[:7])
    keeper.job_archived("job-1")
    keeper.update()
    keeper = restarted()
    assert not keeper.due.is_set() and store.index.unarchived() == []

    upload(store, OTHER, b"other\n")  # closed late, just before the server is killed
    keeper = restarted()
    assert keeper.due.is_set()
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-2/log.txt"] == b"other\n"
    assert not restarted().due.is_set()


def test_a_stream_that_is_closed_after_a_restart_is_added(engine, store, keeper, restarted, tmp_path):
    upload(store, LOG, WHOLE[:7], closed=False)
    archive(engine, tmp_path)
    keeper.job_archived("job-1")
    keeper = restarted()
    keeper.update()
    assert engine.job_def_manager.saved == []  # its site may come back within two minutes
    upload(store, LOG, WHOLE)
    keeper.stream_closed(LOG)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE
    assert not keeper.due.is_set()


def test_archives_of_earlier_jobs_are_looked_at_one_at_a_turn_the_newest_first(
    engine, store, restarted, tmp_path, clock
):
    jobs = [f"job-{number}" for number in range(1, 6)]
    for job_id in jobs:
        engine.run(job_id, "site-1")
        upload(store, StreamKey(job_id, "site-1", "log.txt"), WHOLE)
        engine.job_def_manager.archive(tmp_path / f"{job_id}.zip", job_id, {})
        engine.end(job_id)
    engine.run("job-3", "site-1")  # which the runtime has taken up again
    keeper = restarted()
    for turn in range(1, 6):
        assert keeper.due.is_set()
        keeper.update()
        assert len(engine.job_def_manager.saved) <= turn
    assert engine.job_def_manager.saved == ["job-5", "job-4", "job-2", "job-1"]
    assert not keeper.due.is_set()


def test_a_job_store_that_is_away_is_asked_again_at_the_next_start(
    engine, store, restarted, tmp_path, monkeypatch
):
    """Nobody can tell its errors from those for an archive that is not there."""
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path, site_1=WHOLE[:7])

    def fail(*args):
        raise OSError("away")

    with monkeypatch.context() as patched:
        patched.setattr(engine.job_def_manager, "get_storage_for_download", fail)
        restarted().update()
    restarted().update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE


def test_an_index_that_cannot_be_read_at_the_start_stops_nothing(
    engine, store, restarted, monkeypatch, caplog
):
    def fail():
        raise StoreError("the store's index: disk I/O error")

    monkeypatch.setattr(store.index, "unarchived", fail)
    assert not restarted().due.is_set()
    assert "disk I/O error" in caplog.text


def test_what_is_longer_in_an_archive_stays_until_the_site_has_closed_its_log(
    engine, store, keeper, clock, tmp_path
):
    """After a crash the server may have less than was archived, until the site comes back."""
    upload(store, LOG, WHOLE[:7], closed=False)
    archive(engine, tmp_path, site_1=WHOLE)
    keeper.job_archived("job-1")
    clock.advance(121)
    keeper.update()
    assert engine.job_def_manager.saved == []
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE


def test_what_a_job_itself_put_under_a_sites_name_is_replaced(engine, store, keeper, tmp_path):
    """Its own code can write into the run directory that is archived."""
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path, site_1=WHOLE + b"all went well\n")
    keeper.job_archived("job-1")
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE


def test_what_is_left_in_a_store_whose_index_was_lost_takes_nothing_out_of_an_archive(
    engine, memory_path, clock, tmp_path
):
    """Both may have been damaged together; the archive has what the sites had sent before."""
    root = memory_path / "damaged"
    store = LogStore(root, clock=clock)
    upload(store, LOG, WHOLE)
    upload(store, OTHER, WHOLE)
    archive(engine, tmp_path, site_1=WHOLE, site_2=WHOLE[:7])
    store.close()
    (root / INDEX_FILE).unlink()
    os.truncate(store.path(LOG), 7)
    store = LogStore(root, clock=clock)
    try:
        keeper = ArchiveKeeper(engine, store, clock)
        keeper.start()
        keeper.update()
        assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE
        assert engine.job_def_manager.archived("job-1")["site-2/log.txt"] == WHOLE
        upload(store, LOG, WHOLE[:7])  # the site itself says that this is all
        keeper.stream_closed(LOG)
        clock.advance(2)
        keeper.update()
        assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE[:7]
    finally:
        store.close()


def test_a_complete_archive_is_left_alone(engine, store, keeper, tmp_path):
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path, site_1=WHOLE)
    keeper.job_archived("job-1")
    keeper.update()
    assert engine.job_def_manager.saved == []


def test_it_waits_until_the_runtime_has_archived_the_job_but_not_for_ever(
    engine, store, keeper, clock, tmp_path
):
    """Before 2.8 the runtime tells of a job's end first, and archives it then."""
    upload(store, LOG, WHOLE)
    run_directory = Path(engine.workspace.get_run_dir("job-1"))
    run_directory.mkdir()
    keeper.job_archived("job-1")
    keeper.update()
    archive(engine, tmp_path, site_1=WHOLE[:7])
    run_directory.rmdir()
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE

    run_directory.mkdir()  # which the runtime could not remove
    archive_again = b"line 1\n"
    engine.job_def_manager.archive(tmp_path / "job-1.zip", "job-1", {"site-1/log.txt": archive_again})
    keeper.job_archived("job-1")
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == archive_again
    clock.now += 121
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE


def test_it_waits_for_open_streams_but_not_for_ever(engine, store, keeper, clock, tmp_path):
    upload(store, LOG, WHOLE)
    upload(store, OTHER, b"other\n", closed=False)
    archive(engine, tmp_path)
    keeper.job_archived("job-1")
    keeper.update()
    clock.advance(119)
    keeper.update()
    assert engine.job_def_manager.saved == []
    clock.advance(2)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-2/log.txt"] == b"other\n"


def test_a_stream_that_is_closed_late_is_added(engine, store, keeper, clock, tmp_path):
    upload(store, OTHER, b"other\n")
    archive(engine, tmp_path, site_2=b"other\n")
    upload(store, LOG, WHOLE)
    keeper.stream_closed(LOG)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE


def test_a_stream_that_is_closed_while_the_archive_is_written_is_added_after_it(
    engine, store, keeper, clock, tmp_path, monkeypatch
):
    """What the archive gets was decided when its writing began, and a large one takes minutes."""
    upload(store, LOG, WHOLE)
    upload(store, OTHER, b"other 1\n", closed=False)
    archive(engine, tmp_path)
    keeper.job_archived("job-1")
    clock.advance(121)
    save = engine.job_def_manager.save_workspace

    def close_meanwhile(*args):
        save(*args)
        if len(engine.job_def_manager.saved) == 1:
            upload(store, OTHER, b"other 1\nother 2\n")
            keeper.stream_closed(OTHER)

    monkeypatch.setattr(engine.job_def_manager, "save_workspace", close_meanwhile)
    keeper.update()
    assert keeper.due.is_set()
    clock.advance(2)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-2/log.txt"] == b"other 1\nother 2\n"
    assert not keeper.due.is_set()


def test_a_stream_that_is_closed_while_the_job_store_fails_is_tried_again(
    engine, store, keeper, clock, tmp_path, monkeypatch
):
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path)
    keeper.job_archived("job-1")
    save = engine.job_def_manager.save_workspace

    def close_and_fail(*args):
        keeper.stream_closed(LOG)
        raise OSError("away")

    monkeypatch.setattr(engine.job_def_manager, "save_workspace", close_and_fail)
    with pytest.raises(OSError, match="away"):
        keeper.update()
    assert keeper.due.is_set()
    monkeypatch.setattr(engine.job_def_manager, "save_workspace", save)
    clock.advance(61)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE
    assert not keeper.due.is_set()


def test_a_stream_that_is_closed_while_its_job_runs_is_not_looked_at(engine, store, keeper):
    upload(store, LOG, WHOLE)
    keeper.stream_closed(LOG)
    keeper.update()  # would ask for an archive that is not there
    assert engine.job_def_manager.saved == []


def test_the_servers_own_logs_are_not_the_sites_business(engine, store, keeper, tmp_path):
    upload(store, StreamKey("job-1", "server", "log.txt"), b"of the server\n", closed=False)
    archive(engine, tmp_path)
    keeper.job_archived("job-1")
    keeper.update()
    assert engine.job_def_manager.saved == []


def test_a_job_without_an_archive_is_passed_over(engine, store, keeper):
    upload(store, LOG, WHOLE)
    engine.end("job-1")
    keeper.job_archived("job-1")
    keeper.update()
    assert engine.job_def_manager.saved == [] and not list(store.root.glob(".archive-*"))


def test_an_archive_that_cannot_be_saved_is_tried_again_and_holds_up_no_other_job(
    engine, store, keeper, clock, tmp_path, monkeypatch
):
    """Each try writes the whole archive anew: not at every turn."""
    engine.run("job-2", "site-1")
    engine.job_def_manager.archive(tmp_path / "job-2.zip", "job-2", {})
    engine.end("job-2")
    upload(store, LOG, WHOLE)
    upload(store, StreamKey("job-2", "site-1", "log.txt"), WHOLE)
    archive(engine, tmp_path)
    keeper.job_archived("job-1")
    keeper.job_archived("job-2")
    save, tried = engine.job_def_manager.save_workspace, []

    def fail(job_id, *args):
        tried.append(job_id)
        return save(job_id, *args) if job_id == "job-2" else 1 / 0

    monkeypatch.setattr(engine.job_def_manager, "save_workspace", fail)
    with pytest.raises(ZeroDivisionError):
        keeper.update()
    assert engine.job_def_manager.archived("job-2")["site-1/log.txt"] == WHOLE
    clock.advance(59)
    keeper.update()
    assert tried == ["job-1", "job-2"]
    monkeypatch.setattr(engine.job_def_manager, "save_workspace", save)
    clock.advance(1)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE


def test_the_status_of_a_job(engine, keeper):
    assert keeper.status("job-1") == "RUNNING"
    engine.end("job-1")
    assert keeper.status("job-1") == "FINISHED:COMPLETED"
    assert keeper.status("job-2") == UNKNOWN


def test_nobody_will_say_how_a_job_of_an_earlier_life_ended(engine, keeper):
    engine.job_runner.running_jobs.clear()
    assert keeper.status("job-1") == UNKNOWN


def test_an_archive_that_is_damaged_holds_up_no_other_job(engine, store, keeper, tmp_path):
    engine.run("job-0", "site-1")
    engine.end("job-0")
    (tmp_path / "job-0.zip").write_bytes(b"no archive")
    engine.job_def_manager.archives["job-0"] = tmp_path / "job-0.zip"
    upload(store, StreamKey("job-0", "site-1", "log.txt"), WHOLE)
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path)
    for job_id in ("job-0", "job-1"):
        keeper.job_archived(job_id)
    with pytest.raises(zipfile.BadZipFile):
        keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE


def test_an_archive_that_stays_damaged_is_read_ever_less_often_and_named_once(
    engine, store, keeper, clock, tmp_path, caplog, monkeypatch
):
    """Each look reads all of it, and after a restart there may be a thousand such."""
    fetch, fetched = engine.job_def_manager.get_storage_for_download, []
    monkeypatch.setattr(
        engine.job_def_manager,
        "get_storage_for_download",
        lambda *args: (fetched.append(clock()), clock.advance(1), fetch(*args)),
    )
    (tmp_path / "job-1.zip").write_bytes(b"no archive")
    engine.job_def_manager.archives["job-1"] = tmp_path / "job-1.zip"
    engine.end("job-1")
    upload(store, LOG, WHOLE)
    keeper.job_archived("job-1")
    for _ in range(6 * 3600):
        with suppress(zipfile.BadZipFile):
            keeper.update()
        clock.advance(1)
    assert 60 <= fetched[1] - fetched[0] < 70 and 3600 <= fetched[-1] - fetched[-2] < 3700
    assert len(fetched) < 15
    assert caplog.text.count("job-1: its archive cannot be completed") == 1
    engine.job_def_manager.archive(tmp_path / "job-1.zip", "job-1", {})
    clock.advance(3600)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE


def test_the_archives_of_earlier_jobs_take_a_tenth_of_the_time_and_hold_up_no_other(
    engine, store, restarted, clock, tmp_path, monkeypatch
):
    """After an update there may be a thousand, each of a gigabyte."""
    for job_id in ("job-2", "job-3", "job-4"):
        engine.run(job_id, "site-1")
        upload(store, StreamKey(job_id, "site-1", "log.txt"), WHOLE)
        engine.job_def_manager.archive(tmp_path / f"{job_id}.zip", job_id, {})
        engine.end(job_id)
    fetch = engine.job_def_manager.get_storage_for_download
    monkeypatch.setattr(
        engine.job_def_manager,
        "get_storage_for_download",
        lambda job_id, *args: (clock.advance(30 if job_id != "job-1" else 0), fetch(job_id, *args)),
    )
    keeper, began, saved = restarted(), clock(), engine.job_def_manager.saved
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path)
    keeper.update()
    keeper.job_archived("job-1")
    for _ in range(290):
        clock.advance(1)
        keeper.update()
    assert saved == ["job-4", "job-1"] and clock() - began < 330
    while len(saved) < 4:
        clock.advance(1)
        keeper.update()
    assert 660 <= clock() - began < 700


def test_who_goes_on_with_a_job_that_is_over_has_its_archive_written_now_and_then(
    engine, store, keeper, clock, tmp_path, monkeypatch
):
    """A site that added a byte and closed again had an archive of any size written anew each second."""
    upload(store, LOG, WHOLE[:1])
    archive(engine, tmp_path)
    save, tried = engine.job_def_manager.save_workspace, []

    def slow(*args):
        tried.append(clock())
        clock.advance(30)  # a large archive
        return save(*args)

    monkeypatch.setattr(engine.job_def_manager, "save_workspace", slow)
    began = clock()
    for end in range(1, len(WHOLE) + 1):
        upload(store, LOG, WHOLE[:end])
        keeper.stream_closed(LOG)
        for _ in range(100):
            keeper.update()
            clock.advance(1)
    assert 30 * len(tried) < 0.2 * (clock() - began)
    clock.advance(300)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE
    clock.advance(300)
    keeper.update()
    assert not keeper._resting and not keeper._pending


def test_who_goes_on_with_an_error_log_has_it_copied_now_and_then(engine, store, keeper, clock, monkeypatch):
    """Also while the job runs."""
    take, tried = engine.job_def_manager.set_client_data, []

    def slow(*args):
        tried.append(clock())
        clock.advance(10)  # a large log
        take(*args)

    monkeypatch.setattr(engine.job_def_manager, "set_client_data", slow)
    began = clock()
    for end in range(1, len(WHOLE) + 1):
        upload(store, ERRORS, WHOLE[:end])
        keeper.stream_closed(ERRORS)
        for _ in range(20):
            keeper.update()
            clock.advance(1)
    assert 10 * len(tried) < 0.2 * (clock() - began)
    clock.advance(100)
    keeper.update()
    assert engine.job_def_manager.client_data == {("job-1", "ERRORLOG_site-1"): WHOLE}
    clock.advance(100)
    keeper.update()
    assert not keeper._resting and not keeper.due.is_set()


def test_an_archive_is_written_while_the_share_of_the_disk_that_stays_free_is_left(
    engine, memory_path, clock, tmp_path, monkeypatch
):
    store = LogStore(memory_path / "small", clock=clock)
    keeper = ArchiveKeeper(engine, store, clock)
    upload(store, LOG, WHOLE)
    archive(engine, tmp_path)
    keeper.job_archived("job-1")
    full = SimpleNamespace(f_blocks=1000, f_frsize=4096, f_bavail=50)
    clock.advance(2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda path: full)
        with pytest.raises(StoreError, match="min_free_percent"):
            keeper.update()
    clock.advance(60)
    keeper.update()
    assert engine.job_def_manager.archived("job-1")["site-1/log.txt"] == WHOLE
    store.close()
