"""Sites behind relays: who sent a log is known all the same, and relays that die and come back cost no byte.

site-1 connects to relay-1, site-2 to relay-2, which itself connects to relay-1: all messages pass relay-1.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.private.defs import CellMessageHeaderKeys

from nvflare_logstream.lab.processes import CONSOLE
from nvflare_logstream.wire.upload_reply import decode_reply
from tests.ahead import Ahead

from .lab import SITES, Job, Lab, wait_for

pytestmark = [pytest.mark.timeout(240), pytest.mark.by_hand]

RELAYS = {"relay-1": ["relay-2", "site-1"], "relay-2": ["site-2"]}
FULL_NAMES = {"site-1": "relay-1.site-1", "site-2": "relay-1.relay-2.site-2"}


def submit(lab: Lab) -> dict[str, Job]:
    until_go = [["lines_until", "go", 0.01], ["rotate"], ["warning", "the end"]]
    jobs = {
        "relay killed": lab.submit("relay-killed", until_go),
        "job killed": lab.submit("job-killed", until_go),
    }
    forge = {site: forging(site, other) for site, other in zip(SITES, reversed(SITES), strict=True)}
    jobs["forging"] = lab.submit("forging", forge)
    return jobs


def forging(site: str, other: str) -> list[list[object]]:
    """What `site` does to write in the name of `other`."""
    name = {CellMessageHeaderKeys.CLIENT_NAME: other}
    origin = {MessageHeaderKey.ORIGIN: FULL_NAMES[other]}
    return [
        ["forge", other, "", "claimed"],
        ["forge", other, "", "name", name],
        ["forge", other, "", "origin", origin],
        ["forge", other, "", "both", name | origin],
    ]


def start_relay_lab(directory: Path) -> Lab:
    return Lab(directory, relays=RELAYS).begin(submit)


@pytest.fixture(scope="module")
def lab(begun: Ahead) -> Iterator[Lab]:
    lab = begun.result(start_relay_lab)
    yield lab
    lab.end()


def wait_for_more(job: Job, site: str) -> None:
    """Wait until the site has written some hundred lines more."""
    log = job.directory(site) / "log.txt"
    size = log.stat().st_size
    wait_for(lambda: log.stat().st_size > size + 20_000, f"more lines of {site}")


@pytest.mark.ahead(run=start_relay_lab)
def test_a_relay_killed_and_restarted_while_jobs_write_and_die(lab: Lab) -> None:
    job, killed = lab.jobs["relay killed"], lab.jobs["job killed"]
    for each in (job, killed):
        for site in SITES:
            each.wait_live(site)
    lab.federation.kill("relay-1")
    for site in SITES:
        os.kill(lab.federation.job_pid(site, killed.id), signal.SIGKILL)
        wait_for_more(job, site)
    lab.federation.start_site("relay-1")
    lab.federation.wait_ready()
    for site in SITES:
        job.signal(site)
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        job.assert_complete(site)
        assert b"the end" in job.written(site)
        killed.assert_complete(site, outcome=killed.wait_closed(site).outcome)
    for each in (job, killed):
        assert {stream.site for stream in lab.streams(each.id)} == {"server", *SITES}, "no relay is a site"


@pytest.mark.ahead(run=start_relay_lab)
def test_a_forged_name_is_refused_behind_relays(lab: Lab) -> None:
    job = lab.jobs["forging"]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in SITES:
        (answer,) = decode_reply((job.directory(site) / "claimed").read_bytes()).streams
        assert answer.status == "ok", "the runtime puts the site's own name into the place of the other"
        assert job.path(site, "forged.txt").read_bytes() == b"forged\n"
        for forged in ("name", "origin", "both"):
            assert (job.directory(site) / forged).read_bytes() == b"", forged
        job.assert_complete(site)
    for relay in RELAYS:
        said = (lab.federation.client_dir(relay) / CONSOLE).read_text()
        assert "unauthenticated msg (channel='nvflare_logstream'" in said, "the relay itself refuses it"
