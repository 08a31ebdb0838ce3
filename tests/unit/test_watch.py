"""What wakes a sender: changes that the kernel reports, and whoever calls."""

from __future__ import annotations

import os
import struct
import threading
import time

import pytest

from nvflare_logstream.site import watch as watch_module
from nvflare_logstream.site.watch import Watcher

FOREVER = 60.0  # a test that waits it out fails: far beyond `SOON`
SOON = 20.0


@pytest.fixture
def watcher():
    watcher = Watcher()
    yield watcher
    watcher.close()


def seconds_of(call) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def watch(watcher: Watcher, directory, descriptor=None, owner="log.txt") -> None:
    """Watch, and forget what came before."""
    watcher.watch(directory, descriptor, owner)
    watcher.wait(0)


@pytest.mark.parametrize("waiting", ["wait", "pause"])
def test_a_wake_before_the_wait_ends_it(watcher, waiting):
    for _ in range(100_000 // 10):
        watcher.wake()
    assert seconds_of(lambda: getattr(watcher, waiting)(FOREVER)) < SOON
    assert seconds_of(lambda: getattr(watcher, waiting)(0.05)) >= 0.04


def test_a_wake_from_another_thread_ends_the_wait(watcher):
    threading.Timer(0.05, watcher.wake).start()
    assert seconds_of(lambda: watcher.wait(FOREVER)) < SOON


def test_new_bytes_and_new_files_end_the_wait(watcher, tmp_path):
    with (tmp_path / "log.txt").open("ab", buffering=0) as file:
        watch(watcher, tmp_path, file.fileno())
        file.write(b"line\n")
        assert seconds_of(lambda: watcher.wait(FOREVER)) < SOON
    (tmp_path / "error_log.txt").touch()
    assert seconds_of(lambda: watcher.wait(FOREVER)) < SOON


def test_a_renamed_file_is_still_watched(watcher, tmp_path):
    with (tmp_path / "log.txt").open("ab", buffering=0) as file:
        watch(watcher, tmp_path, file.fileno())
        os.rename(tmp_path / "log.txt", tmp_path / "log.txt.1")
        watcher.wait(0)
        file.write(b"late line\n")
        assert seconds_of(lambda: watcher.wait(FOREVER)) < SOON


def test_a_directory_that_appears_late_is_watched_from_then_on(watcher, tmp_path):
    watch(watcher, tmp_path / "job")
    (tmp_path / "job").mkdir()
    watch(watcher, tmp_path / "job")
    (tmp_path / "job" / "log.txt").touch()
    assert seconds_of(lambda: watcher.wait(FOREVER)) < SOON


def test_changes_do_not_end_a_pause(watcher, tmp_path):
    watch(watcher, tmp_path)
    (tmp_path / "log.txt").touch()
    assert seconds_of(lambda: watcher.pause(0.1)) >= 0.09


def test_what_was_forgotten_wakes_nobody(watcher, tmp_path):
    with (tmp_path / "log.txt").open("ab", buffering=0) as file:
        watch(watcher, tmp_path, file.fileno())
        watcher.forget("log.txt")
        watcher.forget(tmp_path)
        watcher.wait(0)
        file.write(b"line\n")
        assert seconds_of(lambda: watcher.wait(0.1)) >= 0.09


def test_close_may_be_called_twice_and_wake_after_it():
    watcher = Watcher()
    before = len(os.listdir("/proc/self/fd"))
    watcher.close()
    watcher.close()
    watcher.wake()
    assert len(os.listdir("/proc/self/fd")) == before - 3


def test_a_directory_that_is_not_there_gives_no_reason_to_look_at_once(watcher, tmp_path):
    """A look finds nothing there: the next one would follow at once, without end."""
    assert not watcher.watch(tmp_path / "job", None, "log.txt")
    (tmp_path / "job").mkdir()
    assert watcher.watch(tmp_path / "job", None, "log.txt")
    assert not watcher.watch(tmp_path / "job", None, "log.txt")


def test_what_this_machines_kernel_writes_is_reported(watcher, tmp_path):
    with (tmp_path / "log.txt").open("ab") as file:
        assert not watcher.reports(tmp_path, file.fileno(), "log.txt")  # nobody watches yet
        watch(watcher, tmp_path, file.fileno())
        assert watcher.reports(tmp_path, file.fileno(), "log.txt")
        watcher.forget("log.txt")
        assert not watcher.reports(tmp_path, file.fileno(), "log.txt")
        assert watcher.reports(tmp_path, None, "log.txt")


def test_what_others_may_write_unseen_is_not_reported(watcher, tmp_path, monkeypatch):
    monkeypatch.setattr(watch_module, "_LOCAL", {0x6969})  # that of NFS: here no file system is local
    with (tmp_path / "log.txt").open("ab") as file:
        watch(watcher, tmp_path, file.fileno())
        assert not watcher.reports(tmp_path, file.fileno(), "log.txt")
        assert not watcher.reports(tmp_path, None, "log.txt")


@pytest.mark.parametrize("gone", ["removed", "moved"])
def test_a_directory_that_takes_anothers_place_is_watched_anew(watcher, tmp_path, gone):
    job = tmp_path / "job"
    job.mkdir()
    watch(watcher, job)
    assert watcher.reports(job, None, "log.txt")
    job.rmdir() if gone == "removed" else job.rename(tmp_path / "away")
    assert seconds_of(lambda: watcher.wait(FOREVER)) < SOON
    assert not watcher.reports(job, None, "log.txt")
    job.mkdir()
    assert not watcher.reports(job, None, "log.txt")
    assert watcher.watch(job, None, "log.txt")
    assert watcher.reports(job, None, "log.txt")
    watcher.wait(0)
    (job / "log.txt").touch()
    assert seconds_of(lambda: watcher.wait(FOREVER)) < SOON


def test_a_directory_made_anew_under_the_same_number_is_watched_anew(watcher, tmp_path):
    """A file system gives the number of a directory that was removed to the next one."""
    job = tmp_path / "job"
    job.mkdir()
    watch(watcher, job)
    job.rmdir()
    job.mkdir()
    watcher._places[job] = watch_module._identity(job)
    watcher.wait(0)
    assert not watcher.reports(job, None, "log.txt")
    assert watcher.watch(job, None, "log.txt")
    assert watcher.reports(job, None, "log.txt")


def test_a_file_opened_under_the_numbers_of_one_that_went_is_watched_anew(watcher, tmp_path):
    """A look may read through several files; the numbers of the first are soon those of the last."""
    log = tmp_path / "log.txt"
    log.touch()
    descriptor = os.open(log, os.O_RDONLY)
    watch(watcher, tmp_path, descriptor)
    log.unlink()
    os.close(descriptor)
    watcher.wait(0)
    log.touch()
    os.dup2(new := os.open(log, os.O_RDONLY), descriptor)
    if new != descriptor:
        os.close(new)
    if (last := watcher._last.get("log.txt")) is not None:  # as if the inode were the same too
        watcher._last["log.txt"] = (last[0], (descriptor, os.fstat(descriptor).st_ino))
    assert watcher.watch(tmp_path, descriptor, "log.txt")
    assert watcher.reports(tmp_path, descriptor, "log.txt")
    os.close(descriptor)


def test_where_reports_were_dropped_all_is_watched_anew(watcher, tmp_path):
    """The kernel keeps so many; one that was dropped may have told that a watch has ended."""
    log = tmp_path / "log.txt"
    with log.open("ab") as file:
        watch(watcher, tmp_path, file.fileno())
        overflow = struct.pack("iIII", -1, 0x4000, 0, 0)
        assert watcher._note(overflow) is None  # nobody knows of which files they told
        assert not watcher.reports(tmp_path, file.fileno(), "log.txt")
        assert watcher.watch(tmp_path, file.fileno(), "log.txt")
        assert watcher.reports(tmp_path, file.fileno(), "log.txt")
        watcher.wait(0)
        file.write(b"line\n")
        file.flush()
        assert seconds_of(lambda: watcher.wait(FOREVER)) < SOON
