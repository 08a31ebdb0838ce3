"""`since` and `until` at the server: over what is stored, whatever happened to it, by each site's clock."""

from __future__ import annotations

import datetime

import pytest

from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.filters import apply_filters
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey
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
def store(memory_path):
    store = LogStore(memory_path)
    yield store
    store.close()


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
