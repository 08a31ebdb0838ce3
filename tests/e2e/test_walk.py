"""A stranger's first minutes: in an empty directory, the README's files and commands, one after the other.

The federation is the runtime's own POC, which its own commands start and stop.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import nvflare
import psutil
import pytest

from nvflare_logstream.lab.kits import free_port
from tests.ahead import Ahead
from tests.walk import ROOT, commands, files

from .lab import SITES, wait_for
from .runtimes import pythons_of

pytestmark = [pytest.mark.by_hand, pytest.mark.timeout(420), pytest.mark.ahead(run=pythons_of)]

_MARK = "NVFLARE_LOGSTREAM_WALK"
_PROGRAMS = {
    "nvflare": "-m nvflare.cli",
    "nvflare-logstream": "-m nvflare_logstream.cli.main",
    "python": "",
    "python3": "",
}
_POC_PORT = "8002"
# Where a parent listens for its jobs: before 2.9, on every address.
_RESOURCES = {"host": "localhost", "listen_host": "127.0.0.1", "connection_security": "clear"}
_INTERNAL = {"internal": {"scheme": "tcp", "resources": _RESOURCES}}
_COMMAND_SECONDS = 120.0
_START_SECONDS = 75.0  # the runtime itself gives up after 30 s, unless it hangs
LINES = 3 * 5  # rounds and steps of the README's trainer


class Walk:
    """An empty directory and a home of its own, where the commands are those of one Python."""

    def __init__(self, root: Path, python: str):
        self.directory, self.home, self.temporary = root / "empty", root / "home", root / "tmp"
        programs = root / "bin"
        for directory in (self.directory, self.home, self.temporary, programs):
            directory.mkdir()
        for name, arguments in _PROGRAMS.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {python} {arguments} "$@"\n')
            (programs / name).chmod(0o755)
        self.mark = uuid.uuid4().hex
        self._exports: list[str] = []
        self._environment = {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
            _MARK: self.mark,
        }

    def run(self, command: str) -> str:
        """Type a command, wait for its end, and return what it printed."""
        if command.startswith("export "):
            self._exports.append(command)
        began = time.monotonic()
        shell = subprocess.Popen(
            ["bash", "-e", "-c", "\n".join([*self._exports, command])],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        hung = command == "nvflare poc start" and self._hangs(shell)
        said, _ = shell.communicate(timeout=_COMMAND_SECONDS)
        print(f"{time.monotonic() - began:6.1f} s  {command}{'  (interrupted)' if hung else ''}")
        assert hung or shell.returncode == 0, said
        return said

    def _hangs(self, shell: subprocess.Popen[str]) -> bool:
        """Interrupt the runtime's command as the README tells, where it waits for its own threads."""
        with suppress(subprocess.TimeoutExpired):
            shell.wait(_START_SECONDS)
            return False
        while shell.poll() is None:
            os.killpg(shell.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                shell.wait(2)
        return True

    def keep_to_loopback(self) -> None:
        """Have the server listen here only, on a port that nobody else uses: a POC's takes every address."""
        port = str(free_port())
        for path in self.directory.glob("poc/*/prod_00/*/startup/fed_*.json"):
            text = path.read_text().replace(_POC_PORT, port)
            path.write_text(text.replace(f'"server:{port}"', f'"localhost:{port}"'))
            if path.name != "fed_admin.json":
                (path.parents[1] / "local" / "comm_config.json").write_text(json.dumps(_INTERNAL))

    def processes(self) -> list[psutil.Process]:
        """What runs of all that was started here."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def listening(self) -> set[str]:
        """The addresses on which it listens."""
        found = set()
        for process in self.processes():
            with suppress(psutil.Error):
                connections = process.net_connections()
                found |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
        return found

    def end(self) -> None:
        while alive := self.processes():
            for process in alive:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.1)


@pytest.fixture(params=dict.fromkeys([nvflare.__version__, "2.8.3"]))
def walk(request: pytest.FixtureRequest, tmp_path: Path, begun: Ahead) -> Iterator[Walk]:
    python = sys.executable
    if request.param != nvflare.__version__:
        python = begun.result(pythons_of)[request.param]
    walk = Walk(tmp_path, python)
    yield walk
    walk.end()


def test_the_readmes_way_from_nothing_to_a_followed_job(walk: Walk) -> None:
    for name, text in files().items():
        (walk.directory / name).write_text(text)
    said = {}
    for command in commands():
        if "poc start" in command:
            walk.keep_to_loopback()
        if "poc stop" in command:
            said["verify"] = walk.run("nvflare-logstream verify @latest")
            assert walk.listening() == {"127.0.0.1"}
        said[command.removeprefix("nvflare-logstream ").split()[0]] = walk.run(command)

    for site in SITES:
        lines = [line for line in said["logs"].splitlines() if line.startswith(f"{site} ")]
        assert sum(" step " in line and " loss " in line for line in lines) == LINES, said["logs"]
        assert f"\n{site}: ended: complete; " in said["logs"]
    assert said["logs"].endswith("job: over: FINISHED:COMPLETED\n")
    assert said["status"].count(" complete ") == 6 and "FINISHED:COMPLETED" in said["status"], said["status"]
    assert "all 6 logs are as they should be" in said["verify"], said["verify"]

    wait_for(lambda: not walk.processes(), "the end of what was started")
    walk.run("nvflare poc clean")
    assert {path.name for path in walk.directory.iterdir()} == {*files(), "jobs"}
    assert "logstream" not in json.dumps(
        [path.read_text() for path in (walk.directory / "jobs").rglob("*") if path.is_file()]
    ), "the job is not made for us"
    assert not [*walk.temporary.iterdir()]
