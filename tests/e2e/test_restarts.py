"""Parents that die, stop and come back: the logs of the jobs that were running end up complete all the same.

The jobs run side by side, so that each fault also strikes jobs it is not about.
"""

from __future__ import annotations

import json
import re
import signal
import time
import zipfile
from collections.abc import Iterator
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
    script = [["wait_for", "begin"], ["lines_until", "go", 0.02], ["warning", "the end"]]
    jobs = {name: lab.submit(name.replace(" ", "-"), script, sites=[site]) for name, site in JOBS.items()}
    followed = [
        ["wait_for", "begin"],
        ["lines", 100, 0.01],
        ["rotate"],
        ["lines_until", "on", 0.02],
        ["rotate"],
        ["lines_until", "go", 0.02],
    ]
    jobs["followed"] = lab.submit("followed", [*followed, ["warning", "the end"]], sites=FOLLOWED)
    return jobs


def start_lab(directory: Path) -> Lab:
    return Lab(directory, clients=(*SITES, "site-3")).begin(submit)


pytestmark = [pytest.mark.timeout(300), pytest.mark.ahead(run=start_lab)]


@pytest.fixture(scope="module")
def lab(begun: Ahead) -> Iterator[Lab]:
    lab = begun.result(start_lab)
    for act in (lambda job, site: job.signal(site, "begin"), Job.wait_live):
        for job in lab.jobs.values():
            for site in job.sites:
                act(job, site)
    yield lab
    lab.end()


@pytest.fixture(scope="module")
def jobs(lab: Lab) -> dict[str, Job]:
    return lab.jobs


@pytest.fixture(scope="module")
def follower(lab: Lab, jobs: dict[str, Job]) -> Iterator[Popen[str]]:
    """`logs --site all -f`, into the files `follow.out` and `follow.err`."""
    out = lab.root / "follow.out"
    with out.open("w") as stdout, (lab.root / "follow.err").open("w") as stderr:
        follower = lab.command(
            "logs", jobs["followed"].id, "--site", "all", "-f", stdout=stdout, stderr=stderr
        )
    try:
        wait_for(lambda: all(f"{site} " in out.read_text() for site in FOLLOWED), "the follower to begin")
        yield follower
    finally:
        follower.kill()
        follower.wait()


@pytest.fixture(scope="module")
def frozen(lab: Lab, follower: Popen[str]) -> None:
    """The server was stopped for 20 seconds, with all the jobs and the follower."""
    lab.federation.kill("server", signal.SIGSTOP)
    time.sleep(20)  # the case itself, not a wait for something
    lab.federation.kill("server", signal.SIGCONT)


def test_client_parent_killed_and_restarted(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["client killed"]
    lab.federation.kill("site-1")
    lab.federation.start_site("site-1")
    lab.federation.wait_ready()
    info = job.wait_closed("site-1")
    job.assert_complete("site-1", outcome=info.outcome)
    assert info.outcome == "not known: the site restarted"


def test_last_bytes_come_after_the_archive(lab: Lab, jobs: dict[str, Job]) -> None:
    """The site's parent is frozen until the server has archived the job; then the archive gets the rest."""
    job = jobs["archived first"]
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


def test_server_stopped_for_20_seconds(jobs: dict[str, Job], frozen: None) -> None:
    job = jobs["server stopped"]
    job.signal("site-2")
    job.wait()
    job.assert_complete("site-2", outcome=job.wait_closed("site-2").outcome)
    assert b"the end" in job.written("site-2")


def test_following_across_rotation_a_frozen_and_a_restarted_server(
    lab: Lab, jobs: dict[str, Job], follower: Popen[str], frozen: None
) -> None:
    """`logs --site all -f` shows each line of both sites once, in order, and ends with the job's outcome."""
    job, out, err = jobs["followed"], lab.root / "follow.out", lab.root / "follow.err"
    for site in FOLLOWED:
        job.signal(site, "on")
    lab.federation.kill("server")
    lab.federation.start_site("server")
    lab.federation.wait_ready()
    wait_for(lambda: "in contact" in err.read_text(), "the follower to come back", 150)
    for site in FOLLOWED:
        job.signal(site)
    code = follower.wait(timeout=150)
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


def test_server_killed_and_restarted(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["server killed"]
    lab.federation.kill("server")
    lab.federation.start_site("server")
    lab.federation.wait_ready()
    job.signal("site-2")
    info = job.wait_closed("site-2", timeout=150)
    job.assert_complete("site-2", outcome=info.outcome)
