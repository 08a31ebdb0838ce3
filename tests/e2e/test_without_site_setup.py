"""Sites without set-up: both components come with the job, in a federation and the simulator; examples.

The job templates run here too, and where the sites are set up with the files of resources_examples/.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvflare_logstream.lab.kits import SiteSetup, write_job
from nvflare_logstream.store.index import Index
from tests.ahead import Ahead

from .lab import CUSTOM, EXECUTOR, LOGS, SITES, Job, Lab

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
SCRIPT = [["lines", 300], ["traceback"], ["lines", 10]]
COMPONENTS = {
    "server_components": [{"id": "receiver", "path": "nvflare_logstream.JobLogReceiver"}],
    "client_components": [{"id": "streamer", "path": "nvflare_logstream.JobLogStreamer"}],
}
# As they are for the runtime's own classes, one streamer a file, with nothing but the paths changed.
STOCK_ARGUMENTS = {
    "server_components": [
        {"id": "receiver", "path": "nvflare_logstream.JobLogReceiver", "args": {"idle_timeout": 20.0}},
        {
            "id": "own",
            "path": "nvflare_logstream.JobLogStreamer",
            "args": {"log_file_name": "log.txt", "target_parent_server": True},
        },
    ],
    "client_components": [
        {
            "id": f"streamer_{file}",
            "path": "nvflare_logstream.JobLogStreamer",
            "args": {
                "log_file_name": file,
                "liveness_interval": 5.0,
                "poll_interval": 0.2,
                "target_parent_server": False,
            },
        }
        for file in LOGS
    ],
}
TEMPLATES = {
    "log_streaming": LOGS,
    "log_streaming_json": (*LOGS, "log.json"),
    "log_streaming_external": (*LOGS, "trainer.txt"),
}


def start_plain_lab(directory: Path) -> Lab:
    plain = SiteSetup()
    lab = Lab(directory, clients=SITES, server=plain, client=plain)
    return lab.begin(
        lambda lab: {
            "job-level": lab.submit("job-level", SCRIPT, **COMPONENTS),
            "stock-arguments": lab.submit("stock-arguments", SCRIPT, **STOCK_ARGUMENTS),
            **{name: submit_template(lab, name) for name in TEMPLATES},
        }
    )


@pytest.fixture(scope="module")
def lab(begun: Ahead) -> Iterator[Lab]:
    lab = begun.result(start_plain_lab)
    yield lab
    lab.end()


def assert_holds_the_run(stored: bytes, written: bytes, last: bytes) -> None:
    """What arrived is the log's beginning, at least up to the job's own last line."""
    assert written.startswith(stored)
    assert last in written and last in stored


@pytest.mark.ahead(run=start_plain_lab)
def test_job_level_only(lab: Lab) -> None:
    job = lab.jobs["job-level"]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        for file in LOGS:
            info = job.wait_closed(site, file, timeout=5)
            assert info.agreed and info.outcome == "run ended"
            assert_holds_the_run(
                job.path(site, file).read_bytes(), job.written(site, file), b"breaks over two lines"
            )
    logs = lab.nvflare("job", "logs", job.id, "--site", "site-1", "--tail", "100000")
    assert "line 299" in logs.stdout


def start_example_lab(directory: Path) -> Lab:
    """Sites that are set up with the files of resources_examples/ and nothing else."""
    setups = []
    for name in ("server", "client"):
        example = json.loads((ROOT / "resources_examples" / f"{name}_resources.json").read_text())
        extra = {
            key: value for key, value in example.items() if key not in ("components", "class_allow_list")
        }
        setups.append(
            SiteSetup(example["components"], extra=extra, class_allow=tuple(example["class_allow_list"]))
        )
    lab = Lab(directory, clients=SITES, server=setups[0], client=setups[1])
    names = ("log_streaming", "log_streaming_site")
    return lab.begin(lambda lab: {name: submit_template(lab, name) for name in names})


@pytest.fixture(scope="module")
def example_lab(begun: Ahead) -> Iterator[Lab]:
    lab = begun.result(start_example_lab)
    yield lab
    lab.end()


def submit_template(lab: Lab, name: str) -> Job:
    """What its info.md says: copy the template, make a job from it, submit it."""
    folder, template = lab.root / "jobs" / name, lab.root / name
    copied = lab.run("templates", name, "--to", str(template))
    assert copied.returncode == 0, copied.stderr
    command = ["job", "create", "-j", str(folder), "-w", str(template), "-force"]
    if (template / "code").is_dir():
        command += ["-sd", str(template / "code")]
    created = lab.nvflare(*command, kit=False)
    assert created.returncode == 0, created.stdout + created.stderr
    return Job(lab, lab.federation.submit(folder), SITES)


@pytest.mark.ahead(run=start_plain_lab)
@pytest.mark.parametrize("name", TEMPLATES)
def test_job_template_alone(lab: Lab, name: str) -> None:
    job = lab.jobs[name]
    assert job.wait() == "FINISHED:COMPLETED"
    last = {
        "log.txt": b"END_RUN fired",
        "log.json": b"END_RUN fired",
        "trainer.txt": b"round 2 step 10 loss ",
    }
    for site in SITES:
        for file in TEMPLATES[name]:
            assert job.wait_closed(site, file, timeout=5).agreed
            written = job.written(site, file)
            assert_holds_the_run(job.path(site, file).read_bytes(), written, last.get(file, b""))


@pytest.mark.ahead(run=start_plain_lab)
def test_a_config_for_the_runtimes_own_classes_with_our_paths(lab: Lab) -> None:
    job = lab.jobs["stock-arguments"]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        for file in LOGS:
            assert job.wait_closed(site, file, timeout=5).agreed
            written = job.written(site, file)
            assert_holds_the_run(job.path(site, file).read_bytes(), written, b"breaks over two lines")
        assert job.written(site).count(b"target_parent_server has no meaning here") == len(LOGS)
    own = job.written("server")
    assert own.count(b"nothing to stream here, this component can go") == 1
    assert b"nothing to stream here" in job.path("server", "log.txt").read_bytes()


@pytest.mark.ahead(run=start_example_lab)
@pytest.mark.parametrize("name", ["log_streaming", "log_streaming_site"])
def test_site_examples_with_a_job_template(example_lab: Lab, name: str) -> None:
    job = example_lab.jobs[name]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        job.assert_complete(site)


def simulate(directory: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Returns the workspace, and the simulator's end."""
    job = write_job(directory / "job", EXECUTOR, {"script": SCRIPT}, custom=CUSTOM, **COMPONENTS)
    workspace = directory / "workspace"
    command = [
        sys.executable,
        "-m",
        "nvflare.cli",
        "simulator",
        "-w",
        str(workspace),
        "-n",
        "2",
        "-t",
        "2",
        str(job),
    ]
    environment = {**os.environ, "HOME": str(directory), "PYTHONPATH": str(Path(__file__).parents[2])}
    return workspace, subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


@pytest.mark.ahead(run=simulate)
def test_simulator(ahead: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    workspace, run = ahead
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    for site in SITES:
        for file in LOGS:
            (stored,) = workspace.glob(f"**/logstream/simulate_job/{site}/{file}")
            (written,) = (workspace / site).glob(f"**/{file}")
            assert_holds_the_run(stored.read_bytes(), written.read_bytes(), b"breaks over two lines")
    index = Index(next(workspace.glob("**/logstream/index.sqlite")))
    verdicts = {(info.key.site, info.key.file): info.verdict for info in index.find("simulate_job")}
    index.close()
    assert {verdicts[site, file] for site in SITES for file in LOGS} == {"complete"}
