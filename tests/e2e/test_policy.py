"""What a site keeps to itself, what a job may bring along, and what no site may do to another."""

from __future__ import annotations

import json
import re

import pytest
from nvflare.fuel.utils.config_factory import ConfigFactory

from nvflare_logstream.wire.upload_reply import decode_reply

from .lab import LOGS, Job, Lab

pytestmark = pytest.mark.timeout(300)

OURS = {"id": "own", "path": "nvflare_logstream.JobLogStreamer", "args": {"log_files": list(LOGS)}}
STOCK = {"id": "stock", "path": "nvflare.app_common.logging.job_log_streamer.JobLogStreamer"}
FORMATS = ("json", "conf", "yml")
STOCK_JOB = {
    "executor": "nvflare.app_common.np.np_trainer.NPTrainer",
    "executor_args": {},
    "custom": None,
    "workflow": {
        "path": "nvflare.app_common.workflows.fedavg.FedAvg",
        "args": {"num_clients": 2, "num_rounds": 1},
    },
    "server_components": [
        {"id": "persistor", "path": "nvflare.app_common.np.np_model_persistor.NPModelPersistor"}
    ],
}


def submit(lab: Lab) -> dict[str, Job]:
    """site-3 has opted out; site-4's allow-list lacks this package; site-5 opts out while a job runs."""
    script = [["lines", 300, 0.005], ["warning", "secret"], ["threads", "threads"]]
    declared = {"site-3": {"components": [OURS, STOCK]}}
    jobs = {
        form: lab.submit(
            f"{form}-job",
            script,
            sites=["site-1", "site-3"],
            apps=declared,
            client_components=[OURS],
            config_format=form,
        )
        for form in FORMATS
    }
    jobs["strict"] = lab.submit("strict", {}, sites=["site-1", "site-4"], **STOCK_JOB)
    odd = {"site-1": {"components": ...}, "site-2": {"components": None}}
    jobs["odd components"] = lab.submit("odd-components", script, apps=odd)
    jobs["no list"] = lab.submit(
        "no-list", script, sites=["site-1"], apps={"site-1": {"components": {"a": 1}}}
    )
    midway = [["append", "train.log", text, 20] for text in ("before", "secret", "later")]
    jobs["midway"] = lab.submit(
        "midway",
        [midway[0], ["wait_for", "said"], midway[1], ["wait_for", "go"], midway[2]],
        sites=["site-5"],
    )
    forge = {
        "site-1": [],
        "site-2": [["forge", "site-1", "", "own"], ["forge", "site-1", jobs["json"].id, "other"]],
    }
    jobs["forging"] = lab.submit("forging", forge)
    return jobs


@pytest.mark.parametrize("form", FORMATS)
def test_opted_out_site(jobs: dict[str, Job], form: str) -> None:
    job = jobs[form]
    assert job.wait() == "FINISHED:COMPLETED"
    for file in LOGS:
        stream = job.wait_closed("site-3", file)
        assert stream.verdict == "refused" and "allow_log_streaming is false" in stream.verdict_reason
    assert not job.path("site-3", "").exists()
    config = ConfigFactory.load_config(
        "config_fed_client.json", [str(job.directory("site-3") / "app_site-3" / "config")]
    )
    assert config is not None and not config.to_dict()["components"]
    assert b"secret" in job.written("site-3")


def test_a_no_while_a_job_runs(lab: Lab, jobs: dict[str, Job]) -> None:
    """No other job runs at site-5 by now. The job goes on, and the yes that follows brings nothing back."""
    job, resources = jobs["midway"], lab.federation.client_dir("site-5") / "local" / "resources.json"
    job.wait_live("site-5", b"before 19\n", "train.log")
    before = resources.read_text()
    try:
        resources.write_text(json.dumps({**json.loads(before), "allow_log_streaming": False}))
        job.signal("site-5", "said")
        stream = job.wait_closed("site-5", "train.log", 30)
    finally:
        resources.write_text(before)
    sent = job.path("site-5", "train.log").read_bytes()
    assert sent.endswith(b"before 19\n") and b"secret" not in sent
    why = f"the site does not allow it (allow_log_streaming is false), from byte {len(sent)} on"
    assert (stream.verdict, stream.verdict_reason) == ("refused", why)
    job.signal("site-5")
    assert job.wait() == "FINISHED:COMPLETED"
    assert b"later 19\n" in job.written("site-5", "train.log")
    assert job.path("site-5", "train.log").read_bytes() == sent
    assert job.wait_closed("site-5", "train.log").verdict == "refused"


@pytest.mark.parametrize("form", FORMATS)
def test_job_declares_its_own_streamer(jobs: dict[str, Job], form: str) -> None:
    jobs[form].wait()
    jobs[form].assert_complete("site-1")


def test_streaming_adds_one_thread(jobs: dict[str, Job]) -> None:
    jobs["json"].wait()
    names = {
        site: (jobs["json"].directory(site) / "threads").read_text().split("\n")
        for site in jobs["json"].sites
    }
    # The runtime's threads have a number, in the order in which they were begun, and as many as were needed.
    kinds = {site: {re.sub(r"[0-9]+", "", name) for name in names[site]} for site in names}
    assert kinds["site-1"] - kinds["site-3"] == {"nvflare_logstream"}
    assert names["site-1"].count("nvflare_logstream") == 1 and len(names["site-1"]) < 30


def test_allow_list_without_this_package(jobs: dict[str, Job]) -> None:
    """A streamer in the config would end the whole job; the site's parent follows the files instead."""
    job = jobs["strict"]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in job.sites:
        job.assert_complete(site)
    config = json.loads(
        (job.directory("site-4") / "app_site-4" / "config" / "config_fed_client.json").read_text()
    )
    assert not config["components"]


@pytest.mark.parametrize("name", ["odd components", "no list"])
def test_config_with_odd_components(jobs: dict[str, Job], name: str) -> None:
    """Missing, null or not a list: whatever the runtime makes of such a job, its logs arrive."""
    job = jobs[name]
    job.wait()
    for site in job.sites:
        job.assert_complete(site, outcome=job.wait_closed(site).outcome)


def test_no_site_writes_in_anothers_name(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["forging"]
    assert job.wait() == "FINISHED:COMPLETED"
    (answer,) = decode_reply((job.directory("site-2") / "own").read_bytes()).streams
    assert answer.status == "ok" and job.path("site-2", "forged.txt").read_bytes() == b"forged\n"
    (answer,) = decode_reply((job.directory("site-2") / "other").read_bytes()).streams
    assert answer.status == "refused" and "may not write logs of job" in answer.reason
    assert list(lab.store.rglob("forged.txt")) == [job.path("site-2", "forged.txt")]
    job.assert_complete("site-1")
