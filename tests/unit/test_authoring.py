"""`enable_log_streaming`: what stands in the exported job, whatever the job or the recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.logging.job_log_receiver import JobLogReceiver as StockReceiver
from nvflare.app_common.logging.job_log_streamer import JobLogStreamer as StockStreamer
from nvflare.app_common.np.np_validator import NPValidator
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.app_common.workflows.initialize_global_weights import InitializeGlobalWeights
from nvflare.job_config.api import FedJob

from nvflare_logstream import JobLogReceiver, JobLogStreamer, enable_log_streaming
from nvflare_logstream.errors import ArgumentError, LogStreamError
from nvflare_logstream.flare import authoring
from nvflare_logstream.flare.loading import StandIn

from .recipes import BASES, RECIPES, of_the_runtime

ROOT = Path(__file__).parents[2]
STREAMER, RECEIVER = "nvflare_logstream.JobLogStreamer", "nvflare_logstream.JobLogReceiver"
DEFAULT = ["log.txt", "error_log.txt"]
LOG_COMPONENTS = ("nvflare_logstream.", "nvflare.app_common.logging.")


def job_for(*targets: str) -> FedJob:
    job = FedJob(name="job")
    job.to_server(InitializeGlobalWeights())
    for target in targets:
        job.to(NPValidator(), target)
    return job


def components(job_or_recipe: Any, root: Path) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """The log components in each config of the exported job: their paths and arguments."""
    export = getattr(job_or_recipe, "export", None) or job_or_recipe.export_job
    export(str(root))
    return exported(root)


def exported(root: Path) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    assert not list(root.rglob("nvflare_logstream*")), "the package must not travel with the job"
    found = {}
    for path in sorted(root.rglob("config_fed_*.json")):
        config = json.loads(path.read_text())
        ids = [part["id"] for part in (*config["components"], *config.get("workflows", ()))]
        assert len(ids) == len(set(ids))
        name = f"{path.parents[1].name}/{path.stem.removeprefix('config_fed_')}"
        found[name] = [
            (part["path"], part["args"])
            for part in config["components"]
            if part["path"].startswith(LOG_COMPONENTS)
        ]
    return found


# -- recipes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The directories of the exported jobs by the dotted names of their recipes, or why there is none."""
    directory = tmp_path_factory.mktemp("recipes")
    run = subprocess.run(
        [sys.executable, "-m", "tests.unit.recipes"],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert lines, run.stderr
    yield {line["recipe"]: line.get("error") or directory / line["root"] for line in lines}


def test_every_recipe_of_the_runtime_is_tried():
    assert set(of_the_runtime()) == set(RECIPES) | BASES


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_streams_from_every_client_app_after_two_calls(built, recipe):
    assert isinstance(built[recipe], Path), built[recipe]
    found = exported(built[recipe])
    clients = {name: parts for name, parts in found.items() if name.endswith("/client")}
    servers = [parts for name, parts in found.items() if name.endswith("/server")]
    assert clients and all(parts == [(STREAMER, {"log_files": DEFAULT})] for parts in clients.values()), found
    assert servers == [[(RECEIVER, {})]]


# -- jobs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "apps"),
    [
        (("@ALL",), ("app/client", "app/server")),
        (("site-1", "site-2"), ("app_site-1/client", "app_site-2/client", "app_server/server")),
    ],
)
def test_a_job_streams_from_each_of_its_apps(tmp_path, targets, apps):
    job = job_for(*targets)
    enable_log_streaming(job)
    found = components(job, tmp_path)
    assert set(found) == set(apps)
    for name, parts in found.items():
        assert parts == [(RECEIVER, {}) if name.endswith("server") else (STREAMER, {"log_files": DEFAULT})]
    assert not list(tmp_path.rglob("custom")), "the job brings no code"


def test_twice_changes_nothing_also_after_an_export(tmp_path):
    job = job_for("@ALL")
    enable_log_streaming(job)
    first = components(job, tmp_path)
    texts = {path.name: path.read_text() for path in tmp_path.rglob("*.json")}
    enable_log_streaming(job)
    assert components(job, tmp_path) == first
    assert {path.name: path.read_text() for path in tmp_path.rglob("*.json")} == texts
    assert job.job.app_packages == ["nvflare_logstream"]


def test_files_of_several_calls_add_up(tmp_path):
    job = job_for("@ALL")
    for files in (["log.json"], ["log.txt", "log.json"], ["log.json"]):
        enable_log_streaming(job, log_files=files)
    found = components(job, tmp_path)["app/client"]
    assert found == [(STREAMER, {"log_files": ["log.json"]}), (STREAMER, {"log_files": ["log.txt"]})]


def test_a_client_that_came_later_streams_after_another_call(tmp_path):
    job = job_for("site-1")
    enable_log_streaming(job)
    job.to(NPValidator(), "site-2")
    enable_log_streaming(job)
    found = components(job, tmp_path)
    assert found["app_site-1/client"] == found["app_site-2/client"] == [(STREAMER, {"log_files": DEFAULT})]


def test_components_of_ours_that_the_job_has_stay_as_they_are(tmp_path):
    job = job_for("@ALL")
    job.to_clients(JobLogStreamer(["log.txt"], drain_timeout=30), id="log_streamer")
    job.to_server(JobLogReceiver(idle_timeout=60), id="log_receiver")
    enable_log_streaming(job)
    found = components(job, tmp_path)
    own = (STREAMER, {"log_files": ["log.txt"], "drain_timeout": 30.0})
    assert found["app/client"] == [own, (STREAMER, {"log_files": ["error_log.txt"]})]
    assert found["app/server"] == [(RECEIVER, {"idle_timeout": 60.0})]


def test_one_of_ours_that_names_its_file_as_the_runtimes_does_counts(tmp_path):
    job = job_for("@ALL")
    job.to_clients(JobLogStreamer(log_file_name="log.txt"))
    enable_log_streaming(job, log_files=["log.txt"])
    assert components(job, tmp_path)["app/client"] == [(STREAMER, {"log_file_name": "log.txt"})]


def test_the_runtimes_own_make_way_and_their_files_stay_streamed(tmp_path):
    recipe = NumpyFedAvgRecipe(min_clients=1, model=[1.0], train_script=__file__)
    recipe.enable_log_streaming("log.json", "log.txt")
    enable_log_streaming(recipe)
    found = components(recipe, tmp_path)
    assert found["app/client"] == [(STREAMER, {"log_files": ["log.json", "log.txt", "error_log.txt"]})]
    assert found["app/server"] == [(RECEIVER, {})]
    enable_log_streaming(recipe)
    assert components(recipe, tmp_path) == found


def test_without_the_server_its_config_stays_as_it_is(tmp_path):
    job = job_for("@ALL")
    job.to_clients(StockStreamer())
    job.to_server(StockReceiver())
    enable_log_streaming(job, server=False)
    found = components(job, tmp_path)
    assert [path for path, _ in found["app/client"]] == [STREAMER]
    assert found["app/server"] == [("nvflare.app_common.logging.job_log_receiver.JobLogReceiver", {})]


def test_packages_that_the_author_named_stay(tmp_path):
    job = job_for("@ALL")
    job.set_app_packages(["mine"])
    enable_log_streaming(job)
    assert job.job.app_packages == ["mine", "nvflare_logstream"]


@pytest.mark.parametrize(
    ("job", "allowed"),
    [
        (None, "a FedJob or a recipe"),
        ("job", "a FedJob or a recipe"),
        (job_for(), "a job that has clients: add their executors first"),
    ],
)
def test_what_is_no_job_with_clients_is_refused(job, allowed):
    with pytest.raises(ArgumentError, match=rf"^job_or_recipe: .* is not allowed; {allowed}"):
        enable_log_streaming(job)


@pytest.mark.parametrize("files", [[], "log.txt", ["../log.txt"], [5]])
def test_a_file_that_is_not_allowed_is_refused_and_changes_nothing(tmp_path, files):
    job = job_for("@ALL")
    with pytest.raises(ArgumentError, match=r"^log_files"):
        enable_log_streaming(job, log_files=files)
    assert components(job, tmp_path) == {"app/client": [], "app/server": []}


def test_a_recipe_of_an_older_runtime_has_its_job_under_a_public_name(tmp_path):
    job = job_for("@ALL")
    enable_log_streaming(SimpleNamespace(job=job))
    assert components(job, tmp_path)["app/client"] == [(STREAMER, {"log_files": DEFAULT})]


def test_a_file_of_the_runtimes_own_that_ours_cannot_take_is_named_and_stays(tmp_path):
    job = job_for("@ALL")
    job.to_clients(StockStreamer(log_file_name="sub/train.log"))
    with pytest.raises(ArgumentError, match=r"^log_file_name.*'sub/train.log' is not allowed; a plain name"):
        enable_log_streaming(job)
    ((path, _),) = components(job, tmp_path)["app/client"]
    assert path == "nvflare.app_common.logging.job_log_streamer.JobLogStreamer"


# -- the simulator's workspace -------------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch) -> list[Any]:
    """The jobs that were given to the runtime's simulator."""
    jobs: list[Any] = []
    monkeypatch.setattr(FedJob, "simulator_run", lambda job, workspace, **options: jobs.append(job))
    return jobs


def admitted(workspace: Path, name: str) -> list[str]:
    entries: list[str] = json.loads((workspace / "local" / name).read_text())["class_allow_list"]
    return entries


def test_a_simulators_new_workspace_admits_what_the_runtime_does_and_ours(tmp_path, ran):
    job = job_for("@ALL")
    enable_log_streaming(job)
    for _ in range(2):
        job.simulator_run(str(tmp_path), n_clients=1)
    assert ran == [job, job]
    assert admitted(tmp_path, "resources.json.default") == [*DEFAULT_CLASS_ALLOW_LIST, "nvflare_logstream."]


def test_ours_is_added_to_the_list_of_a_simulators_default(tmp_path, ran):
    (tmp_path / "local").mkdir()
    given = {"format_version": 2, "x": 1, "class_allow_list": ["a."]}
    (tmp_path / "local" / "resources.json.default").write_text(json.dumps(given))
    job = job_for("@ALL")
    enable_log_streaming(job)
    job.simulator_run(str(tmp_path), n_clients=1)
    written = json.loads((tmp_path / "local" / "resources.json.default").read_text())
    assert written == {**given, "class_allow_list": ["a.", "nvflare_logstream."]}


def test_a_list_that_somebody_wrote_stays_as_it_is(tmp_path, ran):
    (tmp_path / "local").mkdir()
    own = tmp_path / "local" / "resources.json"
    own.write_text('{"class_allow_list": ["a."]}')
    job = job_for("@ALL")
    enable_log_streaming(job)
    job.simulator_run(str(tmp_path), n_clients=1)
    assert own.read_text() == '{"class_allow_list": ["a."]}' and list((tmp_path / "local").iterdir()) == [own]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"class_allow_list": null}', '{"class_allow_list": "nvflare."}']
)
@pytest.mark.parametrize("name", ["resources.json", "resources.json.default"])
def test_resources_that_cannot_be_used_are_left_to_the_runtime(tmp_path, ran, name, text):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / name).write_text(text)
    job = job_for("site-1")
    enable_log_streaming(job)
    job.simulator_run(str(tmp_path), n_clients=1)
    assert ran == [job] and (tmp_path / "local" / name).read_text() == text


def test_under_a_runtime_that_is_not_supported_the_author_is_told(monkeypatch):
    stand_in = type("JobLogStreamer", (StandIn,), {"problem": "nvflare 3.0 is not supported"})
    monkeypatch.setattr(authoring, "JobLogStreamer", stand_in)
    with pytest.raises(LogStreamError, match=r"nvflare 3\.0 is not supported"):
        enable_log_streaming(job_for("site-1"))
