"""A federation that changes over on different days: each site, and the server, with the runtime's own
components first and with ours later. Nobody has less than before, and at the end all is complete."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream.lab.kits import SiteSetup
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.streams import Verdict
from tests.ahead import Ahead

from .lab import CLIENT_SETUP, LOGS, SERVER_SETUP, Job, Lab, wait_for

pytestmark = [pytest.mark.timeout(240), pytest.mark.by_hand]

CHANGED, STOCK, AS_SHIPPED = SITES = ("site-1", "site-2", "site-3")
NOTHING: Mapping[str, Sequence[Any]] = {}
SCRIPT = [["lines", 500], ["traceback"], ["lines", 5, 0.05]]
LAST_LINES = 1500  # bytes; the runtime's own streamer leaves out what is written after the run, 680 or so
_LOGGING = "nvflare.app_common.logging"
_STOCK_STREAMER = {"id": "stock", "path": f"{_LOGGING}.site_log_streamer.SiteLogStreamer"}
# Our receiver comes with the job, the runtime's own streamer too.
_WITH_THE_JOB = {
    "server_components": [{"id": "receiver", "path": "nvflare_logstream.JobLogReceiver"}],
    "client_components": [{"id": "streamer", "path": f"{_LOGGING}.job_log_streamer.JobLogStreamer"}],
}
NOT_CHECKED = "sent by the runtime's own streamer: not checked"


class HalfwayLab(Lab):
    """A federation whose sites and server change over while it runs."""

    def change_over(self, name: str, setup: SiteSetup) -> None:
        """Restart a site, or the server, with other components."""
        kit = self.federation.server_dir if name == SERVER_SITE else self.federation.client_dir(name)
        resources = kit / "local" / "resources.json"
        self.federation.kill(name)
        resources.write_text(json.dumps(setup.apply(json.loads(resources.read_text()))))
        self.federation.start_site(name)

    def begin_job(self, name: str, more: Mapping[str, Sequence[Any]] = NOTHING) -> Job:
        """Submit a job for all sites; `more` is what single sites do besides."""
        scripts = {site: [*SCRIPT, *more.get(site, ())] for site in SITES}
        return self.submit(name, scripts, sites=SITES)


def start_halfway_lab(directory: Path) -> HalfwayLab:
    """The first day: one site has ours, all others have what the runtime ships."""
    stock = SiteSetup(remove_stock_log_components=False)
    sites = {
        CHANGED: CLIENT_SETUP,
        STOCK: SiteSetup([_STOCK_STREAMER]),
        AS_SHIPPED: stock,
    }
    lab = HalfwayLab(directory, clients=SITES, overrides=sites, server=stock)
    lab.begin(lambda lab: {})
    return lab


@pytest.fixture(scope="module")
def lab(begun: Ahead) -> Iterator[HalfwayLab]:
    lab = begun.result(start_halfway_lab)
    yield lab
    lab.end()


def assert_no_less_than_before(stored: bytes, written: bytes) -> None:
    assert written.startswith(stored), "no byte is there twice, and none is another"
    assert len(written) - len(stored) <= LAST_LINES, f"{len(stored)} of {len(written)} bytes"


def assert_unchecked(job: Job, site: str, file: str) -> None:
    stream = job.wait_closed(site, file, timeout=30)
    assert (stream.verdict, stream.verdict_reason) == (Verdict.PARTIAL, NOT_CHECKED)
    stored = job.path(site, file).read_bytes()
    assert stream.end == len(stored)
    assert_no_less_than_before(stored, job.written(site, file))


@pytest.mark.ahead(run=start_halfway_lab)
def test_nobody_has_less_than_before_while_a_federation_changes_over(lab: HalfwayLab) -> None:
    began = time.monotonic()

    def said(what: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s: {what}")

    # The server has the runtime's own receiver: a site with ours uses the runtime's own streamer.
    own = lab.submit("own", SCRIPT, sites=(STOCK,), **_WITH_THE_JOB)
    first = lab.begin_job("first")
    assert first.wait() == "FINISHED:COMPLETED"
    said("the first job is over")
    assert own.wait() == "FINISHED:COMPLETED"
    assert_unchecked(own, STOCK, "log.txt")
    said("the job with a receiver of its own is over")
    kept = lab.federation.server_dir / "jobs-storage" / first.id / f"LOG_log.txt_{CHANGED}"
    wait_for(kept.exists, "the log in the server's job store", 30)
    assert_no_less_than_before(kept.read_bytes(), first.written(CHANGED))
    assert first.written(CHANGED).count(b"the runtime's own streamer sends log.txt, error_log.txt to it") == 1

    # The server changes over: it gets all that a site with ours has written, before and after.
    lab.change_over(SERVER_SITE, SERVER_SETUP)
    lab.federation.wait_ready()
    said("the server has changed over")
    first.assert_complete(CHANGED)
    said("the first job is complete")
    killed = lab.submit("killed", [["lines", 300], ["wait_for", "go"], ["kill"]], sites=(STOCK,))
    second = lab.begin_job("second", {STOCK: [["forge_stock", CHANGED]]})
    killed.wait_live(STOCK, b"line 299")
    killed.signal(STOCK)
    assert second.wait() == "FINISHED:COMPLETED"
    said("the second job is over")
    second.assert_complete(CHANGED)
    assert_unchecked(second, STOCK, "log.txt")
    assert_unchecked(second, AS_SHIPPED, "error_log.txt")
    forged = {stream.site for stream in lab.streams(second.id) if stream.file == "forged.txt"}
    assert forged == {STOCK}, "who sent it is what the server has authenticated"
    shown = lab.nvflare("job", "logs", second.id, "--site", STOCK, "--tail", "100000").stdout
    assert "line 499" in shown and "traceback" in shown.lower()
    with zipfile.ZipFile(lab.federation.server_dir / "jobs-storage" / second.id / "workspace") as archive:
        for site, file in ((STOCK, "log.txt"), (AS_SHIPPED, "error_log.txt")):
            assert archive.read(f"{site}/{file}") == second.path(site, file).read_bytes()

    stream = killed.wait_closed(STOCK)
    assert stream.verdict is Verdict.PARTIAL
    assert stream.verdict_reason == f"{NOT_CHECKED}; broken off: the job's process ended"
    stored = killed.path(STOCK, "log.txt").read_bytes()
    assert b"line 299" in stored and killed.written(STOCK).startswith(stored)
    said("what a killed job had sent is kept")

    # The next site changes over.
    lab.change_over(STOCK, CLIENT_SETUP)
    lab.federation.wait_ready()
    said("the next site has changed over")
    third = lab.begin_job("third")
    assert third.wait() == "FINISHED:COMPLETED"
    for site in (CHANGED, STOCK):
        third.assert_complete(site, *LOGS)
    said("the third job is complete")
