"""Which process makes a log of its console: a client job's own, where the site lets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream.flare.job_console import own_job

ROOT = Path(__file__).parents[2]
MODULE = "/somewhere/nvflare/private/fed/app/client/worker_process.py"
OPTIONS = [
    "-t",
    "token",
    "-m",
    "{root}",
    "-w",
    "startup",
    "-n",
    "job-1",
    "-c",
    "site-1",
    "--set",
    "uid=site-1",
]
# It loads once what is the same in each job's process, and becomes each by a fork.
PROCESSES = """
import json, os, sys
from nvflare_logstream import JobLogStreamer, SiteLogStreamer
from nvflare_logstream.flare.shared import shared
for line in sys.stdin:
    directory, sys.argv, code = json.loads(line)
    if process := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
        continue
    os.chdir(directory)
    for number in (1, 2):
        os.dup2(os.open(("out", "err")[number - 1], os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    exec(code)
    print("printed", flush=True)
    print(shared.console, file=open("why", "w"))
    break
"""


@pytest.fixture(scope="module")
def processes() -> Iterator[subprocess.Popen[str]]:
    """Runs what a line tells it to, and says its exit code."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", PROCESSES], env=environment, **pipes) as processes:
        yield processes


class Site:
    """A site's workspace, in which a job's process makes components."""

    def __init__(self, root: Path, processes: subprocess.Popen[str]):
        self.root, self._processes = root, processes
        for name in ("startup", "local", "job-1"):
            (root / name).mkdir()
        self.resources: dict[str, Any] | str = {}

    @property
    def log(self) -> Path:
        return self.root / "job-1" / "console.txt"

    @property
    def why(self) -> str:
        return (self.root / "why").read_text().strip()

    def run(self, code: str, module: str = MODULE) -> bytes:
        """Run a job's process, and return what its site's console got."""
        resources = self.resources if isinstance(self.resources, str) else json.dumps(self.resources)
        (self.root / "local" / "resources.json").write_text(resources)
        command = [module, *(word.format(root=self.root) for word in OPTIONS)]
        print(json.dumps([str(self.root), command, code]), file=self._processes.stdin)
        assert self._processes.stdout is not None
        assert self._processes.stdout.readline() == "0\n", (self.root / "err").read_text()
        return (self.root / "out").read_bytes()


@pytest.fixture
def site(tmp_path: Path, processes: subprocess.Popen[str]) -> Site:
    return Site(tmp_path, processes)


@pytest.mark.parametrize(
    "code",
    [
        "SiteLogStreamer(log_files=['log.txt', 'console.txt'])",
        "SiteLogStreamer(log_file_name='console.txt')",
        "SiteLogStreamer(); SiteLogStreamer(log_files=['console.txt'])",
        "JobLogStreamer(log_files=['console.txt'])",
        "SiteLogStreamer(log_files=['console.txt']); JobLogStreamer(log_files=['console.txt'])",
    ],
)
def test_the_site_or_else_the_job_asks_for_it(site: Site, code: str) -> None:
    assert site.run(code) == site.log.read_bytes() == b"printed\n"
    assert site.why == ""


@pytest.mark.parametrize(
    "code",
    [
        "SiteLogStreamer(); JobLogStreamer(log_files=['console.txt'])",  # what the site wants holds
        "SiteLogStreamer(log_files=['*.txt'])",  # a pattern is no wish for it
        "SiteLogStreamer(); JobLogStreamer()",
    ],
)
def test_nobody_asks_for_it(site: Site, code: str) -> None:
    assert site.run(code) == b"printed\n" and not site.log.exists()
    assert site.why == "None"


@pytest.mark.parametrize("resources", [{"allow_log_streaming": False}, {"allow_log_streaming": "yes"}, "{"])
@pytest.mark.parametrize("kind", ["SiteLogStreamer", "JobLogStreamer"])
def test_a_site_that_keeps_its_logs_is_not_touched(site: Site, resources: Any, kind: str) -> None:
    site.resources = resources
    code = f"""
before = [os.fstat(number) for number in (1, 2)]
{kind}(log_files=["console.txt"])
assert [os.fstat(number) for number in (1, 2)] == before and "PYTHONFAULTHANDLER" not in os.environ
assert sorted(os.listdir("job-1")) == []
"""
    assert site.run(code) == b"printed\n"
    assert "allow_log_streaming" in site.why or "cannot be read" in site.why


def test_other_processes_are_not_touched(site: Site) -> None:
    """The site's parent process, the simulator, a program that writes a job."""
    for module in ("client_train.py", "simulator_worker.py", "job.py", "sub_worker_process.py", ""):
        assert site.run("SiteLogStreamer(log_files=['console.txt'])", module) == b"printed\n"
        assert not site.log.exists() and "no process of one job" in site.why


def test_a_problem_is_told_and_the_job_goes_on(site: Site) -> None:
    site.log.mkdir()
    assert site.run("SiteLogStreamer(log_files=['console.txt'])") == b"printed\n"
    assert "it is no regular file" in site.why


def test_own_job(site: Site) -> None:
    workspace, job_id = own_job([MODULE, *(word.format(root=site.root) for word in OPTIONS)]) or (None, "")
    assert workspace is not None
    assert (workspace.get_root_dir(), workspace.site_name, job_id) == (str(site.root), "site-1", "job-1")
    for command in ([], [MODULE], [MODULE, "-n", "job-1"], ["-c", "-m", "-n"]):
        assert own_job(command) is None
