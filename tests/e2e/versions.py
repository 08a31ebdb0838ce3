"""Exactness on federations of several versions of the runtime.

`python -m tests.e2e.versions [SERVER…]` does every case for every pair of a server and a site, prints the
README's table as it should be, and fails if the README has another; it takes about ten minutes.
`test_versions.py` does one case for each.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .lab import CLIENT_SETUP, SERVER_SETUP, Job, Lab, wait_for
from .runtimes import RUNTIMES, pythons_of

CASES: dict[str, Sequence[Any]] = {
    "normal end": [["lines", 200, 0.005], ["traceback"], ["warning", "a warning"]],
    "abort": [["lines_until", "never", 0.02]],
    "kill": [["bulk", 1 << 20], ["kill"]],
    "rotation": [["bulk", 5_000_000], ["rotate"], ["lines", 10]],
    "opt-out": [["lines", 5]],
    "site restart": [["lines_until", "never", 0.02]],
    "server restart": [["lines_until", "go", 0.02], ["warning", "the end"]],
}
README = Path(__file__).parents[2] / "README.md"
# Seen with the runtime's own components alone: a later server never brings a site of 2.7 to its first task.
NO_TASK = {("2.8.3", "2.7.3"), ("2.9.0", "2.7.3")}
NO_TASK_CELL = "no task ¹"
_PROCESS_IS_UP = b"Got client_runner"
NEED_A_TASK = "normal end", "rotation"
_KILLED_INSTEAD = "kill", "site restart"  # cases that a job without a task ends by being killed from outside
_ABNORMAL = {("2.9.0", "2.8.3")}  # pairs whose jobs the runtime ends as FINISHED:ABNORMAL, also without us
_DISTURBED = "opt-out", "site restart", "server restart"  # cases in which others would be disturbed


def site_of(version: str) -> str:
    """The name of the site that runs a version."""
    return f"site-{version.replace('.', '-')}"


def start(directory: Path, server: str, sites: Sequence[str], pythons: Mapping[str, str]) -> Lab:
    """A federation with a server of one version and a site of each of `sites`; whoever calls this ends it."""
    names = {"server": server, **{site_of(version): version for version in sites}}
    others = {name: pythons[version] for name, version in names.items() if version in pythons}
    clients = [name for name in names if name != "server"]
    return Lab(directory, clients=clients, pythons=others, server=SERVER_SETUP, client=CLIENT_SETUP)


def submit(lab: Lab, case: str, version: str) -> Job:
    """Submit the job of a case to the site of a version."""
    site = site_of(version)
    return lab.submit(f"{case.replace(' ', '-')}-{site}", CASES[case], sites=[site])


def begun(job: Job, text: bytes = _PROCESS_IS_UP, runs: bool = True) -> None:
    """Wait until `text` is at the server or, of a job that gets no task, in the site's own log."""
    (site,) = job.sites
    if runs:
        job.wait_live(site, text, timeout=180.0)
    else:
        path = job.directory(site) / "log.txt"
        wait_for(lambda: path.exists() and text in path.read_bytes(), f"{text!r} in {path}", 180)


def check(lab: Lab, case: str, job: Job, runs: bool = True) -> None:
    """Bring a job to its end as its case wants it, and compare the server's copy with what its site wrote.

    Args:
        lab: the federation.
        case: its name.
        job: the job of one site.
        runs: the runtime brings the job to its first task; if not, the job's process is killed from outside.
    """
    (site,) = job.sites
    if case == "abort" or not runs:
        begun(job, b"- line 20" if runs else _PROCESS_IS_UP, runs)
    if case == "abort":
        lab.federation.abort(job.id)
    elif not runs:
        os.kill(lab.federation.job_pid(site, job.id), signal.SIGKILL)
    outcome = job.wait_closed(site).outcome
    if case in ("normal end", "kill", "rotation"):
        assert outcome == ("signal 9" if case == "kill" else "exit code 0"), outcome
    job.assert_complete(site, outcome=outcome)
    if case == "rotation":
        assert (job.directory(site) / "log.txt.1").exists()


def check_opt_out(lab: Lab, version: str, runs: bool) -> None:
    """From a site that takes its permission back no byte comes, and the verdict says why."""
    site = site_of(version)
    path = lab.federation.client_dir(site) / "local" / "resources.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "allow_log_streaming": False}))
    try:
        job = submit(lab, "opt-out", version)
        found = job.wait_closed(site, timeout=180.0)
        assert found.verdict == "refused" and "allow_log_streaming" in found.verdict_reason, found
        assert not job.path(site, "log.txt").exists()
        with suppress(Exception):  # it may be over
            lab.federation.abort(job.id)
    finally:
        path.write_text(before)


def check_site_restart(lab: Lab, version: str, runs: bool) -> None:
    """A site's parent process is killed and started again while a job runs."""
    job, site = submit(lab, "site restart", version), site_of(version)
    begun(job, runs=runs)
    lab.federation.kill(site)
    lab.federation.start_site(site)
    lab.federation.wait_ready()
    if not runs:  # before its first task a job's process of 2.7 never misses its parent
        os.kill(lab.federation.job_pid(site, job.id), signal.SIGKILL)
    job.assert_complete(site, outcome=job.wait_closed(site, timeout=180.0).outcome)
    with suppress(Exception):
        lab.federation.abort(job.id)


def check_server_restart(lab: Lab, version: str, runs: bool) -> None:
    """The server is killed and started again while a job runs."""
    job, site = submit(lab, "server restart", version), site_of(version)
    begun(job, runs=runs)
    lab.federation.kill("server", signal.SIGKILL)
    lab.federation.start_site("server")
    lab.federation.wait_ready()
    job.signal(site)
    with suppress(Exception):  # a server that does not take the job up again, or a job that never got a task
        lab.federation.abort(job.id)
    job.assert_complete(site, outcome=job.wait_closed(site, timeout=180.0).outcome)


def _result(check: Callable[[], None]) -> str:
    try:
        check()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        print(f"    {type(error).__name__}: {str(error)[:600]}", flush=True)
        return "**no**"
    return "complete"


def rows(directory: Path, server: str, pythons: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The result of each case at each site, by the site's version, with a server of one version."""
    table: dict[str, dict[str, str]] = {version: {} for version in RUNTIMES}
    lab = start(directory, server, RUNTIMES, pythons)
    lab.federation.start()
    try:
        together = [case for case in CASES if case not in _DISTURBED]
        jobs = {}
        for case, version in itertools.product(together, RUNTIMES):
            if (server, version) in NO_TASK and case in NEED_A_TASK:
                table[version][case] = NO_TASK_CELL
            else:
                jobs[case, version] = submit(lab, case, version)
        for (case, version), job in jobs.items():
            runs = (server, version) not in NO_TASK
            table[version][case] = _result(lambda c=case, j=job, r=runs: check(lab, c, j, r))
            print(f"server {server}, site {version}, {case}: {table[version][case]}", flush=True)
        alone = {
            "opt-out": check_opt_out,
            "site restart": check_site_restart,
            "server restart": check_server_restart,
        }
        for case, act in alone.items():
            for version in RUNTIMES:
                runs = (server, version) not in NO_TASK
                table[version][case] = _result(lambda a=act, v=version, r=runs: a(lab, v, r))
                print(f"server {server}, site {version}, {case}: {table[version][case]}", flush=True)
    finally:
        lab.close()
    return table


def table(results: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """The README's table; sites with the same results share a row.

    Args:
        results: by the server's version, the site's version and the case.
    """
    lines = [f"| server | site | {' | '.join(CASES)} |", f"| --- | --- |{' --- |' * len(CASES)}"]
    for server, sites in results.items():
        names: dict[tuple[str, ...], list[str]] = {}
        for site, cells in sites.items():
            row = tuple(_cell(server, site, case, cells[case]) for case in CASES)
            names.setdefault(row, []).append(f"{site} ²" if (server, site) in _ABNORMAL else site)
        lines += [f"| {server} | {', '.join(sites)} | {' | '.join(row)} |" for row, sites in names.items()]
    return "\n".join(lines)


def _cell(server: str, site: str, case: str, result: str) -> str:
    if case == "opt-out" and result == "complete":
        return "refused, no byte"
    killed = (server, site) in NO_TASK and case in _KILLED_INSTEAD and result == "complete"
    return f"{result} ¹" if killed else result


def main(servers: Sequence[str]) -> int:
    """Do every case, print the table, and return 1 if the README shows something else."""
    with tempfile.TemporaryDirectory() as scratch:
        pythons = pythons_of(Path(scratch) / "runtimes")
        results = {server: rows(Path(scratch) / server, server, pythons) for server in servers}
    text = table(results)
    print(text)
    readme = README.read_text().splitlines()
    other = [line for line in text.splitlines() if line not in readme]
    print("\n".join(["not so in README.md:", *other] if other else ["as in README.md"]))
    return int(bool(other))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or RUNTIMES))
