"""Many readers of what is long: few work at a time, all get their turn, and each answer comes in time."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from nvflare_logstream import lines
from nvflare_logstream.client.parts import PATIENCE, read_parts
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.filters import apply_filters, reading, timed_blocks, times
from nvflare_logstream.filters.log import FileLog, LogLines, TextLog
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.server import following, service, turns
from nvflare_logstream.server.following import Followers
from nvflare_logstream.server.job_logs import JobLogs
from nvflare_logstream.server.turns import Turns
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Stream, StreamKey
from nvflare_logstream.wire.queries import FilterOptions, FollowRequest, Place
from tests.unit.test_log_sources import ServicePort

KEY = StreamKey("job-1", "site-1", "log.txt")
TEXT = "".join(f"line {number}\n" for number in range(200_000))


class Readers:
    """Threads that each wait for one turn, and note in which order they got it."""

    def __init__(self, given: Turns):
        self._turns, self._threads = given, list[threading.Thread]()
        self.order: list[int] = []
        self.together = self.most_together = 0
        self.shares: list[float] = []

    def come(self, number: int) -> None:
        waiting = len(self._turns._waiting)
        thread = threading.Thread(target=self._read, args=(number,), daemon=True)
        thread.start()
        self._threads.append(thread)
        while len(self._turns._waiting) == waiting and thread.is_alive():
            pass  # it is in the queue when the next one comes

    def _read(self, number: int) -> None:
        with self._turns.turn() as seconds:
            self.together += 1
            self.most_together = max(self.together, self.most_together)
            self.order.append(number)
            self.shares.append(seconds)
            self.together -= 1

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_readers_work_in_the_order_in_which_they_came_and_few_at_a_time(monkeypatch, at_a_time):
    monkeypatch.setattr(turns, "AT_A_TIME", at_a_time)
    given = Turns()
    with ExitStack() as others:
        for _ in range(turns.AT_A_TIME):
            others.enter_context(given.turn())
        readers = Readers(given)
        for number in range(20):
            readers.come(number)
        assert not readers.order
    readers.join()
    assert sorted(readers.order) == list(range(20)) and readers.most_together <= at_a_time
    assert at_a_time > 1 or readers.order == list(range(20))  # two threads may note it in another order
    assert not given._working and not given._waiting


def test_the_more_there_are_the_shorter_is_a_turn():
    given = Turns()
    with given.turn() as alone:
        assert alone == turns.TURN_SECONDS
    with ExitStack() as others:
        for _ in range(turns.AT_A_TIME):
            others.enter_context(given.turn())
        readers = Readers(given)
        for number in range(turns.MOST_WAITING):
            readers.come(number)
    readers.join()
    rounds = sum(readers.shares) / turns.AT_A_TIME
    assert max(readers.shares) <= turns.TURN_SECONDS and rounds < PATIENCE / 2, "the last one waits too long"


def test_who_need_not_wait_or_finds_too_many_gets_a_short_turn_at_once():
    given = Turns()
    with ExitStack() as others:
        for _ in range(turns.AT_A_TIME):
            others.enter_context(given.turn())
        with given.turn(waits=False) as seconds:
            assert seconds == turns.SHORT_SECONDS
        readers = Readers(given)
        for number in range(turns.MOST_WAITING):
            readers.come(number)
        with given.turn() as seconds:
            assert seconds == turns.SHORT_SECONDS
    readers.join()
    with given.turn(waits=False) as seconds:
        assert seconds == turns.TURN_SECONDS


def test_a_turn_that_fails_is_given_on():
    given = Turns()
    for _ in range(turns.AT_A_TIME + 1):
        with pytest.raises(ValueError), given.turn():
            raise ValueError
    assert not given._working


@pytest.mark.parametrize("filters", [Filters(grep="^x"), Filters(grep="9", tail=5), Filters(level="ERROR")])
def test_a_part_ends_when_its_time_is_over_and_the_next_goes_on(monkeypatch, filters):
    """The clock goes on by a second with each look at it."""
    log, whole = LogLines(TextLog(TEXT)), LogLines(TextLog(TEXT))
    stage = "lines" if filters.tail else ""
    here = Reading(0, log.end, stage=stage)
    expected = ""
    while not here.done:
        here, text = here.part(whole, filters, 1 << 30)
        expected += text
    monkeypatch.setattr(reading, "monotonic", count().__next__)
    here, texts, places = Reading(0, log.end, stage=stage), [], []
    while not here.done:
        here, text = here.part(log, filters, 1 << 30, seconds=2)
        texts.append(text)
        places.append(here)
    assert "".join(texts) == expected
    assert len(places) > 3 and len(set(places)) == len(places), (
        "every part comes further, however short its time"
    )


def test_the_service_gives_each_piece_its_turn(memory_path: Path, monkeypatch):
    store = LogStore(memory_path)
    store.open(KEY)
    store.append(KEY, 0, TEXT.encode(), b"cursor")
    answer = service.LogService(store, 30.0).answer
    monkeypatch.setattr(reading, "monotonic", count().__next__)
    given: list[bool] = []
    turn = Turns.turn
    monkeypatch.setattr(Turns, "turn", lambda self, waits=True: given.append(waits) or turn(self, waits))
    request = {"v": 1, "op": "read", "site": "site-1", "file": "log.txt", "filters": {"grep": "line 49999"}}
    replies = [answer("job-1", request)]
    while replies[-1]["reading"]["at"] < replies[-1]["reading"]["end"]:
        replies.append(answer("job-1", request | {"reading": replies[-1]["reading"]}))
    assert len(replies) > 3 and "".join(reply["text"] for reply in replies) == "line 49999\n"
    assert given == [False] + [True] * (len(replies) - 1), "what is quick waits for nobody"
    store.close()


RECORDS = "".join(
    json.dumps({"level": "INFO", "message": f"step {number}"}) + "\n" for number in range(50_000)
)
records_as_text = cache(lambda: lines.json_as_text(RECORDS))
ODD_ENDS = "".join(f"step {number}\r{number}\x0b\u2028\n" for number in range(110_000))
BOUNDS = [
    {"since": "2026-04-28 10:00:00"},
    {"until": "2026-04-28 10:00:00", "tail": 5},
    {"since": "2026-04-28 10:00:00", "max_bytes": 3_000, "grep": "step 4"},
    {"tail": 49_000},
    {"max_bytes": 1_200_000},
    {"tail": 45_000, "max_bytes": 600_000},
]


@pytest.mark.parametrize("bounds", BOUNDS, ids=" ".join)
@pytest.mark.parametrize("kind", ["text", "odd ends", "json", "json as text"])
def test_no_part_looks_at_much_more_than_it_has_time_for(memory_path: Path, monkeypatch, kind, bounds):
    """The look for a first time and for the last lines too: where there is no time, it goes through all."""
    text = {"text": TEXT[: len(RECORDS)], "odd ends": ODD_ENDS}.get(kind, RECORDS)
    shown = records_as_text() if kind == "json as text" else text
    store = LogStore(memory_path)
    store.append(KEY, store.open(KEY).end, text.encode(), b"cursor")
    for name in ("SHORT_SECONDS", "TURN_SECONDS"):
        monkeypatch.setattr(turns, name, 0.0)
    port = ServicePort(service.LogService(store, 30.0))
    if kind == "json as text":  # patterns are looked for in the records
        bounds = {name: bound for name, bound in bounds.items() if name != "grep"}
    query = LogQuery(("site-1",), **bounds)
    parts = list(read_parts(port, KEY.job_id, Stream(KEY), query, False, None, kind == "json as text"))
    wanted = apply_filters(shown, **bounds)
    assert "".join(part.text for part in parts) == wanted.text
    assert (parts[-1].truncated, parts[-1].since_applied) == (wanted.truncated, False)
    assert max(part.read for part in parts) < store.info(KEY).end / 4
    store.close()


@pytest.fixture
def backlog(memory_path: Path, monkeypatch):
    """What came in a log without times while nobody followed it, and a server whose looks take no time."""
    store = LogStore(memory_path)
    store.append(KEY, store.open(KEY).end, RECORDS.encode(), b"cursor")
    monkeypatch.setattr(following, "_MOST_SECONDS", 0.0)
    monkeypatch.setattr(following, "_REST", 0)
    logs = JobLogs(store, 30.0, lambda job_id: "RUNNING", lambda: 0.0)
    yield logs, FilterOptions(since="2026-04-28 10:00:00")
    store.close()


def test_a_follower_gets_what_came_before_all_of_it_was_looked_at_for_times(backlog, monkeypatch):
    (logs, filters), reads, texts = backlog, list[int](), list[str]()
    read = FileLog.read
    monkeypatch.setattr(FileLog, "read", lambda log, at, most: reads.append(most) or read(log, at, most))
    followers, place, costs = Followers(logs), Place("site-1", "log.txt", Reading(0, 0, json=True)), []
    while place.reading.offset < len(RECORDS):
        reads.clear()
        part = followers.answer(KEY.job_id, FollowRequest((place,), filters)).parts[0]
        place = part.place
        texts.append(part.text)
        costs.append(sum(reads))
    assert "".join(texts) == RECORDS and not place.reading.timed
    assert max(costs) < len(RECORDS) / 3 and sum(costs) < 9 * len(RECORDS)


class WaitsError(Exception):
    """Raised where a follower would be kept waiting."""


@pytest.mark.parametrize("grep", [None, "step 4999"])
def test_a_follower_does_not_wait_while_there_is_more(backlog, monkeypatch, grep):
    (logs, filters), texts = backlog, list[str]()

    def push(message) -> bool:
        texts.extend(part["text"] for part in message["parts"])
        return True

    def wait_for_change(job_id: str, seen: int, seconds: float) -> None:
        raise WaitsError

    monkeypatch.setattr(following, "MAX_PART", 1 << 30)
    monkeypatch.setattr(logs, "wait_for_change", wait_for_change)
    place, mark = Place("site-1", "log.txt", Reading(0, 0, json=True)), following._mark(logs.job(KEY.job_id))
    request = FollowRequest((place,), replace(filters, grep=grep), 9.0, mark, push="p")
    with pytest.raises(WaitsError):
        Followers(logs).answer(KEY.job_id, request, push)
    assert "".join(texts) == apply_filters(RECORDS, grep=grep).text


def test_a_reader_who_goes_on_far_into_a_log_does_not_wait_for_what_is_before(memory_path: Path, monkeypatch):
    """A server that was restarted knows nothing of the times before the reader's place."""
    monkeypatch.setattr(times, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(timed_blocks, "_PASSED", 0.0)
    for name in ("SHORT_SECONDS", "TURN_SECONDS"):
        monkeypatch.setattr(turns, name, 0.0)
    text = "".join(f"2026-04-28 10:{number // 1000:02d}:00 {number:090d}\n" for number in range(30_000))
    store = LogStore(memory_path)
    store.append(KEY, store.open(KEY).end, text.encode(), b"cursor")
    query, texts, reads, here = LogQuery(("site-1",), since="2026-04-28 10:25:00"), [], [], None
    for _ in range(1000):
        port = ServicePort(service.LogService(store, 30.0))  # restarted after each part
        part = next(read_parts(port, KEY.job_id, Stream(KEY), query, False, here))
        here = part.reading
        texts.append(part.text)
        reads.append(part.read)
        if part.done:
            break
    assert "".join(texts) == apply_filters(text, since=query.since).text != ""
    assert max(reads) < len(text) / 3
    store.close()
