"""Which site may write logs of which job, over a fake of the server's engine."""

from __future__ import annotations

import pytest

from nvflare_logstream.flare import admission
from nvflare_logstream.flare.admission import JobAdmission, participants
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.streams import StreamKey
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.upload_reply import Status
from tests.unit.fake_runtime import Engine, upload


@pytest.fixture
def engine(tmp_path):
    return Engine(tmp_path / "server")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def admit(engine, store, clock):
    return JobAdmission(engine, store, clock)


def test_a_participant_of_a_running_job_is_admitted(engine, admit):
    engine.run("job-1", "site-1", "site-2")
    assert participants(engine, "job-1") == {"site-1", "site-2"}
    assert participants(engine, "job-2") == set()
    assert admit("site-1", "job-1") == Admission()


@pytest.mark.parametrize("name", ["server", ""])
def test_nobody_writes_in_the_servers_name(engine, admit, name):
    engine.run("job-1", "server", "")
    decision = admit(name, "job-1")
    assert decision.status is Status.REFUSED and "under the name" in decision.reason


def test_a_job_that_is_not_in_the_job_store_is_refused_when_that_is_sure(engine, admit, clock):
    engine.run("job-2", "site-1")
    for _ in range(2):
        assert admit("site-1", "job-1").status is Status.LATER
        clock.advance(300)
    decision = admit("site-1", "job-1")
    assert decision.status is Status.REFUSED and not decision.by_policy
    assert decision.reason == "job job-1 is not in the job store"


def test_a_site_that_takes_no_part_waits_for_the_jobs_end_and_is_then_refused(engine, admit, clock):
    engine.run("job-1", "site-1")
    assert admit("site-2", "job-1").status is Status.LATER
    engine.end("job-1")
    decision = admit("site-2", "job-1")
    assert (decision.status, decision.reason) == (Status.REFUSED, "site-2 takes no part in job job-1")


def test_a_site_that_a_finished_job_was_deployed_to_is_admitted(engine, admit):
    engine.run("job-1", job_deploy_detail=["server: OK", "site-1: OK", "site-2: no such app"])
    engine.end("job-1")
    assert admit("site-1", "job-1") == Admission()
    assert admit("site-2", "job-1").status is Status.REFUSED


def test_a_site_that_has_streams_of_a_finished_job_is_admitted(engine, store, admit):
    engine.run("job-1")
    engine.end("job-1")
    upload(store, StreamKey("job-1", "site-1", "log.txt"), b"line\n")
    store.expect({StreamKey("job-1", "site-2", "log.txt"): "nothing came yet"})
    assert admit("site-1", "job-1") == Admission()
    assert admit("site-2", "job-1").status is Status.REFUSED


@pytest.mark.parametrize("value", [False, None, "true", 1])
def test_a_site_that_said_that_it_keeps_its_logs_is_refused_by_policy(engine, admit, value):
    engine.run("job-1", "site-1")
    engine.settings["site-1"] = {"allow_log_streaming": value}
    decision = admit("site-1", "job-1")
    assert decision.status is Status.REFUSED and decision.by_policy
    assert decision.reason == "the site does not allow it (allow_log_streaming is not true)"


@pytest.mark.parametrize("settings", [{}, {"allow_log_streaming": True}])
def test_a_site_that_allows_it_or_says_nothing_is_admitted(engine, admit, settings):
    engine.run("job-1", "site-1")
    engine.settings["site-1"] = settings
    assert admit("site-1", "job-1") == Admission()


def test_a_policy_is_no_way_into_a_job_of_others(engine, admit):
    """by_policy says "takes part, but keeps its logs": it must not be said of a site outside the job."""
    engine.run("job-1", "site-1")
    engine.end("job-1")
    engine.settings["site-2"] = {"allow_log_streaming": False}
    assert not admit("site-2", "job-1").by_policy


def test_a_decision_holds_for_some_seconds(engine, admit, clock):
    engine.run("job-1", "site-1")
    admit("site-1", "job-1")
    del engine.run_processes["job-1"], engine.job_def_manager.metas["job-1"]
    clock.advance(9.9)
    assert admit("site-1", "job-1").status is Status.OK
    clock.advance(0.2)
    assert admit("site-1", "job-1").status is Status.LATER


def test_later_is_not_remembered(engine, admit):
    engine.run("job-1")
    assert admit("site-1", "job-1").status is Status.LATER
    engine.run("job-1", "site-1")
    assert admit("site-1", "job-1").status is Status.OK


def test_what_is_remembered_is_bounded(engine, admit, monkeypatch):
    monkeypatch.setattr(admission, "_MAX_REMEMBERED", 3)
    for number in range(10):
        admit("site-1", f"job-{number}")
    assert sum(map(len, admit._decided.values())) <= 3


def test_names_that_anybody_claims_fill_no_memory(engine, admit, monkeypatch):
    """Where nothing is authenticated, a sender may have a new name for each request."""
    monkeypatch.setattr(admission, "_MAX_SITES", 5)
    engine.run("job-1", "site-1")
    for number in range(50):
        admit(f"claimed-{number}", "job-1")
        admit("x" * 10_000 + str(number), "job-1")
        assert admit("site-1", "job-1").status is Status.OK
    assert len(admit._decided) <= 5 and "site-1" in admit._decided
    assert len(admit("x" * 10_000, "job-1").reason) < 200


def test_a_site_does_not_make_the_server_forget_what_it_knows_of_others(engine, admit, monkeypatch):
    monkeypatch.setattr(admission, "_MAX_REMEMBERED", 3)
    engine.run("job-1", "site-1")
    assert admit("site-1", "job-1").status is Status.OK
    for number in range(10):
        admit("site-2", f"job-{number}")
    engine.run("job-1", "site-2")
    assert admit("site-1", "job-1").status is Status.OK, "from memory"


def test_what_sites_ask_has_no_part_in_a_deletion(engine, store, admit, clock, monkeypatch):
    """Questions about 10,000 jobs that never were made the server forget which jobs it had found deleted."""
    monkeypatch.setattr("nvflare_logstream.flare.job_store._MAX_ABSENT", 3)
    engine.run("job-2", "site-1")
    upload(store, StreamKey("job-1", "site-1", "log.txt"), b"line\n")
    for look in range(11):
        for number in range(10):
            admit("site-2", f"never-{look}-{number}")
        removed = store.sweep(1e9, admit.deleted)
        assert [removal.job_id for removal in removed] == (["job-1"] if look == 10 else [])
        clock.advance(60)


@pytest.mark.parametrize("trouble", ["error", "empty"])
def test_a_job_store_that_fails_refuses_nobody(engine, store, admit, clock, trouble):
    """The runtime gives None for most errors of its storage, as if the job was not there."""
    engine.run("job-1", "site-1")
    engine.run("job-2", "site-1")
    engine.end("job-2")
    upload(store, StreamKey("job-2", "site-1", "log.txt"), b"line\n")
    if trouble == "error":
        engine.job_def_manager.broken = True
    else:
        engine.job_def_manager.metas.clear()
    for _ in range(10):
        assert admit("site-1", "job-1") == Admission()
        for site, job_id in (("site-2", "job-1"), ("site-1", "job-2"), ("site-1", "job-3")):
            assert admit(site, job_id).status is Status.LATER
        assert store.sweep(1e9, admit.deleted) == []
        clock.advance(300)


def test_a_job_whose_logs_were_removed_is_refused_for_good(engine, store, admit):
    """After retention the job is still in the job store, and its logs still at the site."""
    engine.run("job-1", job_deploy_detail=["site-1: OK"])
    engine.end("job-1")
    upload(store, StreamKey("job-1", "site-1", "log.txt"), b"line\n")
    store.delete_job("job-1", "nothing was heard of it for 90 days")
    decision = admit("site-1", "job-1")
    assert decision.status is Status.REFUSED
    assert decision.reason == (
        "the server has removed the logs of job job-1: nothing was heard of it for 90 days"
    )


def test_sites_that_were_not_connected_when_a_job_was_started(engine, admit):
    engine.run("job-1", "site-1", deploy_map={"app": ["server", "site-1"], "other": ["site-2", "@ALL"]})
    assert admit.absent("job-1") == {"site-2"}
    assert admit.absent("job-2") == set()
