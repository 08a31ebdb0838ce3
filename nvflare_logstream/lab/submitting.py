"""Submits jobs in a process of its own, for a server whose runtime takes no job from this one's.

A job travels in another form before nvflare 2.8. The process logs in once; it reads a job's folder from each
line of its standard input, and prints the job's id.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nvflare.fuel.flare_api.flare_api import new_secure_session

_MARK = "job id: "  # before the answer: the runtime prints greetings and progress
_LOGIN_SECONDS = 30.0


class Submitter:
    """Starts the process, and ends it with `close`.

    Args:
        python: the Python whose runtime submits.
        user: an admin.
        kit: the admin's kit.
    """

    def __init__(self, python: str, user: str, kit: Path):
        package = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            [python, "-u", "-m", __name__, user, str(kit)],
            env={**os.environ, "PYTHONPATH": package},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def submit(self, job: Path) -> str:
        """Submit a job folder and return the job's id.

        Raises:
            RuntimeError: if the process has ended; its standard error says why.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{job}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(_MARK):
                return line.removeprefix(_MARK).strip()
        raise RuntimeError(f"submitting {job} failed, see the standard error")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()


if __name__ == "__main__":
    session = new_secure_session(sys.argv[1], sys.argv[2], timeout=_LOGIN_SECONDS)
    for folder in sys.stdin:
        print(_MARK + session.submit_job(folder.rstrip("\n")), flush=True)
