"""Jobs that are over are finished whatever fails meanwhile: no stream stays open because of it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from nvflare.apis.event_type import EventType

from nvflare_logstream.flare import over_jobs, site_log_streamer
from nvflare_logstream.flare.elsewhere import Elsewhere
from nvflare_logstream.flare.kept_back import keep_for_good, why_kept
from nvflare_logstream.flare.launchers import HERE
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import Verdict
from tests.unit.test_widgets import ADMITTED, JOB, LINES, Federation


@pytest.fixture
def federation(memory_path, monkeypatch):
    monkeypatch.setattr(over_jobs, "_RETRY_SECONDS", 0.01)
    federation = Federation(memory_path)
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.start_site(ADMITTED)
    federation.log.write_bytes(LINES)
    yield federation
    federation.stop()


def fail_at_first(monkeypatch, owner, name, times=3):
    """Whatever it is called with, it fails a few times."""
    works, failures = getattr(owner, name), []

    def fails(*args, **options):
        if len(failures) < times:
            failures.append(args)
            raise ValueError("the cluster's own error")
        return works(*args, **options)

    monkeypatch.setattr(owner, name, fails)
    return failures


@pytest.mark.parametrize("may_run_on", [False, True])
@pytest.mark.parametrize("what", ["wait", "doubt_at_end", "finish"])
def test_what_fails_at_a_jobs_end_is_tried_again(federation, monkeypatch, caplog, may_run_on, what):
    """In the thread of an event, or in one that waits for a container."""
    launcher = HERE._replace(may_run_on=may_run_on, ask=lambda *asked: False)
    monkeypatch.setattr(site_log_streamer, "launcher_of", lambda fl_ctx: launcher)
    failures = fail_at_first(monkeypatch, Sender if what == "finish" else Elsewhere, what)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.JOB_COMPLETED)
    assert federation.ended().verdict is Verdict.COMPLETE and len(failures) == 3
    assert caplog.text.count(f"the logs of job {JOB} cannot be finished now") == 1


def test_what_cannot_be_shown_keeps_no_log_open(federation, monkeypatch, caplog):
    federation.site.log_files = ("console.txt",)
    monkeypatch.setattr(over_jobs, "CONSOLE_FILE", "log.txt")
    fail_at_first(monkeypatch, over_jobs, "show_rest", times=1)
    federation.site_event(EventType.JOB_COMPLETED)
    assert federation.ended().verdict is Verdict.COMPLETE


def test_a_job_that_is_kept_back_is_known_for_it_whatever_stands_there(federation):
    workspace = federation.client.workspace
    assert why_kept(workspace, JOB) == ""
    keep_for_good(workspace, JOB, "the site said no")
    assert why_kept(workspace, JOB) == "the site said no"
    (file,) = Path(workspace.get_run_dir(JOB)).glob("logstream*")
    for odd in ("", "x" * 100_000):
        file.write_text(odd)
        assert 0 < len(why_kept(workspace, JOB)) <= 2000
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert why_kept(workspace, JOB) == "the site did not allow it while the job ran"
    target = federation.log.with_name("another")
    file.unlink()
    file.symlink_to(target)
    keep_for_good(workspace, JOB, "no")
    assert not target.exists() and why_kept(workspace, JOB)
    for job_id in ("not-there", "no name of a job"):
        keep_for_good(workspace, job_id, "no")  # and nothing is raised


def opened() -> set[str]:
    """What this process has open."""
    paths = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed by another thread meanwhile
            paths.add(str(descriptor.readlink()))
    return paths


def test_nothing_that_a_job_puts_there_fails_or_costs_descriptors(federation):
    """A pipe that its job holds open, a directory: the jobs beside it are finished all the same."""
    workspace = federation.client.workspace
    keep_for_good(workspace, JOB, "no")
    (file,) = Path(workspace.get_run_dir(JOB)).glob("logstream*")
    file.unlink()
    file.mkdir()
    assert why_kept(workspace, JOB) == "the site did not allow it while the job ran"
    assert str(file) not in opened()
    file.rmdir()
    os.mkfifo(file)
    pipe = os.open(file, os.O_RDWR)
    try:
        assert why_kept(workspace, JOB) == "the site did not allow it while the job ran"
    finally:
        os.close(pipe)
    assert str(file) not in opened()


def test_a_job_that_was_kept_back_is_refused_at_its_end(federation):
    """Its process saw a no that its site's parent did not see: it was taken back at once."""
    keep_for_good(federation.client.workspace, JOB, "the site said no")
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.JOB_COMPLETED)
    stream = federation.ended()
    assert (stream.verdict, stream.verdict_reason) == (Verdict.REFUSED, "the site said no")
    resources = Path(federation.client.workspace.get_root_dir()) / "local" / "resources.json"
    assert json.loads(resources.read_text()) == ADMITTED
