"""What each component says at its start, and what it does where it cannot work: nothing, and it says so."""

from __future__ import annotations

import builtins
import logging
import re
import sys

import nvflare
import pytest
from nvflare.apis.event_type import EventType
from nvflare.private.event import fire_event_to_components

import nvflare_logstream
from nvflare_logstream import __version__
from nvflare_logstream.flare import loading, runtime, runtime_stock
from nvflare_logstream.flare.shared import shared
from nvflare_logstream.names import DEFAULT_LOG_FILES
from tests.unit.fake_runtime import Engine, Network, context

COMPONENTS = ["SiteLogStreamer", "JobLogStreamer", "JobLogReceiver"]
VERSIONS = re.escape(f"(nvflare_logstream {__version__}, protocol 1, nvflare {nvflare.__version__})")


@pytest.fixture
def reload(monkeypatch):
    """The components are looked for again, as in a new process."""
    shared.reset()
    for name in COMPONENTS:
        monkeypatch.delitem(vars(nvflare_logstream), name, raising=False)
    return monkeypatch


def lines_of(caplog, component, event, engine, job_id=""):
    """What is logged when the runtime fires an event."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        fire_event_to_components(event, [component], context(engine, job_id))
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "version, supported",
    [
        ("2.7.2", False),
        ("2.7.3", True),
        ("2.7.10", True),
        ("2.8.3", True),
        ("2.9.0", True),
        ("2.9.1rc2", True),
        ("2.9.0+41.g1234567.dirty", True),
        ("2.10.0", False),
        ("2.10", False),
        ("3.0.0", False),
        ("0+unknown", False),
        ("main", False),
        ("", False),
    ],
)
def test_which_runtimes_are_supported_stands_in_one_place(version, supported):
    problem = runtime.unsupported(version)
    assert (problem == "") is supported
    assert supported or (f"nvflare {version} is not supported" in problem and "from 2.7.3 on" in problem)


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("event", [EventType.SYSTEM_START, EventType.START_RUN])
def test_under_an_unsupported_runtime_one_line_says_so_and_nothing_is_hooked(
    reload, tmp_path, caplog, name, event
):
    reload.setattr(runtime, "unsupported", lambda: "nvflare 1.0 is not supported")
    hooks = [(runtime_stock, "bound_stock_streamers"), (runtime, "workspace_of"), (runtime, "class_refusal")]
    for module, hook in hooks:
        reload.setattr(module, hook, lambda *args: pytest.fail("hooked"))
    component = getattr(nvflare_logstream, name)(log_files="anything", of_a_later_release=1)
    kind = type(component)
    assert (kind.__module__, kind.__name__) == ("nvflare_logstream", name)
    engine = Engine(tmp_path, Network().cell("site-1"), "site-1")
    before = sorted(tmp_path.rglob("*"))
    said = lines_of(caplog, component, event, engine, "job-1")
    assert len(said) == 1 and "nvflare 1.0 is not supported" in said[0] and "no job is affected" in said[0]
    for other in (EventType.BEFORE_JOB_LAUNCH, EventType.JOB_COMPLETED, EventType.END_RUN):
        assert lines_of(caplog, component, other, engine, "job-1") == []
    assert sorted(tmp_path.rglob("*")) == before and not engine.cell.asked and not engine.cell.callbacks
    assert not shared.site_entries.log_files


def test_a_component_whose_library_is_missing_fails_neither_its_site_nor_its_job(reload, tmp_path, caplog):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("nvflare_logstream.site.sender") or name == "psutil":
            raise ModuleNotFoundError("No module named 'msgpack'")
        return real(name, *args, **kwargs)

    reload.delitem(sys.modules, "nvflare_logstream.flare.site_log_streamer", raising=False)
    reload.setattr(builtins, "__import__", without)
    component = nvflare_logstream.SiteLogStreamer(log_files=["log.txt"])
    (said,) = lines_of(caplog, component, EventType.SYSTEM_START, Engine(tmp_path))
    assert "SiteLogStreamer cannot be loaded (No module named 'msgpack')" in said and "install" in said


def test_a_component_whose_library_breaks_while_it_loads_fails_neither_its_site_nor_its_job(
    reload, tmp_path, caplog
):
    def broken(name):
        raise RuntimeError("a library was built for another Python")

    reload.setattr(loading, "import_module", broken)
    component = nvflare_logstream.SiteLogStreamer(log_files=["log.txt"])
    (said,) = lines_of(caplog, component, EventType.SYSTEM_START, Engine(tmp_path))
    assert "SiteLogStreamer cannot be loaded (RuntimeError: a library was built for another Python)" in said


def test_a_name_that_is_no_component_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'LogServer'"):
        _ = loading.LogServer


def test_each_component_says_at_its_start_what_it_does_and_under_which_versions(reload, tmp_path, caplog):
    network, files = Network(), ", ".join(DEFAULT_LOG_FILES)
    server = Engine(tmp_path / "server", network.cell("server"))
    client = Engine(tmp_path / "client", network.cell("site-1"), "site-1")
    receiver = nvflare_logstream.JobLogReceiver()
    said = lines_of(caplog, receiver, EventType.SYSTEM_START, server)
    root = tmp_path / "server" / "logstream"
    assert [line for line in said if re.fullmatch(rf".*receiving job logs into {root} {VERSIONS}", line)]

    site = nvflare_logstream.SiteLogStreamer()
    said = lines_of(caplog, site, EventType.SYSTEM_START, client)
    assert re.fullmatch(rf".*streaming {files} of each job to the server {VERSIONS}", said[0])
    site._sender.stop(5.0)

    job = nvflare_logstream.JobLogStreamer(["log.txt"])
    said = lines_of(caplog, job, EventType.START_RUN, client, "job-1")
    assert re.fullmatch(rf".*streaming {files} to the server {VERSIONS}", said[-1])
    lines_of(caplog, job, EventType.END_RUN, client, "job-1")
    lines_of(caplog, receiver, EventType.SYSTEM_END, server)


@pytest.mark.parametrize(
    "name, event", [("SiteLogStreamer", EventType.SYSTEM_START), ("JobLogStreamer", EventType.START_RUN)]
)
def test_where_logs_stay_at_the_site_it_is_said_with_the_versions(reload, tmp_path, caplog, name, event):
    engine = Engine(tmp_path, Network().cell("site-1"), "site-1")
    (tmp_path / "local" / "resources.json").write_text('{"allow_log_streaming": false}')
    (said,) = lines_of(caplog, getattr(nvflare_logstream, name)(), event, engine, "job-1")
    assert re.fullmatch(rf".*job logs stay at this site: .*is false\) {VERSIONS}", said)
