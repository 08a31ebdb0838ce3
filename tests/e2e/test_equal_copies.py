"""The server's copy of a log is what the site wrote, whatever the job does to its log or to itself."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from .lab import LOGS, Job, Lab, difference, wait_for

pytestmark = pytest.mark.timeout(400)

_MANY_LINES = ["lines", 11_000, 0, "x" * 4000]  # 42 MiB; the runtime rotates at 20 MiB
_MIB = 1 << 20
_ODD_TEXT = "ключ 日本語 🙂 \u2028 \x85 \x00 end"
_LONG_LINES = [
    ["lines", 5, 0, _ODD_TEXT],
    ["raw", b"no line end, then invalid UTF-8: \xff\xfe\xc3(".hex()],
    ["raw", b"m".hex(), _MIB],
    ["raw", b"\r\n".hex()],
    ["raw", b"8".hex(), 8 * _MIB],
    ["raw", "0a"],
    ["warning", _ODD_TEXT],
]

# Each job: what its sites do; all get a streamer injected, whatever the format of their config.
SCRIPTS = {
    "normal": [
        ["lines", 200, 0.005],
        ["traceback"],
        ["warning", "a warning"],
        ["wait_for", "go"],
        ["traceback"],
    ],
    "abort": [["wait_for", "go"], ["lines_until", "never"]],
    "killed": {"site-1": [["bulk", _MIB], ["kill"]]},
    "exited": {"site-2": [["lines", 1000], ["exit", 3]]},
    "unimportable": [],
    "rotation": {"site-1": [["bulk", 5_000_000], ["rotate"], ["lines", 10]], "site-2": [_MANY_LINES]},
    "truncation": {
        "site-1": [["bulk", 500_000], ["wait_for", "go"], ["truncate"], ["lines", 30]],
        "site-2": [["lines", 30], ["wait_for", "go"], ["bulk", 9_000_000], ["truncate"], ["lines", 30]],
    },
    "regrowth": {
        "site-1": [["lines", 30], ["wait_for", "go"], ["truncate", 2_000_000], ["lines", 10]],
        "site-2": [["bulk", 2_000_000], ["copytruncate"], ["lines", 30]],
    },
    "other-file": [["append", "train.log", "epoch", 20], ["lines", 5, 0.01], ["append", "train.log", "end"]],
    "quiet": {"site-1": [["lines", 21], ["sleep", 60], ["lines", 3]], "site-2": _LONG_LINES},
}
MORE = {
    "unimportable": {"executor": "scripted_executor.NotThere"},
    "rotation": {"config_format": "conf"},
    "truncation": {"config_format": "yml"},
    "killed": {"sites": ["site-1"]},
    "exited": {"sites": ["site-2"]},
    "other-file": {"sites": ["site-5"]},
}


def submit(lab: Lab) -> tuple[dict[str, Job], set[str]]:
    """The jobs, and all verdicts on the log that is quiet for a minute, gathered from now on."""
    order = sorted(SCRIPTS, key="quiet".__ne__)  # the longest first
    jobs = {name: lab.submit(name, SCRIPTS[name], **MORE.get(name, {})) for name in order}
    verdicts: set[str] = set()

    def watch() -> None:
        while "complete" not in verdicts and not lab.over.wait(1.0):
            info = jobs["quiet"].stream("site-1")
            if info and info.end:
                verdicts.add(info.as_of(time.time(), 30.0).verdict)

    threading.Thread(target=watch, daemon=True).start()
    return jobs, verdicts


@pytest.fixture(scope="module")
def jobs(submitted: dict[str, Any]) -> dict[str, Job]:
    return submitted[__name__][0]


@pytest.fixture(scope="module")
def quiet_verdicts(submitted: dict[str, Any]) -> set[str]:
    return submitted[__name__][1]


def test_normal_end(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["normal"]
    job.wait_live("site-1", b"a value that\nbreaks over two lines")
    during = lab.nvflare("job", "logs", job.id, "--site", "site-1")
    assert during.returncode == 0 and "line 199" in during.stdout and "a warning" in during.stdout, during

    for site in job.sites:
        job.signal(site)
    assert job.wait() == "FINISHED:COMPLETED"
    job.assert_complete("site-1")
    job.assert_complete("site-2", *LOGS, "log_fl.txt")
    assert b"Good Bye!" in job.written("site-1")  # the runtime's last line, long after END_RUN
    job.assert_complete("server", outcome="FINISHED:COMPLETED")


def test_stock_commands_bring_the_complete_log(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["normal"]
    job.wait_closed("site-1")
    written = job.written("site-1")
    after = lab.nvflare("--format", "json", "job", "logs", job.id, "--site", "site-1", "--tail", "100000")
    assert json.loads(after.stdout)["data"]["logs"]["site-1"].encode() == written

    assert lab.nvflare("job", "download", job.id, "-o", str(lab.root / "download")).returncode == 0
    (downloaded,) = (lab.root / "download").rglob("workspace/site-1/log.txt")
    assert downloaded.read_bytes() == written


def test_abort_in_mid_run(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["abort"]
    for site in job.sites:
        job.signal(site)
    for site in job.sites:
        job.wait_live(site)
    lab.federation.abort(job.id)
    assert job.wait() == "FINISHED:ABORTED"
    for site in job.sites:
        info = job.wait_closed(site)
        job.assert_complete(site, outcome=info.outcome)


def test_job_process_dies(jobs: dict[str, Job]) -> None:
    for name, site, outcome in (("killed", "site-1", "signal 9"), ("exited", "site-2", "exit code 3")):
        jobs[name].wait()
        jobs[name].assert_complete(site, outcome=outcome)


def test_job_dies_before_it_starts(jobs: dict[str, Job]) -> None:
    job = jobs["unimportable"]
    job.wait()
    for site in job.sites:
        info = job.wait_closed(site)
        # The first to end has its own code; the other may be killed for it.
        assert info.outcome != "exit code 0"
        job.assert_complete(site, outcome=info.outcome)
        assert b"NotThere" in job.path(site, "error_log.txt").read_bytes()


def test_rotation(jobs: dict[str, Job]) -> None:
    job = jobs["rotation"]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in job.sites:
        job.assert_complete(site)
    assert len(list(job.directory("site-2").glob("log.txt.[0-9]*"))) >= 2


def test_site_that_streams_another_file(lab: Lab, jobs: dict[str, Job]) -> None:
    """It takes part with that file: nobody goes on waiting for a log.txt that it never sends."""
    job = jobs["other-file"]
    assert job.wait() == "FINISHED:COMPLETED"
    job.assert_complete("site-5", "train.log")
    assert job.path("site-5", "train.log").read_bytes().endswith(b"epoch 19\nend 0\n")
    streams = {stream.file: stream.verdict for stream in lab.streams(job.id) if stream.site == "site-5"}
    assert streams == {"train.log": "complete"}


def test_copytruncate(jobs: dict[str, Job]) -> None:
    jobs["regrowth"].wait_live("site-1")
    jobs["regrowth"].signal("site-1")
    assert jobs["regrowth"].wait() == "FINISHED:COMPLETED"
    jobs["regrowth"].assert_complete("site-2")


@pytest.mark.parametrize(
    ("name", "site"), [("truncation", "site-1"), ("truncation", "site-2"), ("regrowth", "site-1")]
)
def test_truncation(jobs: dict[str, Job], name: str, site: str) -> None:
    """What was read in time is there, what was not is in the ledger at its place; nothing else is missing."""
    job = jobs[name]
    if name == "truncation":
        wait_for(lambda: job.path("site-1", "log.txt").exists(), "the first bytes", 240)
        wait_for(lambda: job.path("site-1", "log.txt").stat().st_size > 500_000, "the bulk")
        job.signal("site-1")
        job.wait_live("site-2")
        job.signal("site-2")
    assert job.wait() == "FINISHED:COMPLETED"
    info, written = job.wait_closed(site), job.written(site)
    stored = job.path(site, "log.txt").read_bytes()
    if info.verdict == "complete":
        assert stored == written
        return
    (loss,) = info.losses
    assert info.verdict == "lost" and "truncated" in info.verdict_reason
    missing = len(written) - len(stored)
    assert loss.length in (None, missing), f"{loss}, {missing} bytes are missing"
    around = written[: loss.offset] + written[loss.offset + missing :]
    assert stored == around, difference(stored, around)


def test_quiet_job_and_long_lines(jobs: dict[str, Job], quiet_verdicts: set[str]) -> None:
    job = jobs["quiet"]
    wait_for(lambda: "complete" in quiet_verdicts, "the end of the quiet job", 200)
    # A site that writes nothing still shows signs of life.
    assert quiet_verdicts == {"streaming", "complete"}

    assert job.wait() == "FINISHED:COMPLETED"
    for site in job.sites:
        job.assert_complete(site)
    lines = job.written("site-2").split(b"\n")
    assert {len(line) // _MIB for line in lines if len(line) >= _MIB} == {1, 8}
