"""The three components together, over a fake of the runtime: a small federation in one process."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nvflare
import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.fuel.f3.cellnet.defs import CellChannel
from nvflare.fuel.f3.message import Message

import nvflare_logstream
from nvflare_logstream import JobLogReceiver, JobLogStreamer, SiteLogStreamer
from nvflare_logstream.client.port import read_reply
from nvflare_logstream.errors import LostContactError, RetrievalError, StoreError
from nvflare_logstream.flare import over_jobs, restart, site_log_streamer
from nvflare_logstream.flare.cell_channel import CHANNEL
from nvflare_logstream.flare.shared import shared
from nvflare_logstream.site import sender
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import State, StreamKey, Verdict
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.queries import StreamsRequest
from nvflare_logstream.wire.standing import Standing
from tests.unit.conftest import wait_for
from tests.unit.fake_runtime import Engine, Network, context, upload

JOB = "job-1"
ADMITTED = {"class_allow_list": ["nvflare_logstream."]}
LINES = b"line 1\nline 2\n"


def fire(component, event, fl_ctx):
    """As the runtime does, but an exception comes out."""
    for callback, arguments in component.get_event_handlers()[event]:
        callback(event, fl_ctx, **arguments)


class Federation:
    """A server and one site; their processes are engines."""

    def __init__(self, root: Path, site: str = "site-1"):
        shared.reset()
        self.name = site
        self.network = Network()
        self.server = Engine(root / "server", self.network.cell("server"))
        self.client = Engine(root / "client", self.network.cell(site), site)
        self.client.client_executor = SimpleNamespace(run_processes={})
        self.receiver: JobLogReceiver | None = None
        self.site: SiteLogStreamer | None = None
        Path(self.config.parent).mkdir(parents=True)
        self.config.write_text(json.dumps({"components": []}))

    @property
    def config(self) -> Path:
        return Path(self.client.workspace.get_app_config_dir(JOB)) / "config_fed_client.json"

    @property
    def log(self) -> Path:
        return Path(self.client.workspace.get_log_root(JOB)) / "log.txt"

    @property
    def store(self):
        return (self.receiver._server or self.receiver._job).store

    def stream(self, file="log.txt", site="site-1"):
        return self.store.info(StreamKey(JOB, site, file))

    def ended(self, file="log.txt", site="site-1"):
        """The stream, when no more comes."""
        return wait_for(
            lambda: (s := self.stream(file, site)) and s.state not in (State.OPEN, State.EXPECTED) and s
        )

    def start_server(self) -> None:
        self.receiver = JobLogReceiver()
        fire(self.receiver, EventType.SYSTEM_START, context(self.server))

    def server_event(self, event) -> None:
        fire(self.receiver, event, context(self.server, JOB, **{FLContextKey.EVENT_DATA: {"job_id": JOB}}))

    def start_site(self, resources, **arguments) -> None:
        local = Path(self.client.workspace.get_root_dir()) / "local"
        (local / "resources.json").write_text(json.dumps(resources))
        self.site = SiteLogStreamer(poll_interval=0.01, **arguments)
        fire(self.site, EventType.SYSTEM_START, context(self.client))

    def site_event(self, event, **meta) -> None:
        fire(self.site, event, context(self.client, **{FLContextKey.JOB_META: {"job_id": JOB, **meta}}))

    def job_engine(self) -> Engine:
        """The engine of the job's process at the site."""
        engine = SimpleNamespace(
            workspace=self.client.workspace, cell=self.network.cell(f"{self.name}.{JOB}")
        )
        engine.get_cell, engine.get_workspace = lambda: engine.cell, lambda: engine.workspace
        engine.fire_event = self.client.fire_event
        return engine

    def stop(self) -> None:
        if self.site and self.site._sender:
            self.site._sender.stop(5.0)
        for process in filter(
            None, (self.receiver and self.receiver._server, self.receiver and self.receiver._job)
        ):
            process._server_logs._sender.stop(5.0)
        if self.receiver:
            fire(self.receiver, EventType.SYSTEM_END, context(self.server))


@pytest.fixture
def federation(memory_path):
    federation = Federation(memory_path)
    yield federation
    federation.stop()


def test_a_job_streams_and_its_site_closes(federation):
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.start_site(ADMITTED)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    (entry,) = json.loads(federation.config.read_text())["components"]
    assert entry["path"] == "nvflare_logstream.JobLogStreamer"

    handle = {RunProcessKey.JOB_HANDLE: SimpleNamespace(poll=lambda: 3)}
    federation.client.client_executor.run_processes[JOB] = handle
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    federation.server_event(EventType.JOB_STARTED)
    assert federation.stream().state is State.EXPECTED

    federation.log.write_bytes(LINES[:7])
    jobs = [JobLogStreamer(**entry["args"]), JobLogStreamer(["log.txt"], site_closes=True)]
    job_engine = federation.job_engine()
    for streamer in jobs:
        fire(streamer, EventType.START_RUN, context(job_engine, JOB))
    wait_for(lambda: federation.stream().end == 7)
    for streamer in jobs:
        fire(streamer, EventType.END_RUN, context(job_engine, JOB))
    with federation.log.open("ab") as log:
        log.write(LINES[7:])  # what a job writes after its run
    federation.site_event(EventType.JOB_COMPLETED)

    stream = federation.ended()
    assert (stream.verdict, stream.outcome, stream.end) == (Verdict.COMPLETE, "exit code 3", len(LINES))
    assert federation.store.path(stream.key).read_bytes() == LINES


def test_the_server_knows_what_its_sites_run_and_which_never_sent(federation):
    federation.start_server()
    federation.server.settings |= {"site-1": {}, "site-2": {}}
    federation.server.run(JOB, "site-1")
    federation.start_site(ADMITTED)
    wait_for(lambda: federation.receiver._server._counters.heard())  # before there is any job
    heard, never = sorted(federation.receiver._server._status.status().standings)
    assert (heard.site, heard.connected, heard.heard > 0) == ("site-1", True, True)
    assert heard[5:8] == (nvflare_logstream.__version__, nvflare.__version__, 1) and abs(heard.skew) < 10
    assert never == Standing("site-2", connected=True)


@pytest.mark.parametrize("site", ["h\u00f4pital-1", "-1", "--help", "a b"])
def test_a_site_whose_name_is_no_plain_name_streams(memory_path, site):
    federation = Federation(memory_path, site)
    try:
        federation.start_server()
        federation.server.run(JOB, site, "../no name", "site-2")
        federation.start_site(ADMITTED)
        federation.site_event(EventType.BEFORE_JOB_LAUNCH)
        federation.server_event(EventType.JOB_STARTED)
        assert {stream.site for stream in federation.store.streams(JOB)} == {site, "site-2"}
        federation.log.write_bytes(LINES)
        run_directory = Path(federation.server.workspace.get_log_root(JOB))
        run_directory.mkdir(parents=True, exist_ok=True)
        federation.site_event(EventType.JOB_COMPLETED)
        stream = federation.ended(site=site)
        assert stream.verdict is Verdict.COMPLETE
        assert (run_directory / site / "log.txt").read_bytes() == LINES
        streams = read_reply(
            JOB, StreamsRequest(), federation.receiver._answer(JOB, StreamsRequest().encode())
        ).job.streams
        assert (site, len(LINES)) in {(stream.site, stream.end) for stream in streams}
    finally:
        federation.stop()


def test_a_site_that_keeps_its_logs_says_so_and_strips_the_job(federation):
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.config.write_text(
        json.dumps({"components": [{"id": "own", "path": "nvflare_logstream.JobLogStreamer"}]})
    )
    federation.start_site({**ADMITTED, "allow_log_streaming": False})
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    assert json.loads(federation.config.read_text())["components"] == []
    stream = federation.ended()
    assert stream.verdict is Verdict.REFUSED and "allow_log_streaming is false" in stream.verdict_reason

    federation.log.write_bytes(LINES)
    streamer = JobLogStreamer()
    fire(streamer, EventType.START_RUN, context(federation.job_engine(), JOB))  # one that got past the strip
    fire(streamer, EventType.END_RUN, context(federation.job_engine(), JOB))
    federation.site_event(EventType.JOB_COMPLETED)
    assert federation.ended().end == 0


@pytest.mark.parametrize(
    "log_files, refused",
    [
        (["log.txt", "console.txt", "*.log"], ["console.txt", "log.txt"]),
        (["*.log", "rank?.txt"], ["log.txt"]),
    ],
)
def test_a_site_that_keeps_its_logs_names_what_it_can(federation, log_files, refused):
    """A pattern names no log; so that the server hears of it, log.txt stands for what would have been."""
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.start_site({**ADMITTED, "allow_log_streaming": False}, log_files=log_files)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    wait_for(lambda: len(federation.store.streams(JOB)) == len(refused))
    streams = federation.store.streams(JOB)
    assert [(stream.file, stream.verdict) for stream in streams] == [(f, Verdict.REFUSED) for f in refused]


@pytest.mark.parametrize("injected", [True, False])
def test_logs_named_by_patterns(federation, injected):
    """They are found by the job's process and by the site's, also those that the other one never saw."""
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.start_site(ADMITTED if injected else {"class_allow_list": []}, log_files=["log.txt", "*.log"])
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    entries = json.loads(federation.config.read_text())["components"]
    assert [entry["args"]["log_files"] for entry in entries] == [["log.txt", "*.log"]] * injected
    directory = federation.log.parent
    if injected:
        streamer = JobLogStreamer(**entries[0]["args"])
        fire(streamer, EventType.START_RUN, context(federation.job_engine(), JOB))
    for name in ("a.log", "audit.log", "b.txt"):
        (directory / name).write_bytes(LINES)
    wait_for(lambda: federation.stream("a.log") and federation.stream("a.log").end)
    if injected:
        fire(streamer, EventType.END_RUN, context(federation.job_engine(), JOB))
    (directory / "late.log").write_bytes(LINES)
    federation.site_event(EventType.JOB_COMPLETED)
    for file in ("log.txt", "a.log", "late.log"):
        assert federation.ended(file).verdict is Verdict.COMPLETE
    assert {stream.file for stream in federation.store.streams(JOB)} == {"log.txt", "a.log", "late.log"}


def test_logs_named_by_patterns_where_the_job_closes_them(federation):
    """No site component: nobody comes after the job's own process."""
    federation.start_server()
    federation.server.run(JOB, "site-1")
    streamer = JobLogStreamer(log_files=["*.log"], poll_interval=0.01)
    federation.log.parent.mkdir(parents=True, exist_ok=True)
    fire(streamer, EventType.START_RUN, context(federation.job_engine(), JOB))
    (federation.log.parent / "a.log").write_bytes(LINES)
    fire(streamer, EventType.END_RUN, context(federation.job_engine(), JOB))
    assert federation.ended("a.log").verdict is Verdict.COMPLETE


@pytest.mark.parametrize("allow, sends", [(True, True), (1, False), ("true", False), ([True], False)])
@pytest.mark.parametrize("loaded", [False, True])
def test_the_runtimes_own_streamer_sends_only_where_the_policy_plainly_allows_it(
    federation, monkeypatch, allow, sends, loaded
):
    """However it came into the job's process; the runtime itself takes all of these for yes."""
    name = "nvflare.app_common.logging.job_log_streamer"
    if not loaded:
        monkeypatch.delitem(sys.modules, name, raising=False)
    else:
        importlib.import_module(name)
    federation.start_site({"allow_log_streaming": allow})
    streamer = importlib.import_module(name).JobLogStreamer()
    sent = threading.Event()
    monkeypatch.setattr(streamer, "_find_log_path", lambda: str(federation.log))
    monkeypatch.setattr(streamer, "_do_stream", lambda *args: sent.set())
    engine = federation.job_engine()
    engine.new_context = FLContext
    streamer._on_job_started("", context(engine, JOB))
    assert sent.wait(10 if sends else 0) is sends


@pytest.mark.parametrize("field", ["log_files", "class_attributes"])
def test_the_sites_files_hold_whatever_the_job_declares(federation, field):
    federation.start_server()
    federation.server.run(JOB, "site-1")
    declared = {"id": "own", "path": "nvflare_logstream.JobLogStreamer", "args": {field: ["train.csv"]}}
    federation.config.write_text(json.dumps({"components": [declared]}))
    federation.start_site(ADMITTED)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    (entry,) = json.loads(federation.config.read_text())["components"]
    assert entry["args"]["log_files"] == ["log.txt", "error_log.txt"] and field not in set(entry["args"]) - {
        "log_files"
    }

    federation.log.write_bytes(LINES)
    (federation.log.parent / "train.csv").write_bytes(b"name,age\n")
    # One that got past all this, such as a class in another component's arguments:
    streamer, job_engine = JobLogStreamer(["train.csv"], poll_interval=60), federation.job_engine()
    fire(streamer, EventType.START_RUN, context(job_engine, JOB))
    wait_for(lambda: (stream := federation.stream()) and stream.end == len(LINES))
    fire(streamer, EventType.END_RUN, context(job_engine, JOB))
    federation.site_event(EventType.JOB_COMPLETED)
    assert federation.ended().verdict is Verdict.COMPLETE and federation.stream("train.csv") is None


def test_a_strip_that_fails_lets_nothing_out(federation, monkeypatch):
    federation.start_server()
    federation.server.run(JOB, "site-1")
    declared = {"id": "own", "path": "nvflare_logstream.JobLogStreamer"}
    federation.config.write_text(json.dumps({"components": [declared]}))
    federation.log.write_bytes(LINES)
    federation.start_site({**ADMITTED, "allow_log_streaming": False})
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(30, "Read-only")))
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    monkeypatch.undo()
    assert json.loads(federation.config.read_text())["components"] == [declared]
    streamer = JobLogStreamer()
    fire(streamer, EventType.START_RUN, context(federation.job_engine(), JOB))
    fire(streamer, EventType.END_RUN, context(federation.job_engine(), JOB))
    assert federation.ended().verdict is Verdict.REFUSED and federation.stream().end == 0


@pytest.mark.parametrize("resources, config", [({"class_allow_list": []}, None), (ADMITTED, "{")])
def test_where_no_streamer_can_go_in_the_parent_follows_the_files(federation, resources, config):
    federation.start_server()
    federation.server.run(JOB, "site-1")
    if config is not None:
        federation.config.write_text(config)
    before = federation.config.read_bytes()
    federation.start_site(resources)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    assert federation.config.read_bytes() == before
    federation.log.write_bytes(LINES)
    wait_for(lambda: (stream := federation.stream()) and stream.end == len(LINES))
    federation.site_event(EventType.JOB_COMPLETED)
    assert federation.ended().outcome == "exit code unknown"


def end_while_the_policy_cannot_be_read(federation, monkeypatch) -> Path:
    """A job runs and ends; returns the site's resources.json, which is broken by then."""
    monkeypatch.setattr(over_jobs, "_RETRY_SECONDS", 0.01)
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.start_site(ADMITTED)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.log.write_bytes(LINES)
    resources = Path(federation.client.workspace.get_root_dir()) / "local" / "resources.json"
    resources.write_text("{")
    federation.site_event(EventType.JOB_COMPLETED)
    return resources


def test_a_job_that_ends_while_the_policy_cannot_be_read_is_finished_afterwards(federation, monkeypatch):
    """A disk that fails, no descriptor left, a file being saved: no restart of the site is needed."""
    resources = end_while_the_policy_cannot_be_read(federation, monkeypatch)
    federation.site_event(EventType.JOB_COMPLETED)
    assert federation.site._over._retry
    assert federation.stream() is None, "nothing leaves meanwhile"
    resources.write_text(json.dumps(ADMITTED))
    stream = federation.ended()
    assert (stream.verdict, stream.end) == (Verdict.COMPLETE, len(LINES))
    assert not federation.site._over._over and not federation.site._over._retry


def test_a_job_that_ends_at_a_site_that_then_keeps_its_logs_is_not_sent(federation, monkeypatch):
    resources = end_while_the_policy_cannot_be_read(federation, monkeypatch)
    resources.write_text(json.dumps({"allow_log_streaming": False}))
    stream = federation.ended()
    assert not federation.site._over._retry and not federation.site._over._over
    assert (stream.verdict, stream.end) == (Verdict.REFUSED, 0)


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), RuntimeError("can't start new thread")]
)
def test_a_process_without_descriptors_or_threads_sends_later(federation, monkeypatch, caplog, error):
    monkeypatch.setattr(over_jobs, "_RETRY_SECONDS", 0.01)
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.start_site({**ADMITTED, "allow_log_streaming": False})  # so it has no sender yet
    resources = Path(federation.client.workspace.get_root_dir()) / "local" / "resources.json"
    resources.write_text(json.dumps({}))
    federation.log.write_bytes(LINES)
    tried = threading.Semaphore(0)

    def fails(*args, **options):
        tried.release()
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(site_log_streamer, "Sender", fails)
        patched.setattr(sender, "Sender", fails)
        streamer, job_engine = JobLogStreamer(), federation.job_engine()
        fire(streamer, EventType.START_RUN, context(job_engine, JOB))
        assert f"are not streamed while it runs: {error}" in caplog.text
        fire(streamer, EventType.END_RUN, context(job_engine, JOB))
        federation.site_event(EventType.BEFORE_JOB_LAUNCH)
        federation.site_event(EventType.AFTER_JOB_LAUNCH)
        assert f"cannot follow its logs from here now: {error}" in caplog.text
        federation.site_event(EventType.JOB_COMPLETED)
        for _ in range(5):
            assert tried.acquire(timeout=20.0)
    assert federation.ended().verdict is Verdict.COMPLETE


def test_a_job_with_custom_code_gets_its_streamer_whatever_the_allow_list_says(federation):
    federation.start_server()
    federation.start_site({"class_allow_list": []})
    federation.site_event(EventType.BEFORE_JOB_LAUNCH, byoc=True)
    assert json.loads(federation.config.read_text())["components"]


def leave_a_job(federation) -> None:
    """What an earlier life of the site leaves: a job that streamed, with its log."""
    federation.start_server()
    federation.server.run(JOB, "site-1")
    streamer = {"id": "s", "path": "nvflare_logstream.JobLogStreamer"}
    federation.config.write_text(json.dumps({"components": [streamer]}))
    federation.log.write_bytes(LINES)


def test_a_job_that_an_earlier_life_of_the_site_left_is_closed(federation):
    leave_a_job(federation)
    federation.start_site(ADMITTED)
    stream = federation.ended()
    assert (stream.verdict, stream.outcome) == (Verdict.COMPLETE, "not known: the site restarted")


@pytest.mark.parametrize("is_mended", [True, False])
def test_jobs_of_before_are_refused_while_nobody_knows_whether_the_site_lets_them_out(
    federation, monkeypatch, is_mended
):
    monkeypatch.setattr(restart, "_POLICY_INTERVAL", 0.01)
    leave_a_job(federation)
    federation.store.append(StreamKey(JOB, "site-1", "log.txt"), 0, LINES[:8], b"cursor")
    resources = Path(federation.client.workspace.get_root_dir()) / "local" / "resources.json"
    monkeypatch.setattr(Path, "write_text", lambda path, text, write=Path.write_text: write(path, "{"))
    federation.start_site(ADMITTED)  # the runtime has read them; since then something is wrong with the disk
    monkeypatch.undo()
    monkeypatch.setattr(restart, "_POLICY_INTERVAL", 0.01)
    stream = federation.ended()
    assert (stream.verdict, stream.end) == (Verdict.REFUSED, 8)
    assert "resources.json cannot be read" in stream.verdict_reason
    if is_mended:
        resources.write_text(json.dumps(ADMITTED))
        wait_for(lambda: federation.stream().verdict is Verdict.COMPLETE)
    else:
        resources.write_text(json.dumps({"allow_log_streaming": False}))
        wait_for(lambda: "allow_log_streaming is false" in federation.stream().verdict_reason)
        assert (federation.stream().verdict, federation.stream().end) == (Verdict.REFUSED, 8)


def test_jobs_of_before_are_refused_where_the_site_keeps_its_logs_by_now(federation):
    leave_a_job(federation)
    federation.store.append(StreamKey(JOB, "site-1", "log.txt"), 0, LINES[:8], b"cursor")
    federation.start_site({"allow_log_streaming": False})
    stream = federation.ended()
    assert (stream.verdict, stream.end) == (Verdict.REFUSED, 8)


def test_only_one_of_several_entries_acts(federation):
    federation.start_server()
    federation.start_site(ADMITTED)
    idle = SiteLogStreamer(log_file_name="audit.log")
    for event in (EventType.SYSTEM_START, EventType.BEFORE_JOB_LAUNCH, EventType.AFTER_JOB_LAUNCH):
        fire(idle, event, context(federation.client, **{FLContextKey.JOB_META: {"job_id": JOB}}))
    fire(idle, EventType.JOB_COMPLETED, context(federation.client))
    assert idle._sender is None and json.loads(federation.config.read_text())["components"] == []
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    (entry,) = json.loads(federation.config.read_text())["components"]
    assert entry["args"]["log_files"] == ["log.txt", "error_log.txt", "audit.log"]


def test_a_restarted_site_closes_logs_that_patterns_found(federation):
    """Its list was changed meanwhile: what the job was launched with counts too."""
    federation.start_server()
    federation.server.run(JOB, "site-1")
    (federation.log.parent / "a.log").write_bytes(LINES)
    component = {"path": "nvflare_logstream.JobLogStreamer", "args": {"log_files": ["*.log"]}}
    federation.config.write_text(json.dumps({"components": [component]}))
    federation.start_site(ADMITTED)
    assert federation.ended("a.log").verdict is Verdict.COMPLETE


def test_a_console_that_cannot_be_had_is_told_of(federation, caplog):
    """This process is the tests': what it prints goes where it went before."""
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.start_site(ADMITTED, log_files=["console.txt"])
    before = [os.fstat(number) for number in (1, 2)]
    streamer = JobLogStreamer(log_files=["console.txt"])
    fire(streamer, EventType.START_RUN, context(federation.job_engine(), JOB))
    fire(streamer, EventType.END_RUN, context(federation.job_engine(), JOB))
    assert [(after.st_dev, after.st_ino) for after in map(os.fstat, (1, 2))] == [
        (status.st_dev, status.st_ino) for status in before
    ]
    said = [text for text in caplog.messages if "console.txt will not hold what is printed" in text]
    assert len(said) == 1 and "no process of one job" in said[0]


@pytest.mark.parametrize("component", [SiteLogStreamer, JobLogReceiver])
def test_stock_components_beside_ours_are_told_of(federation, component, caplog):
    stock = "nvflare.app_common.logging.some.Widget"
    engine = federation.client if component is SiteLogStreamer else federation.server
    local = Path(engine.workspace.get_root_dir()) / "local"
    (local / "resources.json").write_text(json.dumps({"components": [{"path": stock}]}))
    if component is SiteLogStreamer:
        federation.site = component()
        fire(federation.site, EventType.SYSTEM_START, context(engine))
    else:
        federation.start_server()
    assert f"resources.json also lists {stock}: remove it" in caplog.text


# -- the server's process


def test_sites_whose_logs_are_to_come_are_known(federation):
    federation.start_server()
    federation.server.run(JOB, "site-1", deploy_map={"app": ["server", "site-1", "site-2"]})
    federation.server_event(EventType.JOB_STARTED)
    reasons = {site: federation.stream(site=site).verdict_reason for site in ("site-1", "site-2")}
    assert reasons == {
        "site-1": "the site is in the job, nothing arrived from it",
        "site-2": "the site was not connected when the job was started",
    }


def test_sites_are_known_later_where_the_index_takes_nothing_when_their_job_starts(federation, monkeypatch):
    federation.start_server()
    federation.server.run(JOB, "site-1", "site-2")
    with monkeypatch.context() as patched:
        patched.setattr(federation.store, "expect", lambda *args: fail(StoreError("the index: disk is full")))
        federation.server_event(EventType.JOB_STARTED)
    assert federation.store.streams(JOB) == []
    federation.receiver._server._keepers[0].turn()
    assert [(s.site, s.verdict) for s in federation.store.streams(JOB)] == [
        ("site-1", Verdict.NEVER_SEEN),
        ("site-2", Verdict.NEVER_SEEN),
    ]


def fail(error):
    raise error


def test_the_servers_own_logs_are_streams_and_end_with_the_jobs_status(federation):
    federation.start_server()
    log = Path(federation.server.workspace.get_run_dir(JOB)) / "log.txt"
    log.parent.mkdir()
    federation.server_event(EventType.BEFORE_JOB_LAUNCH)
    federation.server.run(JOB, "site-1")
    log.write_bytes(LINES)
    wait_for(lambda: (stream := federation.stream(site="server")) and stream.end == len(LINES))
    federation.server.end(JOB)
    federation.server_event(EventType.JOB_COMPLETED)
    stream = federation.ended(site="server")
    assert (stream.verdict, stream.outcome) == (Verdict.COMPLETE, "FINISHED:COMPLETED")


def test_an_abort_is_no_end_while_the_runtime_still_runs_the_job(federation):
    """Before 2.8 the runtime says that a job is aborted while its process still writes."""
    federation.start_server()
    log = Path(federation.server.workspace.get_run_dir(JOB)) / "log.txt"
    log.parent.mkdir()
    federation.server_event(EventType.BEFORE_JOB_LAUNCH)
    federation.server.run(JOB, "site-1")
    log.write_bytes(LINES[:7])
    wait_for(lambda: (stream := federation.stream(site="server")) and stream.end == 7)
    federation.server_event(EventType.JOB_ABORTED)
    with log.open("ab") as file:
        file.write(LINES[7:])
    federation.server.end(JOB, "FINISHED:ABORTED")
    federation.server_event(EventType.JOB_COMPLETED)
    stream = federation.ended(site="server")
    assert (stream.verdict, stream.end, stream.outcome) == (Verdict.COMPLETE, len(LINES), "FINISHED:ABORTED")


def test_events_before_the_start_change_nothing_and_readers_are_told_to_come_back(federation):
    federation.receiver = JobLogReceiver()
    for event in (
        EventType.BEFORE_JOB_LAUNCH,
        EventType.JOB_STARTED,
        EventType.JOB_COMPLETED,
        EventType.END_RUN,
    ):
        federation.server_event(event)
    with pytest.raises(LostContactError, match="not started yet"):
        read_reply(JOB, StreamsRequest(), federation.receiver._answer(JOB, StreamsRequest().encode()))
    assert not (Path(federation.server.workspace.get_root_dir()) / "logstream").exists()


@pytest.mark.parametrize("process", ["server", "job"])
def test_a_damaged_index_is_said_in_one_line_and_readers_are_told(federation, jobs_engine, caplog, process):
    engine = federation.server if process == "server" else jobs_engine
    event = EventType.SYSTEM_START if process == "server" else EventType.START_RUN
    index = Path(engine.workspace.get_root_dir()) / "logstream" / "index.sqlite"
    index.parent.mkdir()
    index.write_bytes(b"not a database" * 100)
    federation.receiver = JobLogReceiver()
    fire(federation.receiver, event, context(engine, JOB))
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "no job logs are received: cannot open the store's index" in said and "\n" not in said
    assert f"nvflare-logstream repair {index.parent}" in said
    if process == "server":
        request = StreamsRequest()
        with pytest.raises(RetrievalError, match="its log says why") as error:
            read_reply(JOB, request, federation.receiver._answer(JOB, request.encode()))
        assert error.value.code == "NO_RECEIVER"


# -- a job's server process


@pytest.fixture
def job_level(federation, memory_path):
    """A federation whose server takes no logs: both components come with the job."""
    engine = Engine(memory_path / "job-process", federation.network.cell(f"server.{JOB}"))
    engine.settings["site-1"] = {}
    federation.receiver = JobLogReceiver()
    fire(federation.receiver, EventType.START_RUN, context(engine, JOB))
    federation.job_process = engine
    return federation


def test_a_job_takes_its_own_logs_where_the_server_takes_none(job_level):
    job_level.log.write_bytes(LINES)
    streamer, job_engine = JobLogStreamer(poll_interval=0.01), job_level.job_engine()
    fire(streamer, EventType.START_RUN, context(job_engine, JOB))
    fire(streamer, EventType.END_RUN, context(job_engine, JOB))
    fire(job_level.receiver, EventType.END_RUN, context(job_level.job_process, JOB))
    stream = job_level.stream()
    assert (stream.verdict, stream.outcome) == (Verdict.COMPLETE, "run ended")
    assert job_level.store.path(stream.key).read_bytes() == LINES


def test_a_target_that_the_runtimes_own_streamer_was_given_is_reported_in_one_line(job_level, caplog):
    """The other arguments are taken; this one has no meaning here."""
    job_level.log.write_bytes(LINES)
    taken = {"log_file_name": "log.txt", "liveness_interval": 7.0, "poll_interval": 0.25}
    streamer, job_engine = JobLogStreamer(**taken, target_parent_server=True), job_level.job_engine()
    with caplog.at_level("INFO"):
        fire(streamer, EventType.START_RUN, context(job_engine, JOB))
        fire(streamer, EventType.END_RUN, context(job_engine, JOB))
    said = [line for line in caplog.messages if "target_parent_server" in line]
    assert len(said) == 1 and "has no meaning here" in said[0]
    assert job_level.ended().verdict is Verdict.COMPLETE and job_level.stream("error_log.txt") is None


def test_a_streamer_in_the_servers_config_says_that_the_receiver_does_its_work(job_level, caplog):
    """The runtime's own works there too."""
    streamer = JobLogStreamer(log_file_name="log.txt")
    with caplog.at_level("INFO"):
        fire(streamer, EventType.START_RUN, context(job_level.job_process, JOB))
        fire(streamer, EventType.END_RUN, context(job_level.job_process, JOB))
    (said,) = [line for line in caplog.messages if "nothing to stream here" in line]
    assert "the receiver keeps the server's own logs, log.txt and error_log.txt" in said
    assert shared.job_sender.release(streamer) is None


@pytest.mark.parametrize(
    "site, job_id, reason", [("site-1", "job-2", "job job-1 only"), ("site-2", JOB, "no part")]
)
def test_a_jobs_own_receiver_takes_logs_of_its_job_and_sites_only(job_level, site, job_id, reason):
    decision = job_level.receiver._job._admit(site, job_id)
    assert decision.status == "refused" and reason in decision.reason


@pytest.fixture
def jobs_engine(federation, memory_path):
    """A job's server process, whose server takes no logs itself."""
    engine = Engine(memory_path / "job-process", federation.network.cell(f"server.{JOB}"))
    Path(engine.workspace.get_run_dir(JOB)).mkdir()
    return engine


def start_jobs_own_receiver(federation, engine, **arguments) -> LogStore:
    federation.receiver = JobLogReceiver(**arguments)
    fire(federation.receiver, EventType.START_RUN, context(engine, JOB))
    return federation.receiver._job.store


@pytest.mark.parametrize("way", ["elsewhere", "out through ..", "out through a link"])
def test_a_jobs_own_receiver_writes_nowhere_else(federation, jobs_engine, memory_path, caplog, way):
    elsewhere, run = memory_path / "elsewhere", Path(jobs_engine.workspace.get_run_dir(JOB))
    (run / "link").symlink_to(memory_path)
    directory = {
        "elsewhere": elsewhere,
        "out through ..": run / ".." / ".." / "elsewhere",
        "out through a link": run / "link" / "elsewhere",
    }[way]
    store = start_jobs_own_receiver(federation, jobs_engine, dest_dir=str(directory))
    assert store.root == run.parent / "logstream" and not elsewhere.exists()
    assert f"dest_dir: {directory} is not used" in caplog.text


@pytest.mark.parametrize("is_relative", [True, False])
def test_a_jobs_own_receiver_may_write_into_its_jobs_directory(federation, jobs_engine, caplog, is_relative):
    directory = Path(jobs_engine.workspace.get_run_dir(JOB)) / "logs"
    given = "logs" if is_relative else str(directory)
    store = start_jobs_own_receiver(federation, jobs_engine, dest_dir=given)
    assert store.root == directory and "not used" not in caplog.text


def test_a_relative_store_is_inside_of_the_servers_workspace_and_the_first_line_says_where(
    federation, monkeypatch, memory_path, caplog
):
    """As with the runtime's own receiver; but wherever the server was started from."""
    monkeypatch.chdir(memory_path)
    federation.receiver = JobLogReceiver(dest_dir="kept/logs")
    with caplog.at_level("INFO"):
        fire(federation.receiver, EventType.SYSTEM_START, context(federation.server))
    directory = Path(federation.server.workspace.get_root_dir()) / "kept" / "logs"
    assert federation.store.root == directory and f"receiving job logs into {directory} (" in caplog.text


def test_a_jobs_own_receiver_has_no_quota_above_the_servers(federation, jobs_engine, caplog):
    store = start_jobs_own_receiver(
        federation,
        jobs_engine,
        max_stream_gib=1,
        max_store_gib=100_000,
        max_site_files=1000,
        min_free_percent=0,
        keep_days=100_000,
    )
    assert store._usage.quotas == Quotas(stream=1 << 30)
    assert "quotas of store, files, free_share: a receiver that comes with a job" in caplog.text


def test_a_jobs_own_receiver_removes_what_is_too_old_and_no_more(federation, jobs_engine):
    """Nobody else does; and a job that asks for a short time must not take other jobs' logs away."""
    root = Path(jobs_engine.workspace.get_root_dir())
    for job_id, days in (("old", 91), ("new", 80)):
        store = LogStore(root / "logstream", clock=Clock(time.time() - days * 86400))
        upload(store, StreamKey(job_id, "site-1", "log.txt"), LINES)
        store.close()
    uptime = Clock(0.0)  # other jobs' receivers were up for a day since: a calendar alone takes no logs away
    store = LogStore(root / "logstream", uptime=uptime)
    for _ in range(2):
        assert store.sweep(1e9, lambda job_id: False) == []
        uptime.advance(86400)
    store.close()
    store = start_jobs_own_receiver(federation, jobs_engine, keep_days=1)
    assert {stream.key.job_id for stream in store.streams()} - {JOB} == {"new"}


def test_a_short_jobs_own_receiver_adds_its_uptime(federation, jobs_engine):
    """Otherwise no log would ever be old where all jobs end within a minute."""
    store = start_jobs_own_receiver(federation, jobs_engine)
    began = store.index.heard()[0]
    fire(federation.receiver, EventType.SYSTEM_END, context(jobs_engine, JOB))
    assert store.index.heard()[0] > began


def test_a_jobs_own_receiver_stands_back_where_the_server_has_one(federation, memory_path):
    federation.start_server()
    engine = Engine(memory_path / "job-process", federation.network.cell(f"server.{JOB}"))
    receiver = JobLogReceiver()
    fire(receiver, EventType.START_RUN, context(engine, JOB))
    fire(receiver, EventType.END_RUN, context(engine, JOB))
    assert receiver._job is None and not {key for key in engine.cell.callbacks if key[0] == CHANNEL}
    went_on = []
    engine.cell.register_request_cb(CellChannel.AUX_COMMUNICATION, "*", went_on.append)
    for (_, topic), callback in list(engine.cell.callbacks.items()):
        if topic != "*":
            callback(request := Message(payload=Shareable()))
            assert went_on.pop() is request, "the runtime gets all that comes"
