"""Parents that die, stop and come back: the logs of the jobs that were running end up complete all the same.

The jobs run side by side, so that each fault also strikes jobs it is not about. Most of it is waiting, so it
all happens in the background while other modules' tests run; the tests here say how it ended.
"""

from __future__ import annotations

import json
import re
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from subprocess import Popen

import pytest

from nvflare_logstream.cli.log_task import NOTICES
from tests.ahead import Ahead

from .lab import LOGS, SITES, Job, Lab, wait_for

JOBS = {
    "client killed": "site-1",
    "server stopped": "site-2",
    "archived first": "site-2",
    "server killed": "site-2",
}
FOLLOWED = ("site-2", "site-3")  # not site-1, which a test kills


def submit(lab: Lab) -> dict[str, Job]:
    script = [["wait_for", "begin"], ["lines_until", "go", 0.05], ["warning", "the end"]]
    jobs = {name: lab.submit(name.replace(" ", "-"), script, sites=[site]) for name, site in JOBS.items()}
    followed = [
        ["wait_for", "begin"],
        ["lines", 100, 0.01],
        ["rotate"],
        ["lines_until", "on", 0.05],
        ["rotate"],
        ["lines_until", "go", 0.05],
    ]
    jobs["followed"] = lab.submit("followed", [*followed, ["warning", "the end"]], sites=FOLLOWED)
    return jobs


class RestartLab(Lab):
    """A federation that the faults strike, and somebody who follows one of its jobs meanwhile."""

    follower: Popen[str]
    outcomes: dict[Callable[[RestartLab], None], Future[None]]

    def begin_writing(self) -> None:
        for act in (lambda job, site: job.signal(site, "begin"), Job.wait_live):
            for job in self.jobs.values():
                for site in job.sites:
                    act(job, site)

    def close(self) -> None:
        self._end_follower()
        super().close()

    def end(self) -> None:
        self._end_follower()
        super().end()

    def _end_follower(self) -> None:
        if follower := getattr(self, "follower", None):
            follower.kill()
            follower.wait()

    def begin_following(self) -> None:
        """`logs --site all -f`, into the files `follow.out` and `follow.err`."""
        out, followed = self.root / "follow.out", self.jobs["followed"]
        with out.open("w") as stdout, (self.root / "follow.err").open("w") as stderr:
            self.follower = self.command(
                "logs", followed.id, "--site", "all", "-f", stdout=stdout, stderr=stderr
            )
        wait_for(lambda: all(f"{site} " in out.read_text() for site in FOLLOWED), "the follower to begin")


# -- what happens to it, in this order; each ends with what has to be true then ------------------------------


def client_parent_killed_and_restarted(lab: RestartLab) -> None:
    job = lab.jobs["client killed"]
    lab.federation.kill("site-1")
    lab.federation.start_site("site-1")
    lab.federation.wait_ready()
    info = job.wait_closed("site-1")
    job.assert_complete("site-1", outcome=info.outcome)
    assert info.outcome == "not known: the site restarted"


def last_bytes_come_after_the_archive(lab: RestartLab) -> None:
    """The site's parent is frozen until the server has archived the job; then the archive gets the rest."""
    job = lab.jobs["archived first"]
    lab.federation.kill("site-2", signal.SIGSTOP)
    try:
        lab.federation.abort(job.id)
        job.wait()
    finally:
        lab.federation.kill("site-2", signal.SIGCONT)
    job.assert_complete("site-2", outcome=job.wait_closed("site-2").outcome)
    written = job.written("site-2")

    def archived() -> bool:
        with zipfile.ZipFile(lab.federation.server_dir / "jobs-storage" / job.id / "workspace") as archive:
            return {f"site-2/{name}": job.written("site-2", name) for name in LOGS} == {
                f"site-2/{name}": archive.read(f"site-2/{name}") for name in LOGS
            }

    wait_for(archived, "the archive to be completed")
    logs = lab.nvflare("--format", "json", "job", "logs", job.id, "--site", "site-2", "--tail", "100000")
    assert json.loads(logs.stdout)["data"]["logs"]["site-2"].encode() == written
    assert lab.nvflare("job", "download", job.id, "-o", str(lab.root / "download")).returncode == 0
    (downloaded,) = (lab.root / "download").rglob("workspace/site-2/log.txt")
    assert downloaded.read_bytes() == written


def server_stopped_for_20_seconds(lab: RestartLab) -> None:
    job = lab.jobs["server stopped"]
    lab.begin_following()
    lab.federation.kill("server", signal.SIGSTOP)
    time.sleep(20)  # the case itself, not a wait for something
    lab.federation.kill("server", signal.SIGCONT)
    job.signal("site-2")
    job.wait()
    job.assert_complete("site-2", outcome=job.wait_closed("site-2").outcome)
    assert b"the end" in job.written("site-2")


def following_across_rotation_a_frozen_and_a_restarted_server(lab: RestartLab) -> None:
    """`logs --site all -f` shows each line of both sites once, in order, and ends with the job's outcome."""
    job, out, err = lab.jobs["followed"], lab.root / "follow.out", lab.root / "follow.err"
    for site in FOLLOWED:
        job.signal(site, "on")
    lab.federation.kill("server")
    lab.federation.start_site("server")
    lab.federation.wait_ready()
    wait_for(lambda: "in contact" in err.read_text(), "the follower to come back", 150)
    for site in FOLLOWED:
        job.signal(site)
    code = lab.follower.wait(timeout=150)
    shown = out.read_text().splitlines(keepends=True)
    for site in FOLLOWED:
        written = job.written(site).decode().splitlines(keepends=True)
        assert [line.removeprefix(f"{site} ") for line in shown if line.startswith(f"{site} ")] == written, (
            site
        )
    notices = err.read_text()
    # The runtime's job store says for ever that the job runs: a restarted server takes no job up again.
    assert lab.federation.status(job.id) == "RUNNING"
    assert notices.splitlines()[-1].startswith("job: over: the server was restarted during the job"), notices
    assert code == 1, notices
    ours = (
        rf"({'|'.join([*FOLLOWED, 'server', 'job'])}): ({'|'.join(map(re.escape, NOTICES.values()))})(: .*)?"
    )
    assert not [notice for notice in notices.splitlines() if not re.fullmatch(ours, notice)]


def server_killed_and_restarted(lab: RestartLab) -> None:
    job = lab.jobs["server killed"]
    lab.federation.kill("server")
    lab.federation.start_site("server")
    lab.federation.wait_ready()
    job.signal("site-2")
    info = job.wait_closed("site-2", timeout=150)
    job.assert_complete("site-2", outcome=info.outcome)
    # The job's server process writes for some seconds more.
    wait_for(lambda: not job.runs_at("server"), "the end of the job at the server")
    written = (lab.federation.server_dir / job.id / "log.txt").read_bytes()
    assert job.wait_closed("server").verdict == "complete"
    assert job.path("server", "log.txt").read_bytes() == written


FAULTS = (
    client_parent_killed_and_restarted,
    last_bytes_come_after_the_archive,
    server_stopped_for_20_seconds,
    following_across_rotation_a_frozen_and_a_restarted_server,
    server_killed_and_restarted,
)


def outcome(act: Callable[[RestartLab], None], lab: RestartLab) -> Future[None]:
    """That it went well, or what it raised; what comes next happens all the same."""
    outcome: Future[None] = Future()
    try:
        outcome.set_result(act(lab))
    except Exception as error:
        outcome.set_exception(error)
    return outcome


def strike(directory: Path) -> RestartLab:
    lab = RestartLab(directory, clients=(*SITES, "site-3"))
    lab.begin(submit)
    try:
        lab.begin_writing()
        lab.outcomes = {fault: outcome(fault, lab) for fault in FAULTS}
    except BaseException:
        lab.close()
        raise
    return lab


@pytest.fixture(scope="module")
def lab(begun: Ahead) -> Iterator[RestartLab]:
    lab = begun.result(strike)
    yield lab
    lab.end()


@pytest.mark.timeout(400)
@pytest.mark.ahead(run=strike)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_logs_are_complete_after(lab: RestartLab, fault: Callable[[RestartLab], None]) -> None:
    lab.outcomes[fault].result()
