"""Sites without set-up: both components come with the job, in a federation and the simulator; examples."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvflare_logstream.lab.kits import SiteSetup, write_job
from nvflare_logstream.store.index import Index
from tests.ahead import Ahead

from .lab import CUSTOM, EXECUTOR, LOGS, SITES, Job, Lab, example_setup

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
SCRIPT = [["lines", 300], ["traceback"], ["lines", 10]]
COMPONENTS = {
    "server_components": [{"id": "receiver", "path": "nvflare_logstream.JobLogReceiver"}],
    "client_components": [{"id": "streamer", "path": "nvflare_logstream.JobLogStreamer"}],
}


COMMON = "nvflare.app_common"
ROUNDS = {
    "path": f"{COMMON}.workflows.scatter_and_gather.ScatterAndGather",
    "args": {
        "min_clients": 2,
        "num_rounds": 1,
        "wait_time_after_min_received": 0,
        "aggregator_id": "aggregator",
        "persistor_id": "persistor",
        "shareable_generator_id": "generator",
        "train_task_name": "train",
    },
}
AVERAGING = [
    {"id": "persistor", "path": f"{COMMON}.np.np_model_persistor.NPModelPersistor"},
    {
        "id": "generator",
        "path": f"{COMMON}.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator",
    },
    {
        "id": "aggregator",
        "path": f"{COMMON}.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator",
        "args": {"expected_data_kind": "WEIGHTS"},
    },
]


def start_plain_lab(directory: Path) -> Lab:
    plain = SiteSetup()
    lab = Lab(directory, clients=SITES, server=plain, client=plain)
    return lab.begin(
        lambda lab: {
            "job-level": lab.submit("job-level", SCRIPT, **COMPONENTS),
            "template": submit_template(lab),
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
    """A server and sites that are set up with files of resources_examples/ and nothing else.

    The other files for sites and servers are those of the federation that most tests share.
    """
    sites = dict(zip(SITES, (example_setup("client_files"), example_setup("client_relay")), strict=True))
    lab = Lab(directory, clients=SITES, server=example_setup("server_limits"), overrides=sites)
    return lab.begin(lambda lab: {"template": submit_template(lab)})


@pytest.fixture(scope="module")
def example_lab(begun: Ahead) -> Iterator[Lab]:
    lab = begun.result(start_example_lab)
    yield lab
    lab.end()


def submit_template(lab: Lab) -> Job:
    """What the README says: make a job from the template, submit it."""
    folder = lab.root / "from_template"
    template = ROOT / "job_templates" / "log_streaming"
    created = lab.nvflare("job", "create", "-j", str(folder), "-w", str(template), "-force", kit=False)
    assert created.returncode == 0, created.stdout + created.stderr
    return Job(lab, lab.federation.submit(folder), SITES)


@pytest.mark.ahead(run=start_plain_lab)
def test_job_template_alone(lab: Lab) -> None:
    job = lab.jobs["template"]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        assert job.wait_closed(site, timeout=5).agreed
        assert_holds_the_run(job.path(site, "log.txt").read_bytes(), job.written(site), b"END_RUN fired")


@pytest.mark.ahead(run=start_example_lab)
def test_site_examples_with_the_job_template(example_lab: Lab) -> None:
    job = example_lab.jobs["template"]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        job.assert_complete(site)
    job.assert_complete("site-1", "log.json")
    assert job.stream("site-2", "log.json") is None


def simulate(directory: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Returns the workspace, and the simulator's end."""
    return simulated(write_job(directory / "job", EXECUTOR, {"script": SCRIPT}, custom=CUSTOM, **COMPONENTS))


def simulate_example(directory: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The same for a job without custom code, in a workspace with the file of resources_examples/."""
    local = directory / "workspace" / "local"
    local.mkdir(parents=True)
    shutil.copy(ROOT / "resources_examples" / "simulator_resources.json", local / "resources.json")
    server = [*AVERAGING, *COMPONENTS["server_components"]]
    components = {**COMPONENTS, "server_components": server}
    return simulated(
        write_job(directory / "job", f"{COMMON}.np.np_trainer.NPTrainer", workflow=ROUNDS, **components)
    )


def simulated(job: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    directory = job.parent
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


@pytest.mark.ahead(run=simulate_example)
def test_simulator_example(ahead: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    workspace, run = ahead
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    for site in SITES:
        (stored,) = workspace.glob(f"**/logstream/simulate_job/{site}/log.txt")
        (written,) = (workspace / site).glob("**/log.txt")
        assert_holds_the_run(stored.read_bytes(), written.read_bytes(), b"NPTrainer")
