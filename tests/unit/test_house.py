"""The house rules: who may import the runtime, how long a module may be, and that the tools have nothing to say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nvflare_logstream"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
MAY_IMPORT_THE_RUNTIME = (
    "flare/",
    "wire/channel.py",
    "server/commands.py",
    "retrieval/client.py",
    "cli/demo_job.py",
)


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(MAY_IMPORT_THE_RUNTIME)])
def test_the_core_does_not_import_the_runtime(module):
    assert "nvflare" not in imported(PACKAGE / module)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module):
    assert len((PACKAGE / module).read_text().splitlines()) <= 350


def test_the_core_works_without_the_runtime():
    """In a process where the runtime cannot be imported."""
    code = """
import sys
sys.modules["nvflare"] = None
import nvflare_logstream.server.receiver, nvflare_logstream.store.store, nvflare_logstream.site.sender, nvflare_logstream.testing
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("tool", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_a_tool_has_nothing_to_say(tool):
    paths = () if tool == ("mypy",) else ("nvflare_logstream", "tests")
    run = subprocess.run([sys.executable, "-m", *tool, *paths], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
