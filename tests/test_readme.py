"""What the README shows is what there is: JSON are example files, Python runs, commands and files exist."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from nvflare.cli import parse_args

from nvflare_logstream.cli.main import _application
from nvflare_logstream.streams import Verdict
from tests import walk
from tests.e2e import versions

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nvflare_logstream"
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + [
    PACKAGE / "ARCHITECTURE.md"
]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.mark.parametrize(
    ("block", "file"),
    list(zip(blocks("json"), ("client_resources.json", "server_resources.json"), strict=True)),
)
def test_json_in_the_readme_is_the_example_file(block, file):
    assert json.loads(block) == json.loads((ROOT / "resources_examples" / file).read_text())


def test_the_job_in_the_readme_names_the_public_classes(tmp_path):
    (block,) = (block for block in blocks("python") if "FedJob" in block)
    names = {}
    exec(block, names)
    names["job"].export_job(str(tmp_path))
    client = json.loads(next(tmp_path.rglob("config_fed_client.json")).read_text())
    server = json.loads(next(tmp_path.rglob("config_fed_server.json")).read_text())
    assert "nvflare_logstream.JobLogStreamer" in [c["path"] for c in client["components"]]
    assert "nvflare_logstream.JobLogReceiver" in [c["path"] for c in server["components"]]
    assert not list(tmp_path.rglob("custom")), "the package's source must not travel with the job"


def test_every_verdict_is_explained():
    assert [verdict for verdict in Verdict if f"| `{verdict}` |" not in README] == []


def test_files_and_links_in_the_documents_exist():
    notes = (PACKAGE / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`([a-z_]+/[a-z_]+\.py|[a-z_]+\.py)`", notes)
    assert len(named) > 40
    assert [file for file in named if not (PACKAGE / file).is_file()] == []
    for document in DOCUMENTS:
        text = document.read_text()
        links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
        assert [link for link in links if not (document.parent / link).exists()] == [], document
        tests = re.findall(r"`(tests/[a-z0-9_/]+\.py)", text)
        assert [test for test in tests if not (ROOT / test).is_file()] == [], document


def test_messages_in_the_troubleshooting_table_are_in_the_code():
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for message in (
        "resources.json also lists ",
        "class_allow_list in resources.json lacks",
        "job logs stay at this site: ",
        "no answer from the log receiver: ",
        "logs were not all sent within ",
    ):
        assert message in README and message in code, message


def test_the_way_from_nothing_takes_less_than_ten_commands_that_there_are(monkeypatch):
    assert len(walk.commands()) < 10
    for program, *words in map(shlex.split, walk.commands()):
        if program == "nvflare":
            monkeypatch.setattr(sys, "argv", [program, *words])
            parse_args(program)  # exits where a word is wrong
        elif program == "nvflare-logstream":
            _application(words[0]).make_context(program, words[1:])
        else:
            assert (program, *words) in {("export", "NVFLARE_POC_WORKSPACE=$PWD/poc"), ("python", "job.py")}


def test_the_job_of_the_way_from_nothing_is_the_runtimes_own(tmp_path):
    for name, text in walk.files().items():
        (tmp_path / name).write_text(text)
    subprocess.run([sys.executable, "job.py"], cwd=tmp_path, check=True, capture_output=True)
    job = tmp_path / "jobs" / "hello"
    assert (job / "app" / "custom" / "train.py").read_text() == walk.files()["train.py"]
    config = json.loads((job / "app" / "config" / "config_fed_client.json").read_text())
    assert config["executors"][0]["executor"]["args"]["execution_mode"] == "external_process"
    assert not [path for path in job.rglob("*.*") if "logstream" in path.read_text()]


def test_the_table_of_versions_is_the_one_that_a_run_prints_in_which_all_goes_well():
    """`python -m tests.e2e.versions` does the run, and compares too."""
    cells = {
        (server, site, case): versions.NO_TASK_CELL
        for server, site in versions.NO_TASK
        for case in versions.NEED_A_TASK
    }
    results = {
        server: {
            site: {case: cells.get((server, site, case), "complete") for case in versions.CASES}
            for site in versions.RUNTIMES
        }
        for server in versions.RUNTIMES
    }
    assert versions.table(results) in README
