"""Following: a real store behind a session whose every request may fail; only waiting moves the clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import AuthenticationError, NoConnection, SessionClosed

from nvflare_logstream.client import follow, poll
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.model import Event
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import LostContactError, RetrievalError
from nvflare_logstream.filters import apply_filters
from nvflare_logstream.flare.session_port import SessionPort
from nvflare_logstream.server import service
from nvflare_logstream.server.following import Followers
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Loss, StreamKey
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.queries import MAX_WAIT
from nvflare_logstream.wire.upload import Close
from tests.unit.conftest import close_and_commit, in_small_parts

JOB = "job-1"
IDLE = 30.0
ALL = LogQuery(sites=("all",))
DONE = "FINISHED:COMPLETED"
# What the runtime raises when the server goes away; to one that was restarted, the session is not known.
LOST = (NoConnection, ConnectionError, SessionClosed, FLCommunicationError, AuthenticationError)


class World:
    """A server, sites that write, and the one session to it.

    Attributes:
        steps: what happens in the world, one step before each long poll is answered.
        faults: for each request in turn: the exception that loses it, and whether the server had answered.
        unreachable: how many attempts to come back fail.
        asked: every request that reached the server.
        pushes: whether the server pushes; a step is then taken after each message, too.
        on_the_way: what becomes of a pushed message: gets it and what delivers one.
    """

    pushes = False
    longest = 5.0  # seconds of a poll during which the server may push

    def __init__(self, root: Path, idle: float = IDLE):
        self.root, self.idle, self.clock, self.status = root, idle, Clock(), "RUNNING"
        self.steps: list[Callable[[], None]] = []
        self.faults: list[tuple[type[Exception], bool] | None] = []
        self.unreachable: list[bool] = []
        self.asked: list[dict[str, Any]] = []
        self.first: dict[str, int] = {}
        self.written: dict[str, bytes] = {}
        self.api = SimpleNamespace(close=lambda: None)
        self.on_the_way: Callable[[bytes, Callable[[bytes], None]], None] = lambda message, deliver: deliver(
            message
        )
        self.start()

    # The server and its sites.

    def start(self) -> None:
        self.store = LogStore(self.root, clock=self.clock)
        self.service = service.LogService(self.store, self.idle, lambda job: self.status, self.clock)

    def crash(self) -> None:
        """What was not committed is gone; the sites send it again when they write next."""
        self.store.index.close()
        self.start()
        for site in self.written:
            self.write(site, b"")

    def write(self, site: str, data: bytes, file: str = "log.txt", losses: tuple[Loss, ...] = ()) -> None:
        key = StreamKey(JOB, site, file)
        if file == "log.txt":
            self.written[site] = self.written.get(site, b"") + data
        end = self.store.open(key).end
        data = self.written[site][end:] if file == "log.txt" else data
        self.store.append(key, end, data, b"cursor", losses)

    def end(self, site: str, file: str = "log.txt") -> None:
        key = StreamKey(JOB, site, file)
        content = self.store.path(key).read_bytes()
        close_and_commit(
            self.store, key, Close(None, len(content), hashlib.sha256(content).hexdigest(), 0, "exit code 0")
        )
        self.store.commit()

    def over(self, status: str = DONE) -> None:
        self.status = status

    # The session.

    def set_timeout(self, seconds: float) -> None:
        pass

    def _do_command(self, command: str, enforce_meta: bool, props: dict[str, Any]) -> dict[str, Any]:
        assert len(self.asked) < 2000, "it never ends"
        self.clock.advance(0.01)
        fault, answered = (self.faults.pop(0) if self.faults else None) or (None, False)
        if fault and not answered:
            raise fault("lost")
        self.asked.append(props)
        request = json.loads(json.dumps(props))
        if request["op"] == "follow":
            if self.steps:
                self.steps.pop(0)()
            request["wait"], request["pace"] = (self.longest if self.steps else 1e-9) if self.pushes else 0, 0
        if request["op"] == "read" and "reading" not in request:
            self.first[request["site"]] = len(
                self.store.path(StreamKey(JOB, request["site"], request["file"])).read_bytes()
            )
        push, asked = ({"push": self._push} if self.pushes else {}), self.store
        reply = json.loads(json.dumps(self.service.answer(JOB, request, **push)))
        if self.store is not asked:
            raise ConnectionError("the server crashed while it was waiting")
        if request["op"] == "follow" and reply.get("parts") == [] and reply["mark"] == request["mark"]:
            self.clock.advance(props["wait"])  # as the server would have waited
        if fault:
            raise fault("the answer was lost")
        return reply

    def _push(self, message: dict[str, Any]) -> bool:
        self.pushed.append(message)
        self.on_the_way(json.dumps(message).encode(), self._deliver)
        if self.steps:
            self.steps.pop(0)()
        else:
            self.store.expect({StreamKey(JOB, f"late-{len(self.pushed)}", "log.txt"): "ends the poll"})
            self.store.wake_readers(JOB)
        return True

    def _deliver(self, payload: bytes) -> None:
        self.taken(SimpleNamespace(payload=payload))

    def register_request_cb(self, channel: str, topic: str, cb: Callable[[Any], None]) -> None:
        self.taken = cb

    def let_push(self) -> None:
        """Give the session a cell, and let the server push to it."""
        self.pushes, self.pushed = True, list[dict[str, Any]]()
        self.api.cell = SimpleNamespace(core_cell=self)

    def _get_dict_data(self, found: dict[str, Any]) -> dict[str, Any]:
        return found

    def reconnect(self) -> Any:
        if self.unreachable and self.unreachable.pop(0):
            raise ConnectionError("nobody there")
        return self

    # The reader.

    def events(self, wanted: LogQuery = ALL, reconnect: bool = True, merged: bool = False) -> Iterator[Event]:
        port = SessionPort(self, self.reconnect if reconnect else None)  # type: ignore[arg-type]
        return LogClient(port, self.clock, self.clock.advance).follow(JOB, wanted, merged)

    def follow(self, wanted: LogQuery = ALL, reconnect: bool = True, merged: bool = False) -> list[Event]:
        return list(self.events(wanted, reconnect, merged))


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    with suppress(Exception):
        world.store.close()


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    with in_small_parts() as patch:
        patch.setattr(poll, "_LATE_SECONDS", 0.005)
        yield


def text_of(events: list[Event], site: str = "site-1") -> str:
    return "".join(event.text for event in events if event.kind == "text" and event.site == site)


def told(events: list[Event], site: str | None = None) -> list[str]:
    """The notices in their order, and where text stood among them."""
    kinds = [event.kind for event in events if event.kind != "caught up" and site in (None, event.site)]
    return [
        kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != "text" or before != "text"
    ]


def numbered(count: int, start: int = 0) -> bytes:
    return b"".join(
        b"2026-04-28 10:00:00,%03d - n - INFO - line %d\n" % (n, n) for n in range(start, start + count)
    )


# -- without faults --------------------------------------------------------------------------------------


def test_a_job_that_has_not_begun_is_told_of_once_with_each_status(world):
    """Else who follows it at once sees nothing, for ever if its sites are not there."""
    world.status = "SUBMITTED"
    world.steps = [
        lambda: None,
        lambda: world.over("DISPATCHED"),
        lambda: world.over("RUNNING"),
        lambda: world.write("site-1", b"one\n"),
        lambda: world.end("site-1"),
        world.over,
    ]
    events = world.follow()
    assert [event.text for event in events if event.kind == "waiting"] == ["SUBMITTED", "DISPATCHED"]
    assert told(events) == ["waiting", "waiting", "joined", "text", "ended", "over"]


def test_every_line_comes_once_and_in_order_with_each_notice_where_it_belongs(world):
    world.write("site-1", numbered(20))
    world.steps = [
        lambda: world.write("site-1", numbered(20, 20) + b"half a li"),
        lambda: world.write("site-1", b"ne\n"),
        lambda: world.end("site-1"),
        world.over,
    ]
    events = world.follow()
    assert text_of(events) == world.written["site-1"].decode() and "half a line\n" in text_of(events)
    assert told(events) == ["joined", "text", "ended", "over"]
    assert [event.text for event in events[-1:]] == [DONE]
    assert [event.text for event in events if event.kind == "ended"] == ["complete; exit code 0"]


def test_a_job_that_is_over_is_read_and_left_at_once(world):
    world.write("site-1", numbered(30) + b"the last line has no end")
    world.end("site-1")
    world.over()
    began = world.clock.now
    events = world.follow()
    assert text_of(events) == world.written["site-1"].decode() and told(events) == ["text", "ended", "over"]
    assert {request["op"] for request in world.asked} == {"streams", "read"} and world.clock.now - began < 1


def test_a_stream_that_closes_while_text_is_left_is_read_to_its_end(world):
    """Parts are smaller than what came, and the closed stream's last line has no end."""
    world.write("site-1", b"first\n")

    def finish() -> None:
        world.write("site-1", numbered(50) + b"no newline")
        world.end("site-1")
        world.over()

    world.steps = [finish]
    events = world.follow()
    assert text_of(events) == world.written["site-1"].decode()
    assert told(events) == ["joined", "text", "ended", "over"]
    assert max(len(event.text) for event in events) < 300


def test_silence_and_return_are_told_once_each(world):
    world.write("site-1", b"one\n")
    world.steps = [
        lambda: world.clock.advance(IDLE + 1),
        lambda: world.clock.advance(IDLE + 1),
        lambda: world.write("site-1", b"two\n"),
        lambda: world.end("site-1"),
        world.over,
    ]
    events = world.follow()
    either, other = ("reconnected", "text"), ("text", "reconnected")  # both happened between two looks
    assert told(events) in (["joined", "text", "silent", *pair, "ended", "over"] for pair in (either, other))
    assert next(event for event in events if event.kind == "silent").text.startswith("site silent since ")


def test_a_site_whose_first_words_came_and_that_fell_silent_unseen_is_told_to_be_silent(world):
    """It joined and went between two looks."""
    world.store.expect({StreamKey(JOB, "site-1", "log.txt"): "nothing came yet"})

    def came_and_went() -> None:
        world.write("site-1", b"one\n")
        world.clock.advance(IDLE + 1)
        world.over("FINISHED:ABORTED")

    world.steps = [came_and_went]
    events = world.follow()
    assert told(events) == ["text", "silent", "over"] and text_of(events) == "one\n"


def test_losses_and_refusals_are_told_once_each_with_their_reason(world):
    world.write("site-1", b"one\n")
    world.write("site-2", b"")
    world.steps = [
        lambda: world.write("site-1", b"two\n", losses=(Loss(4, 10, "file truncated"),)),
        lambda: world.store.refuse(StreamKey(JOB, "site-2", "log.txt"), "not allowed there"),
        lambda: world.write("site-1", b"three\n", losses=(Loss(8, None, "file truncated again"),)),
        lambda: world.end("site-1"),
        world.over,
    ]
    events = world.follow()
    assert told(events, "site-1") == ["joined", "text", "lost", "text", "lost", "ended"]
    assert told(events, "site-2") == ["joined", "refused"]
    assert next(event for event in events if event.kind == "refused").text == "not allowed there"
    assert "file truncated again" in [event for event in events if event.kind == "lost"][1].text


def test_a_site_that_never_comes_is_waited_for_no_longer_than_a_moment(world):
    world.store.expect({StreamKey(JOB, "site-1", "log.txt"): "not connected"})
    world.over()
    began = world.clock.now
    events = world.follow()
    assert told(events) == ["missing", "over"] and events[-2].text == "never seen (not connected)"
    assert follow._LATE_SECONDS <= world.clock.now - began < follow._LATE_SECONDS + 3
    assert all(request["wait"] < MAX_WAIT for request in world.asked if request["op"] == "follow")


def test_of_what_never_came_the_server_is_told_first(world):
    for site in ("a-site", "server", "z-site"):
        world.store.expect({StreamKey(JOB, site, "log.txt"): "not connected"})
    world.over()
    events = world.follow()
    assert [event.site for event in events if event.kind == "missing"] == ["server", "a-site", "z-site"]


def test_a_site_that_comes_a_moment_after_the_jobs_end_is_read(world):
    world.store.expect({StreamKey(JOB, "site-1", "log.txt"): "not connected"})
    world.over()
    world.steps = [
        lambda: None,
        lambda: world.write("site-1", b"died at once\n"),
        lambda: world.end("site-1"),
    ]
    events = world.follow()
    assert text_of(events) == "died at once\n" and told(events) == ["joined", "text", "ended", "over"]


def test_a_site_that_nobody_knows_is_waited_for_and_not_made_up(world):
    world.write("site-1", b"text\n")
    world.end("site-1")
    world.over()
    events = world.follow(LogQuery(sites=("nowhere",)))
    assert (
        told(events) == ["missing", "over"]
        and "no such site in this job; the job has site-1" in events[-2].text
    )


def test_a_job_whose_end_the_server_does_not_know_ends_the_following(world):
    world.write("site-1", b"text\n")
    world.steps = [lambda: world.clock.advance(IDLE + 1), lambda: world.over("UNKNOWN")]
    events = world.follow()
    assert told(events) == ["joined", "text", "silent", "over"] and events[-1].text == "UNKNOWN"


def test_all_lines_of_a_site_that_died_come_before_the_end_is_told(world):
    """More than one part is left when the job is over and the site is silent."""
    world.write("site-1", b"one\n")

    def die() -> None:
        world.write("site-1", numbered(50))
        world.clock.advance(IDLE + 1)
        world.over("FINISHED:ABORTED")

    world.steps = [die]
    events = world.follow()
    assert text_of(events) == world.written["site-1"].decode()
    assert events[-1].kind == "over" and told(events).count("silent") == 1


def test_a_site_stays_with_the_log_that_was_begun(world):
    """A log.json was there first; the log.txt that comes later is neither mixed in nor waited for."""
    world.write("site-1", b'{"message": "one"}\n', "log.json")
    world.steps = [
        lambda: world.write("site-1", numbered(9)),
        lambda: world.write("site-1", b'{"message": "two"}\n', "log.json"),
        lambda: world.end("site-1", "log.json"),
        lambda: world.end("site-1"),
        world.over,
    ]
    events = world.follow()
    assert text_of(events) == '{"message": "one"}\n{"message": "two"}\n' and told(events).count("ended") == 1


@pytest.mark.parametrize("first", [b"", b"\n", b"\n  \n"])
def test_a_json_log_that_had_no_record_at_first_is_filtered_as_one(world, first):
    world.write("site-1", first, "log.json")
    record = '{{"asctime": "2026-04-28 10:00:00,000", "levelname": "{}", "message": "m"}}\n'
    world.steps = [
        lambda: world.write("site-1", (record.format("INFO") + record.format("ERROR")).encode(), "log.json"),
        lambda: world.end("site-1", "log.json"),
        world.over,
    ]
    assert text_of(world.follow(LogQuery(sites=("all",), file="log.json", level="ERROR"))) == record.format(
        "ERROR"
    )


def test_a_busy_server_is_asked_again_after_a_pause(world, monkeypatch):
    world.write("site-1", b"one\n")
    answer, pauses = world.service.answer, []
    world.steps = [lambda: pauses.append(world.clock.now)] * 2 + [lambda: world.end("site-1"), world.over]
    monkeypatch.setattr(
        world.service,
        "answer",
        lambda job, request: (
            answer(job, request) | ({"busy": True} if request["op"] == "follow" and len(pauses) < 2 else {})
        ),
    )
    assert told(world.follow()) == ["joined", "text", "ended", "over"]
    assert pauses[1] - pauses[0] >= follow._BUSY_PAUSE


def test_what_the_server_refuses_ends_the_following_with_its_words(world):
    world.write("site-1", b"one\n")
    world.steps = [lambda: world.store.delete_job(JOB)]
    with pytest.raises(RetrievalError, match="no longer has the log"):
        world.follow()


def test_a_server_that_crashed_and_has_less_than_it_gave_out_is_waited_for(world):
    """Until the site has sent again what was not committed."""

    def crash_and_lag() -> None:
        written = dict(world.written)
        world.written.clear()
        world.crash()
        world.written.update(written)

    world.write("site-1", numbered(9))
    world.steps = [
        crash_and_lag,
        lambda: None,
        lambda: world.write("site-1", b"more\n"),
        lambda: world.end("site-1"),
        world.over,
    ]
    assert text_of(world.follow()) == numbered(9).decode() + "more\n"


def test_every_site_that_has_news_gets_its_share_of_a_reply(world):
    """Otherwise one that writes much would keep the others' lines back."""
    sites = ("site-1", "site-2", "site-3")
    for site in sites:
        world.write(site, b"begun\n")

    def much() -> None:
        for site in sites:
            world.write(site, numbered(20))

    world.steps = [much, *[lambda site=site: world.end(site) for site in sites], world.over]
    events = world.follow()
    texts = [event.site for event in events if event.kind == "text"]
    assert texts[3:6] == list(sites), "the first reply with news has some of each"
    assert all(text_of(events, site) == world.written[site].decode() for site in sites)


# -- names, and an end in time ---------------------------------------------------------------------------


def expect(world: World, *sites: str) -> None:
    for site in sites:
        world.store.expect({StreamKey(JOB, site, "log.txt"): "nothing came yet"})


@pytest.mark.parametrize("sites", [("typo",), ("site-1", "typo"), ("x*",)])
def test_a_name_of_no_site_ends_a_following_at_once_and_names_those_there_are(world, sites):
    expect(world, "site-1", "site-2")
    world.write("server", b"begun\n")
    began = world.clock.now
    wanted = f"^{sites[-1].replace('*', '.')}: no such site in this job; the job has server, site-1, site-2$"
    with pytest.raises(RetrievalError, match=wanted) as caught:
        world.follow(LogQuery(sites=sites))
    assert caught.value.code == "LOG_NOT_FOUND" and f"status {JOB}" in caught.value.hint
    assert world.clock.now - began < 1


@pytest.mark.parametrize("known", [False, True])
def test_while_the_jobs_sites_are_not_known_that_is_said_once_and_the_names_are_checked_later(world, known):
    """The server's own log comes first; a site's may come before the sites are recorded."""
    world.status = "DISPATCHED"
    world.write("server", b"begun\n")
    if known:
        world.write("site-1", b"early\n")

    def told_sites() -> None:
        expect(world, "site-1", "site-2")
        world.status = "RUNNING"

    world.steps = [lambda: None, lambda: world.write("server", b"more\n"), lambda: None, told_sites]
    given: list[Event] = []

    def read_on() -> None:
        for event in world.events(LogQuery(sites=("server", "typo"))):
            given.append(event)

    with pytest.raises(RetrievalError, match="the job has server, site-1, site-2"):
        read_on()
    awaited = [(event.site, event.text) for event in given if event.kind == "awaited"]
    assert awaited == [("typo", "the job has not told its sites yet")]
    assert text_of(given, "server") == "begun\nmore\n"


def test_a_site_that_is_recorded_late_is_followed(world):
    world.status = "DISPATCHED"
    world.write("server", b"begun\n")

    def told_sites() -> None:
        expect(world, "site-1")
        world.status = "RUNNING"

    steps = [lambda: world.write("site-1", b"one\n"), lambda: world.end("site-1"), world.over]
    world.steps = [lambda: None, told_sites, *steps]
    events = world.follow(LogQuery(sites=("site-1",)))
    assert text_of(events) == "one\n" and told(events, "site-1") == ["awaited", "joined", "text", "ended"]


@pytest.mark.parametrize("until", ["2026-04-28T10:00:00", "1m", "2026-04-28T10:00:00Z"])
def test_an_end_in_the_past_ends_a_following_when_what_was_before_it_has_been_read(world, until):
    world.write("site-1", numbered(30) + b"2027-01-15 08:00:05,000 - n - INFO - now\n")
    began = world.clock.now
    events = world.follow(LogQuery(sites=("all",), until=until))
    wanted = numbered(30) if until == "1m" else numbered(1)
    assert text_of(events) == wanted.decode()
    assert (events[-1].kind, events[-1].text) == ("past", "RUNNING") and world.clock.now - began < 5


def test_an_end_in_the_future_is_waited_for_and_no_longer(world):
    """The present is 2027-01-15 08:00:00; lines later than the end go on coming and are not shown."""
    world.write("site-1", b"2027-01-15 08:00:00,000 - n - INFO - first\n")
    late = [
        lambda n=n: world.write("site-1", b"2027-01-15 08:00:%02d,000 - n - INFO - later\n" % n)
        for n in (5, 25, 28, 29)
    ]
    world.steps = [lambda: None, *late]
    began = world.clock.now
    events = world.follow(LogQuery(sites=("site-1",), until="2027-01-15T08:00:20Z"))
    assert [line.split()[-1] for line in text_of(events).splitlines()] == ["first", "later"]
    # The clock of this server goes on behind each answer, so that the last poll begins one too late.
    assert events[-1].kind == "past" and 20 < world.clock.now - began < 22 + MAX_WAIT


@pytest.mark.parametrize("wanted", [{}, {"grep": "INFO"}, {"level": "INFO"}])
def test_the_first_lines_bound_only_what_was_there_at_first(world, wanted):
    line = "2026-04-28 10:00:00,000 - n - INFO - {}\n"
    world.write("site-1", (line.format(1) + line.format(2)).encode())
    late = lambda: world.write("site-1", line.format(3).encode())  # noqa: E731
    world.steps = [lambda: None, late, lambda: world.end("site-1"), world.over]
    events = world.follow(LogQuery(sites=("all",), head=1, **wanted))
    assert text_of(events) == line.format(1) + line.format(3)


def test_a_job_that_is_over_is_told_to_be_over_whatever_the_end(world):
    world.write("site-1", numbered(3))
    world.end("site-1")
    world.over()
    assert told(world.follow(LogQuery(sites=("all",), until="2026-04-28T10:00:00")))[-1] == "over"


# -- pushed ----------------------------------------------------------------------------------------------


def steps_that_push(world: World, count: int) -> list[Callable[[], None]]:
    return [lambda n=n: world.write("site-1", b"line %d\n" % n) for n in range(count)]


def test_new_lines_are_pushed_while_one_poll_lasts_and_shown_as_they_come(world):
    world.let_push()
    world.write("site-1", b"begun\n")
    world.steps = [lambda: None, *steps_that_push(world, 9), lambda: world.end("site-1"), world.over]
    events = world.follow(LogQuery(sites=("site-1",)))
    assert text_of(events) == world.written["site-1"].decode()
    assert len(world.pushed) >= 8, "the first poll has no mark and is answered at once"
    kinds = [event.kind for event in events]
    assert all(kinds[at + 1] == "caught up" for at, kind in enumerate(kinds) if kind == "text" and at > 2)
    polls = [request for request in world.asked if request["op"] == "follow"]
    assert len(polls) < 9 and len({request["push"] for request in polls}) == len(polls)


@pytest.mark.parametrize("lost", [(0,), (3,), (7,), (2, 3), (0, 8)])
@pytest.mark.parametrize("late", [False, True])
def test_a_message_that_is_lost_or_late_costs_no_line_and_repeats_none(world, lost, late):
    """Messages are handled by many threads of the runtime, in any order."""
    world.let_push()
    held: list[bytes] = []

    def on_the_way(message: bytes, deliver: Callable[[bytes], None]) -> None:
        if len(world.pushed) - 1 in lost:
            held.append(message)
            return
        deliver(message)
        while late and held:
            deliver(held.pop())

    world.on_the_way = on_the_way
    world.write("site-1", b"begun\n")
    world.steps = [lambda: None, *steps_that_push(world, 9), lambda: world.end("site-1"), world.over]
    events = world.follow(LogQuery(sites=("site-1",)))
    assert text_of(events) == world.written["site-1"].decode()
    assert told(events, "site-1") == ["joined", "text", "ended"]


def test_what_a_reader_holds_is_bounded_and_the_rest_is_asked_for(world, monkeypatch):
    monkeypatch.setattr(poll, "_MOST_HELD", 0)
    world.let_push()
    world.write("site-1", b"begun\n")
    world.steps = [lambda: None, *steps_that_push(world, 9), lambda: world.end("site-1"), world.over]
    assert text_of(world.follow(LogQuery(sites=("site-1",)))) == world.written["site-1"].decode()


def test_a_poll_that_pushed_a_part_is_answered(world):
    """The reader has to come back for more: what it has not shown yet it holds in memory."""
    world.let_push()
    world.write("site-1", b"begun\n")
    world.steps = [lambda: None, *steps_that_push(world, 40), lambda: world.end("site-1"), world.over]
    assert text_of(world.follow(LogQuery(sites=("site-1",)))) == world.written["site-1"].decode()
    polls: dict[str, int] = {}
    for message in world.pushed:
        size = sum(len(part["text"]) for part in message["parts"])
        polls[message["push"]] = polls.get(message["push"], 0) + size
    assert len(polls) > 2 and max(polls.values()) <= 100


@pytest.mark.parametrize(
    "message", [b"", b"[]", b"\xff", b'{"v": 1}', b"[" * 100_000, b'{"v": 2, "push": ""}']
)
def test_a_message_that_cannot_be_read_ends_the_following(world, message):
    world.let_push()
    world.on_the_way = lambda pushed, deliver: deliver(message)
    world.write("site-1", b"begun\n")
    world.steps = [lambda: None, *steps_that_push(world, 2)]
    with pytest.raises(RetrievalError, match="cannot be read"):
        world.follow(LogQuery(sites=("site-1",)))


def test_messages_of_an_earlier_poll_are_passed_over(world):
    world.let_push()
    early: list[bytes] = []

    def on_the_way(message: bytes, deliver: Callable[[bytes], None]) -> None:
        for other in [*early, message]:
            deliver(other.replace(b"line", b"lie") if other in early else other)
        early.append(message.replace(world.pushed[-1]["push"].encode(), b"another"))

    world.on_the_way = on_the_way
    world.write("site-1", b"begun\n")
    world.steps = [lambda: None, *steps_that_push(world, 9), lambda: world.end("site-1"), world.over]
    assert text_of(world.follow(LogQuery(sites=("site-1",)))) == world.written["site-1"].decode()


def test_a_server_that_knows_no_messages_is_asked_again_and_again(world):
    world.let_push()
    world.pushes = False
    world.write("site-1", b"begun\n")
    world.steps = [*steps_that_push(world, 3), lambda: world.end("site-1"), world.over]
    assert text_of(world.follow(LogQuery(sites=("site-1",)))) == world.written["site-1"].decode()


# -- lines that grow by carriage returns -------------------------------------------------------------------


def grow(world: World, *states: str) -> list[Callable[[], None]]:
    return [lambda state=state: world.write("site-1", b"\r" + state.encode()) for state in states]


def growing(world: World, **wanted: Any) -> tuple[list[Event], list[str]]:
    port = SessionPort(world, world.reconnect)  # type: ignore[arg-type]
    client = LogClient(port, world.clock, world.clock.advance)
    events = list(client.follow(JOB, LogQuery(sites=("all",), **wanted), growing=True))
    return events, [event.text for event in events if event.kind == "growing"]


def test_a_line_that_overwrites_itself_is_told_as_it_reads_now_and_comes_whole_at_its_end(world):
    world.let_push()
    world.write("site-1", b"begun\n")
    steps = grow(world, "10 %", "20 %", "50 \u2588")
    world.steps = [
        lambda: None,
        *steps,
        lambda: world.write("site-1", b"\rdone\n"),
        lambda: world.end("site-1"),
    ]
    world.steps.append(world.over)
    events, states = growing(world)
    assert states == ["10 %", "20 %", "50 \u2588"]
    assert text_of(events) == world.written["site-1"].decode()
    assert text_of(events).endswith("\r10 %\r20 %\r50 \u2588\rdone\n"), "the filters' idea of a line stays"


@pytest.mark.parametrize("again", [b"", b"begun\n\r10 %", b"other " * 9])
def test_a_line_that_grows_in_a_copy_that_is_begun_anew_meanwhile_ends_no_following(
    world, again, monkeypatch
):
    """The server knows how long a copy is, and then reads it: between both it may become another."""
    world.let_push()
    world.write("site-1", b"begun\n")
    look, key = Followers._grown, StreamKey(JOB, "site-1", "log.txt")

    def look_late(self, *args):
        if (file := world.store._loaded.files[key]).record.end > 15 and file.record.copy == 1:
            with world.store._loaded.lock:
                world.store._loaded.begin_again(file, Loss(0, 0, "begun anew"))
            world.store.append(key, 0, again, b"cursor")
            world.store.wake_readers(JOB)
        return look(self, *args)

    monkeypatch.setattr(Followers, "_grown", look_late)
    whole = b"begun\n\r10 %\r20 %\rdone\n"

    def send_again() -> None:
        world.written["site-1"] = again + whole
        world.write("site-1", b"")

    world.steps = [lambda: None, *grow(world, "10 %", "20 %"), send_again, lambda: world.end("site-1")]
    world.steps.append(world.over)
    events, states = growing(world)
    assert set(states) <= {"10 %", "20 %"} and events[-1].kind == "over"
    last = max(number for number, event in enumerate(events) if event.kind == "begun anew")
    assert text_of(events[last:]).encode() == again + whole


def test_an_unfinished_line_without_carriage_returns_is_waited_for(world):
    world.let_push()
    world.write("site-1", b"begun\n")
    world.longest = 0.01
    world.steps = [
        lambda: None,
        lambda: world.write("site-1", b"half a "),
        lambda: world.write("site-1", b"line\n"),
    ]
    world.steps += [lambda: world.end("site-1"), world.over]
    assert growing(world)[1] == []


@pytest.mark.parametrize("wanted", [{"grep": "%"}, {"level": "INFO"}])
def test_of_an_unfinished_line_nobody_knows_whether_the_filters_keep_it(world, wanted):
    world.let_push()
    world.longest = 0.01
    world.write("site-1", b"begun\n")
    world.steps = [lambda: None, *grow(world, "10 %", "20 %"), lambda: world.end("site-1"), world.over]
    assert growing(world, **wanted)[1] == []


def test_a_very_long_line_that_grows_is_told_by_its_end(world):
    world.let_push()
    world.write("site-1", b"begun\n" + b"x" * 10_000)
    world.steps = [lambda: None, *grow(world, "10 %"), lambda: world.end("site-1"), world.over]
    assert growing(world)[1] == ["10 %"]


# -- merged ----------------------------------------------------------------------------------------------


def record(second: int, text: str) -> bytes:
    return b"2026-04-28 10:%02d:%02d,000 - n - INFO - %s\n" % (*divmod(second, 60), text.encode())


def interleaved(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    """Records of two sites in turn, as (site, record)."""
    return [(f"site-{n % 2 + 1}", record(n, f"number {n}")) for n in range(start, start + count)]


def test_merged_text_of_all_sites_comes_by_time_and_later_text_too(world):
    for site, line in reversed(interleaved(20)):
        world.written[site] = line + world.written.get(site, b"")
    written = dict(world.written)
    world.written.clear()
    for site in ("site-2", "site-1"):
        world.write(site, written[site])

    def more() -> None:
        for site, line in interleaved(4, 20):
            world.write(site, line)

    world.steps = [more, lambda: world.end("site-1"), lambda: world.end("site-2"), world.over]
    events = world.follow(merged=True)
    texts = [event.text for event in events if event.kind == "text"]
    assert "".join(texts).encode() == b"".join(line for _, line in interleaved(24))
    assert told(events, "site-1") == ["joined", "text", "ended"]


def test_merging_holds_a_part_of_each_log_and_reads_on_where_it_needs_more(world):
    """A long backlog: what is read ahead of what was given out stays below two parts a site."""
    for site, line in interleaved(400):
        world.write(site, line)
    world.end("site-1")
    world.end("site-2")
    world.over()
    given, most = 0, 0
    for event in world.events(merged=True):
        given += len(event.text) if event.kind == "text" else 0
        reads = [request for request in world.asked if "reading" in request]
        begun = {request["site"]: request["reading"]["at"] for request in reads}  # where its last part began
        most = max(most, sum(begun.values()) - given)
    assert given == sum(map(len, world.written.values()))
    assert most < 4 * 200, "a part has a block and 100 characters at most"


def test_what_merging_holds_is_given_out_before_a_lost_connection_is_told(world):
    for site, line in interleaved(40):
        world.write(site, line)
    world.faults = [None, None, None, None, (ConnectionError, True)]
    world.steps = [lambda: world.end("site-1"), lambda: world.end("site-2"), world.over]
    events = world.follow(merged=True)
    for site in ("site-1", "site-2"):
        assert text_of(events, site) == world.written[site].decode()
    assert [event.kind for event in events if event.kind in ("lost contact", "back")] == [
        "lost contact",
        "back",
    ]


# -- with faults -----------------------------------------------------------------------------------------


def test_a_lost_connection_ends_a_following_that_cannot_come_back(world):
    world.write("site-1", b"one\n")
    world.faults = [None, None, (ConnectionError, False)]
    began = world.clock.now
    with pytest.raises(LostContactError):
        world.follow(reconnect=False)
    assert world.clock.now - began < 5.0, "it asks again, though nothing can have changed"


def test_coming_back_is_tried_for_five_minutes(world):
    world.write("site-1", b"one\n")
    world.faults, world.unreachable = [None, (ConnectionError, False)], [True] * 1000
    began = world.clock.now
    with pytest.raises(LostContactError, match="nobody there"):
        world.follow()
    assert follow._RECONNECT_SECONDS < world.clock.now - began < follow._RECONNECT_SECONDS + 10


def test_a_server_that_stumbles_when_it_comes_back_at_last_is_not_given_up(world):
    world.write("site-1", b"one\n")
    lost = (ConnectionError, False)
    world.faults, world.unreachable = [None, None, lost, None, None, lost, None, lost], [True] * 295
    world.steps = [lambda: world.end("site-1"), world.over]
    events = world.follow()
    assert text_of(events) == "one\n"
    assert [event.kind for event in events].count("back") == 3


def test_after_a_long_absence_all_text_comes_before_the_end(world):
    """While there was no contact a site wrote, died and fell silent, and the job was over."""
    world.write("site-1", b"one\n")

    def meanwhile() -> bool:
        world.write("site-1", numbered(50))
        world.clock.advance(IDLE + 1)
        world.over("FINISHED:ABORTED")
        return False

    class Absence(list):
        def pop(self, index: int) -> bool:
            super().pop(index)
            return meanwhile()

    world.faults, world.unreachable = [None, None, (ConnectionError, False)], Absence([True])
    events = world.follow()
    assert text_of(events) == world.written["site-1"].decode()
    assert [event.kind for event in events if event.kind in ("lost contact", "back", "silent", "over")] == [
        "lost contact", "back", "silent", "over"
    ]  # fmt: skip


@pytest.mark.parametrize("error", LOST)
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("at", range(6))
def test_a_connection_lost_at_any_request_repeats_neither_text_nor_notices(world, error, answered, at):
    world.write("site-1", numbered(10))
    world.steps = [lambda: world.write("site-1", numbered(3, 10)), lambda: world.end("site-1"), world.over]
    world.faults, world.unreachable = [None] * at + [(error, answered)], [True, True]
    events = world.follow()
    assert text_of(events) == numbered(13).decode()
    assert [kind for kind in told(events, "site-1") if kind != "text"] == ["joined", "ended"]
    assert [event.kind for event in events if event.kind in ("lost contact", "back")] == [
        "lost contact",
        "back",
    ]


SITES = ("server", "site-1", "site-2")
LINES = st.builds(
    "{}{}{}\n".format,
    st.sampled_from(["", "2026-04-28 10:00:00,000 - n - INFO - ", "2026-04-28 10:00:01,000 - n - ERROR - "]),
    st.text("ab é\r\x0b\u2028", max_size=12),
    st.sampled_from(["", "needle"]),
)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "tail": st.integers(0, 9),
        "max_bytes": st.integers(0, 200),
        "grep": st.just("needle"),
        "before": st.integers(0, 2),
        "after": st.integers(0, 2),
        "level": st.sampled_from(["INFO", "ERROR"]),
    },
)
FAULTS = st.lists(st.none() | st.tuples(st.sampled_from(LOST), st.booleans()), max_size=15)


def on_the_way(ways: list[str]) -> Callable[[bytes, Callable[[bytes], None]], None]:
    """What becomes of each message in turn."""
    held: list[bytes] = []

    def deliver_one(message: bytes, deliver: Callable[[bytes], None]) -> None:
        way = ways.pop(0) if ways else "as sent"
        if way == "late":
            held.append(message)
        elif way != "lost":
            for _ in range(2 if way == "twice" else 1):
                deliver(message)
            while held:
                deliver(held.pop())

    return deliver_one


@settings(max_examples=40, deadline=None)
@given(
    st.data(),
    st.dictionaries(st.sampled_from(SITES), st.lists(LINES, max_size=25), min_size=1),
    QUERIES,
    FAULTS,
    st.lists(st.booleans(), max_size=6),
    st.booleans(),
    st.none() | st.lists(st.sampled_from(["lost", "late", "twice", "as sent"]), max_size=9),
)
def test_no_fault_loses_or_repeats_a_line(
    memory_path_factory, data, logs, bounds, faults, unreachable, merged, ways
):
    """Connections break before or after any answer, servers crash, logs come in any pieces; any filters."""
    with memory_path_factory() as root:
        world = World(root, idle=0.0)
        rest = {site: "".join(log).encode() for site, log in logs.items()}

        def write(site: str, most: int) -> None:
            piece, rest[site] = rest[site][:most], rest[site][most:]
            world.write(site, piece)

        choices = st.tuples(st.sampled_from([*sorted(rest), "crash", "commit"]), st.integers(0, 300))
        actions = data.draw(st.lists(choices, max_size=10))
        for at, (what, most) in enumerate(actions):
            step = {"crash": world.crash, "commit": lambda: world.store.commit()}.get(what) or (
                lambda site=what, most=most: write(site, most)
            )
            (step() if at < 3 else world.steps.append(step))
        for site in sorted(rest):
            world.steps += [lambda site=site: write(site, 1 << 20), lambda site=site: world.end(site)]
        world.steps.append(world.over)
        world.faults, world.unreachable = faults, unreachable
        if ways is not None:
            world.let_push()
            world.longest, world.on_the_way = 0.005, on_the_way(ways)
        events = world.follow(LogQuery(sites=("all",), **bounds), merged=merged)
        world.store.close()

    assert events[-1].kind == "over"
    lasting = {name: value for name, value in bounds.items() if name not in ("tail", "max_bytes")}
    for site in logs:
        whole = world.written[site]
        known = whole[
            : whole.rfind(b"\n", 0, world.first[site]) + 1
        ].decode()  # when the site's log was first read
        kept = apply_filters(known, **bounds).text
        later = apply_filters(whole.decode(), **lasting).text.removeprefix(
            apply_filters(known, **lasting).text
        )
        assert text_of(events, site) == kept + later
        notices = [kind for kind in told(events, site) if kind != "text"]
        assert notices in (["joined", "ended"], ["ended"])
        assert max(
            index for index, event in enumerate(events) if event.site == site and event.kind != "caught up"
        ) == max(index for index, event in enumerate(events) if event.site == site and event.kind == "ended")


@pytest.mark.parametrize("since, shown", [("2026-04-28 09:00:00", ["10 %"]), ("2026-04-29 09:00:00", [])])
def test_of_a_record_that_is_left_out_no_line_is_shown_while_it_grows(world, since, shown):
    world.let_push()
    world.longest = 0.01
    world.write("site-1", b"2026-04-28 10:00:00,000 - n - INFO - begun\n")
    world.steps = [lambda: None, *grow(world, "10 %"), lambda: world.end("site-1"), world.over]
    assert growing(world, since=since)[1] == shown
