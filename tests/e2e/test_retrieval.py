"""Reading, following and fetching a job's logs through an admin session, while it runs and after it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream import LogClient, LogQuery, SessionPort
from nvflare_logstream.client.checks import verify_export
from nvflare_logstream.errors import ArgumentError, RetrievalError
from nvflare_logstream.flare.admin_protocol import COMMAND

from .lab import SITES, Job, Lab

pytestmark = pytest.mark.timeout(240)

SCRIPT = [
    ["wait_for", "go"],
    ["lines", 150, 0.01],
    ["rotate"],
    ["lines", 50, 0.01],
    ["traceback"],
    ["rotate"],
    ["warning", "the end"],
]


def submit(lab: Lab) -> Job:
    return lab.submit("read", SCRIPT, sites=[*SITES, "site-3"])


@pytest.fixture(scope="module")
def job(jobs: Job) -> Job:
    """It writes its lines now."""
    for site in jobs.sites:
        jobs.signal(site)
    return jobs


def client_of(lab: Lab, user: str | None = None) -> LogClient:
    return LogClient(SessionPort(lab.federation.session(user) if user else lab.federation.session()))


def test_following_all_sites_shows_each_line_once_and_ends_by_itself(lab: Lab, job: Job) -> None:
    texts, notices = defaultdict(str), []
    for event in client_of(lab).follow(job.id, LogQuery(sites=("all",))):
        if event.kind == "text":
            texts[event.site] += event.text
        else:
            notices.append((event.kind, event.site))
    for site in ("server", *SITES):
        assert texts[site].encode() == job.written(site), site
        assert ("joined", site) in notices and ("ended", site) in notices
    assert "site-3" not in texts and ("refused", "site-3") in notices
    assert notices[-1] == ("over", "") and event.text == "FINISHED:COMPLETED"


def test_reading_and_fetching_after_the_end(lab: Lab, job: Job) -> None:
    client = client_of(lab)
    job.wait_closed("site-1")
    lines = job.written("site-1").decode().splitlines(keepends=True)
    read = client.read(job.id, LogQuery(sites=("site-1",), tail=10))["site-1"]
    assert read.text == "".join(lines[-10:]) and read.truncated
    assert (
        client.read(job.id, LogQuery(sites=("site-*",), level="WARNING"))["site-2"].text.count("the end") == 1
    )
    assert (
        "breaks over two lines"
        in client.read(job.id, LogQuery(sites=("site-1",), file="error_log.txt"))["site-1"].text
    )
    stream = next(s for s in client.streams(job.id) if (s.site, s.file) == ("site-1", "log.txt"))
    assert b"".join(client.fetch(job.id, stream)) == job.written("site-1")
    refused = client.read(job.id, LogQuery(sites=("site-3",)))["site-3"]
    assert (refused.stream.verdict, refused.text) == ("refused", "")


def test_exporting_and_verifying_after_the_end(lab: Lab, job: Job, tmp_path: Path) -> None:
    client = client_of(lab)
    for site in ("server", *SITES):
        job.wait_closed(site)
    assert all(found.good for found in client.verify(job.id) if found.site in SITES)
    manifest = client.export(job.id, tmp_path)
    for site in ("server", *SITES):
        assert (tmp_path / site / "log.txt").read_bytes() == job.written(site)
    assert {row.stream.verdict for row in manifest.streams if row.stream.site == "site-3"} == {"refused"}
    assert not (tmp_path / "site-3").exists() and all(found.good for found in verify_export(tmp_path))


def test_the_readmes_example_runs(lab: Lab, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.wait_closed("site-1")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = (
        block for block in re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S) if "LogClient" in block
    )
    names: dict[str, Any] = {}
    exec(example, names)
    names["show"](lab.federation.session(), job.id)
    shown = capsys.readouterr().out
    assert (
        "site-3 log.txt 0 refused" in shown
        and "breaks over two lines" in shown
        and "over FINISHED:COMPLETED" in shown
    )


def test_who_may_not_see_the_job_sees_nothing(lab: Lab, job: Job) -> None:
    job.wait_closed("site-1")
    with pytest.raises(RetrievalError, match="not authorized") as caught:
        client_of(lab, "member@nvidia.com").streams(job.id)
    assert caught.value.code == "AUTH_FAILED"
    assert client_of(lab, "lead@nvidia.com").streams(job.id), "the right is one of the category view"
    with pytest.raises(RetrievalError) as caught:
        client_of(lab).streams("00000000-0000-0000-0000-000000000000")
    assert caught.value.code == "JOB_NOT_FOUND"
    with pytest.raises(ArgumentError, match="grep: "):
        LogQuery(grep="((")
    session = lab.federation.session()
    hostile = {"v": 1, "op": "read", "site": "site-1", "file": "log.txt", "filters": {"grep": "(("}}
    reply = session._get_dict_data(
        session._do_command(f"{COMMAND} {job.id}", enforce_meta=False, props=hostile)
    )
    assert reply["error"].startswith("filters.grep: ") and reply["code"] == "INVALID_ARGS"
