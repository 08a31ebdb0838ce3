"""Each of the runtime's own `nvflare job` commands does beside us what its documentation says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .lab import SITES, Job, Lab, ended

pytestmark = [pytest.mark.timeout(240), pytest.mark.by_hand]

NAME = "stock-commands"
SCRIPT = [["wait_for", "begin"], ["lines_until", "go", 0.05, "debug"], ["warning", "the end"]]
JSON = ("--format", "json")


def submit(lab: Lab) -> dict[str, Job]:
    """The job that `job submit` makes, and one that `job clone` makes of another."""
    folder = lab.write_job(NAME, SCRIPT)
    stock = Job(lab, data_of(lab.nvflare("job", "submit", "-j", str(folder), *JSON))["job_id"], SITES)
    source = lab.submit("cloned", [["lines_until", "go"]], sites=["site-1"])
    cloned = data_of(lab.nvflare("job", "clone", source.id, *JSON))
    assert cloned["source_job_id"] == source.id
    return {"stock": stock, "source": source, "clone": Job(lab, cloned["new_job_id"], source.sites)}


def data_of(run: subprocess.CompletedProcess[str]) -> Any:
    """What a command that succeeded says in its one JSON document."""
    assert run.returncode == 0, run
    envelope = json.loads(run.stdout)
    assert (envelope["schema_version"], envelope["status"], envelope["exit_code"]) == ("1", "ok", 0)
    return envelope["data"]


def run_all(lab: Lab, *commands: tuple[str, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Run the runtime's job commands side by side."""
    return [ended(process) for process in [lab.start_nvflare("job", *command) for command in commands]]


def error_of(run: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    return run.returncode, json.loads(run.stdout)["error_code"]


@pytest.fixture
def job(jobs: dict[str, Job]) -> Job:
    """It runs, and writes what nobody sees while its level is INFO."""
    for site in SITES:
        jobs["stock"].signal(site, "begin")
    return jobs["stock"]


def test_submit_list_meta_stats_and_logs_of_a_running_job(lab: Lab, job: Job) -> None:
    for site in SITES:
        job.wait_live(site, b"ScriptedExecutor")
    listed, named, meta, stats, logs, downloaded, deleted = run_all(
        lab,
        ("list", *JSON),
        ("list", "-n", NAME, *JSON),
        ("meta", job.id, *JSON),
        ("stats", job.id, *JSON),
        ("logs", job.id, "--site", "all", *JSON),
        ("download", job.id, "-o", str(lab.root / "too-early"), *JSON),
        ("delete", job.id, "--force", *JSON),
    )
    assert job.id in {row["job_id"] for row in data_of(listed)}
    (row,) = data_of(named)
    assert (row["job_id"], row["job_name"], row["study"]) == (job.id, NAME, "default")
    assert data_of(meta)["job_id"] == job.id and data_of(meta)["status"] == "RUNNING"
    assert {"server", *SITES} <= set(data_of(stats)["stats"]), "each process of the job answers"
    assert set(data_of(logs)["logs"]) == {"server", *SITES}
    assert error_of(downloaded)[1] == error_of(deleted)[1] == "JOB_NOT_DONE"


def test_log_config_to_debug_in_mid_run(lab: Lab, job: Job) -> None:
    """The stream follows, and goes on doing so when the level is INFO again."""
    for site in SITES:
        assert b" - DEBUG - " not in (job.directory(site) / "log.txt").read_bytes()
    # Site by site: "all" is an error where the federation has sites that do not run the job.
    for level in ("DEBUG", "INFO"):
        runs = run_all(lab, *(("log-config", job.id, level, "--site", site, *JSON) for site in SITES))
        for site, run in zip(SITES, runs, strict=True):
            wanted = {"job_id": job.id, "config": level, "sites": [site], "status": "applied"}
            assert data_of(run) == wanted
            job.wait_live(site, b"ScriptedExecutor - DEBUG - ")


def test_wait_monitor_logs_and_download_to_the_end(lab: Lab, job: Job) -> None:
    waiting = lab.start_nvflare("job", "wait", job.id, "--timeout", "120", *JSON)
    watching = lab.start_nvflare("job", "monitor", job.id, "--interval", "1", "--format", "jsonl")
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert not first["terminal"], "it watches before the job ends"
    for site in SITES:
        job.signal(site)
    data = data_of(ended(waiting))
    assert (data["job_id"], data["status"]) == (job.id, "FINISHED:COMPLETED")
    out, err = watching.communicate(timeout=60)
    last = json.loads(out.splitlines()[-1])
    assert watching.returncode == 0 and last["terminal"] and last["status"] == "COMPLETED", (out, err)
    for site in SITES:
        job.assert_complete(site)
        assert b" - DEBUG - " in job.written(site) and b"the end" in job.written(site)
    everything = str(10**6)
    logs, downloaded, level = run_all(
        lab,
        ("logs", job.id, "--site", "all", "--tail", everything, *JSON),
        ("download", job.id, "-o", str(lab.root / "stock-download"), *JSON),
        ("log-config", job.id, "DEBUG", *JSON),
    )
    artifacts = data_of(downloaded)["artifacts"]
    for site in SITES:
        file = {"site-1": "log.txt", "site-2": "log.json"}[site]  # JSON where the site sends it
        assert data_of(logs)["logs"][site].encode() == job.written(site, file)
        assert Path(artifacts["client_logs"][site]).read_bytes() == job.written(site)
    assert error_of(level) == (1, "JOB_NOT_RUNNING")


def test_clone_abort_and_delete(lab: Lab, jobs: dict[str, Job]) -> None:
    job, clone = jobs["source"], jobs["clone"]
    for each in (job, clone):
        each.wait_live("site-1")
    assert data_of(lab.nvflare("job", "abort", clone.id, "--force", *JSON))["status"] == "ABORTED"
    assert clone.wait() == "FINISHED:ABORTED"
    clone.assert_complete("site-1", outcome=clone.wait_closed("site-1").outcome)
    assert lab.federation.status(job.id) == "RUNNING", "the job that was cloned is another"
    job.signal("site-1")
    assert data_of(lab.nvflare("job", "delete", clone.id, "--force", *JSON))["job_id"] == clone.id
    logs, listed, meta = run_all(
        lab,
        ("logs", clone.id, "--site", "site-1", *JSON),
        ("list", "-i", clone.id, *JSON),
        ("meta", clone.id, *JSON),
    )
    assert error_of(logs) == error_of(meta) == (1, "JOB_NOT_FOUND")
    assert data_of(listed) == []
    run = lab.run("logs", clone.id, "--site", "site-1")
    assert run.returncode == 1 and not run.stdout, "nobody reads the logs of a job that was deleted"
    assert job.wait() == "FINISHED:COMPLETED"
    job.assert_complete("site-1")
