"""Parents that die, stop and come back: the logs of the jobs that were running end up complete all the same.

The four jobs run side by side, so that each fault also strikes jobs it is not about.
"""

from __future__ import annotations

import json
import signal
import time
import zipfile
from collections.abc import Iterator

import pytest

from .lab import LOGS, SITES, Job, Lab, wait_for

pytestmark = pytest.mark.timeout(300)

JOBS = {
    "client killed": "site-1",
    "server stopped": "site-2",
    "archived first": "site-2",
    "server killed": "site-2",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("faults"), clients=SITES) as lab:
        yield lab


@pytest.fixture(scope="module")
def jobs(lab: Lab) -> dict[str, Job]:
    script = [["lines_until", "go", 0.02], ["warning", "the end"]]
    jobs = {name: lab.submit(name.replace(" ", "-"), script, sites=[site]) for name, site in JOBS.items()}
    for job in jobs.values():
        job.wait_live(*job.sites)
    return jobs


def test_client_parent_killed_and_restarted(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["client killed"]
    lab.federation.kill("site-1")
    lab.federation.start_site("site-1")
    lab.federation.wait_ready()
    info = job.wait_closed("site-1")
    job.assert_complete("site-1", outcome=info.outcome)
    assert info.outcome == "not known: the site restarted"


def test_server_stopped_for_20_seconds(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["server stopped"]
    lab.federation.kill("server", signal.SIGSTOP)
    time.sleep(20)  # the case itself, not a wait for something
    lab.federation.kill("server", signal.SIGCONT)
    job.signal("site-2")
    job.wait()
    job.assert_complete("site-2", outcome=job.wait_closed("site-2").outcome)
    assert b"the end" in job.written("site-2")


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


def test_following_across_rotation_a_frozen_and_a_restarted_server(lab: Lab) -> None:
    """`logs --site all -f` shows each line of both sites once, in order, and ends with the job's outcome."""
    script = [
        ["lines", 100, 0.01],
        ["rotate"],
        ["lines_until", "on", 0.02],
        ["rotate"],
        ["lines_until", "go", 0.02],
    ]
    job = lab.submit("followed", [*script, ["warning", "the end"]])
    for site in SITES:
        job.wait_live(site)
    out, err = lab.root / "follow.out", lab.root / "follow.err"
    with out.open("w") as stdout, err.open("w") as stderr:
        follower = lab.command("logs", job.id, "--site", "all", "-f", stdout=stdout, stderr=stderr)
    try:
        wait_for(
            lambda: "site-2 " in out.read_text() and "site-1 " in out.read_text(), "the follower to begin"
        )
        lab.federation.kill("server", signal.SIGSTOP)
        time.sleep(20)  # the case itself, not a wait for something
        lab.federation.kill("server", signal.SIGCONT)
        for site in SITES:
            job.signal(site, "on")
        lab.federation.kill("server")
        lab.federation.start_site("server")
        lab.federation.wait_ready()
        wait_for(lambda: "in contact" in err.read_text(), "the follower to come back", 150)
        for site in SITES:
            job.signal(site)
        code = follower.wait(timeout=150)
    finally:
        follower.kill()
        follower.wait()
    shown = out.read_text().splitlines(keepends=True)
    for site in SITES:
        written = job.written(site).decode().splitlines(keepends=True)
        assert [line.removeprefix(f"{site} ") for line in shown if line.startswith(f"{site} ")] == written, (
            site
        )
    notices = err.read_text()
    # The runtime's job store says for ever that the job runs: a restarted server takes no job up again.
    assert lab.federation.status(job.id) == "RUNNING"
    assert notices.splitlines()[-1].startswith("job: over: the server was restarted during the job"), notices
    assert code == 1, notices


def test_server_killed_and_restarted(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["server killed"]
    lab.federation.kill("server")
    lab.federation.start_site("server")
    lab.federation.wait_ready()
    job.signal("site-2")
    info = job.wait_closed("site-2", timeout=150)
    job.assert_complete("site-2", outcome=info.outcome)
