"""A reader of a log whose copy the server begins anew is told so, and then gets the new copy, all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvflare_logstream.cli.log_task import LogTask
from nvflare_logstream.cli.output import Format
from nvflare_logstream.cli.printers import FilePrinter
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.model import Event
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import GapError, RetrievalError
from nvflare_logstream.filters import apply_filters
from nvflare_logstream.filters.log import FileLog
from nvflare_logstream.flare.session_port import SessionPort
from nvflare_logstream.streams import StreamKey
from nvflare_logstream.wire.upload import Close
from tests.unit.test_follow import JOB, World, numbered, small_parts, text_of, told

__all__ = ["small_parts"]  # also what is read here comes in several parts
KEY = StreamKey(JOB, "site-1", "log.txt")
LINES = numbered(30)


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    with suppress(Exception):
        world.store.close()


def damage(world: World) -> None:
    """Somebody writes into the stored copy; the site has what it sent."""
    with world.store.path(KEY).open("r+b") as copy:
        copy.seek(70)
        copy.write(b"damaged")


def close(world: World) -> None:
    digest = hashlib.sha256(world.written["site-1"]).hexdigest()
    world.store.close_stream(KEY, Close(None, len(world.written["site-1"]), digest, 0, "exit code 0"))
    world.store.commit()


def begin_anew(world: World) -> None:
    """The close finds the damage."""
    with pytest.raises(GapError):
        close(world)


def send(world: World, most: int = 1 << 20) -> None:
    """The site sends again what the store does not have, or so much of it."""
    end, own = world.store.info(KEY).end, world.written["site-1"]
    world.store.append(KEY, end, own[end : end + most], b"cursor")


def send_other(world: World, own: bytes) -> None:
    """The site's own sender sends its bytes where those of the runtime's own streamer were."""
    world.written["site-1"] = own
    world.store.append(KEY, 0, own, b"cursor")


def after(events: list[Event]) -> str:
    """The text since the last notice that the copy was begun anew."""
    last = max(number for number, event in enumerate(events) if event.kind == "begun anew")
    return text_of(events[last:])


def damaged_and_taken_again(world: World) -> None:
    world.write("site-1", LINES)
    damage(world)
    world.steps = [lambda: begin_anew(world), lambda: send(world), lambda: close(world), world.over]


def at_once(world: World) -> None:
    """No look of the server falls between the end of the one copy and the growth of the other."""
    world.write("site-1", LINES)
    damage(world)

    def all_at_once() -> None:
        begin_anew(world)
        world.written["site-1"] += numbered(3, 30)
        send(world)

    world.steps = [all_at_once, lambda: close(world), world.over]


def cut_at_the_server(world: World) -> None:
    """The store itself sees that a copy is too short when the site sends more."""
    world.write("site-1", LINES)
    world.steps = [
        lambda: world.store.path(KEY).write_bytes(b""),
        lambda: world.write("site-1", numbered(1, 30)),
        lambda: send(world),
        lambda: close(world),
        world.over,
    ]


def other_bytes(world: World) -> None:
    """A copy of the runtime's own streamer gives way to what the site lets out."""
    world.store.unchecked.append(KEY, 0, LINES)
    own = LINES.replace(b"line 7\n", b"[redacted]\n") + numbered(9, 30)
    world.steps = [lambda: send_other(world, own), lambda: close(world), world.over]


WAYS = [damaged_and_taken_again, at_once, cut_at_the_server, other_bytes]
QUERIES = [
    {},
    {"tail": 5},
    {"grep": "line 2"},
    {"max_bytes": 90},
    {"head": 40},
    {"since": "2026-04-28 10:00:00"},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bounds", QUERIES)
@pytest.mark.parametrize("merged", [False, True])
def test_what_is_asked_for_of_the_new_copy_comes_after_one_notice(world, way, bounds, merged):
    way(world)
    events = world.follow(LogQuery(sites=("site-1",), **bounds), merged=merged)
    kinds = told(events, "site-1")
    assert [kind for kind in kinds if kind not in ("text", "lost")] == ["joined", "begun anew", "ended"]
    assert after(events) == apply_filters(world.written["site-1"].decode(), **bounds).text


@pytest.mark.parametrize("way", WAYS)
def test_so_it_is_where_the_server_pushes(world, way):
    world.let_push()
    way(world)
    world.longest = 0.05
    world.steps.insert(0, lambda: None)
    assert after(world.follow(LogQuery(sites=("site-1",)))) == world.written["site-1"].decode()


def test_the_last_lines_are_those_of_a_copy_that_is_there_again(world):
    """While it is sent, others are the last for a moment, and all that come then would be shown."""
    world.write("site-1", LINES)
    damage(world)
    world.steps = [
        lambda: begin_anew(world),
        *[lambda: send(world, 200)] * 12,
        lambda: close(world),
        world.over,
    ]
    assert after(world.follow(LogQuery(sites=("site-1",), tail=3))) == numbered(3, 27).decode()


def test_a_copy_that_does_not_grow_again_is_shown_as_far_as_it_came(world):
    world.write("site-1", LINES)
    damage(world)
    world.steps = [lambda: begin_anew(world), lambda: send(world, 200), *[lambda: None] * 40]
    shown = []
    for event in world.events(LogQuery(sites=("site-1",), tail=2)):
        shown.append(event)
        if event.kind == "text" and len([one for one in shown if one.kind == "begun anew"]):
            break
    last_line_end = LINES.rfind(b"\n", 0, 200) + 1
    assert after(shown) == apply_filters(LINES[:last_line_end].decode(), tail=2).text


def test_a_copy_of_which_nothing_was_shown_is_begun_anew_without_a_word(world):
    damaged_and_taken_again(world)
    events = world.follow(LogQuery(sites=("site-1",), grep="line 29"))
    assert told(events, "site-1") == ["joined", "text", "begun anew", "text", "ended"]
    world.status = "RUNNING"
    other = World(world.root / "other")
    damaged_and_taken_again(other)
    assert told(other.follow(LogQuery(sites=("site-1",), grep="nowhere")), "site-1") == ["joined", "ended"]
    other.store.close()


def at_read(world: World, number: int, step: Callable[[], None]) -> None:
    """Take a step before a request to read is answered, and remove the way to do so again."""
    answer, reads = world.service.answer, []

    def stepping(job_id: str, request: dict[str, Any], *rest: Any) -> dict[str, Any]:
        reads.append(request["op"] == "read")
        if sum(reads) == number and request["op"] == "read":
            step()
        return answer(job_id, request, *rest)

    world.service.answer = stepping  # type: ignore[method-assign]


@pytest.mark.parametrize("number", [2, 5])
def test_a_log_whose_first_text_is_under_way_is_begun_anew_too(world, number):
    world.write("site-1", LINES)
    damage(world)
    at_read(world, number, lambda: (begin_anew(world), send(world)))  # type: ignore[arg-type, return-value]
    world.steps = [lambda: None, lambda: close(world), world.over]
    events = world.follow(LogQuery(sites=("site-1",)))
    assert after(events) == LINES.decode() and told(events, "site-1").count("begun anew") == 1


def test_a_reading_in_parts_ends_with_a_word_where_the_copy_is_begun_anew(world):
    """Its rest would belong to another text."""
    world.write("site-1", LINES)
    damage(world)
    at_read(world, 3, lambda: (begin_anew(world), send(world)))  # type: ignore[arg-type, return-value]
    client = LogClient(SessionPort(world), world.clock, world.clock.advance)  # type: ignore[arg-type]
    with pytest.raises(RetrievalError, match=r"has begun its copy of log.txt of site-1 anew; read it again"):
        client.read(JOB, LogQuery(sites=("site-1",)))
    assert client.read(JOB, LogQuery(sites=("site-1",)))["site-1"].text == LINES.decode()


@pytest.mark.parametrize("grown", [0, 5, 200, 1 << 20])
@pytest.mark.parametrize("op", ["follow", "read"])
def test_what_was_read_while_the_copy_was_begun_anew_is_not_given_out(world, op, grown, monkeypatch):
    """The server knows how long a copy is, and then reads it: between both it may become another."""
    world.write("site-1", LINES)
    damage(world)
    read, done = FileLog.read, []

    def read_late(self: FileLog, offset: int, length: int) -> bytes:
        if not done:
            done.append(True)
            begin_anew(world)
            send(world, grown)
        return read(self, offset, length)

    at = {"at": 0, "end": 0, "copy": 1}
    request = {"v": 1, "op": op, "site": "site-1", "file": "log.txt"}
    request["places"] = [{"site": "site-1", "file": "log.txt", "reading": {**at, "stage": ""}}]
    monkeypatch.setattr(FileLog, "read", read_late)
    reply = world.service.answer(JOB, request)
    assert reply.get("parts", []) == [] and "text" not in reply
    assert op == "follow" or reply["code"] == "LOG_CHANGED"


def without_copies(value: Any) -> Any:
    """What a server or a reader of an earlier release would send."""
    if isinstance(value, dict):
        return {name: without_copies(one) for name, one in value.items() if name != "copy"}
    return [without_copies(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("older", ["server", "reader", "server until it is restarted"])
def test_one_who_does_not_know_of_copies_is_answered_as_ever(world, older):
    world.write("site-1", LINES)
    answer = world.service.answer

    def answer_as_older(job_id: str, request: dict[str, Any], *rest: Any) -> dict[str, Any]:
        if older == "reader":
            request = without_copies(request)
        reply = answer(job_id, request, *rest)
        is_new = older.endswith("restarted") and sum(one["op"] == "follow" for one in world.asked) > 1
        return reply if older == "reader" or is_new else without_copies(reply)  # type: ignore[no-any-return]

    world.service.answer = answer_as_older  # type: ignore[method-assign]
    world.steps = [lambda: world.write("site-1", numbered(5, 30)), *[lambda: None] * 2]
    world.steps += [lambda: world.end("site-1"), world.over]
    events = world.follow(LogQuery(sites=("site-1",)))
    assert text_of(events) == numbered(35).decode() and told(events) == ["joined", "text", "ended", "over"]


def test_a_file_that_the_log_is_written_to_has_the_new_copy_alone(world, tmp_path, capsys):
    other_bytes(world)
    client = LogClient(SessionPort(world), world.clock, world.clock.advance)  # type: ignore[arg-type]
    files = FilePrinter(tmp_path)
    assert LogTask(client, JOB, LogQuery(sites=("site-1",)), files, Format.TEXT, False).follow() == 0
    assert files.paths["site-1"].read_bytes() == world.written["site-1"]
    said = "the server's copy of log.txt was replaced; what was shown of it so far does not count"
    assert f"site-1: begun anew: {said}" in capsys.readouterr().err.splitlines()


def test_which_copy_it_is_is_known_after_a_restart_of_the_server(world):
    damaged_and_taken_again(world)
    world.steps[0]()
    world.crash()
    assert world.store.info(KEY).copy == 2
    send(world)
    close(world)
    world.crash()
    assert world.store.info(KEY).copy == 2


STEPS = ["write", "damage", "close", "other", "cut", "send", "crash", "nothing"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 20)), max_size=14),
    st.sampled_from(QUERIES),
    st.booleans(),
    st.booleans(),
)
def test_whatever_becomes_of_a_copy_what_counts_is_the_text_of_the_last(
    memory_path_factory, steps, bounds, merged, pushes
):
    with memory_path_factory() as root:
        world = World(root)
        world.store.unchecked.append(KEY, 0, LINES[:700])
        world.written["site-1"] = LINES[:700]

        def step(what: str, most: int) -> None:
            own = world.written["site-1"]
            if what == "write":
                world.written["site-1"] = own + numbered(most, 40)
            elif what == "damage" and world.store.info(KEY).end > 100:
                damage(world)
            elif what == "other" and world.store.info(KEY).unchecked:
                world.written["site-1"] = own.replace(b"line %d" % most, b"[redacted]")
            elif what == "cut":
                world.store.path(KEY).write_bytes(own[: most * 10])
            elif what == "crash":
                # What the runtime's own streamer sent, and no commit saw, nobody knows of afterwards.
                world.store.close()
                world.start()
            elif what == "close":
                with suppress(GapError):
                    close(world)
            elif what == "send":
                with suppress(GapError):
                    end, own = world.store.open(KEY).place[0], world.written["site-1"]
                    world.store.append(KEY, end, own[end : end + most * 20], b"cursor")

        def finish() -> None:
            for _ in range(9):
                step("send", 1 << 20)
                step("close", 0)

        world.steps = [lambda one=one: step(*one) for one in steps] + [finish, world.over]
        if pushes:
            world.let_push()
            world.longest = 0.005
        try:
            events = world.follow(LogQuery(sites=("site-1",), **bounds), merged=merged)
        except RetrievalError as error:
            assert "on the server's disk is shorter" in str(error) and "cut" in dict(steps)
            return
        finally:
            stored, agreed = world.store.path(KEY).read_bytes().decode(), world.store.info(KEY).agreed
            world.store.close()
    begun = [number for number, event in enumerate(events) if event.kind == "begun anew"]
    text = text_of(events[begun[-1] if begun else 0 :])
    if "damage" in dict(steps) and not agreed:
        pass  # of a copy that was begun anew in part nobody knows how it came: the damage stays, and is said
    elif bounds.keys() <= {"grep", "since"}:
        assert text == apply_filters(stored, **bounds).text
    elif "tail" in bounds or "max_bytes" in bounds:
        assert stored.endswith(text)
    assert events[-1].kind == "over"
