"""What the README shows is what there is: its JSON are the example files, its Python runs, its commands exist."""

import json
import re
from pathlib import Path

import pytest

from nvflare_logstream.streams import Verdict

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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


def test_files_named_in_the_readme_exist():
    step_rows = re.findall(r"^\| [^|`]+ \| (`[a-z_/]+\.py`(?:, `[a-z_/]+\.py`)*) \|$", README, re.M)
    named = re.findall(r"`([a-z_/]+\.py)`", " ".join(step_rows))
    assert len(named) > 10
    assert [file for file in named if not (ROOT / "nvflare_logstream" / file).is_file()] == []
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_messages_in_the_troubleshooting_table_are_in_the_code():
    code = "".join(path.read_text() for path in (ROOT / "nvflare_logstream").rglob("*.py"))
    for message in (
        "resources.json also lists ",
        "class_allow_list in resources.json lacks",
        "job logs stay at this site: ",
        "no answer from the log receiver: ",
        "logs were not all sent within ",
    ):
        assert message in README and message in code, message
