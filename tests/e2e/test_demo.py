"""`nvflare-logstream demo` as a user runs it: to its end, and interrupted at any moment."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.timeout(180)


class Demo:
    """A demo in a process of its own, with its temporary directory below ours."""

    def __init__(self, directory, *options):
        code = "from nvflare_logstream.cli.main import main; main()"
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "demo", *options],
            env={**os.environ, "TMPDIR": str(directory), "COLUMNS": "140", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def read_until(self, text):
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return

    def end(self):
        with self.process.stdout as rest:
            self.output += rest.read()
        return self.process.wait(timeout=60)

    def leftovers(self):
        """Directories that are left, and processes whose command line or working directory is below ours."""
        processes = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
            if any(str(self.directory) in word for word in words):
                processes.append(words)
        return [path.name for path in self.directory.iterdir()], processes


def test_the_demo_ends_well_and_leaves_nothing(tmp_path):
    demo = Demo(tmp_path)
    assert demo.end() == 0, demo.output
    for wanted in ("site-1 ", "site-2 ", "WARNING", "Traceback", "Every stream is complete"):
        assert wanted in demo.output
    assert demo.output.count("the same") == 6
    assert demo.leftovers() == ([], [])


def test_keep_leaves_the_directory_and_says_how_to_look_around(tmp_path):
    demo = Demo(tmp_path, "--keep")
    assert demo.end() == 0, demo.output
    (kept,), processes = demo.leftovers()
    assert kept in demo.output and processes == []
    assert len(list(tmp_path.glob("*/kits/*/prod_00/server/logstream/*/site-1/log.txt"))) == 1


@pytest.mark.parametrize("moment", ["", "prepared", "are up", "submitted", "step  3"])
def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path, moment):
    demo = Demo(tmp_path)
    if moment:
        demo.read_until(moment)
    else:
        deadline = time.monotonic() + 30
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
    demo.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    demo.process.send_signal(signal.SIGINT)  # an impatient user
    assert demo.end() == 130, demo.output
    assert demo.leftovers() == ([], [])
