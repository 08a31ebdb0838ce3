"""Servers and sites of several versions of the runtime: one case for each pair that can be had.

`python -m tests.e2e.versions` does all cases and prints the table of the README.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ahead import Ahead

from .lab import Job, Lab
from .runtimes import pythons_of
from .versions import NO_TASK, check, start, submit

# By the server's version, the case of each site. Together they are every pair of which a federation that is
# brought up to date, site by site, may consist.
CASES = {
    "2.7.3": {"2.7.3": "kill"},
    "2.8.3": {"2.8.3": "rotation", "2.9.0": "normal end"},
    "2.9.0": {"2.8.3": "kill", "2.7.3": "abort"},
}


class Labs:
    """The federations, one after the other: each is started with its jobs, and ended by its test."""

    def __init__(self, directory: Path):
        self._directory, self._pythons = directory, pythons_of(directory / "runtimes")
        self._labs: list[Lab] = []

    def start(self, server: str) -> tuple[Lab, dict[str, Job]]:
        lab = start(self._directory / server, server, list(CASES[server]), self._pythons)
        lab.federation.start()
        self._labs.append(lab)
        return lab, {version: submit(lab, case, version) for version, case in CASES[server].items()}

    def close(self) -> None:
        for lab in self._labs:
            lab.close()


pytestmark = [pytest.mark.timeout(300), pytest.mark.ahead(run=Labs)]


@pytest.fixture(scope="module")
def labs(begun: Ahead) -> Iterator[Labs]:
    labs = begun.result(Labs)
    yield labs
    labs.close()


@pytest.mark.parametrize("server", CASES)
def test_server_of(labs: Labs, server: str) -> None:
    lab, jobs = labs.start(server)
    for version, case in CASES[server].items():
        check(lab, case, jobs[version], runs=(server, version) not in NO_TASK)
    lab.end()
