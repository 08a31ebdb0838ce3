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


def result(demo):
    """The exit code, what was printed, and what is left."""
    code = demo.end()
    return code, demo.output, demo.leftovers()


def run(directory):
    return result(Demo(directory))


def run_with_keep(directory):
    return directory, *result(Demo(directory, "--keep"))


def run_and_interrupt(directory, moment):
    demo = Demo(directory)
    if moment:
        demo.read_until(moment)
    else:
        deadline = time.monotonic() + 30
        while not list(directory.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
    demo.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    demo.process.send_signal(signal.SIGINT)  # an impatient user
    return result(demo)


@pytest.mark.ahead(run=run)
def test_the_demo_ends_well_and_leaves_nothing(ahead):
    code, output, leftovers = ahead
    assert code == 0, output
    for wanted in ("site-1 ", "site-2 ", "WARNING", "Traceback", "Every stream is complete"):
        assert wanted in output
    assert output.count("the same") == 6
    assert leftovers == ([], [])


@pytest.mark.ahead(run=run_with_keep)
def test_keep_leaves_the_directory_and_says_how_to_look_around(ahead):
    directory, code, output, ((kept,), processes) = ahead
    assert code == 0, output
    assert kept in output and processes == []
    assert len(list(directory.glob("*/kits/*/prod_00/server/logstream/*/site-1/log.txt"))) == 1


@pytest.mark.ahead(run=run_and_interrupt)
@pytest.mark.parametrize("moment", ["", "prepared", "are up", "submitted", "step  3"])
def test_ctrl_c_at_any_moment_leaves_nothing(ahead, moment):
    code, output, leftovers = ahead
    assert code == 130, output
    assert leftovers == ([], [])
