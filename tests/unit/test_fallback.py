"""A site with our components whose server has none: it uses the runtime's own streamers, and ours later."""

from __future__ import annotations

import json
import logging
import threading
import time
from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.logging.job_log_streamer import JobLogStreamer as RuntimesStreamer
from nvflare.widgets.widget import Widget

from nvflare_logstream import JobLogStreamer
from nvflare_logstream.flare import cell_channel, fallback, runtime_stock
from nvflare_logstream.streams import Verdict
from tests.unit.conftest import wait_for
from tests.unit.fake_runtime import context
from tests.unit.test_widgets import ADMITTED, JOB, LINES, Federation, fire

RUN = [EventType.START_RUN, EventType.ABOUT_TO_END_RUN, EventType.END_RUN]


class Stock(Widget):
    """A component of the runtime's: what it was made for, and the events that it was told."""

    def __init__(self, file: str):
        super().__init__()
        self.file, self.events, self.jobs = file, [], []
        self.register_event_handler([*RUN, EventType.JOB_COMPLETED], self._take)

    def _take(self, event_type, fl_ctx):
        self.events.append(event_type)
        self.jobs.append(fl_ctx.get_prop(FLContextKey.CURRENT_JOB_ID))


@pytest.fixture
def stock(monkeypatch):
    """The runtime's own components that were made, of a job's process and of a site's parent process."""
    made = SimpleNamespace(job=[], site=[], receives=True)

    def maker(components):
        def make(file):
            components.append(Stock(file))
            return components[-1]

        return make

    monkeypatch.setattr(fallback, "stock_receives", lambda engine: made.receives)
    monkeypatch.setattr(runtime_stock, "stock_job_streamer", maker(made.job))
    monkeypatch.setattr(runtime_stock, "stock_site_streamer", maker(made.site))
    return made


@pytest.fixture
def federation(memory_path):
    federation = Federation(memory_path)
    federation.client.new_context = FLContext
    yield federation
    federation.stop()


def answer_without_receiver(federation):
    """The server, and the job's server process, answer that they have none."""
    for cell in ("server", f"server.{JOB}"):
        federation.network.cell(cell)


def be_away(federation):
    """The server does not answer."""
    federation.network.cells.pop("server")


def job_engine(federation):
    engine = federation.job_engine()
    engine.new_context = FLContext
    return engine


def start_job(federation, *files, **arguments):
    streamer, engine = JobLogStreamer(list(files) or None, **arguments), job_engine(federation)
    federation.log.write_bytes(LINES)
    fire(streamer, EventType.START_RUN, context(engine, JOB))
    return streamer, engine


def end_job(streamer, engine) -> float:
    """Returns how many seconds the end took."""
    began = time.monotonic()
    for event in RUN[1:]:
        fire(streamer, event, context(engine, JOB))
    return time.monotonic() - began


def test_a_job_whose_server_has_no_receiver_sends_by_the_runtimes_own_streamer(federation, stock, caplog):
    answer_without_receiver(federation)
    streamer, engine = start_job(federation)
    wait_for(lambda: [component.events for component in stock.job] == [RUN[:1]] * 2)
    assert [component.file for component in stock.job] == ["log.txt", "error_log.txt"]
    assert end_job(streamer, engine) < 4.0, "nobody takes what is left: it is not waited for"
    assert [component.events for component in stock.job] == [RUN] * 2
    lines = [record.getMessage() for record in caplog.records if "receiver" in record.getMessage()]
    assert len(lines) == 1 and "the runtime's own streamer sends log.txt, error_log.txt" in lines[0]


def test_a_pattern_is_no_file_of_the_runtimes_own_streamer(federation, stock, caplog):
    """It would wait for a file named "*.log", and say that it sends it."""
    answer_without_receiver(federation)
    streamer, engine = start_job(federation, "log.txt", "*.log")
    wait_for(lambda: [component.events for component in stock.job] == [RUN[:1]])
    end_job(streamer, engine)
    assert [component.file for component in stock.job] == ["log.txt"]
    assert "streamer sends log.txt to it" in caplog.text


def test_what_the_job_itself_sends_by_the_runtimes_own_streamer_is_not_sent_twice(federation, stock):
    """Both receivers would write one file, and the second to end would find it gone."""
    answer_without_receiver(federation)
    streamer, engine = JobLogStreamer(), job_engine(federation)
    own = RuntimesStreamer("log.txt")
    engine.get_all_components = lambda: {"own": own, "other": streamer}
    fire(streamer, EventType.START_RUN, context(engine, JOB))
    wait_for(lambda: stock.job)
    end_job(streamer, engine)
    assert [component.file for component in stock.job] == ["error_log.txt"]


def test_each_of_several_components_has_its_files_sent(federation, stock):
    answer_without_receiver(federation)
    first, engine = start_job(federation, "log.txt")
    wait_for(lambda: stock.job)
    second = JobLogStreamer(["train.log", "log.txt"])
    fire(second, EventType.START_RUN, context(engine, JOB))
    wait_for(lambda: len(stock.job) == 2)
    for streamer in (first, second):
        end_job(streamer, engine)
    assert [(component.file, component.events[0]) for component in stock.job] == [
        ("log.txt", RUN[0]),
        ("train.log", RUN[0]),
    ]
    assert all(component.events[-1] == RUN[-1] for component in stock.job)


def test_where_the_server_has_ours_the_runtimes_own_are_not_used(federation, stock):
    federation.start_server()
    federation.server.run(JOB, "site-1")
    streamer, engine = start_job(federation)
    wait_for(lambda: federation.stream() and federation.stream().end == len(LINES))
    end_job(streamer, engine)
    federation.start_site(ADMITTED)
    wait_for(lambda: federation.site._link.has_receiver)
    federation.site_event(EventType.JOB_COMPLETED)
    assert federation.ended().verdict is Verdict.COMPLETE
    assert not stock.job and not stock.site


def test_a_server_that_does_not_answer_is_slow_and_not_without_a_receiver(federation, stock):
    be_away(federation)
    streamer, engine = start_job(federation, drain_timeout=0.1)
    wait_for(lambda: len(federation.network.cell(f"site-1.{JOB}").asked) >= 2)
    end_job(streamer, engine)
    assert not stock.job


def test_a_run_that_ends_before_the_server_is_known_to_have_none_sends_what_is_there(federation, stock):
    """The server answers while the job already waits for its last lines to be sent."""
    be_away(federation)
    streamer, engine = start_job(federation, drain_timeout=0.3)
    fire(streamer, EventType.ABOUT_TO_END_RUN, context(engine, JOB))
    answer_without_receiver(federation)
    wait_for(lambda: len(stock.job) == 2 and stock.job[1].events == RUN[:2])
    fire(streamer, EventType.END_RUN, context(engine, JOB))
    assert [component.events[0] for component in stock.job] == [RUN[0]] * 2
    assert [component.events[-1] for component in stock.job] == [RUN[-1]] * 2


@pytest.mark.parametrize("lacks", ["streamers", "receiver"])
def test_without_the_runtimes_own_the_logs_wait_and_that_is_said(
    federation, stock, monkeypatch, caplog, lacks
):
    if lacks == "streamers":
        monkeypatch.setattr(runtime_stock, "stock_job_streamer", lambda file: None)
    stock.receives = lacks != "receiver"
    answer_without_receiver(federation)
    streamer, engine = start_job(federation)
    wait_for(lambda: "logs wait until it has one" in caplog.text)
    end_job(streamer, engine)
    assert not stock.job


def test_a_server_that_is_slow_to_answer_keeps_no_run_from_its_end(federation, stock, monkeypatch):
    answer_without_receiver(federation)
    asked, answer = threading.Event(), threading.Event()

    def ask(engine):
        asked.set()
        return answer.wait(60)

    monkeypatch.setattr(fallback, "stock_receives", ask)
    streamer, engine = start_job(federation, drain_timeout=0.1)
    assert asked.wait(20)
    assert end_job(streamer, engine) < 5.0
    answer.set()


def test_a_runtime_that_stops_meanwhile_is_no_trouble(federation, stock, caplog):
    answer_without_receiver(federation)
    streamer, engine = JobLogStreamer(), job_engine(federation)
    engine.new_context = None
    fire(streamer, EventType.START_RUN, context(engine, JOB))
    wait_for(lambda: "was not told of" in caplog.text)
    end_job(streamer, engine)
    assert "unexpected error" not in caplog.text


def test_a_site_that_keeps_its_logs_uses_neither(federation, stock):
    federation.start_site({**ADMITTED, "allow_log_streaming": False})
    streamer, engine = start_job(federation)
    end_job(streamer, engine)
    federation.site_event(EventType.JOB_COMPLETED)
    assert not stock.job and not stock.site and federation.network.cell(f"site-1.{JOB}").asked == []


def test_the_parent_sends_the_error_log_as_the_runtimes_own_component_does(federation, stock, caplog):
    """That of a job which died before its run began is sent by nobody else."""
    answer_without_receiver(federation)
    federation.start_site(ADMITTED)
    said = "the server has no log receiver of nvflare_logstream"
    wait_for(lambda: said in caplog.text)
    federation.site_event(EventType.JOB_COMPLETED, job_id=JOB)
    (component,) = stock.site
    assert (component.file, component.events, component.jobs) == (
        "error_log.txt",
        [EventType.JOB_COMPLETED],
        [JOB],
    )
    assert caplog.text.count(said) == 1


def test_when_the_server_has_changed_over_earlier_jobs_are_complete(federation, stock, monkeypatch):
    answer_without_receiver(federation)
    federation.start_site(ADMITTED)
    federation.log.write_bytes(LINES)
    federation.site_event(EventType.JOB_COMPLETED)
    wait_for(lambda: federation.site._link.has_receiver is False)
    federation.start_server()
    federation.server.run(JOB, "site-1")
    stream = federation.ended()
    assert (stream.verdict, stream.end) == (Verdict.COMPLETE, len(LINES))
    assert federation.site._link.has_receiver is True


def test_where_ours_cannot_go_into_a_job_the_runtimes_own_does(federation):
    answer_without_receiver(federation)
    files = ["log.txt", "*.csv", "error_log.txt"]  # the runtime's own would wait for a file named "*.csv"
    federation.start_site({"class_allow_list": ["nvflare."]}, log_files=files)
    wait_for(lambda: federation.site._link.has_receiver is False)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    entries = json.loads(federation.config.read_text())["components"]
    assert [entry["args"] for entry in entries] == [
        {"log_file_name": file, "target_parent_server": True} for file in ("log.txt", "error_log.txt")
    ]
    assert {entry["path"] for entry in entries} == {
        runtime_stock.stock_job_streamer("x").__class__.__module__ + ".JobLogStreamer"
    }
    assert len({entry["id"] for entry in entries}) == 2


@pytest.mark.parametrize("lacks", ["rights", "streamers"])
def test_what_the_job_could_not_load_does_not_go_into_it(federation, monkeypatch, lacks):
    """The job would fail."""
    answer_without_receiver(federation)
    if lacks == "streamers":
        monkeypatch.setattr(runtime_stock, "stock_names", lambda: None)
    federation.start_site({"class_allow_list": ["nvflare."] if lacks == "streamers" else []})
    wait_for(lambda: federation.site._link.has_receiver is False)
    before = federation.config.read_bytes()
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    assert federation.config.read_bytes() == before


def test_a_pattern_is_no_file_for_the_runtimes_own_streamer(federation, stock, caplog):
    answer_without_receiver(federation)
    streamer, engine = start_job(federation, "*.csv", "log.txt")
    wait_for(lambda: stock.job)
    end_job(streamer, engine)
    assert [component.file for component in stock.job] == ["log.txt"]
    assert "streamer sends log.txt to it" in caplog.text


def test_no_launch_waits_for_an_answer(federation, monkeypatch):
    """The server is asked ahead and in the background; here it never answers."""
    asked = []
    monkeypatch.setattr(
        cell_channel.CellLink, "send", lambda link, payload: asked.append(1) or time.sleep(60)
    )
    began = time.monotonic()
    federation.start_site(ADMITTED)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    assert time.monotonic() - began < 5.0 and wait_for(lambda: asked)


def test_the_runtimes_own_goes_into_a_jobs_config_for_names_only(federation):
    answer_without_receiver(federation)
    federation.start_site({"class_allow_list": ["nvflare."]}, log_files=["log.txt", "*.log"])
    wait_for(lambda: federation.site._link.has_receiver is False)
    federation.site_event(EventType.BEFORE_JOB_LAUNCH)
    entries = json.loads(federation.config.read_text())["components"]
    assert [entry["args"]["log_file_name"] for entry in entries] == ["log.txt"]


def go_back(federation):
    """The server is restarted with the runtime's own receiver alone."""
    federation.network.cells.pop("server")
    answer_without_receiver(federation)


def test_a_server_that_went_back_since_gets_the_error_log_as_before(federation, stock):
    """The parent process hears of it with its first request after the job's end."""
    federation.start_server()
    federation.start_site(ADMITTED)
    wait_for(lambda: federation.site._link.has_receiver)
    go_back(federation)
    federation.site_event(EventType.JOB_COMPLETED, job_id=JOB)
    (component,) = wait_for(lambda: stock.site)
    wait_for(lambda: component.jobs == [JOB])


def test_what_is_complete_already_a_server_that_went_back_gets_not_again(federation, stock, caplog):
    caplog.set_level(logging.INFO)
    federation.start_server()
    federation.server.run(JOB, "site-1")
    federation.start_site(ADMITTED)
    federation.log.with_name("error_log.txt").write_bytes(LINES)
    federation.site_event(EventType.JOB_COMPLETED, job_id=JOB)
    assert federation.ended(file="error_log.txt").verdict is Verdict.COMPLETE
    wait_for(lambda: "error_log.txt: complete" in caplog.text)
    go_back(federation)
    federation.site_event(EventType.JOB_COMPLETED, job_id="00000000-0000-4000-8000-000000000002")
    wait_for(lambda: stock.site and stock.site[0].jobs)
    assert [component.jobs for component in stock.site] == [["00000000-0000-4000-8000-000000000002"]]
