"""Each file of resources_examples/ is what the runtime and our components take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvflare.fuel.utils.class_utils import instantiate_class

from nvflare_logstream.deploy.kits import Role
from nvflare_logstream.deploy.resources import Choices, set_up
from nvflare_logstream.flare.shared import shared

EXAMPLES = Path(__file__).parents[2] / "resources_examples"
FILES = sorted(EXAMPLES.glob("*.json"))
README = (EXAMPLES / "README.md").read_text()


@pytest.fixture(autouse=True)
def site():
    """What a site's entries share, fresh for each test."""
    shared.reset()
    yield
    shared.reset()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_runtime_makes_its_components_of_an_example(path):
    example = json.loads(path.read_text())
    for entry in example.get("components", []):
        arguments = entry.get("args", {})
        made = instantiate_class(entry["path"], arguments)
        for name, value in arguments.items():
            assert getattr(made, name) == (tuple(value) if isinstance(value, list) else value)
    assert "nvflare_logstream." in example["class_allow_list"]


def test_the_readme_says_when_to_use_each():
    assert [path.name for path in FILES if f"| [{path.name}]({path.name}) |" not in README] == []
    assert len(FILES) == 7


@pytest.mark.parametrize(
    "name, choices",
    [
        ("client", Choices()),
        ("client_files", Choices(files=("log.txt", "error_log.txt", "log.json"))),
        ("client_opt_out", Choices(opt_out=True)),
    ],
)
def test_set_up_makes_what_the_example_has(name, choices):
    example = json.loads((EXAMPLES / f"{name}_resources.json").read_text())
    stock = '{"allow_log_streaming": true, "class_allow_list": [], "components": []}'
    made = json.loads(set_up(Role.CLIENT, stock, choices).text)
    example["components"][0].setdefault("args", {"log_files": ["log.txt", "error_log.txt"]})
    assert made == example
