"""When a job counts as deleted, over a fake of the server's engine and job store."""

from __future__ import annotations

import os
import shutil

import pytest
from nvflare.apis.impl.job_def_manager import SimpleJobDefManager
from nvflare.app_common.storages.filesystem_storage import FilesystemStorage

from nvflare_logstream.flare.job_store import JobStore
from nvflare_logstream.testing import Clock
from tests.unit.fake_runtime import Engine


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path / "server")
    engine.job_def_manager.metas = {"job-1": {}, "job-2": {}}
    return engine


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def jobs(engine, clock):
    return JobStore(engine, lambda: ["job-1", "job-2"], clock)


def test_three_looks_over_ten_minutes_make_a_deletion(engine, jobs, clock):
    del engine.job_def_manager.metas["job-1"]
    for _ in range(60):  # a site that asks each second proves nothing
        assert not jobs.deleted("job-1")
        clock.advance(1)
    clock.advance(530)
    assert not jobs.deleted("job-1")
    clock.advance(10)
    assert jobs.deleted("job-1") and not jobs.deleted("job-2")


def test_two_looks_are_not_enough(engine, jobs, clock):
    del engine.job_def_manager.metas["job-1"]
    assert not jobs.deleted("job-1")
    clock.advance(100_000)
    assert not jobs.deleted("job-1")
    clock.advance(60)
    assert jobs.deleted("job-1")


@pytest.mark.parametrize("trouble", ["error", "empty"])
def test_a_store_that_gives_no_job_at_all_proves_nothing(engine, jobs, clock, trouble):
    engine.job_def_manager.broken = trouble == "error"
    if trouble == "empty":  # such as a directory that is not mounted
        engine.job_def_manager.metas.clear()
    for _ in range(100):
        assert not jobs.deleted("job-1")
        clock.advance(60)


def test_a_look_that_finds_the_job_makes_the_count_begin_again(engine, jobs, clock):
    metas = engine.job_def_manager.metas
    for missing in (True, True, False, True, True):
        if missing:
            metas.pop("job-1", None)
        else:
            metas["job-1"] = {}
        assert not jobs.deleted("job-1")
        clock.advance(400)
    assert jobs.deleted("job-1")


def test_a_job_that_runs_is_not_deleted(engine, jobs, clock):
    engine.run("job-1", "site-1")
    del engine.job_def_manager.metas["job-1"]
    for _ in range(20):
        assert not jobs.deleted("job-1")
        clock.advance(60)


def test_what_a_look_costs_is_bounded(engine, clock):
    engine.job_def_manager.metas.clear()
    jobs = JobStore(engine, lambda: (f"job-{number}" for number in range(10_000)), clock)
    for _ in range(10):
        jobs.deleted("job-1")
    assert engine.job_def_manager.asked <= 20


def test_what_is_noted_is_bounded(engine, jobs, monkeypatch):
    monkeypatch.setattr("nvflare_logstream.flare.job_store._MAX_ABSENT", 3)
    for number in range(10, 20):
        jobs.deleted(f"job-{number}")
    assert len(jobs._absent) <= 3


@pytest.fixture
def stored(tmp_path, engine, monkeypatch):
    """The directory of the jobs that the runtime's own storage keeps, with two jobs."""
    storage = FilesystemStorage()
    manager = SimpleJobDefManager(uri_root=str(tmp_path / "jobs"))
    monkeypatch.setattr(manager, "_get_job_store", lambda fl_ctx: storage)
    engine.job_def_manager, engine.get_component = manager, lambda name: storage
    for job_id in ("job-1", "job-2"):
        meta = {"job_id": job_id, "name": "a job", "folder_name": "app", "deploy_map": {}}
        storage.create_object(manager.job_uri(job_id), b"the job", meta)
    return tmp_path / "jobs"


def looks(jobs, clock, job_id: str = "job-1") -> list[bool]:
    """What each of some looks over eleven minutes says."""
    found = []
    for _ in range(11):
        found.append(jobs.deleted(job_id))
        clock.advance(60)
    return found


def test_the_last_job_is_deleted_where_the_directory_of_all_jobs_is_still_there(stored, engine, clock):
    """Without another job in the store, its site was told "later" for ever."""
    shutil.rmtree(stored / "job-2")
    jobs = JobStore(engine, lambda: [], clock)
    assert jobs.meta("job-1")
    shutil.rmtree(stored / "job-1")
    assert looks(jobs, clock) == [False] * 10 + [True]


@pytest.mark.parametrize("trouble", ["not mounted", "gone", "an error", "never seen"])
def test_the_last_job_is_in_doubt_where_the_directory_of_all_jobs_is_another(
    stored, engine, clock, trouble, monkeypatch
):
    jobs = JobStore(engine, lambda: ["job-1", "job-2"], clock)
    assert trouble == "never seen" or jobs.meta("job-1")
    shutil.rmtree(stored / "job-2")
    if trouble in ("not mounted", "gone"):
        stored.rename(stored.with_name("elsewhere"))
        if trouble == "not mounted":
            stored.mkdir()
    else:
        shutil.rmtree(stored / "job-1")
    if trouble == "an error":
        stat = os.stat

        def fail(path, *more, **named):
            if str(path) == str(stored):
                raise OSError(116, "Stale file handle")
            return stat(path, *more, **named)

        monkeypatch.setattr(os, "stat", fail)
    assert not any(looks(jobs, clock))


@pytest.mark.parametrize("trouble", ["meta", "data", "link", "closed"])
def test_a_job_that_cannot_be_read_is_not_deleted_while_its_directory_is_there(
    tmp_path, stored, engine, clock, monkeypatch, trouble
):
    """The runtime's own storage gives None for one bad block in the job's files, and gives all other jobs."""
    jobs = JobStore(engine, lambda: ["job-1", "job-2"], clock)
    directory = stored / "job-1"
    assert jobs.meta("job-1")["job_id"] == "job-1"
    with monkeypatch.context() as patched:
        if trouble == "closed":
            lstat, isfile = os.lstat, os.path.isfile

            def fail(path, *more, **named):
                if str(path) == str(directory):
                    raise PermissionError(13, "Permission denied", str(path))
                return lstat(path, *more, **named)

            patched.setattr(os, "lstat", fail)
            patched.setattr(
                os.path, "isfile", lambda path: not str(path).startswith(f"{directory}/") and isfile(path)
            )
        elif trouble == "link":
            directory.rename(tmp_path / "elsewhere")
            directory.symlink_to(tmp_path / "not mounted")
        else:
            (directory / trouble).unlink()
        assert jobs.meta("job-1") is None and jobs.meta("job-2")
        assert not any(looks(jobs, clock))
    if directory.is_symlink():
        directory.unlink()
    else:
        shutil.rmtree(directory)
    assert looks(jobs, clock) == [False] * 10 + [True]
