"""An admin writes into the site's resources.json while a job runs: from then on nothing more of it leaves."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.streaming import StreamContextKey
from nvflare.app_common.logging import constants
from nvflare.app_common.streamers import log_streamer

from nvflare_logstream import JobLogStreamer
from nvflare_logstream.flare.kept_back import keep_for_good
from nvflare_logstream.flare.shared import shared
from nvflare_logstream.streams import Verdict
from tests.unit.conftest import wait_for
from tests.unit.fake_runtime import context
from tests.unit.test_widgets import ADMITTED, JOB, LINES, Federation, fire

NO = {"allow_log_streaming": False}
SECRET = b"written after the no\n"


@pytest.fixture
def federation(memory_path):
    federation = Federation(memory_path)
    federation.start_server()
    federation.server.run(JOB, "site-1")
    yield federation
    federation.stop()


def resources(federation) -> Path:
    return Path(federation.client.workspace.get_root_dir()) / "local" / "resources.json"


def say(federation, what) -> None:
    """As an admin's editor does: the file is there at every moment, as it was or as it will be."""
    new = resources(federation).with_name("new")
    new.write_text(what if isinstance(what, str) else json.dumps(what))
    os.replace(new, resources(federation))


def start_job(federation, *files) -> tuple[JobLogStreamer, object]:
    """The job's process streams the first lines."""
    federation.log.write_bytes(LINES)
    streamer, engine = JobLogStreamer(list(files) or None, poll_interval=0.01), federation.job_engine()
    fire(streamer, EventType.START_RUN, context(engine, JOB))
    wait_for(lambda: (stream := federation.stream()) and stream.end == len(LINES))
    return streamer, engine


def log_more(federation) -> None:
    with federation.log.open("ab") as log:
        log.write(SECRET)


def is_refused(federation) -> bool:
    stream = federation.stream()
    return stream.verdict is Verdict.REFUSED and stream.end == len(LINES)


@pytest.mark.parametrize("with_site", [True, False])
def test_a_job_that_runs_sends_nothing_more(federation, with_site):
    resources(federation).write_text(json.dumps(ADMITTED))
    if with_site:
        federation.start_site(ADMITTED)
        federation.site_event(EventType.BEFORE_JOB_LAUNCH)
        federation.site_event(EventType.AFTER_JOB_LAUNCH)
    streamer, engine = start_job(federation)
    say(federation, NO)
    log_more(federation)
    wait_for(lambda: is_refused(federation))
    reason = federation.stream().verdict_reason
    assert "allow_log_streaming is false" in reason and f"from byte {len(LINES)} on" in reason
    say(federation, ADMITTED)  # what is said later brings nothing back
    log_more(federation)
    fire(streamer, EventType.END_RUN, context(engine, JOB))
    if with_site:
        federation.site_event(EventType.JOB_COMPLETED)
        assert federation.site._sender.wait_finished(10)
    assert is_refused(federation)


def test_logs_that_the_parent_follows_are_sent_no_more(federation):
    federation.start_site({"class_allow_list": []})
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    federation.log.write_bytes(LINES)
    wait_for(lambda: (stream := federation.stream()) and stream.end == len(LINES))
    say(federation, NO)
    log_more(federation)
    wait_for(lambda: is_refused(federation))
    say(federation, {"class_allow_list": []})
    federation.site_event(EventType.JOB_COMPLETED)
    assert federation.site._sender.wait_finished(10)
    assert is_refused(federation)


def test_a_later_life_of_the_site_sends_nothing_either(federation):
    federation.start_site(ADMITTED)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    start_job(federation)
    say(federation, NO)
    log_more(federation)
    wait_for(lambda: is_refused(federation))
    federation.site._sender.stop(5.0)
    shared.reset()
    federation.start_site(ADMITTED)
    assert federation.site._sender.wait_finished(10)
    assert is_refused(federation)


def test_a_no_that_the_server_has_not_heard_of_is_told_by_a_later_life_of_the_site(federation):
    """The server was away, and the job's process and its parent ended before it came back."""
    federation.start_site(ADMITTED)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    streamer, _ = start_job(federation)
    shared.job_sender.release(streamer).stop(5.0)
    keep_for_good(federation.client.workspace, JOB, "the site said no")
    log_more(federation)
    shared.reset()
    federation.start_site(ADMITTED)
    wait_for(lambda: is_refused(federation))
    assert federation.stream().verdict_reason == f"the site said no, from byte {len(LINES)} on"


@pytest.mark.parametrize("restarts", [False, True])
def test_logs_that_a_pattern_stands_for_are_refused_at_the_end_too(federation, restarts):
    """Only the server knows which of them were sent."""
    federation.start_site(ADMITTED, log_files=["log.txt", "*.log"])
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.log.with_name("rank.log").write_bytes(LINES)
    streamer, _ = start_job(federation, "log.txt", "*.log")
    wait_for(lambda: (stream := federation.stream("rank.log")) and stream.end == len(LINES))
    shared.job_sender.release(streamer).stop(5.0)
    keep_for_good(federation.client.workspace, JOB, "the site said no")
    if restarts:
        shared.reset()
        federation.start_site(ADMITTED, log_files=["log.txt", "*.log"])
    else:
        federation.site_event(EventType.JOB_COMPLETED)
    for name in ("log.txt", "rank.log"):
        wait_for(lambda name=name: federation.stream(name).verdict is Verdict.REFUSED)
        assert federation.stream(name).end == len(LINES)


def test_a_job_that_does_not_see_the_policy_is_refused_by_the_server(federation, memory_path):
    """In a pod, say, which has a copy of the site's directory; by whatever name its logs go."""
    federation.start_site(ADMITTED, log_files=["log.txt", "*.log"])
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    copy = Federation.__new__(Federation)
    copy.client = type(federation.client)(memory_path / "pod", site="site-1")
    directory = Path(copy.client.workspace.get_log_root(JOB))
    directory.mkdir(parents=True)
    for name in ("log.txt", "rank.log"):
        (directory / name).write_bytes(LINES)
    shared.reset()  # another process
    engine = federation.job_engine()
    engine.workspace = copy.client.workspace
    streamer = JobLogStreamer(["log.txt", "*.log"], poll_interval=0.01)
    fire(streamer, EventType.START_RUN, context(engine, JOB))
    for name in ("log.txt", "rank.log"):
        wait_for(lambda name=name: (s := federation.stream(name)) and s.end == len(LINES))
    say(federation, NO)
    for name in ("log.txt", "rank.log"):
        wait_for(lambda name=name: federation.stream(name).verdict is Verdict.REFUSED)
        with (directory / name).open("ab") as log:
            log.write(SECRET)
    fire(streamer, EventType.END_RUN, context(engine, JOB))
    assert {federation.stream(name).end for name in ("log.txt", "rank.log")} == {len(LINES)}


def test_the_next_job_is_let_out_again(federation):
    federation.start_site(ADMITTED)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.AFTER_JOB_LAUNCH)
    start_job(federation)
    say(federation, NO)
    wait_for(lambda: is_refused(federation))
    say(federation, ADMITTED)
    federation.site_event(EventType.JOB_COMPLETED)
    sender = federation.site._sender
    federation.server.run("job-2", "site-1")
    directory = federation.log.parent.parent / "job-2"
    directory.mkdir()
    (directory / "log.txt").write_bytes(LINES)
    sender.finish("job-2", directory, ["log.txt"], "exit code 0")
    assert sender.wait_finished(10)
    assert [stream.verdict for stream in federation.store.streams("job-2")] == [Verdict.COMPLETE]


@pytest.mark.parametrize("text", [json.dumps(NO), "{"])
def test_the_runtimes_own_streamer_ends_too(federation, text):
    """Whoever began it: the site's fallback, or the job itself. No part, no end of the log and no close."""
    federation.start_site(ADMITTED)
    federation.log.write_bytes(LINES)
    asked, sent, over = context(federation.job_engine(), JOB), [], threading.Event()
    assert constants.is_log_streaming_allowed(asked)
    producer = log_streamer._LogTailProducer(str(federation.log), 1 << 16, 5.0, 0.01, over, 10.0)
    stream_ctx = {StreamContextKey.CHANNEL: constants.Channels.LOG_STREAMING_CHANNEL}
    part, _ = producer.produce(stream_ctx, asked)
    sent.append(part[log_streamer.KEY_DATA])
    say(federation, text)
    log_more(federation)
    assert producer.produce(stream_ctx, asked) == (None, 0.0) and sent == [LINES]
    assert not constants.is_log_streaming_allowed(asked)
    # What a job's own code sends under a name of its own is its own affair.
    part, _ = producer.produce({StreamContextKey.CHANNEL: "the job's own"}, asked)
    assert part[log_streamer.KEY_DATA] == SECRET
    producer.close()


def test_the_runtimes_own_streamer_does_not_begin_what_was_kept_back(federation):
    """Our own has ended the job's logs; where the server has no receiver of ours, that one would follow."""
    federation.start_site(ADMITTED)
    keep_for_good(federation.client.workspace, JOB, "the site said no")
    assert not constants.is_log_streaming_allowed(context(federation.job_engine(), JOB))
    assert constants.is_log_streaming_allowed(context(federation.job_engine(), "job-2"))


def test_the_runtimes_own_streamer_does_not_begin_where_it_could_not_be_ended(
    federation, monkeypatch, caplog
):
    """A later version may name its parts otherwise; the job runs on."""
    federation.start_site(ADMITTED)
    monkeypatch.delattr(log_streamer, "_LogTailProducer")
    assert not constants.is_log_streaming_allowed(context(federation.job_engine(), JOB))
    assert "the runtime's own log streamer stays off" in caplog.text
