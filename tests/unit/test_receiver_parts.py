"""Parts of the receiver and of the site widget, each on its own, with a clock that stands still."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path

import pytest

from nvflare_logstream.flare import keeper as keeper_module
from nvflare_logstream.flare.archive import ArchiveKeeper
from nvflare_logstream.flare.job_process import server_receives, wait_for_sites
from nvflare_logstream.flare.keeper import SLOW_TURNS, Keeper
from nvflare_logstream.flare.receiver_settings import ReceiverSettings
from nvflare_logstream.flare.restart import close_earlier, earlier_jobs
from nvflare_logstream.flare.run_directory import RunDirectories
from nvflare_logstream.flare.server_process import ServerProcess
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey
from nvflare_logstream.testing import Clock
from tests.unit.fake_runtime import Engine, Network, upload

LOG = StreamKey("job-1", "site-1", "log.txt")


@pytest.fixture
def store(memory_path):
    store = LogStore(memory_path / "logstream")
    yield store
    store.close()


@pytest.fixture
def workspace(memory_path):
    return Engine(memory_path / "server").workspace


# -- the second name in the run directory


@pytest.fixture
def shown(workspace):
    """Where a stream of a running job is shown."""
    Path(workspace.get_run_dir("job-1")).mkdir()
    return Path(workspace.get_log_root("job-1")) / "site-1" / "log.txt"


def test_a_stream_has_a_second_name_in_the_run_directory(store, workspace, shown):
    upload(store, LOG, b"line\n")
    directories = RunDirectories(store, workspace)
    for _ in range(2):
        directories.show(LOG)
    assert shown.read_bytes() == b"line\n" and shown.samefile(store.path(LOG))


def test_on_another_file_system_the_second_name_is_a_link_to_the_path(store, workspace, shown, monkeypatch):
    upload(store, LOG, b"line\n")
    monkeypatch.setattr(
        os, "link", lambda *args, **more: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link"))
    )
    RunDirectories(store, workspace).show(LOG)
    assert shown.is_symlink() and shown.read_bytes() == b"line\n"


def test_a_name_that_is_taken_stays(store, workspace, shown):
    upload(store, LOG, b"line\n")
    shown.parent.mkdir()
    shown.write_bytes(b"not ours")
    RunDirectories(store, workspace).show(LOG)
    assert shown.read_bytes() == b"not ours"


def test_a_link_in_the_place_of_a_sites_directory_is_not_followed(
    store, workspace, shown, memory_path, caplog
):
    """The job's own code can write into its run directory."""
    upload(store, LOG, b"line\n")
    elsewhere = memory_path / "elsewhere"
    elsewhere.mkdir()
    shown.parent.symlink_to(elsewhere)
    RunDirectories(store, workspace).show(LOG)
    assert list(elsewhere.iterdir()) == [] and "cannot show it" in caplog.text


def test_a_link_under_a_streams_name_stays_and_is_not_followed(store, workspace, shown, memory_path):
    upload(store, LOG, b"line\n")
    shown.parent.mkdir()
    shown.symlink_to(memory_path / "nowhere")
    RunDirectories(store, workspace).show(LOG)
    assert shown.is_symlink() and not (memory_path / "nowhere").exists()


def test_a_job_without_a_run_directory_does_not_get_one(store, workspace):
    upload(store, LOG, b"line\n")
    RunDirectories(store, workspace).show(LOG)
    assert not Path(workspace.get_run_dir("job-1")).exists()


def test_a_second_name_that_cannot_be_made_is_only_a_warning(store, workspace, shown, caplog):
    upload(store, LOG, b"line\n")
    shown.parent.write_bytes(b"a file where the site's directory should be")
    directories = RunDirectories(store, workspace)
    for _ in range(100):
        directories.show(LOG)
    assert "job-1/site-1/log.txt: cannot show it" in caplog.text
    assert len(caplog.records) == 1, "whoever opens it again and again fills no log"


def test_names_that_cannot_be_made_are_a_warning_a_minute_for_each_site(store, workspace, shown, caplog):
    """While there is no descriptor left, say, each site comes again each second."""
    clock = Clock()
    directories = RunDirectories(store, workspace, clock)
    other = LOG._replace(site="site-2")
    for key in (LOG, other):
        upload(store, key, b"line\n")
        shown.parent.with_name(key.site).write_bytes(b"a file where the site's directory should be")
    for _ in range(70):
        for key in (LOG, LOG._replace(file="error_log.txt"), other):
            directories.show(key)
        clock.advance(1.0)
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == [str(LOG), str(other)] * 2


# -- the keeper's thread


def test_slow_tasks_run_at_every_60th_turn():
    ran = []
    keeper = Keeper([lambda: ran.append("task")], [lambda: ran.append("slow")])
    for _ in range(2 * SLOW_TURNS):
        keeper.turn()
    assert ran == ["task"] * SLOW_TURNS + ["slow"] + ["task"] * SLOW_TURNS + ["slow"]


def test_a_task_that_fails_is_logged_once_a_minute_and_stops_nothing(caplog):
    ran = []
    keeper = Keeper([lambda: 1 / 0, lambda: ran.append("task"), lambda: {}[len(ran)], lambda: 1 / 0])
    with caplog.at_level(logging.ERROR):
        for _ in range(2 * SLOW_TURNS):
            keeper.turn()
    assert ran == ["task"] * 2 * SLOW_TURNS
    said = [record.getMessage() for record in caplog.records]
    assert said.count("keeping the log store: ZeroDivisionError: division by zero") == 4
    assert [text for text in said if "KeyError" in text] == [
        f"keeping the log store: KeyError: {len(ran)}" for ran in (ran[:1], ran[: SLOW_TURNS + 1])
    ]


def test_an_archive_that_takes_long_to_write_keeps_nothing_from_being_committed(memory_path, monkeypatch):
    """Bytes that a site was told to be stored may be gone there when the server crashes minutes later."""
    monkeypatch.setattr(keeper_module, "TURN_SECONDS", 0.01)
    writing, free = threading.Event(), threading.Event()
    monkeypatch.setattr(ArchiveKeeper, "update", lambda self: (writing.set(), free.wait(60)))
    engine = Engine(memory_path / "server", Network().cell("server"))
    server = ServerProcess(engine, ReceiverSettings(memory_path / "store"))
    server.start()
    server._archive.job_archived("job-1")
    try:
        assert writing.wait(20)
        server.store.append(LOG, 0, b"line\n", b"c")
        deadline = time.monotonic() + 20
        while not (stored := server.store.index.load(LOG)) or stored.end < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        free.set()
        server.stop()


def test_a_server_that_was_killed_at_a_jobs_end_completes_its_archive_at_the_next_start(
    memory_path, monkeypatch
):
    monkeypatch.setattr(keeper_module, "TURN_SECONDS", 0.01)
    engine = Engine(memory_path / "server", Network().cell("server"))
    store = LogStore(memory_path / "store")
    upload(store, LOG, b"line\n")
    store.close()
    engine.job_def_manager.archive(memory_path / "job-1.zip", "job-1", {})
    server = ServerProcess(engine, ReceiverSettings(memory_path / "store"))
    server.start()
    try:
        deadline = time.monotonic() + 20
        while server.store.index.unarchived():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert engine.job_def_manager.archived("job-1") == {"site-1/log.txt": b"line\n"}
    finally:
        server.stop()


def test_a_keeper_that_was_stopped_takes_no_further_turn():
    ran = []
    keeper = Keeper([lambda: ran.append("task")])
    keeper.stop()
    keeper._run()
    assert ran == []


def test_who_stops_a_keeper_waits_for_the_turn_under_way_but_not_for_ever(monkeypatch):
    """What removes the store's directory next would meet files that the turn makes there."""
    monkeypatch.setattr(keeper_module, "TURN_SECONDS", 0.001)
    busy, free, ended = threading.Event(), threading.Event(), threading.Event()
    keeper = Keeper([lambda: (busy.set(), free.wait(20), ended.set())])
    keeper.start()
    assert busy.wait(20)
    keeper.stop(0.01)
    assert not ended.is_set()
    threading.Timer(0.1, free.set).start()
    keeper.stop(20)
    assert ended.is_set()


def test_a_keeper_takes_no_turn_while_nothing_is_due(monkeypatch):
    """A thread that wakes each second for nothing costs an idle server as much as an idle job's logs do."""
    monkeypatch.setattr(keeper_module, "TURN_SECONDS", 0.001)
    ran, due = threading.Semaphore(0), threading.Event()
    keeper = Keeper([lambda: (due.clear(), ran.release())], due=due)
    thread = threading.Thread(target=keeper._run, daemon=True)
    thread.start()
    assert not ran.acquire(timeout=0.1)
    for _ in range(3):
        due.set()
        assert ran.acquire(timeout=20)
    keeper.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert not ran.acquire(blocking=False)


# -- a job's server process


def test_a_job_waits_until_its_sites_have_closed(store):
    clock, pauses = Clock(), []
    upload(store, LOG, b"line\n", closed=False)
    upload(store, StreamKey("job-1", "server", "log.txt"), b"own\n", closed=False)
    upload(store, StreamKey("job-2", "site-1", "log.txt"), b"of another job\n", closed=False)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)
        if len(pauses) == 3:
            upload(store, LOG, b"line\n")

    wait_for_sites(store, "job-1", 8.0, clock, sleep)
    assert len(pauses) == 3


def test_a_job_does_not_wait_longer_than_it_may(store):
    clock = Clock()
    began = clock.now
    upload(store, LOG, b"line\n", closed=False)
    wait_for_sites(store, "job-1", 8.0, clock, clock.advance)
    assert 8.0 <= clock.now - began < 8.2


def test_a_site_that_sent_nothing_is_not_waited_for(store):
    store.expect({LOG: "nothing came yet"})
    wait_for_sites(store, "job-1", 8.0, Clock(), lambda seconds: 1 / 0)


def test_a_jobs_own_receiver_stands_back_if_the_server_has_one():
    network = Network()
    server = network.cell("server")
    job = network.cell("server.job-1")
    assert not server_receives(job)
    server.register_request_cb("nvflare_logstream", "stream", lambda request: request)
    assert server_receives(job)
    assert not server_receives(server)  # the simulator: the job's process is the server


def test_where_the_store_is(workspace, tmp_path):
    for settings, root in (
        (ReceiverSettings(), Path(workspace.get_root_dir()) / "logstream"),
        (ReceiverSettings(tmp_path / "elsewhere"), tmp_path / "elsewhere"),
    ):
        store = settings.open_store(workspace)
        assert store.root == root
        store.close()


# -- what an earlier life of a client's parent process left open


class Sender:
    def __init__(self):
        self.closed, self.refused, self.watched = [], [], []

    def refuse(self, job_id, files, reason):
        self.refused.append((job_id, tuple(files), reason))

    def watch(self, job_id, files):
        self.watched.append((job_id, tuple(files)))

    def finish(self, job_id, directory, files, outcome, *, only_unclosed=False, doubt=None):
        assert only_unclosed and doubt is None and outcome == "not known: the site restarted"
        self.closed.append((job_id, directory, tuple(files)))


def test_jobs_on_disk_that_got_a_streamer_of_ours(tmp_path):
    workspace = Engine(tmp_path / "client", site="site-1").workspace
    ours = {"components": [{"id": "s", "path": "nvflare_logstream.JobLogStreamer"}]}
    for job_id, config in {"ours": ours, "other": {"components": []}, "broken": None}.items():
        directory = Path(workspace.get_app_config_dir(job_id))
        directory.mkdir(parents=True)
        if config is not None:
            (directory / "config_fed_client.json").write_text(str(config).replace("'", '"'))
    assert earlier_jobs(workspace) == ["ours"]


def test_logs_that_the_site_streamed_before_its_list_was_changed_are_closed(tmp_path):
    workspace, sender = Engine(tmp_path / "client", site="site-1").workspace, Sender()
    streamer = {"path": "nvflare_logstream.JobLogStreamer", "args": {"log_files": ["train.log", "log.txt"]}}
    directory = Path(workspace.get_app_config_dir("a"))
    directory.mkdir(parents=True)
    (directory / "config_fed_client.json").write_text(json.dumps({"components": [streamer]}))
    close_earlier(sender, workspace, ["a"], ("log.txt", "error_log.txt"), running=lambda jobs: set())
    assert sender.closed[0][2] == ("log.txt", "error_log.txt", "train.log")


def test_no_log_is_closed_while_the_jobs_process_outlives_its_parent(tmp_path):
    """It may still write: what is closed as complete before would not be so."""
    workspace = Engine(tmp_path / "client", site="site-1").workspace
    sender, clock, alive = Sender(), Clock(), [{"b", "c"}, {"c"}] + [{"c"}] * 100
    alive.append(set())
    asked = []

    def running(job_ids):
        asked.append(clock.now)
        return alive.pop(0)

    began = clock.now
    close_earlier(
        sender, workspace, ["a", "b", "c"], ("log.txt",), running=running, clock=clock, sleep=clock.advance
    )
    assert [job_id for job_id, _, _ in sender.closed] == ["a", "b", "c"]
    assert sorted(job_id for job_id, _ in sender.watched) == ["b", "c"]
    assert sender.closed[0][1:] == (Path(workspace.get_log_root("a")), ("log.txt",))
    # At first each second; to look at all processes costs something.
    assert [at - began for at in asked[:3]] == [0.0, 1.0, 2.0] and asked[-1] - asked[-2] == 10.0


@pytest.mark.parametrize("text", ['{"allow_log_streaming": false}', "{"])
def test_nothing_is_closed_that_the_site_keeps_by_the_time_a_job_has_ended(tmp_path, text):
    """The job outlives the site's parent process by hours, and an admin changes the policy meanwhile."""
    workspace = Engine(tmp_path / "client", site="site-1").workspace
    resources = Path(workspace.get_file_path_in_site_config("resources.json"))
    resources.parent.mkdir(parents=True, exist_ok=True)
    resources.write_text('{"allow_log_streaming": true}')
    sender, clock, alive = Sender(), Clock(), [{"a", "b"}, {"b"}, set(), set()]
    policies = [None, text, '{"allow_log_streaming": true}']

    def sleep(seconds):
        clock.advance(seconds)
        if policy := policies.pop(0):
            resources.write_text(policy)

    close_earlier(
        sender,
        workspace,
        ["a", "b"],
        ("log.txt", "*.log"),
        running=lambda jobs: alive.pop(0),
        clock=clock,
        sleep=sleep,
    )
    ((refused, files, why),) = sender.refused
    assert (refused, files) == ("b", ("log.txt", "*.log"))
    assert "cannot be read" in why or "does not allow it" in why
    is_known_at_last = text == "{"  # the file could not be read for a while
    assert [job_id for job_id, *_ in sender.closed] == (["a", "b"] if is_known_at_last else ["a"])
