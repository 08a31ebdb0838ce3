"""Sites without set-up: both components come with the job, in a federation and the simulator; examples.

The job templates run here too, and where the sites are set up with the files of resources_examples/.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream.lab.kits import SiteSetup, write_job
from nvflare_logstream.store.index import Index
from tests.ahead import Ahead

from .lab import CUSTOM, EXECUTOR, LOGS, SITES, Job, Lab, example_setup

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "job_templates" / "log_streaming_recipe"
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


class ExampleLab(Lab):
    """A federation in which job.py of job_templates/log_streaming_recipe/ runs; each writes what it says."""

    def __init__(self, root: Path, **setup: Any):
        super().__init__(root, **setup)
        self.examples: list[subprocess.Popen[bytes]] = []

    def run_example(self, name: str, *arguments: str) -> None:
        kit, example = str(self.federation.admin_dir()), self.root / "example"
        if not example.exists():
            shutil.copytree(EXAMPLE, example)
        with self.said(name).open("wb") as output:
            command = [sys.executable, "job.py", "--startup-kit", kit, *arguments]
            process = subprocess.Popen(
                command, cwd=example, env=self.environment(), stdout=output, stderr=output
            )
        self.examples.append(process)

    def said(self, name: str) -> Path:
        return self.root / f"{name}.txt"

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.root), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def close(self) -> None:
        for process in self.examples:
            process.kill()
            process.wait()
        super().close()

    def end(self) -> None:
        for process in self.examples:
            process.kill()
            process.wait()
        super().end()


def start_example_lab(directory: Path) -> ExampleLab:
    """A server and sites that are set up with files of resources_examples/ and nothing else.

    The other files for sites and servers are those of the federation that most tests share.
    """
    sites = dict(zip(SITES, (example_setup("client_files"), example_setup("client_relay")), strict=True))
    lab = ExampleLab(directory, clients=SITES, server=example_setup("server_limits"), overrides=sites)
    names = ("log_streaming", "log_streaming_site")
    lab.begin(lambda lab: {name: submit_template(lab, name) for name in names})
    lab.run_example("good")
    lab.run_example("failing", "--failing-site", "site-2")
    return lab


@pytest.fixture(scope="module")
def example_lab(begun: Ahead) -> Iterator[ExampleLab]:
    lab = begun.result(start_example_lab)
    yield lab
    lab.end()


def submit_template(lab: Lab, name: str) -> Job:
    """What its info.md says: make a job from the template, submit it."""
    folder, template = lab.root / name, ROOT / "job_templates" / name
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


@pytest.mark.by_hand
@pytest.mark.ahead(run=start_example_lab)
@pytest.mark.parametrize("name", ["log_streaming", "log_streaming_site"])
def test_site_examples_with_a_job_template(example_lab: Lab, name: str) -> None:
    job = example_lab.jobs[name]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        job.assert_complete(site)
    job.assert_complete("site-1", "log.json")
    assert job.stream("site-2", "log.json") is None


def ended_example(lab: ExampleLab, number: int, name: str) -> tuple[int, str, Job]:
    """The exit code of one of the runs of job.py, what it printed, and its job."""
    code = lab.examples[number].wait(timeout=180)
    said = lab.said(name).read_text()
    found = re.search(r"^submitted as (\S+)$", said, re.M)
    assert found, said
    return code, said, Job(lab, found[1], SITES)


@pytest.mark.by_hand
@pytest.mark.ahead(run=start_example_lab)
def test_the_recipe_example_follows_its_logs_to_the_end(example_lab: ExampleLab) -> None:
    code, said, job = ended_example(example_lab, 0, "good")
    assert code == 0 and "job: over: FINISHED:COMPLETED" in said, said
    for site in SITES:
        job.assert_complete(site)
        followed = [
            line.removeprefix(f"{site} ") for line in said.splitlines() if line.startswith(f"{site} ")
        ]
        assert followed == job.written(site).decode().splitlines()
        assert len([line for line in followed if re.search(r"round \d step \d+ loss", line)]) == 30


# The code cells in their order, as Jupyter runs them, in one process that needs neither Jupyter nor a kernel.
RUN_NOTEBOOK = """
import json, sys
sys.modules["matplotlib"] = None  # the curve is drawn as text
names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
"""


@pytest.mark.by_hand
@pytest.mark.ahead(run=start_example_lab)
def test_the_notebook_tells_how_a_job_failed(example_lab: ExampleLab) -> None:
    code, said, job = ended_example(example_lab, 1, "failing")
    assert code == 1, said
    for site in SITES:
        job.wait_closed(site)
    settings = {"NVFLARE_STARTUP_KIT_DIR": str(example_lab.federation.admin_dir()), "JOB_ID": job.id}
    run = subprocess.run(
        [sys.executable, "-c", RUN_NOTEBOOK, str(EXAMPLE / "read_logs.ipynb")],
        env={**example_lab.environment(), **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert f"job {job.id}: FINISHED:" in run.stdout
    for site in SITES:
        assert re.search(rf"^{site} +log.txt +[0-9,]+ +[0-9,]+  complete$", run.stdout, re.M), run.stdout
    steps = dict(re.findall(r"^(\S+): (\d+) steps$", run.stdout, re.M))
    assert steps["site-2"] == "10" and int(steps["site-1"]) >= 10, "site-2 failed in its second round"
    assert re.search(r"^   1 +[0-9.]+ #{40}$", run.stdout, re.M)
    _, found, first = run.stdout.partition("site-2 failed first:\n")
    assert found and first.endswith("ValueError: the labels of batch 7 are not numbers\n"), run.stdout
    assert str(job.directory("site-2")) in first, "the trainer that came with the job"


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


# A job without code of its own, which the runtime checks against the workspace's list of classes.
SIMULATED_JOB = """
import sys
from nvflare.app_common.workflows.initialize_global_weights import InitializeGlobalWeights
from nvflare.job_config.api import FedJob
from nvflare_logstream import enable_log_streaming
from nvflare_logstream.lab.demo_job import DemoTrainer
job = FedJob(name="plain")
job.to_server(InitializeGlobalWeights())
job.to_clients(DemoTrainer(steps=6, seconds=0))
enable_log_streaming(job)
sys.exit(job.simulator_run(sys.argv[1], n_clients=1))
"""


def simulate_enabled(directory: Path, kind: str) -> tuple[Path, bytes, subprocess.CompletedProcess[str]]:
    """As `simulate`, of what `enable_log_streaming` was called with; and what every site logs."""
    settings = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    settings["NVFLARE_SIMULATOR_WORKSPACE_ROOT"] = str(directory)
    if kind == "job":
        workspace, text, cwd = directory / "workspace", b"step  6/6  loss", directory
        command = [sys.executable, "-c", SIMULATED_JOB, str(workspace)]
    else:
        workspace, text, cwd = directory / EXAMPLE.name, b"round 2 step 10 loss", EXAMPLE
        command = [sys.executable, "job.py"]
    environment = {**os.environ, "HOME": str(directory), **settings}
    run = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    return workspace, text, run


@pytest.mark.ahead(run=simulate_enabled)
@pytest.mark.parametrize("kind", ["job", "recipe"])
def test_what_was_enabled_streams_in_the_simulator(
    ahead: tuple[Path, bytes, subprocess.CompletedProcess[str]], kind: str
) -> None:
    workspace, text, run = ahead
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    for site in SITES[: 1 if kind == "job" else 2]:
        (stored,) = workspace.glob(f"server/logstream/simulate_job/{site}/log.txt")
        (written,) = (workspace / site).glob("**/log.txt")
        assert_holds_the_run(stored.read_bytes(), written.read_bytes(), text)


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
