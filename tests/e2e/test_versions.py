"""Servers and sites of several versions of the runtime: one case for each pair that can be had.

`python -m tests.e2e.versions` does all cases and prints the table of the README.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.ahead import Ahead

from .lab import Job, Lab
from .runtimes import pythons_of
from .versions import NO_TASK, check, start, submit

# By the server's version, the case of each site. Together they are the pairs that a federation goes through
# when it is brought up to date, one after the other.
CASES = {
    "2.7.3": {"2.7.3": "kill"},
    "2.8.3": {"2.8.3": "rotation", "2.9.0": "normal end"},
    "2.9.0": {"2.8.3": "kill", "2.7.3": "kill"},
}
Started = dict[str, tuple[Lab, dict[str, Job]]]

pytestmark = [
    pytest.mark.by_hand,
    pytest.mark.timeout(300),
    pytest.mark.ahead(run=pythons_of),
    # Kits of 2.7 are signed, and the runtime does not close what it reads the signatures from.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def started(begun: Ahead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """The federations side by side, with their jobs: most of the time they wait for the runtime."""
    pythons, started = begun.result(pythons_of), {}
    with ExitStack() as stack:
        for server, cases in CASES.items():
            lab = start(tmp_path_factory.mktemp("versions"), server, list(cases), pythons)
            stack.callback(lab.close)
            lab.federation.start()
            started[server] = lab, {version: submit(lab, case, version) for version, case in cases.items()}
        yield started


@pytest.mark.parametrize("server", CASES)
def test_server_of(started: Started, server: str) -> None:
    lab, jobs = started[server]
    for version, case in CASES[server].items():
        check(lab, case, jobs[version], runs=(server, version) not in NO_TASK)
    lab.end()
