"""What somebody types who knows kubectl, journalctl and grep and has read nothing: each command does what is
meant, or says in one line what to type instead. One of the sites has a clock that is ten minutes slow."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime

import pytest

from .lab import SITES, Job, Lab, ended, wait_for

pytestmark = pytest.mark.timeout(240)

SLOW = "site-6"
SCRIPT = [
    ["wait_for", "begin"],
    ["lines", 600, 0.0, "of training"],
    ["warning", "loss is not a number"],
    ["traceback"],
    ["lines_until", "go", 0.2],
]
STAMP = re.compile(r"^(\S+) (\d{4}-\S+ [\d:]+),(\d{3}) - ", re.M)


def submit(lab: Lab) -> Job:
    """It writes from the first test to the last."""
    return lab.submit("session", SCRIPT, sites=[*SITES, SLOW])


@pytest.fixture
def job(jobs: Job) -> Job:
    for site in jobs.sites:
        jobs.signal(site, "begin")
    for site in jobs.sites:
        jobs.wait_live(site, b"breaks over two lines")
        jobs.wait_live(site, b"- line 9\n")
    return jobs


def lines_of(job: Job, site: str) -> list[str]:
    """What the server has of a site's log by now."""
    return job.path(site, "log.txt").read_text().splitlines(keepends=True)


def of_training(lines: list[str]) -> str:
    """What was written since the first test began; the lines before may be older than five minutes."""
    (first,) = [number for number, line in enumerate(lines) if line.endswith(" line 0 of training\n")]
    return "".join(lines[first:])


def text_of(site: str, shown: str) -> str:
    """A site's own lines of those of several sites."""
    return "".join(
        line.removeprefix(f"{site} ")
        for line in shown.splitlines(keepends=True)
        if line.startswith(f"{site} ")
    )


def refused(run: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that printed nothing else; it is one line, with where to read more below."""
    assert run.returncode == 4 and not run.stdout and len(run.stderr.splitlines()) <= 4, run
    return run.stderr.splitlines()[0]


def test_a_job_and_nothing_else(lab: Lab, job: Job) -> None:
    stored = lines_of(job, "server")
    run = lab.run("logs", job.id)
    assert run.returncode == 0 and not run.stderr and stored[-1] in run.stdout
    assert set(run.stdout.splitlines(keepends=True)) <= set(lines_of(job, "server"))


def test_the_last_five_minutes_of_a_site_whose_clock_is_slow(lab: Lab, job: Job) -> None:
    stored = {site: of_training(lines_of(job, site)) for site in job.sites}
    ours, merged = lab.run_all(
        ["logs", job.id, "--since", "5m", "--site", SLOW],
        ["logs", job.id, "--since", "5m", "--site", "all", "--merge"],
    )
    skews = {info.key.site: info.skew for info in lab.streams(job.id) if info.key.file == "log.txt"}
    assert skews[SLOW] == pytest.approx(-600, abs=5) and abs(skews["site-1"]) < 5
    assert stored[SLOW] in ours.stdout and ours.returncode == 0, ours
    latest, order = dict.fromkeys(skews, 0.0), []
    for site, stamp, millis in STAMP.findall(merged.stdout):
        right = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S").timestamp() + int(millis) / 1000 - skews[site]
        latest[site] = max(latest[site], right)
        order.append(latest[site])
    assert order == sorted(order)
    for site in job.sites:
        assert stored[site] in text_of(site, merged.stdout)


def test_how_many_lines(lab: Lab, job: Job) -> None:
    stored, other = lines_of(job, "site-1"), lines_of(job, "site-2")
    site = ("logs", job.id, "--site", "site-1")
    minus_one, every, first, last, without = lab.run_all(
        [*site, "--tail=-1"],
        [*site, "--tail", "all"],
        [*site, "--head", "2"],
        ["logs", job.id, "--site", "site-1,site-2", "-n", "3"],
        ["logs", job.id, "--exclude-site", f"server,{SLOW}", "--head", "1"],
    )
    assert len(stored) > 600
    assert minus_one.stdout.startswith("".join(stored)) and every.stdout.startswith("".join(stored))
    assert first.stdout == "".join(stored[:2])
    parts = re.fullmatch(
        r"===== site-1 =====\n((?:.+\n){3})\n*===== site-2 =====\n((?:.+\n){3})", last.stdout
    )
    assert parts, last
    for part, before, name in ((parts[1], stored, "site-1"), (parts[2], other, "site-2")):
        now = lines_of(job, name)
        assert part in "".join(now[len(before) - 3 :]), name
    assert without.stdout.replace("\n\n", "\n") == (
        f"===== site-1 =====\n{stored[0]}===== site-2 =====\n{other[0]}"
    )


def test_which_lines(lab: Lab, job: Job) -> None:
    stored = lines_of(job, "site-1")
    site = ("logs", job.id, "--site", "site-1")
    either, apart, without = lab.run_all(
        [*site, "-e", "LINE 7 OF", "-e", "not a NUMBER", "-i"],
        [*site, "-g", "line (7|77) of", "-C", "1"],
        [*site, "-v", "-e", " - INFO - "],
    )
    (seventh,) = [line for line in stored if " line 7 of" in line]
    (further,) = [line for line in stored if " line 77 of" in line]
    (warning,) = [line for line in stored if "not a number" in line]
    at, beyond = stored.index(seventh), stored.index(further)
    assert either.stdout == seventh + warning
    assert apart.stdout == "".join([*stored[at - 1 : at + 2], "--\n", *stored[beyond - 1 : beyond + 2]])
    assert without.stdout.startswith("".join(line for line in stored if " - INFO - " not in line))
    assert " - INFO - " not in without.stdout


def test_times_and_levels(lab: Lab, job: Job) -> None:
    site = ("logs", job.id, "--site", f"site-1,{SLOW}")
    stored = lines_of(job, "site-1")
    today, past, never, odd = lab.run_all(
        ["logs", job.id, "--site", SLOW, "--since", "today", "--level", "warn"],
        [*site, "--until", "yesterday", "-f"],
        [*site, "--since", "10:00", "--until", "9:00"],
        [*site, "--since", "5 minutes"],
    )
    _, warning, after = today.stdout.partition("WARNING - loss is not a number\n")
    assert warning and "ValueError: a value that\nbreaks over two lines\n" in after, today
    assert "Traceback (most recent call last):\n" in today.stdout and " - INFO - " not in today.stdout
    assert (past.returncode, past.stdout) == (0, ""), past
    assert "not after until, '9:00'" in refused(never)
    assert "5 minutes" in refused(odd) and "10m" in refused(odd)
    assert len(stored) < len(lines_of(job, "site-1")), "the follow ended while the job was running"


def test_jobs_and_their_logs(lab: Lab, job: Job) -> None:
    jobs, of_job = lab.run_all(["status"], ["status", job.id])
    (line,) = [line for line in jobs.stdout.splitlines() if job.id[:8] in line]
    assert "RUNNING" in line and "session" in line and "streaming: 4 sites" in line
    for site in (*job.sites, "server"):
        rows = rf"^ *{site} +error_log.txt +streaming .*\n(?: +log.json .*\n)? +log.txt +streaming "
        assert re.search(rows, of_job.stdout, re.M), of_job.stdout


def test_what_is_wrong_is_said_in_a_line_with_what_to_type(lab: Lab, job: Job) -> None:
    typo, verb, command, option, level = lab.run_all(
        ["logs", job.id, "-f", "--site", "site-11"],
        ["get", "logs", job.id],
        ["log", job.id],
        ["logs", job.id, "--tial", "3"],
        ["logs", job.id, "--level", "wran"],
    )
    assert typo.returncode == 1 and not typo.stdout
    assert "site-11: no such site in this job; the job has server, site-1, site-2, site-6" in typo.stderr
    assert refused(command) == "No such command: log. Did you mean logs?"
    assert refused(option) == "No such option: --tial. Did you mean --tail?"
    assert refused(verb) == "No such command: get. Did you mean logs?"
    assert "WRAN" in refused(level) and "WARNING" in refused(level)


def test_a_follow_ends_with_its_job(lab: Lab, job: Job) -> None:
    stored = lines_of(job, SLOW)
    notices = lab.root / "session.err"
    with notices.open("w") as err:
        command = ("logs", job.id, "-f", "--site", f"site-1,{SLOW}", "--since", "5m")
        follower = lab.command(*command, stderr=err)
    wait_for(lambda: notices.read_text().count(": streaming\n") == 2, "the follower to begin")
    for site in job.sites:
        job.signal(site)
    assert job.wait() == "FINISHED:COMPLETED"
    run = ended(follower)
    told = notices.read_text()
    assert run.returncode == 0 and told.splitlines()[-1] == "job: over: FINISHED:COMPLETED", told
    for site in ("site-1", SLOW):
        written = job.written(site).decode().splitlines(keepends=True)
        assert text_of(site, run.stdout).endswith(of_training(written))
    assert len(stored) < len(lines_of(job, SLOW))
