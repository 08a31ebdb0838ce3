"""What differs between versions of the runtime: each form that one of them has."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from nvflare.apis.fl_constant import FLContextKey, RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.workspace import Workspace

from nvflare_logstream.flare import runtime
from nvflare_logstream.flare.job_config import STREAMER_PATH
from nvflare_logstream.flare.job_end import describe_exit
from tests.unit.conftest import wait_for


def context(**props: object) -> FLContext:
    fl_ctx = FLContext()
    for key, value in props.items():
        fl_ctx.set_prop(getattr(FLContextKey, key), value, private=True, sticky=False)
    return fl_ctx


@pytest.mark.parametrize(
    "props, job_id",
    [
        ({"EVENT_DATA": {"job_id": "new"}, "JOB_META": {"job_id": "other"}, "CURRENT_JOB_ID": "old"}, "new"),
        ({"EVENT_DATA": "a log record", "JOB_META": {"job_id": "meta"}, "CURRENT_JOB_ID": "old"}, "meta"),
        ({"EVENT_DATA": {"other": 1}, "JOB_META": None, "CURRENT_JOB_ID": "old"}, "old"),
        ({"JOB_META": {"job_id": ""}}, ""),
        ({}, ""),
    ],
)
def test_the_job_of_an_event(props, job_id):
    assert runtime.job_id_of(context(**props)) == job_id


@pytest.mark.parametrize(
    "meta, custom", [({"byoc": True}, True), ({"byoc": False}, False), ({}, False), (None, False)]
)
def test_custom_code_of_a_job(meta, custom):
    assert runtime.has_custom_code(context(JOB_META=meta)) is custom


def make_workspace(root, resources=None):
    for name in ("startup", "local"):
        (root / name).mkdir()
    if resources is not None:
        (root / "local" / "resources.json").write_text(json.dumps(resources))
    return Workspace(str(root), site_name="site-1")


def test_the_workspace_of_an_event(tmp_path):
    workspace = make_workspace(tmp_path)
    assert runtime.workspace_of(context(WORKSPACE_OBJECT=workspace)) is workspace
    fl_ctx = context(WORKSPACE_ROOT=str(tmp_path))
    fl_ctx.set_prop("__identity_name__", "site-1", private=False, sticky=False)
    found = runtime.workspace_of(fl_ctx)
    assert (found.get_root_dir(), found.site_name) == (str(tmp_path), "site-1")


@pytest.mark.parametrize("entries", [["nvflare_logstream."], ["nvflare_logstream.JobLogStreamer"], ["*"]])
def test_the_runtimes_own_rule_admits_a_class(tmp_path, entries):
    workspace = make_workspace(tmp_path, {"class_allow_list": entries})
    assert runtime.class_refusal(workspace, STREAMER_PATH) == ""


@pytest.mark.parametrize("entries", [[], ["nvflare."], ["nvflare_logstreamer."], "nvflare_logstream.", [5]])
def test_the_runtimes_own_rule_refuses_a_class(tmp_path, entries):
    workspace = make_workspace(tmp_path, {"class_allow_list": entries})
    assert runtime.class_refusal(workspace, STREAMER_PATH)


def test_a_policy_that_the_runtime_cannot_read_refuses(tmp_path):
    workspace = make_workspace(tmp_path)
    (tmp_path / "local" / "resources.json").write_text("[" * 100_000)
    assert runtime.class_refusal(workspace, STREAMER_PATH)


def test_a_runtime_without_the_rule_admits_every_class(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvflare.app_common.widgets.component_path_authorizer", None)
    assert runtime.class_refusal(make_workspace(tmp_path, {"class_allow_list": []}), STREAMER_PATH) == ""


@pytest.mark.parametrize(
    "client, settings",
    [
        (None, {}),
        (SimpleNamespace(), {}),  # before 2.8
        (SimpleNamespace(get_site_config=lambda: None), {}),
        (SimpleNamespace(get_site_config=lambda: {"a": 1}), {"a": 1}),
    ],
)
def test_what_a_site_said_of_itself(client, settings):
    assert runtime.site_settings(SimpleNamespace(get_client_from_name=lambda name: client), "s") == settings


def test_the_handle_of_a_jobs_process():
    executor, taken = SimpleNamespace(run_processes={}), []
    engine = SimpleNamespace(client_executor=executor)
    executor.run_processes["job-1"] = {RunProcessKey.JOB_HANDLE: "handle"}
    runtime.take_job_handle(engine, "job-1", taken.append)
    assert taken == ["handle"]


def test_the_handle_of_a_process_that_the_runtime_keeps_only_after_it_told_of_the_launch():
    executor, taken = SimpleNamespace(run_processes={}), []
    runtime.take_job_handle(SimpleNamespace(client_executor=executor), "job-1", taken.append)
    assert taken == []
    executor.run_processes["job-1"] = {RunProcessKey.JOB_HANDLE: "handle"}  # nvflare 2.7 and 2.8
    wait_for(lambda: taken == ["handle"])


def test_a_handle_that_never_comes_is_looked_for_no_longer(monkeypatch):
    monkeypatch.setattr(runtime, "_HANDLE_SECONDS", 0.0)
    runtime.take_job_handle(object(), "job-1", pytest.fail)
    wait_for(lambda: all(thread.name != "nvflare_logstream_launch" for thread in threading.enumerate()))


def test_without_a_thread_nobody_knows_how_a_job_ended(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (_ for _ in ()).throw(RuntimeError("none")))
    runtime.take_job_handle(object(), "job-1", pytest.fail)


@pytest.mark.parametrize(
    "props, job_ids",
    [
        ({"EVENT_DATA": {"job_id": "new"}, "CURRENT_JOB_ID": "other"}, ["new"]),
        ({"CURRENT_JOB_ID": "over"}, ["job-1", "job-2"]),  # before 2.9; in 2.7 it may be another job's
    ],
)
def test_the_jobs_that_an_event_says_have_started(props, job_ids):
    engine = SimpleNamespace(run_processes={"job-1": {}, "job-2": {}})
    assert runtime.started_jobs(engine, context(**props)) == job_ids


@pytest.mark.parametrize(
    "module, running, of_the_other_side",
    [
        ("client.worker_process", runtime.running_jobs, runtime.running_server_jobs),
        ("server.runner_process", runtime.running_server_jobs, runtime.running_jobs),
    ],
)
def test_a_job_has_a_process_if_its_id_is_in_a_command_line_of_a_job(module, running, of_the_other_side):
    """A server and its sites may share a machine, for a trial say: each asks for its own."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, f"nvflare.private.fed.app.{module}", "-n", "job-1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert running(["job-1", "job-2", "-n"]) >= {"job-1"}
        assert "job-2" not in running(["job-1", "job-2"])
        assert of_the_other_side(["job-1"]) == set()
    assert running(["job-1"]) == set()


def test_a_command_is_sent_with_its_properties_and_its_own_time():
    calls = []

    class Session:
        _study = "cardio"

        def set_timeout(self, seconds):
            calls.append(seconds)

        def _do_command(self, command, enforce_meta, props):
            return {"of": (command, enforce_meta, props)}

        def _get_dict_data(self, reply):
            return reply["of"]

    answer = runtime.send_command(Session(), "logstream job-1", {"v": 1}, 25.0)
    assert (answer, calls) == (("logstream job-1", False, {"v": 1}), [25.0])
    assert runtime.study_of(Session()) == "cardio" and runtime.study_of(object()) == "default"


def test_a_session_is_closed_without_asking_the_server():
    closed = []
    runtime.close_session(SimpleNamespace(api=SimpleNamespace(close=lambda: closed.append(True))))
    assert closed == [True]


class Wrapped:
    """A job handle of the runtime: its poll() tells less than the process behind it."""

    def __init__(self, code: object):
        self.adapter = SimpleNamespace(poll=lambda: code)

    def poll(self) -> int:
        return 1


@pytest.mark.parametrize(
    "handle, words",
    [
        (None, "exit code unknown"),
        (object(), "exit code unknown"),
        (SimpleNamespace(poll=lambda: 3), "exit code 3"),
        (Wrapped(0), "exit code 0"),
        (Wrapped(-9), "signal 9"),
        (Wrapped(None), "exit code unknown"),
        (SimpleNamespace(poll=lambda: 1 / 0), "exit code unknown"),
        (SimpleNamespace(_job_handle=Wrapped(-15)), "signal 15"),
    ],
)
def test_how_a_process_ended_is_told_in_words(handle, words):
    assert describe_exit(handle) == words
