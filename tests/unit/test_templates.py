"""Job templates and examples: what is listed and copied, and that each is what the runtime takes."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyhocon import ConfigFactory

from nvflare_logstream import JobLogReceiver, JobLogStreamer
from nvflare_logstream.cli import templates
from nvflare_logstream.cli.main import run

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "job_templates"
NAMES = sorted(path.name for path in TEMPLATES.iterdir() if path.is_dir())
EXAMPLE = "log_streaming_recipe"


def answer(capsys) -> dict:
    return json.loads(capsys.readouterr().out)["data"]


def test_all_are_listed_with_what_they_are_and_where(capsys):
    assert run(["templates"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == NAMES
    assert [Path(line.strip()) for line in lines[1::2]] == [TEMPLATES / name for name in NAMES]
    assert run(["templates", "--format", "json"]) == 0
    rows = answer(capsys)["templates"]
    assert [(row["name"], row["path"]) for row in rows] == [(n, str(TEMPLATES / n)) for n in NAMES]
    for line, row in zip(lines[::2], rows, strict=True):
        assert row["description"] and line.endswith(f"  {row['description']}")
    assert run(["templates", "log_streaming", "--format", "json"]) == 0
    assert answer(capsys)["templates"] == rows[:1]


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_has_every_file(capsys, tmp_path, name):
    to = tmp_path / "new" / "copy"
    assert run(["templates", name, "--to", str(to)]) == 0
    assert capsys.readouterr().out == f"copied {name} to {to}; {to}/info.md says what to type\n"
    source = TEMPLATES / name
    files = {path.relative_to(source) for path in source.rglob("*") if "__pycache__" not in path.parts}
    assert {path.relative_to(to) for path in to.rglob("*")} == files
    assert all(
        (to / file).read_bytes() == (source / file).read_bytes() for file in files if (to / file).is_file()
    )


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_nothing_is_overwritten(capsys, tmp_path, make):
    to = tmp_path / "there"
    make(to)
    assert run(["templates", "log_streaming", "--to", str(to)]) == 1
    assert "OUTPUT_DIR_EXISTS" in capsys.readouterr().err
    assert to.is_symlink() or not to.is_dir() or not list(to.iterdir())


def test_a_directory_that_cannot_be_made_is_named(capsys):
    assert run(["templates", "log_streaming", "--to", "/proc/none", "--format", "json"]) == 1
    error = json.loads(capsys.readouterr().out)
    assert error["error_code"] == "OUTPUT_DIR_NOT_WRITABLE" and "/proc/none" in error["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sag_np"], f"NAME: 'sag_np' is not allowed; one of {', '.join(NAMES)}"),
        (["--to", "x"], "--to: 'x' is not allowed; with the NAME of what is to be copied"),
    ],
)
def test_wrong_arguments_are_named(capsys, arguments, said):
    assert run(["templates", *arguments]) == 4
    assert capsys.readouterr().err.startswith(f"{said}\n")


def test_an_installed_package_has_its_templates_inside(monkeypatch, capsys, tmp_path):
    installed = tmp_path / "job_templates"
    shutil.copytree(TEMPLATES / "log_streaming", installed / "log_streaming")
    monkeypatch.setattr(templates, "_PLACES", (installed, TEMPLATES))
    assert run(["templates", "--format", "json"]) == 0
    assert [row["path"] for row in answer(capsys)["templates"]] == [str(installed / "log_streaming")]
    monkeypatch.setattr(templates, "_PLACES", (tmp_path / "none",))
    assert run(["templates"]) == 5
    assert "has no job templates" in capsys.readouterr().err


def test_every_file_is_shipped():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["nvflare_logstream.job_templates"].split(", ")
    shipped = {path for pattern in patterns for path in TEMPLATES.glob(pattern) if path.is_file()}
    files = {path for path in TEMPLATES.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files <= shipped


@pytest.mark.parametrize("name", [name for name in NAMES if name != EXAMPLE])
def test_a_template_has_what_the_runtime_takes_and_our_public_classes(name):
    directory = TEMPLATES / name
    info, meta, client, server = (
        ConfigFactory.parse_file(str(directory / f"{file}.conf"))
        for file in ("info", "meta", "config_fed_client", "config_fed_server")
    )
    assert set(info) == {"description", "controller_type", "execution_api_type"} and meta["name"] == name
    streamers = [part for part in client["components"] if part["path"] == "nvflare_logstream.JobLogStreamer"]
    (receiver,) = [
        part for part in server["components"] if part["path"] == "nvflare_logstream.JobLogReceiver"
    ]
    assert len(streamers) == (name != "log_streaming_site")
    for streamer in streamers:
        JobLogStreamer(**streamer["args"])
    JobLogReceiver(**receiver.get("args", {}))
    text = (directory / "info.md").read_text()
    assert text.startswith(f"# {name}: ")
    assert (
        f"nvflare-logstream templates {name} --to ./{name}\nnvflare job create -j my_job -w ./{name} " in text
    )
    named = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert named == {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.name not in ("info.md", "info.conf") and "__pycache__" not in path.parts
    }


def test_the_two_examples_have_the_same_trainer():
    paths = [TEMPLATES / EXAMPLE / "train.py", TEMPLATES / "log_streaming_external" / "code" / "train.py"]
    assert paths[0].read_text() == paths[1].read_text()


def run_job_py(cwd: Path, job: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""}
    command = [sys.executable, str(job / "job.py"), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_recipe_example_exports_a_job(tmp_path):
    example = tmp_path / "example"
    shutil.copytree(TEMPLATES / EXAMPLE, example)
    done = run_job_py(example, example, "--export", "--export-dir", str(tmp_path / "jobs"))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "jobs").rglob("config_fed_client.json")
    config = json.loads(path.read_text())
    assert "nvflare_logstream.JobLogStreamer" in [part["path"] for part in config["components"]]
    script = config["executors"][0]["executor"]["args"]["task_script_path"]
    assert script == "train.py", "the one that travels with the job, not one of this machine"
    custom = path.parents[1] / "custom"
    assert [path.name for path in custom.iterdir()] == [script], "the package stays at the sites"


def test_the_recipe_example_says_where_it_has_to_be_run(tmp_path):
    done = run_job_py(tmp_path, TEMPLATES / EXAMPLE)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith(
        f"job.py: error: there is no train.py here; run it in {TEMPLATES / EXAMPLE}"
    )
