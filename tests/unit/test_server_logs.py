"""The server's own logs of jobs that were under way when it was restarted: their processes may run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvflare_logstream.flare import elsewhere
from nvflare_logstream.flare.elsewhere import Survivors
from nvflare_logstream.flare.launchers import HERE
from nvflare_logstream.flare.server_logs import ServerLogs
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.streams import State, StreamKey, Verdict
from nvflare_logstream.testing import Clock
from tests.unit.conftest import wait_for
from tests.unit.fake_runtime import Engine

JOB = "job-1"
KEY = StreamKey(JOB, SERVER_SITE, "log.txt")
BEGIN, REST = b"line 1\n", b"line 2\n"
NOT_SEEN = "not known: the server restarted"


def container(*answers: bool | None):
    """A launcher that is asked, and says each of these in turn."""
    left = list(answers)
    return HERE._replace(place="a container", ask=lambda *job: left.pop(0))


class Restarted:
    """A server that begins again while a job's log is open that its earlier life has followed."""

    def __init__(self, root: Path, store):
        self.engine, self.store, self.clock = Engine(root), store, Clock()
        self.run_dir = Path(self.engine.workspace.get_run_dir(JOB))
        self.run_dir.mkdir()
        self.write(BEGIN)
        self.started: list[ServerLogs] = []
        self.server_logs().follow(JOB)
        assert wait_for(lambda: (stream := store.info(KEY)) and stream.end == len(BEGIN))
        self.stop()

    def server_logs(self, **arguments) -> ServerLogs:
        logs = ServerLogs(self.store, self.engine.workspace, **arguments)
        logs.start()
        self.started.append(logs)
        return logs

    def write(self, data: bytes) -> None:
        with (self.run_dir / "log.txt").open("ab") as log:
            log.write(data)

    def close(self, launcher, running=lambda jobs: set(), step=lambda seconds: None):
        """Close what was left open; returns the log's stream and the seconds that it took."""
        logs = self.server_logs(unseen_place="" if launcher.sees_files else launcher.place)
        began = self.clock()

        def sleep(seconds: float) -> None:
            assert self.clock() < began + 1000, "waits for ever"
            assert self.store.info(KEY).state is State.OPEN
            self.clock.advance(seconds)
            step(self.clock() - began)

        survivors = Survivors(launcher, self.engine, self.engine.workspace, running, self.clock)
        logs.close_left(logs.left_open(), survivors, sleep)
        assert wait_for(lambda: self.store.info(KEY).ended)
        return self.store.info(KEY), self.clock() - began

    def stop(self) -> None:
        for logs in self.started:
            logs._sender.stop(20)


@pytest.fixture
def server(memory_path, store):
    server = Restarted(memory_path / "server", store)
    yield server
    server.stop()


def test_a_jobs_process_that_outlives_the_server_is_waited_for(server):
    """It writes for a few seconds more: what is closed as complete before would not be so."""
    alive = [{JOB}, {JOB}, set()]
    stream, seconds = server.close(HERE, lambda jobs: alive.pop(0), lambda seconds: server.write(REST))
    assert (stream.verdict, stream.outcome, seconds) == (Verdict.COMPLETE, NOT_SEEN, 2.0)
    assert server.store.path(KEY).read_bytes() == BEGIN + 2 * REST


def test_a_job_that_runs_on_in_a_container_is_followed_until_it_ends(server):
    def step(seconds):
        if seconds == 50:
            server.write(REST)
            assert wait_for(lambda: server.store.info(KEY).end == len(BEGIN + REST))

    stream, seconds = server.close(container(*[True] * 20, False), step=step)
    assert (stream.verdict, stream.outcome, seconds) == (Verdict.COMPLETE, NOT_SEEN, 100.0)


def test_where_nobody_can_say_a_job_is_over_when_its_log_grows_no_more(server):
    stream, seconds = server.close(
        container(*[None] * 30), step=lambda seconds: seconds > 20 or server.write(REST)
    )
    assert seconds == 20 + elsewhere.QUIET
    assert stream.verdict is Verdict.PARTIAL and "nobody could say whether the job still ran" in stream.reason


def test_a_job_that_the_runtime_has_archived_is_over(server):
    """Nobody is asked: it has removed the job's run directory."""
    (server.run_dir / "log.txt").unlink()
    server.run_dir.rmdir()
    _, seconds = server.close(container())
    assert seconds == 0.0


def test_a_pods_logs_cannot_be_seen_here(server):
    pod = container(True, False)._replace(place="a pod", sees_files=False)
    stream, seconds = server.close(pod)
    assert seconds == elsewhere.ASK_INTERVAL
    assert stream.verdict is not Verdict.COMPLETE and "ran in a pod" in stream.verdict_reason


def test_a_new_job_is_not_closed_with_those_of_before(server):
    """The server takes requests meanwhile."""
    logs, new = server.server_logs(), StreamKey("job-2", SERVER_SITE, "log.txt")
    logs.close_earlier(HERE, server.engine)
    Path(server.engine.workspace.get_run_dir("job-2")).mkdir()
    logs.follow("job-2")
    assert wait_for(lambda: server.store.info(KEY).ended and server.store.info(new))
    assert server.store.info(new).state is State.OPEN
