"""Processes of a lab federation: what they start is found and ended with them, and nothing else is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nvflare_logstream.lab import processes as lab_processes
from nvflare_logstream.lab.processes import CONSOLE, Processes
from tests.unit.conftest import wait_for

CHILD = "import time; time.sleep(600)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}, 'the-job'])"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); " + CHILD


@pytest.fixture
def processes():
    processes = Processes()
    yield processes
    processes.stop()


def test_what_a_killed_parent_started_is_found_and_ended_and_nothing_else(processes, tmp_path):
    other = Processes()
    other.start("site-1", [sys.executable, "-c", CHILD, "the-job"], tmp_path)
    try:
        processes.start("site-1", [sys.executable, "-c", PARENT], tmp_path)
        child = wait_for(lambda: processes.find({"the-job"}))
        assert child not in (processes.pid("site-1"), other.pid("site-1"))
        assert processes.kill("site-1", signal.SIGKILL) and processes.names == ()
        assert psutil.pid_exists(child)
        processes.stop()
        assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        assert processes.find({"the-job"}) is None and other.find({"the-job"}) == other.pid("site-1")
    finally:
        other.stop()


def test_a_parent_that_ends_by_itself_is_noticed(processes, tmp_path):
    processes.start("site-1", [sys.executable, "-c", CHILD], tmp_path)
    processes.start("site-2", [sys.executable, "-c", "print('why', flush=True); exit(3)"], tmp_path)
    assert wait_for(processes.ended) == ("site-2", 3)
    assert (tmp_path / CONSOLE).read_text() == "why\n"


def test_temporary_files_that_a_killed_process_leaves_lie_with_the_federation(processes, tmp_path):
    kit = tmp_path / "kit"
    kit.mkdir()
    processes.start(
        "site-1", [sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp(), flush=True)"], kit
    )
    left = wait_for((kit / CONSOLE).read_text).strip()
    assert tmp_path in Path(left).parents


def test_a_signal_that_does_not_end_a_process_leaves_it_known(processes, tmp_path):
    processes.start("site-1", [sys.executable, "-c", CHILD], tmp_path)
    assert not processes.kill("site-1", signal.SIGSTOP) and not processes.kill("site-1", signal.SIGCONT)
    assert processes.names == ("site-1",) and processes.ended() is None


def test_a_process_that_ignores_its_end_is_killed(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(lab_processes, "_TERM_SECONDS", 0.3)
    processes.start("site-1", [sys.executable, "-c", STUBBORN], tmp_path)
    wait_for((tmp_path / CONSOLE).read_text)
    pid = processes.pid("site-1")
    processes.stop()
    assert not psutil.pid_exists(pid)
    processes.stop()


def test_a_process_of_somebody_else_is_left_alone(processes):
    with subprocess.Popen([sys.executable, "-c", CHILD, "the-job"]) as process:
        assert processes.find({"the-job"}) is None
        processes.stop()
        assert process.poll() is None
        process.kill()


# IMPORT
