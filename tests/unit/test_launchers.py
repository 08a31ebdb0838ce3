"""Jobs that run in containers, in pods or on Slurm: what goes into their configs, and how they end.

The launchers and handles are the runtime's own classes, over fakes of the services that they ask.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, RunProcessKey
from nvflare.apis.job_launcher_spec import JobLauncherSpec, JobReturnCode

from nvflare_logstream import JobLogStreamer, SiteLogStreamer
from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.flare import elsewhere
from nvflare_logstream.flare.job_end import describe_exit
from nvflare_logstream.flare.launched import Launched, doubt_of, read_launched
from nvflare_logstream.flare.launchers import HERE, launcher_of
from nvflare_logstream.flare.restart import close_earlier, earlier_jobs
from nvflare_logstream.flare.shared import shared
from nvflare_logstream.streams import StreamKey, Verdict
from nvflare_logstream.testing import Clock
from tests.unit.conftest import wait_for
from tests.unit.fake_runtime import Engine, context
from tests.unit.test_widgets import ADMITTED, JOB, LINES, Federation, fire

POD, CONTAINER, SLURM, PROCESS = "K8s", "Docker", "Slurm", "Process"
_MODULES = {
    POD: "nvflare.app_opt.job_launcher.k8s_launcher",
    CONTAINER: "nvflare.app_opt.job_launcher.docker_launcher",
    SLURM: "nvflare.app_opt.job_launcher.slurm.launcher",
    PROCESS: "nvflare.app_common.job_launcher.client_process_launcher",
}


def launcher_class(kind: str) -> type:
    return getattr(pytest.importorskip(_MODULES[kind]), f"Client{kind}JobLauncher")


def make_launcher(kind: str, **attributes: object) -> JobLauncherSpec:
    """A launcher of a class that a site derived from the runtime's."""
    derived = type("OurLauncher", (launcher_class(kind),), {})
    launcher = derived.__new__(derived)
    JobLauncherSpec.__init__(launcher)
    for name, value in attributes.items():
        setattr(launcher, name, value)
    return launcher


class Foreign(JobLauncherSpec):
    def launch_job(self, job_meta, fl_ctx):
        raise NotImplementedError


class NotFound(Exception):
    status = 404


@pytest.fixture
def federation(memory_path):
    federation = Federation(memory_path)
    federation.client.fl_components = []
    federation.start_server()
    federation.server.run(JOB, "site-1")
    yield federation
    federation.stop()


def start(
    federation, kind: str | JobLauncherSpec | None, has_package: bool | None = None, resources=None
) -> None:
    """Start a site that has a launcher, and launch the job."""
    if kind:
        federation.client.fl_components.append(
            kind if isinstance(kind, JobLauncherSpec) else make_launcher(kind)
        )
    local = Path(federation.client.workspace.get_root_dir()) / "local"
    (local / "resources.json").write_text(json.dumps(resources or ADMITTED))
    federation.site = SiteLogStreamer(poll_interval=0.01, job_has_package=has_package)
    fire(federation.site, EventType.SYSTEM_START, context(federation.client))
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)


def end(federation, handle: object = None) -> None:
    federation.client.client_executor.run_processes[JOB] = {RunProcessKey.JOB_HANDLE: handle}
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    del federation.client.client_executor.run_processes[JOB]
    federation.site_event(EventType.JOB_COMPLETED)


def injected(federation) -> bool:
    return bool(json.loads(federation.config.read_text())["components"])


# -- which launcher


@pytest.mark.parametrize(
    "kind, place, sees_files, has_package",
    [
        (PROCESS, "a process of this machine", True, True),
        (CONTAINER, "a container", True, False),
        (SLURM, "a Slurm allocation", True, False),
        (POD, "a pod", False, False),
    ],
)
@pytest.mark.parametrize("added", [True, False])
def test_the_launcher_of_a_job(memory_path, kind, place, sees_files, has_package, added):
    """It may add itself to the context before our handler is called, or after."""
    engine, launcher = Engine(memory_path), make_launcher(kind)
    engine.fl_components = [SiteLogStreamer(), launcher]
    fl_ctx = context(engine, **({FLContextKey.JOB_LAUNCHER: [launcher]} if added else {}))
    found = launcher_of(fl_ctx)
    assert (found.place, found.sees_files, found.has_package) == (place, sees_files, has_package)
    assert found.component is launcher


def test_a_launcher_that_nobody_knows_may_start_jobs_without_our_package(memory_path):
    """One that cannot import a component fails; the files are followed from the parent in any case."""
    engine = Engine(memory_path)
    assert launcher_of(context(engine)) == HERE
    engine.fl_components = [Foreign()]
    found = launcher_of(context(engine))
    assert found.sees_files and not found.has_package and not found.starts_here


@pytest.mark.parametrize("first", [PROCESS, CONTAINER])
def test_of_several_launchers_the_one_counts_that_runs_the_job(memory_path, first):
    """Before 2.8 each adds itself for the jobs that it can run, maybe after we were asked."""
    engine, launchers = Engine(memory_path), {kind: make_launcher(kind) for kind in (PROCESS, CONTAINER)}
    engine.fl_components = [launchers[first], *launchers.values()]
    assert launcher_of(context(engine)).place == "a container", "nothing is put where it may fail a job"
    for launcher in launchers.values():
        fl_ctx = context(engine, **{FLContextKey.JOB_LAUNCHER: [launcher]})
        assert launcher_of(fl_ctx).component is launcher


def test_the_servers_launcher_is_found_too(memory_path):
    engine, launcher = Engine(memory_path), make_launcher(POD)
    engine.run_manager = SimpleNamespace(handlers=[launcher])
    assert launcher_of(context(engine)).component is launcher


def test_a_class_that_only_bears_the_name_is_no_launcher_of_pods(memory_path):
    engine = Engine(memory_path)
    engine.fl_components = [type("K8sJobLauncher", (Foreign,), {})()]
    assert launcher_of(context(engine)).sees_files


def test_pods_of_an_older_runtime_mount_the_sites_directory(memory_path, monkeypatch):
    engine, launcher = Engine(memory_path), make_launcher(POD)
    engine.fl_components = [launcher]
    monkeypatch.delattr(f"{_MODULES[POD]}.WorkspaceTransferManager")
    assert launcher_of(context(engine)).sees_files


# -- what goes into the job's config


@pytest.mark.parametrize("value", ["yes", 1, 0, 1.0, [], "null"])
def test_whether_the_package_is_there_is_said_plainly(value):
    with pytest.raises(ArgumentError, match=r"job_has_package.*true, false or null"):
        SiteLogStreamer(job_has_package=value)


@pytest.mark.parametrize(
    "said, together", [([None, None], None), ([None, True], True), ([True, False], False)]
)
def test_several_entries_say_it_together(said, together):
    shared.reset()
    for value in said:
        SiteLogStreamer(job_has_package=value)
    assert shared.site_entries.job_has_package is together
    shared.reset()


@pytest.mark.parametrize(
    "kind, has_package, goes_in",
    [
        (None, None, True),
        (PROCESS, None, True),
        (PROCESS, False, False),
        (CONTAINER, None, False),
        (CONTAINER, True, True),
        (SLURM, None, False),
        (SLURM, True, True),
        (POD, None, False),
        (POD, False, False),
        (POD, True, True),
    ],
)
def test_a_streamer_goes_only_where_it_can_be_imported(federation, kind, has_package, goes_in):
    start(federation, kind, has_package)
    assert injected(federation) is goes_in


@pytest.mark.parametrize("kind", [CONTAINER, SLURM, POD])
def test_a_job_that_names_our_streamer_itself_gets_the_sites_arguments(federation, kind):
    declared = {"id": "own", "path": "nvflare_logstream.JobLogStreamer", "args": {"log_files": ["mine.txt"]}}
    federation.config.write_text(json.dumps({"components": [declared]}))
    start(federation, kind)
    (entry,) = json.loads(federation.config.read_text())["components"]
    assert entry["args"]["site_closes"] is True and "mine.txt" not in entry["args"]["log_files"]


@pytest.mark.parametrize("kind", [CONTAINER, SLURM])
def test_where_it_cannot_go_in_the_parent_follows_what_it_can_see(federation, caplog, kind):
    start(federation, docker(NotFound()) if kind == CONTAINER else kind)
    assert "set job_has_package to true in the args of SiteLogStreamer" in caplog.text
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    federation.log.write_bytes(LINES)
    wait_for(lambda: (stream := federation.stream()) and stream.end == len(LINES))
    end(federation, SimpleNamespace(poll=lambda: 0))
    stream = federation.ended()
    assert (stream.verdict, stream.outcome, stream.end) == (Verdict.COMPLETE, "exit code 0", len(LINES))


def docker(*statuses: object) -> JobLauncherSpec:
    """A launcher over a Docker that says these of the job's container, the last one for ever."""
    left = list(statuses)

    def get(name):
        assert name == "site-1-job-1"
        status = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(status, Exception):
            raise status
        return SimpleNamespace(status=status)

    client = SimpleNamespace(containers=SimpleNamespace(get=get))
    return make_launcher(CONTAINER, _docker_client=client)


def test_a_container_whose_handle_gave_up_is_waited_for(federation, monkeypatch):
    """The runtime's handle takes a container for over when Docker does not answer once."""
    monkeypatch.setattr(elsewhere, "ASK_INTERVAL", 0.01)
    docker_answers = [OSError("no answer"), *["running"] * 20, NotFound()]
    launcher = docker(*docker_answers)
    start(federation, launcher)
    federation.log.write_bytes(LINES)
    get, asked = launcher._docker_client.containers.get, []

    def writes_on(name):
        asked.append(name)
        if len(asked) == 10:
            with federation.log.open("ab") as log:
                log.write(b"written after the handle gave up\n")
        return get(name)

    launcher._docker_client.containers.get = writes_on
    end(federation, SimpleNamespace(poll=lambda: JobReturnCode.UNKNOWN))
    stream = federation.ended()
    assert federation.store.path(stream.key).read_bytes() == LINES + b"written after the handle gave up\n"
    assert (stream.verdict, len(asked)) == (Verdict.COMPLETE, len(docker_answers))


def test_a_container_of_which_nobody_can_say_that_it_is_over_has_no_complete_log(federation, monkeypatch):
    monkeypatch.setattr(elsewhere, "ASK_INTERVAL", 0.01)
    monkeypatch.setattr(elsewhere, "QUIET", 0.2)
    start(federation, docker(OSError("no answer")))
    federation.log.write_bytes(LINES)
    end(federation, SimpleNamespace(poll=lambda: JobReturnCode.UNKNOWN))
    stream = federation.ended()
    assert (stream.verdict, stream.end) == (Verdict.PARTIAL, len(LINES))
    assert "nobody could say whether the job still ran in a container" in stream.verdict_reason


def test_a_launch_that_fails_leaves_nothing_that_is_followed(federation):
    """An image that is not there, say: no event tells of it."""
    start(federation, CONTAINER)
    assert federation.site._sender.drain(5.0) and not federation.site._sender._state.streams
    assert federation.stream() is None


def test_logs_from_the_time_when_a_site_kept_them_stay(federation):
    """It may let out what comes later, and the job may be over by then."""
    start(federation, PROCESS, resources={**ADMITTED, "allow_log_streaming": False})
    federation.log.write_bytes(LINES)
    local = Path(federation.client.workspace.get_root_dir()) / "local"
    (local / "resources.json").write_text(json.dumps(ADMITTED))
    end(federation, SimpleNamespace(poll=lambda: 0))
    assert federation.site._sender.drain(5.0)
    assert federation.ended().verdict is Verdict.REFUSED and federation.stream().end == 0


def test_the_rest_of_a_log_that_its_site_keeps_by_the_jobs_end_is_refused(federation):
    """Nobody would ever say why nothing more comes."""
    start(federation, PROCESS)
    federation.store.append(StreamKey(JOB, "site-1", "log.txt"), 0, LINES[:7], b"cursor")
    federation.log.write_bytes(LINES)
    local = Path(federation.client.workspace.get_root_dir()) / "local"
    (local / "resources.json").write_text(json.dumps({**ADMITTED, "allow_log_streaming": False}))
    end(federation, SimpleNamespace(poll=lambda: 0))
    assert federation.site._sender.drain(5.0)
    stream = federation.stream()
    assert (stream.verdict, stream.end) == (Verdict.REFUSED, 7) and "does not allow" in stream.verdict_reason


# -- pods, whose files nobody here can see


def pod_of(reason: str, exit_code: int | None, pod_reason: str | None = None) -> SimpleNamespace:
    """A pod as the cluster's API tells of it."""
    ended = exit_code is not None and SimpleNamespace(exit_code=exit_code, reason=reason)
    job = SimpleNamespace(name="job", state=SimpleNamespace(terminated=ended or None))
    other = SimpleNamespace(
        name="side-car", state=SimpleNamespace(terminated=SimpleNamespace(exit_code=3, reason="Other"))
    )
    status = SimpleNamespace(phase="Failed", reason=pod_reason, container_statuses=[other, job])
    return SimpleNamespace(status=status)


def pod_handle(pod: object) -> object:
    handle_class = pytest.importorskip(_MODULES[POD]).K8sJobHandle
    handle = handle_class.__new__(handle_class)

    def read(name, namespace, _request_timeout):
        assert (name, namespace) == ("job-1-site-1", "flare")
        if isinstance(pod, Exception):
            raise pod
        return pod

    handle.api_instance = SimpleNamespace(read_namespaced_pod=read)
    handle.pod_name, handle.namespace, handle.job_id = "job-1-site-1", "flare", JOB
    handle.job_container = {"name": "job"}
    handle.terminal_state = pytest.importorskip(_MODULES[POD]).JobState.TERMINATED
    handle.terminal_return_code = None
    return handle


def test_a_pod_that_died_without_bringing_anything_back(federation, caplog):
    start(federation, POD)
    (line,) = [record.getMessage() for record in caplog.records if "cannot see files" in record.getMessage()]
    assert "a pod" in line and "set job_has_package to true" in line
    end(federation, pod_handle(pod_of("OOMKilled", 137)))
    stream = federation.ended()
    assert (stream.verdict, stream.end, stream.outcome) == (Verdict.PARTIAL, 0, "exit code 137 (OOMKilled)")
    assert stream.verdict_reason.endswith(
        "the job ran in a pod, and no copy of its logs came back: exit code 137 (OOMKilled)"
    )


def stream_in_pod(federation, pod: Path, content: bytes) -> None:
    """The streamer that was put into the job's config runs where nobody else sees the files."""
    pod.mkdir()
    for name in ("startup", "local"):
        (pod / name).mkdir()
    engine = federation.job_engine()
    engine.workspace = Engine(pod / "engine", site="site-1").workspace
    log = Path(engine.workspace.get_log_root(JOB)) / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_bytes(content)
    (entry,) = json.loads(federation.config.read_text())["components"]
    streamer = JobLogStreamer(**entry["args"])
    fire(streamer, EventType.START_RUN, context(engine, JOB))
    wait_for(lambda: (stream := federation.stream()) and stream.end == len(content))
    fire(streamer, EventType.END_RUN, context(engine, JOB))


@pytest.mark.parametrize("came_back", [None, 3, len(LINES) - 1, len(LINES), len(LINES) + 9])
def test_a_pod_streams_itself_and_a_copy_neither_doubles_nor_shortens_it(federation, tmp_path, came_back):
    start(federation, POD, has_package=True)
    stream_in_pod(federation, tmp_path / "pod", LINES)
    if came_back is not None:
        federation.log.write_bytes((LINES + b"the last\n")[:came_back])
    end(federation, pod_handle(pod_of("Completed", 0)))
    stream = federation.ended()
    stored = federation.store.path(stream.key).read_bytes()
    assert stored == (LINES + b"the last\n")[: max(len(LINES), came_back or 0)]
    assert (stream.verdict, stream.outcome, stream.losses) == (Verdict.PARTIAL, "exit code 0", ())


def test_the_servers_own_log_of_a_job_in_a_pod_is_never_complete(memory_path):
    federation = Federation(memory_path)
    federation.server.run_manager = SimpleNamespace(handlers=[make_launcher(POD)])
    try:
        federation.start_server()
        federation.server.run(JOB, "site-1")
        federation.server_event(EventType.BEFORE_JOB_LAUNCH)
        log = Path(federation.server.workspace.get_log_root(JOB)) / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(LINES)  # as the archive is unpacked
        wait_for(lambda: (stream := federation.stream(site="server")) and stream.end == len(LINES))
        federation.server_event(EventType.JOB_COMPLETED)
        stream = federation.ended(site="server")
        assert (stream.verdict, stream.end) == (Verdict.PARTIAL, len(LINES))
        assert "the job's server process ran in a pod" in stream.verdict_reason
    finally:
        federation.stop()


def test_a_site_that_keeps_its_logs_keeps_those_of_pods(federation):
    start(federation, POD, resources={**ADMITTED, "allow_log_streaming": False})
    federation.log.write_bytes(LINES)
    end(federation, pod_handle(pod_of("Completed", 0)))
    assert federation.ended().verdict is Verdict.REFUSED
    assert earlier_jobs(federation.client.workspace) == [], "nor does a later life of the site send them"


# -- how it ended


@pytest.mark.parametrize(
    "pod, words",
    [
        (pod_of("Completed", 0), "exit code 0"),
        (pod_of("Error", 103), "exit code 103 (configuration)"),
        (pod_of("OOMKilled", 137), "exit code 137 (OOMKilled)"),
        (pod_of("", None, "Evicted"), "exit code unknown (Evicted)"),
        (NotFound(), "exit code unknown (the pod was deleted)"),
        (OSError("no way to the cluster"), "exit code unknown (failed or aborted)"),
    ],
)
def test_how_a_pod_ended(pod, words):
    handle = pod_handle(pod)
    assert describe_exit(handle) == words
    assert describe_exit(SimpleNamespace(_job_handle=handle)) == words


@pytest.mark.parametrize(
    "state, kept, words",
    [
        ({"ExitCode": 0, "OOMKilled": False, "Error": ""}, None, "exit code 0"),
        ({"ExitCode": 137, "OOMKilled": True, "Error": ""}, None, "exit code 137 (OOMKilled)"),
        ({"ExitCode": 127, "Error": "no such file"}, None, "exit code 127 (no such file)"),
        (NotFound(), JobReturnCode.SUCCESS, "exit code 0"),
        (NotFound(), JobReturnCode.EXECUTION_ERROR, "exit code unknown (failed)"),
        (NotFound(), JobReturnCode.ABORTED, "exit code unknown (failed or aborted)"),
        (NotFound(), JobReturnCode.UNKNOWN, "exit code unknown"),
    ],
)
def test_how_a_container_ended(state, kept, words):
    handle_class = pytest.importorskip(_MODULES[CONTAINER]).DockerJobHandle

    def get(container_id):
        if isinstance(state, Exception):
            raise state
        return SimpleNamespace(attrs={"State": state})

    client = SimpleNamespace(containers=SimpleNamespace(get=get))
    handle = handle_class("id", "name", client, watch_exit=False)
    handle.poll = lambda: kept
    assert describe_exit(handle) == words


@pytest.mark.parametrize(
    "record, words",
    [
        (("COMPLETED", 0, 0), "exit code 0"),
        (("FAILED", 101, 0), "exit code 101 (exception)"),
        (("OUT_OF_MEMORY", 0, 9), "signal 9 (OUT_OF_MEMORY)"),
        (("NODE_FAIL", 1, 0), "exit code 1 (NODE_FAIL)"),
        (None, "exit code 104 (infrastructure, or a class that the site does not allow)"),
    ],
)
def test_how_a_slurm_job_ended(record, words):
    handle_class = pytest.importorskip("nvflare.app_opt.job_launcher.slurm.manager").SlurmJobHandle
    fields = ("state", "exit_status", "exit_signal")
    records = [SimpleNamespace(**dict(zip(fields, record, strict=True)))] if record else []
    adapter = SimpleNamespace(accounting_by_id=lambda job, name, timeout: SimpleNamespace(records=records))
    handle = handle_class(SimpleNamespace(adapter=adapter), JOB, "name", "dir", "17", 1.0, 1.0)
    handle.poll = lambda: 104
    assert describe_exit(handle) == words


def test_an_unknown_launchers_handle_that_does_not_know_says_no_code():
    assert describe_exit(SimpleNamespace(poll=lambda: JobReturnCode.UNKNOWN)) == "exit code unknown"
    process = SimpleNamespace(poll=lambda: 127)
    assert describe_exit(SimpleNamespace(process=process)) == "exit code 127", "a command that is not there"


def test_a_copy_of_a_log_that_is_named_by_a_pattern_came_back(tmp_path):
    launcher, launched = HERE._replace(sees_files=False), Launched(("*.log",), "exit code 0", 1.0)
    assert "no copy of its logs came back" in doubt_of(launcher, tmp_path, launched).reason
    (tmp_path / "a.log").write_bytes(LINES)
    assert "after a copy of its logs was made" in doubt_of(launcher, tmp_path, launched).reason


# -- after a restart of the parent


class Sender:
    def __init__(self):
        self.followed, self.closed = [], []

    def follow(self, job_id, directory, file):
        self.followed.append((job_id, file))

    def watch(self, job_id, files):
        """What the site says meanwhile is heeded elsewhere."""

    def finish(self, job_id, directory, files, outcome, *, only_unclosed, doubt):
        self.closed.append((job_id, outcome, doubt and doubt.reason))


class Restarted:
    """A site's parent process begins again, with a launcher and a job of its earlier life."""

    def __init__(self, root: Path, launcher: object):
        self.engine = Engine(root / "client", site="site-1")
        self.engine.fl_components = [launcher]
        self.workspace, self.sender, self.clock = self.engine.workspace, Sender(), Clock()
        self.run_dir = Path(self.workspace.get_run_dir(JOB))
        (self.run_dir / "app_site-1" / "config").mkdir(parents=True)
        Launched(("log.txt",)).write(self.run_dir)
        self.log = Path(self.workspace.get_log_root(JOB)) / "log.txt"
        self.slept = 0

    def close(self, step=lambda: None) -> float:
        """Returns the seconds that it took."""
        began = self.clock()

        def sleep(seconds):
            self.slept += 1
            assert self.slept < 500, "waits for ever"
            self.clock.advance(seconds)
            step()

        assert earlier_jobs(self.workspace) == [JOB]
        close_earlier(
            self.sender,
            self.workspace,
            [JOB],
            ("log.txt",),
            launcher=launcher_of(context(self.engine)),
            engine=self.engine,
            clock=self.clock,
            sleep=sleep,
        )
        assert [job_id for job_id, *_ in self.sender.closed] == [JOB]
        return self.clock() - began


def docker_site(root: Path, *statuses: object) -> Restarted:
    return Restarted(root, docker(*statuses))


def test_a_container_that_runs_on_is_followed_until_it_ends(memory_path, caplog):
    site = docker_site(memory_path, *["running"] * 100, "exited")
    with caplog.at_level("INFO"):
        assert site.close() == 500.0
    assert site.sender.followed == [(JOB, "log.txt")]
    assert site.sender.closed == [(JOB, "not known: the site restarted", None)]
    assert "job job-1 still runs in a container" in caplog.text


def test_a_container_of_an_older_runtime_bears_the_sites_name_as_it_is(memory_path, monkeypatch):
    site = docker_site(memory_path, "running", "exited")
    client = site.engine.fl_components[0]._docker_client
    module = pytest.importorskip(_MODULES[CONTAINER])
    monkeypatch.delattr(module.DockerJobLauncher, "_get_docker_client")
    monkeypatch.delattr(module, "_sanitize_container_name")
    monkeypatch.setattr(module, "docker", SimpleNamespace(from_env=lambda: client), raising=False)
    assert site.close() == 5.0
    assert site.sender.closed == [(JOB, "not known: the site restarted", None)]


@pytest.mark.parametrize("status", ["exited", "dead", NotFound()])
def test_a_container_that_has_ended_is_closed_at_once(memory_path, status):
    site = docker_site(memory_path, status)
    assert site.close() == 0.0 and site.sender.followed == []


def test_a_pod_is_asked_of_its_cluster(memory_path):
    phases = ["Running", "Pending", OSError("away"), "Succeeded"]
    asked = []

    def read(name, namespace, _request_timeout):
        asked.append((name, namespace))
        phase = phases.pop(0)
        if isinstance(phase, Exception):
            raise phase
        return SimpleNamespace(status=SimpleNamespace(phase=phase))

    api = SimpleNamespace(read_namespaced_pod=read)
    site = Restarted(memory_path, make_launcher(POD, core_v1=api, namespace="flare", config_file_path=None))
    assert site.close() == 15.0
    module = pytest.importorskip(_MODULES[POD])
    assert asked == [(module.job_pod_name(module.uuid4_to_rfc1123(JOB), "site-1"), "flare")] * 4
    ((_, outcome, doubt),) = site.sender.closed
    assert outcome == "not known: the site restarted" and "ran in a pod, and no copy" in doubt
    assert site.sender.followed == [], "there is nothing to see here"


@pytest.mark.parametrize("kind", [SLURM, POD, None])
def test_where_nobody_can_say_a_job_is_over_when_its_logs_grow_no_more(memory_path, caplog, kind):
    launcher = make_launcher(kind, core_v1=None, config_file_path="none") if kind else Foreign()
    site = Restarted(memory_path, launcher)

    def write():
        if site.slept <= 20:
            with site.log.open("ab") as log:
                log.write(b"more\n")

    assert site.close(write) == 20 * 5.0 + elsewhere.QUIET
    assert "nobody can say whether job job-1 still runs in" in caplog.text
    assert site.sender.followed == ([] if kind == POD else [(JOB, "log.txt")])
    ((_, _, doubt),) = site.sender.closed
    why = "the job ran in a pod" if kind == POD else "nobody could say whether the job still ran in"
    assert why in doubt, "so they are not complete"


def slurm_site(root: Path, *answers: object) -> Restarted:
    """A site whose squeue prints these rows, one set after the other, or fails with a code."""
    slurm = pytest.importorskip("nvflare.app_opt.job_launcher.slurm.scheduler_client")
    manager = pytest.importorskip("nvflare.app_opt.job_launcher.slurm.manager").SlurmJobManager
    left = list(answers)

    def run(command, timeout):
        assert command[:2] == ["squeue", "-h"] and timeout <= 5.0
        (name,) = [word.removeprefix("--name=") for word in command if word.startswith("--name=")]
        assert name.startswith("nvfl-site-1-")
        answer = left.pop(0)
        code, rows = (answer, "") if isinstance(answer, int) else (0, answer.format(name=name))
        return slurm.CommandResult(code, rows, "")

    adapter = slurm._SlurmCliAdapter({"squeue": "squeue"}, os.getuid(), None, runner=run)
    launcher = make_launcher(SLURM, manager=manager(None, None, adapter))
    return Restarted(root, launcher)


def test_an_allocation_is_asked_of_slurm(memory_path, caplog):
    row = "17|{state}|0|nvfl:job-1|{{name}}\n"
    states = ["PENDING"] * 20 + ["RUNNING"] * 20 + ["COMPLETING"]
    site = slurm_site(memory_path, *[row.format(state=state) for state in states], 1, "")
    with caplog.at_level("INFO"):
        assert site.close() == (len(states) + 1) * 5.0
    assert site.sender.followed == [(JOB, "log.txt")]
    assert site.sender.closed == [(JOB, "not known: the site restarted", None)]
    assert "job job-1 still runs in a Slurm allocation" in caplog.text


def test_an_allocation_of_the_same_name_is_not_the_jobs(memory_path):
    site = slurm_site(memory_path, "17|RUNNING|0|nvfl:another|{name}\n", "")
    assert site.close() == 5.0


def test_a_handle_that_says_it_runs_is_believed(memory_path):
    """The runtime may know the job of an earlier life."""
    site = Restarted(memory_path, make_launcher(SLURM))
    codes = [JobReturnCode.UNKNOWN] * 30 + [JobReturnCode.SUCCESS]
    handle = SimpleNamespace(poll=lambda: codes.pop(0))
    runs = {JOB: {RunProcessKey.JOB_HANDLE: handle}}
    site.engine.client_executor = SimpleNamespace(run_processes=runs)
    assert site.close() == 150.0


@pytest.mark.parametrize("kind", [CONTAINER, PROCESS])
def test_a_job_cannot_say_itself_that_it_is_over(memory_path, kind):
    """Nor how it ended: its code can write our note, which this process keeps only of jobs in pods."""
    left = ["running"] * 3 + ["exited"]
    site = (
        docker_site(memory_path, *left) if kind == CONTAINER else Restarted(memory_path, make_launcher(kind))
    )
    Launched(("log.txt",), "exit code 0", time.time()).write(site.run_dir)
    assert site.close() == (15.0 if kind == CONTAINER else 0.0)
    assert site.sender.closed == [(JOB, "not known: the site restarted", None)]


@pytest.mark.parametrize("name", ["job-1 copy", "_job-1", "job-1~", "\u00e9", "link"])
def test_directories_that_are_no_jobs_are_passed_over(memory_path, name):
    site = Restarted(memory_path, make_launcher(PROCESS))
    other = site.run_dir.with_name(name)
    if name == "link":
        shutil.copytree(site.run_dir, memory_path / "elsewhere")
        other.symlink_to(memory_path / "elsewhere")
    else:
        shutil.copytree(site.run_dir, other)
    assert earlier_jobs(site.workspace) == [JOB]


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def refer_to_itself(path: Path) -> None:
    lines = [f"a{n} = ${{a{n - 1}}}${{a{n - 1}}}" for n in range(1, 40)]
    path.with_suffix(".conf").write_text("\n".join(["a0 = bomb", *lines]))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), sparse, refer_to_itself]
)
def test_what_a_job_left_in_place_of_its_config_holds_up_no_start(memory_path, make):
    site = Restarted(memory_path, make_launcher(PROCESS))
    make(site.run_dir / "app_site-1" / "config" / "config_fed_client.json")
    assert site.close() == 0.0
    (site.run_dir / "logstream.json").unlink()
    assert earlier_jobs(site.workspace) == []


def test_a_container_that_was_made_and_never_started_is_not_waited_for_without_end(memory_path):
    """A start that fails leaves it behind."""
    site = docker_site(memory_path, "created")
    assert site.close() == elsewhere.QUIET
    ((_, _, doubt),) = site.sender.closed
    assert "nobody could say whether the job still ran in a container" in doubt


def test_a_pods_end_that_was_seen_is_told_again_after_a_restart(memory_path):
    site = Restarted(memory_path, make_launcher(POD, core_v1=None, config_file_path="none"))
    Launched(("log.txt",), "exit code 137 (OOMKilled)", time.time()).write(site.run_dir)
    assert site.close() == 0.0
    ((_, outcome, doubt),) = site.sender.closed
    assert outcome == "exit code 137 (OOMKilled)" and doubt.endswith(outcome)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 50_000,
        '{"log_files": ["../x"], "outcome": "", "ended": 0}',
        '{"log_files": "log.txt", "outcome": "", "ended": 0}',
        '{"log_files": [], "outcome": 5, "ended": 0}',
        '{"log_files": [], "outcome": "", "ended": NaN}',
        '{"log_files": [], "outcome": "", "ended": 1' + "0" * 400 + "}",
        '{"log_files": [], "outcome": "", "ended": -1}',
    ],
)
def test_what_a_job_wrote_over_our_note_is_not_believed(tmp_path, text):
    (tmp_path / "logstream.json").write_text(text)
    assert read_launched(tmp_path) is None


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir])
def test_what_is_no_plain_file_at_the_notes_place_is_left_alone(tmp_path, make):
    make(tmp_path / "logstream.json")
    assert read_launched(tmp_path) is None


def test_a_note_is_read_as_it_was_written(tmp_path):
    launched = Launched(("log.txt", "train.log"), "exit code 0", 5.0)
    launched.write(tmp_path)
    assert read_launched(tmp_path) == launched
    assert [path.name for path in tmp_path.iterdir()] == ["logstream.json"]
