"""Jobs that run in pods and containers, in a real federation: what arrives, and what is said of it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nvflare_logstream.lab.kits import SiteSetup
from nvflare_logstream.streams import Verdict
from tests.ahead import Ahead

from .lab import LOGS, STREAMER, Job, Lab, wait_for

pytestmark = [pytest.mark.timeout(240), pytest.mark.by_hand]

STREAMING_POD, PLAIN_POD, CONTAINER = SITES = ("site-1", "site-2", "site-3")
UNTIL_TOLD = [["lines", 50], ["wait_for", "go"]]
_LAUNCHERS = "tests.e2e.pod_launchers"


def setup(launcher: str, launcher_args: dict[str, str], **streamer_args: object) -> SiteSetup:
    """A site whose jobs run elsewhere."""
    replaced = {"id": "process_launcher", "path": f"{_LAUNCHERS}.{launcher}", "args": launcher_args}
    streamer = {**STREAMER, "args": streamer_args}
    return SiteSetup([streamer, replaced], class_allow=("nvflare_logstream.", "tests."))


def start_lab(directory: Path) -> Lab:
    """A site with pods whose image has the package, one with pods that may lack it, one with containers."""
    pods = {"pods": str(directory / "pods")}
    sites = {
        STREAMING_POD: setup("PodLauncher", pods, job_has_package=True),
        PLAIN_POD: setup("PodLauncher", pods),
        CONTAINER: setup("ContainerLauncher", {}),
    }
    lab = Lab(directory, clients=SITES, overrides=sites)
    return lab.begin(
        lambda lab: {
            "ends": lab.submit("ends", [["lines", 300]], sites=SITES),
            "outlives": lab.submit("outlives", UNTIL_TOLD, sites=[STREAMING_POD]),
            "killed": lab.submit("killed", [*UNTIL_TOLD, ["kill"]], sites=SITES),
        }
    )


@pytest.fixture(scope="module")
def lab(begun: Ahead) -> Iterator[Lab]:
    lab = begun.result(start_lab)
    yield lab
    wait_for(lambda: all(map(archived, lab.jobs.values())), "the archives to be completed")
    wait_for(lambda: not any(lab.store.glob(".archive-*")), "the server to be done with them")
    lab.end()


def archived(job: Job) -> bool:
    """Whether what came after the job was archived has been added, as `nvflare job download` brings it."""
    path = job.lab.federation.server_dir / "jobs-storage" / job.id / "workspace"
    if not path.exists():
        return False
    with zipfile.ZipFile(path) as archive:
        held = {entry.filename: entry.file_size for entry in archive.infolist()}
    streams = [stream for stream in job.lab.streams(job.id) if stream.site in job.sites and stream.end]
    return all(held.get(f"{stream.site}/{stream.file}") == stream.end for stream in streams)


def in_pod(job: Job, site: str) -> Path:
    """The job's directory where it ran."""
    return job.lab.root / "pods" / site / job.id


def site_says(job: Job, site: str) -> list[str]:
    """Lines about the job in the site's own log."""
    log = job.lab.federation.client_dir(site) / "log.txt"
    return [line for line in log.read_text().splitlines() if job.id in line and "SiteLogStreamer" in line]


@pytest.mark.ahead(run=start_lab)
def test_jobs_that_end_by_themselves(lab: Lab) -> None:
    job = lab.jobs["ends"]
    assert job.wait() == "FINISHED:COMPLETED"
    job.assert_complete(CONTAINER)
    for site in (STREAMING_POD, PLAIN_POD):
        for file in LOGS:
            stream = job.wait_closed(site, file)
            stored = job.path(site, file).read_bytes()
            written, came_back = (in_pod(job, site) / file).read_bytes(), job.written(site, file)
            assert stored == came_back and written.startswith(stored)
            assert (stream.verdict, stream.outcome, stream.losses) == (Verdict.PARTIAL, "exit code 0", ())
            assert "the job ran in a pod: what it wrote after a copy" in stream.verdict_reason
        assert b"line 299" in job.path(site, "log.txt").read_bytes()
    # So "complete" would not be true: these lines never left the pod.
    assert (in_pod(job, STREAMING_POD) / "log.txt").stat().st_size > job.stream(STREAMING_POD).end
    (line,) = [line for line in site_says(job, PLAIN_POD) if "cannot see files in a pod" in line]
    assert "set job_has_package to true" in line
    (line,) = [line for line in site_says(job, CONTAINER) if "following its logs from here" in line]
    assert "a container" in line


def test_jobs_that_die_bring_nothing_back(lab: Lab) -> None:
    job = lab.jobs["killed"]
    job.wait_live(STREAMING_POD, b"line 49")
    job.wait_live(CONTAINER, b"line 49")
    plain = in_pod(job, PLAIN_POD)
    wait_for(lambda: (plain / "log.txt").exists() and b"line 49" in (plain / "log.txt").read_bytes(), plain)
    for directory in (in_pod(job, STREAMING_POD), plain, job.directory(CONTAINER)):
        (directory / "go").touch()
    job.wait()
    job.assert_complete(CONTAINER, "log.txt", outcome="signal 9")
    for site in (STREAMING_POD, PLAIN_POD):
        stream = job.wait_closed(site)
        assert (stream.verdict, stream.outcome) == (Verdict.PARTIAL, "exit code 137 (OOMKilled)")
        assert stream.verdict_reason.endswith("no copy of its logs came back: exit code 137 (OOMKilled)")
        assert not os.path.exists(job.directory(site) / "log.txt")
    stored = job.path(STREAMING_POD, "log.txt").read_bytes()
    assert b"line 49" in stored and (in_pod(job, STREAMING_POD) / "log.txt").read_bytes().startswith(stored)
    assert job.stream(PLAIN_POD).end == 0


def test_a_pod_that_outlives_its_sites_parent(lab: Lab) -> None:
    """The parent that is started again asks for the pod, and closes the logs when that is gone."""
    job = lab.jobs["outlives"]
    job.wait_live(STREAMING_POD, b"line 49")
    lab.federation.kill(STREAMING_POD)
    lab.federation.start_site(STREAMING_POD)
    log, told = lab.federation.client_dir(STREAMING_POD) / "log.txt", f"job {job.id} still runs in a pod"
    wait_for(lambda: told in log.read_text(), told)
    words = {job.id, str(in_pod(job, STREAMING_POD).parent)}
    for process in psutil.process_iter(["cmdline"]):
        if words <= set(process.info["cmdline"] or ()):
            process.kill()
    stream = job.wait_closed(STREAMING_POD)
    assert (stream.verdict, stream.outcome) == (Verdict.PARTIAL, "not known: the site restarted")
    assert "the job ran in a pod" in stream.verdict_reason
    stored = job.path(STREAMING_POD, "log.txt").read_bytes()
    assert (in_pod(job, STREAMING_POD) / "log.txt").read_bytes().startswith(stored)
    lab.federation.wait_ready()
    lab.federation.abort(job.id)
    job.wait()
    killed = lab.jobs["killed"].wait_closed(STREAMING_POD)
    assert killed.outcome == "exit code 137 (OOMKilled)", "it is told as it was seen"
    assert "no copy of its logs came back" in killed.verdict_reason
