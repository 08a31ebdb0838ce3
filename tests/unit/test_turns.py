"""Many readers of what is long: few work at a time, all get their turn, and each answer comes in time."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from nvflare_logstream.client.parts import PATIENCE
from nvflare_logstream.filters import reading
from nvflare_logstream.filters.log import LogLines, TextLog
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.server import service, turns
from nvflare_logstream.server.turns import Turns
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey

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
    counting = "lines" if filters.tail else ""
    here = Reading(0, log.end, counting=counting)
    expected = ""
    while not here.done:
        here, text = here.part(whole, filters, 1 << 30)
        expected += text
    monkeypatch.setattr(reading, "monotonic", count().__next__)
    here, texts, places = Reading(0, log.end, counting=counting), [], []
    while not here.done:
        here, text = here.part(log, filters, 1 << 30, seconds=2)
        texts.append(text)
        places.append(here)
    assert "".join(texts) == expected
    assert len(places) > 3 and len(set(places)) == len(places), (
        "every part comes further, however short its time"
    )


def test_the_service_gives_each_piece_its_turn(memory_path: Path, monkeypatch):
    key = StreamKey("job-1", "site-1", "log.txt")
    store = LogStore(memory_path)
    store.open(key)
    store.append(key, 0, TEXT.encode(), b"cursor")
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
