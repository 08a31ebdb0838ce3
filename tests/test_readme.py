"""What the README shows is what there is: JSON are example files, Python runs, commands and files exist."""

import json
import re
from pathlib import Path

import pytest

from nvflare_logstream.streams import Verdict

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
