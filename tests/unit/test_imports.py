"""What a process loads: no more than it uses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def loaded_by(code: str) -> set[str]:
    """The modules that a new process has loaded after `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(run.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import nvflare_logstream",
        "import nvflare_logstream.flare.job_log_streamer",
        "from nvflare_logstream import JobLogStreamer",
        # What its run loads besides.
        "import nvflare_logstream.flare.cell_channel, nvflare_logstream.site.sender",
    ],
)
def test_a_client_job_loads_neither_a_database_nor_the_store_nor_the_filters(code):
    modules = loaded_by(code)
    assert not modules & {"sqlite3", "re2"}
    rooms = {".".join(name.split(".")[:2]) for name in modules if name.startswith("nvflare_logstream.")}
    assert not rooms & {
        f"nvflare_logstream.{room}" for room in ("store", "server", "client", "filters", "cli")
    }


def test_the_readers_side_needs_no_runtime():
    """A port of one's own, over a file or in a test, works where the runtime is not installed."""
    code = 'import sys; sys.modules["nvflare"] = None\nfrom nvflare_logstream import LogClient, LogQuery'
    assert not any(name.startswith("nvflare.") for name in loaded_by(code))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["logs", "--help"],
        ["status", "--help"],
        ["logs", "x", "--frob"],
        ["logs", "x", "--tail", "x"],
        ["logs", "--site=all", "--connect-timeout", "soon", "x"],
        ["status", "--interval", "0"],
        ["lgos"],
        ["logs", "--schema"],
    ],
    ids=" ".join,
)
def test_help_and_wrong_options_and_values_load_nothing_that_takes_long(arguments):
    code = (
        "from contextlib import redirect_stderr, redirect_stdout\nfrom io import StringIO\n"
        "from nvflare_logstream.cli.main import run\n"
        f"with redirect_stdout(StringIO()), redirect_stderr(StringIO()):\n    run({arguments})"
    )
    packages = {name.split(".")[0] for name in loaded_by(code)}
    slow = {"nvflare", "rich", "pydantic", "re2", "sqlite3", "backports", "cryptography"}
    assert not packages & {*slow, "logging", "tempfile"}


def test_every_public_name_is_found_at_the_root():
    import nvflare_logstream

    for name in nvflare_logstream.__all__:
        public = getattr(nvflare_logstream, name)
        assert (public.__module__, public.__qualname__) == ("nvflare_logstream", name)
    with pytest.raises(AttributeError, match="has no attribute 'LogServer'"):
        _ = nvflare_logstream.LogServer
