"""Without any set-up of the sites: both components come with the job, in a federation and in the simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvflare_logstream.flare.kits import SiteSetup, write_job

from .lab import CUSTOM, EXECUTOR, LOGS, SITES, Lab

pytestmark = pytest.mark.timeout(240)

SCRIPT = [["lines", 300], ["traceback"], ["lines", 10]]
COMPONENTS = {
    "server_components": [{"id": "receiver", "path": "nvflare_logstream.JobLogReceiver"}],
    "client_components": [{"id": "streamer", "path": "nvflare_logstream.JobLogStreamer"}],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    plain = SiteSetup()
    with Lab(tmp_path_factory.mktemp("plain"), clients=SITES, server=plain, client=plain) as lab:
        yield lab


def assert_holds_the_run(stored: bytes, written: bytes, last: bytes) -> None:
    """What arrived is the log's beginning, at least up to the job's own last line."""
    assert written.startswith(stored)
    assert last in written and last in stored


def test_job_level_only(lab: Lab) -> None:
    job = lab.submit("job-level", SCRIPT, **COMPONENTS)
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        for file in LOGS:
            info = job.wait_closed(site, file, timeout=5)
            assert info.agreed and info.outcome == "run ended"
            assert_holds_the_run(job.path(site, file).read_bytes(), job.written(site, file), b"breaks over two lines")
    logs = lab.nvflare("job", "logs", job.id, "--site", "site-1", "--tail", "100000")
    assert "line 299" in logs.stdout


def test_simulator(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", EXECUTOR, {"script": SCRIPT}, custom=CUSTOM, **COMPONENTS)
    workspace = tmp_path / "workspace"
    command = [sys.executable, "-m", "nvflare.cli", "simulator", "-w", str(workspace), "-n", "2", "-t", "2", str(job)]
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    for site in SITES:
        for file in LOGS:
            (stored,) = workspace.glob(f"**/logstream/simulate_job/{site}/{file}")
            (written,) = (workspace / site).glob(f"**/{file}")
            assert_holds_the_run(stored.read_bytes(), written.read_bytes(), b"breaks over two lines")
