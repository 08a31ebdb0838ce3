"""`since` and `until` at the server: over what is stored, whatever happened to it, by each site's clock."""

from __future__ import annotations

import datetime
import hashlib
import json
from itertools import islice

import pytest

from nvflare_logstream.cli.log_task import LogTask
from nvflare_logstream.cli.output import Format
from nvflare_logstream.cli.printers import Collector, EventPrinter
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.filters import apply_filters, timed_blocks
from nvflare_logstream.server import job_logs, turns
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey
from nvflare_logstream.wire.upload import Close
from tests.unit.conftest import close_and_commit
from tests.unit.test_log_sources import ServicePort

JOB = "job-1"
KEY = StreamKey(JOB, "site-1", "log.txt")
START = datetime.datetime(2026, 4, 28, 10)
HOUR, SECOND = datetime.timedelta(hours=1), datetime.timedelta(seconds=1)


def line(time: datetime.datetime, text: str = "x" * 80) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S},000 - n - INFO - {text}\n"


def seconds(count: int, start: datetime.datetime = START) -> list[str]:
    return [line(start + datetime.timedelta(seconds=n)) for n in range(count)]


@pytest.fixture
def client(store):
    return LogClient(ServicePort(LogService(store, 30.0)))


def read(client: LogClient, **bounds: str) -> str:
    return client.read(JOB, LogQuery(sites=("site-1",), **bounds))["site-1"].text


def append(store: LogStore, text: str) -> None:
    store.append(KEY, store.open(KEY).end, text.encode(), b"cursor")


@pytest.mark.parametrize("first", [100, 9_000, 19_000])
def test_lines_are_found_after_a_clock_went_ahead_for_a_while(store, client, first):
    log_lines = seconds(20_000)
    log_lines[first : first + 500] = seconds(500, START + 6 * HOUR)
    append(store, text := "".join(log_lines))
    for since in ("2026-04-28 11:00:00", "2026-04-28 14:00:00", "2026-04-28 16:03:00"):
        assert read(client, since=since) == apply_filters(text, since=since).text
        assert read(client, until=since) == apply_filters(text, until=since).text


def test_lines_of_a_writer_whose_clock_is_ahead_are_found(store, client):
    log_lines = seconds(20_000)
    log_lines[::1000] = [line(START + 2 * HOUR + datetime.timedelta(seconds=n)) for n in range(20)]
    append(store, text := "".join(log_lines))
    for since in ("2026-04-28 12:00:05", "2026-04-28 15:00:00"):
        assert read(client, since=since) == apply_filters(text, since=since).text


def agree(client: LogClient, text: str) -> None:
    for since in ("2026-04-28 10:30:00", "2026-04-28 12:00:05"):
        assert read(client, since=since) == apply_filters(text, since=since).text


def test_what_is_known_of_times_is_kept_while_a_log_grows(store):
    service = LogService(store, 30.0)
    client, text = LogClient(ServicePort(service)), ""
    for hour in range(3):
        text += (more := "".join(seconds(3600, START + hour * HOUR)))
        append(store, more)
        agree(client, text)
    known = service._logs._times[KEY][1]
    store.commit()
    agree(client, text)
    assert service._logs._times[KEY][1] is known and len(known) >= 3
    append(store, "")
    agree(client, text)
    assert service._logs._times[KEY][1] is known


def test_what_is_known_of_times_is_kept_of_so_many_logs_only(store, monkeypatch):
    monkeypatch.setattr(job_logs, "_MAX_LOGS", 3)
    service = LogService(store, 30.0)
    for number in range(5):
        key = KEY._replace(site=f"site-{number}")
        store.append(key, store.open(key).end, line(START).encode(), b"cursor")
        query = LogQuery(sites=(key.site,), since="2026-04-28 10:00:00")
        assert LogClient(ServicePort(service)).read(JOB, query)[key.site].text == line(START)
    assert [key.site for key in service._logs._times] == ["site-2", "site-3", "site-4"]


def hidden(text: str) -> bytes:
    """The same number of bytes, with other times."""
    return text.replace("2026-04-28 10:", "2026-04-28 14:").encode()


def test_times_are_looked_for_again_when_a_stored_log_was_changed(store, client):
    text = "".join(seconds(7200))
    append(store, text)
    agree(client, text)
    store.path(KEY).write_bytes(hidden(text))
    agree(client, hidden(text).decode())
    append(store, more := line(START + 5 * HOUR))
    agree(client, hidden(text).decode() + more)


def test_times_are_looked_for_again_when_a_log_was_sent_again(store, client):
    text = "".join(seconds(7200))
    append(store, text)
    agree(client, text)
    store.path(KEY).write_bytes(b"cut short")
    assert store.open(KEY).end == 0
    append(store, hidden(text).decode())
    agree(client, hidden(text).decode())


def test_times_are_looked_for_again_after_a_crash(store, client, memory_path):
    text = "".join(seconds(7200))
    append(store, text)
    store.commit()
    agree(client, text)
    with store.path(KEY).open("ab") as file:  # what was not committed any more
        file.write(b"2026-04-28 23:00:00 lost\n")
    again = LogStore(memory_path)
    append(again, more := line(START + 2 * HOUR + 5 * SECOND))
    agree(LogClient(ServicePort(LogService(again, 30.0))), text + more)
    again.close()


# -- by each site's clock ------------------------------------------------------------------------------------

NOW = 1_780_000_000.0  # by the server's clock


def at(seconds_ago: float, utc_offset: int, skew: float) -> str:
    """A line as a site wrote it so long ago, by its own clock."""
    own = datetime.datetime.fromtimestamp(NOW - seconds_ago + skew, datetime.timezone.utc)
    return line(own + datetime.timedelta(seconds=utc_offset), f"{seconds_ago:g} ago")


@pytest.fixture(params=[(0, -600.0), (0, 600.0), (-7200, -600.0), (19_800, 3.5)], ids=str)
def wrong_clock(request, store):
    """A site's log of an hour, a line a minute, and a client of a server whose present is `NOW`."""
    utc_offset, skew = request.param
    log_lines = [at(60.0 * n + 30, utc_offset, skew) for n in reversed(range(60))]
    end = store.open(KEY, utc_offset, skew).end
    store.append(KEY, end, "".join(log_lines).encode(), b"cursor")
    service = LogService(store, 30.0, lambda job_id: "RUNNING", lambda: NOW)
    return LogClient(ServicePort(service), sleep=lambda seconds: None), log_lines


def utc(seconds_ago: float) -> str:
    return datetime.datetime.fromtimestamp(NOW - seconds_ago, datetime.timezone.utc).isoformat()


def test_durations_and_times_with_a_zone_are_by_the_right_time(wrong_clock):
    client, log_lines = wrong_clock
    assert read(client, since="5m") == "".join(log_lines[-5:])
    assert read(client, until="5m") == "".join(log_lines[:-5])
    assert read(client, since=utc(600), until=utc(300)) == "".join(log_lines[-10:-5])


def test_times_without_a_zone_are_the_logs_own(wrong_clock):
    client, log_lines = wrong_clock
    assert read(client, since=log_lines[-7][:19]) == "".join(log_lines[-7:])


def test_what_is_followed_is_by_the_right_time_too(store, wrong_clock):
    client, log_lines = wrong_clock
    stream = store.info(KEY)
    query = LogQuery(sites=("site-1",), since="5m")
    events = client.follow(JOB, query)
    shown = next(event.text for event in events if event.text)
    assert shown == "".join(log_lines[-5:])
    late, new = at(400, stream.utc_offset, stream.skew), at(10, stream.utc_offset, stream.skew)
    append_by(store, late + new)
    assert next(event.text for event in events if event.text) == new


@pytest.mark.parametrize("until", ["1m", utc(60)])
def test_a_following_ends_at_the_right_time_too(wrong_clock, until):
    client, log_lines = wrong_clock
    events = list(islice(client.follow(JOB, LogQuery(sites=("site-1",), until=until)), 9))
    assert "".join(event.text for event in events if event.kind == "text") == "".join(log_lines[:-1])
    assert events[-1].kind == "past"


def append_by(store: LogStore, text: str) -> None:
    stream = store.info(KEY)
    store.append(KEY, stream.end, text.encode(), b"cursor")


# -- where they cannot be applied ----------------------------------------------------------------------------


def task(client: LogClient, form: Format, **query: str) -> LogTask:
    printer = Collector() if form is Format.JSON else EventPrinter()
    return LogTask(client, JOB, LogQuery(sites=("all",), **query), printer, form, False)


@pytest.fixture
def mixed(store, client):
    """The logs of two sites, one without times."""
    append(store, line(START) + line(START + HOUR))
    key = KEY._replace(site="site-2")
    store.append(key, store.open(key).end, b"no time\n", b"cursor")
    return client


@pytest.mark.parametrize("bound", ["since", "until"])
def test_each_site_whose_log_has_no_times_is_told(mixed, capsys, bound):
    task(mixed, Format.TEXT, **{bound: "2026-04-28 10:30:00"}).read(merged=False)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"(no line of the log of site-2 has a time: --{bound} was not applied)"]


def test_the_envelope_tells_each_site_whose_log_has_no_times(mixed, capsys):
    task(mixed, Format.JSON, until="2026-04-28 10:30:00").read(merged=False)
    data = json.loads(capsys.readouterr().out)["data"]
    assert {name: site["until_applied"] for name, site in data["sites"].items()} == {
        "site-1": True,
        "site-2": False,
    }
    assert (data["filters"]["since_applied"], data["filters"]["until_applied"]) == (False, True)
    assert all("since_applied" not in site for site in data["sites"].values())


def test_the_api_tells_each_site_whose_log_has_no_times(mixed):
    logs = mixed.read(JOB, LogQuery(sites=("all",), until="2026-04-28 10:30:00"))
    assert {name: (log.since_applied, log.until_applied) for name, log in logs.items()} == {
        "site-1": (False, True),
        "site-2": (False, False),
    }


@pytest.fixture
def followed(mixed, store):
    """The same once their job is over, at a server that knows it."""
    for site in ("site-1", "site-2"):
        key = KEY._replace(site=site)
        data = store.path(key).read_bytes()
        close_and_commit(
            store, key, Close(None, len(data), hashlib.sha256(data).hexdigest(), 0, "exit code 0")
        )
    service = LogService(store, 30.0, lambda job_id: "FINISHED:COMPLETED")
    return LogClient(ServicePort(service), sleep=lambda seconds: None)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("bound", ["since", "until"])
def test_a_follower_is_told_each_site_whose_log_has_no_times(followed, capsys, bound, merged):
    task(followed, Format.TEXT, **{bound: "2026-04-28 10:30:00"}).follow(merged)
    said = [text for text in capsys.readouterr().err.splitlines() if "has a time" in text]
    assert said == [f"(no line of the log of site-2 has a time: --{bound} was not applied)"]


def test_a_follower_is_told_in_an_event_which_bounds_were_not_applied(followed, capsys):
    bounds = {"since": "2026-04-28 10:30:00", "until": "2026-04-29"}
    task(followed, Format.JSONL, **bounds).follow()
    events = [json.loads(event) for event in capsys.readouterr().out.splitlines()]
    told = [(event["site"], event["text"]) for event in events if event["event"] == "not_applied"]
    assert told == [("site-2", "since"), ("site-2", "until")]


def test_a_follower_is_told_once_and_only_of_text_that_it_got(store):
    service = LogService(store, 30.0, lambda job_id: "RUNNING")
    client = LogClient(ServicePort(service), sleep=lambda seconds: None)
    wanted = LogQuery(sites=("site-1",), since="2026-04-28 10:00:00")
    events = (event for event in client.follow(JOB, wanted) if event.kind != "caught up")
    for text, kinds in (
        ("", ["joined"]),
        ("no time\n", ["text", "not applied"]),
        ("nor here\n", ["text"]),
        (line(START), ["text"]),
        ("its rest\n", ["text"]),
    ):
        append(store, text)
        told = list(islice(events, len(kinds)))
        assert [event.kind for event in told] == kinds and told[0].text == text


def test_what_is_passed_over_takes_no_longer_than_a_turn(store, monkeypatch):
    """Without a line in the window nothing is given out, and yet each answer comes in time."""
    monkeypatch.setattr(timed_blocks, "_PASSED", 0.0)
    monkeypatch.setattr(turns, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    append(store, "".join(seconds(20_000)))
    query = LogQuery(sites=("site-1",), since="2026-04-29 10:00:00")
    client = LogClient(ServicePort(LogService(store, 30.0)))
    parts = list(client.parts(JOB, store.info(KEY), query))
    assert len(parts) > 5 and not any(part.text for part in parts)
