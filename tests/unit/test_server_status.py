"""`nvflare-logstream server`: what the server says, to whom, how it travels, and how it is shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvflare.fuel.flare_api.api_spec import AuthorizationError, InternalError
from nvflare.fuel.hci.server.constants import ConnProps

from nvflare_logstream import __version__
from nvflare_logstream.cli import server as command
from nvflare_logstream.cli.main import run
from nvflare_logstream.cli.options import Access
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.port import read_status
from nvflare_logstream.errors import DamagedError, ErrorCode, LostContactError, RetrievalError, WireError
from nvflare_logstream.flare import admin_command
from nvflare_logstream.flare.session_port import SessionPort
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.counters import Counters
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.server.status import StatusService
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import StreamId, StreamKey
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.query_reply import ErrorReply
from nvflare_logstream.wire.server_status import (
    MAX_SHOWN,
    Disk,
    Kind,
    Problem,
    QuotaUse,
    Refused,
    ServerStatus,
    SiteUse,
    StreamCounts,
    decode_status,
    encode_question,
    encode_status,
)
from nvflare_logstream.wire.standing import MAX_STANDINGS, Standing
from nvflare_logstream.wire.upload import Close, Frame, RequestWriter
from tests.unit.fake_runtime import AdminConsole, Session

GIB = 1 << 30
JOB = "8f3c0000-1111-2222-3333-444455556666"
NOW = 1_800_000_000.0
FULL = ServerStatus(
    "0.9.0",
    "2.9.0",
    1,
    1,
    NOW,
    97_200.0,
    StreamCounts(12, 2, 340, 1, 4, 6),
    1_203_441,
    14.2,
    1.5e6,
    Disk(250 * GIB, 3 * GIB, 12 * GIB, 240 * GIB, "/srv/[red]logstream"),
    (
        QuotaUse("max_store_gib", 240 * GIB, 256 * GIB),
        QuotaUse("max_site_gib", 8 * GIB, 32 * GIB, "site-2"),
        QuotaUse("max_stream_gib", 4 * GIB, 16 * GIB, f"{JOB}/site-2/log.txt"),
        QuotaUse("max_site_files", 3, 64, f"{JOB}/site-1"),
    ),
    (Refused(Kind.UNREADABLE, 334, NOW - 30), Refused(Kind.OVER_QUOTA, 2, NOW - 9000)),
    True,
    (Refused(Kind.UNREADABLE, 334, NOW - 30, "site-4"), Refused(Kind.OVER_QUOTA, 2, NOW - 9000, "site-2")),
    (Problem(NOW - 30, "site-4", Kind.UNREADABLE, "frames[0].offset: -1 is not allowed; " + "x" * 200),),
    (SiteUse("site-2", 12 * GIB, 9e5, 1_000_000), SiteUse("[bold]é", GIB, 12.0, 203_441)),
    (
        Standing("site-4", NOW - 400, 3, 2, False, "0.2.0", "2.8.3", 1),
        Standing("site-9", connected=True),
        Standing("site-1", NOW - 90_000, connected=True),
        Standing("[bold]é", NOW - 7300),
        Standing("site-8", NOW - 60, connected=True, stock=True),
        Standing("site-2", NOW - 1, 9, 0, True, "0.2.0", "2.9.0", 1),
    ),
)
QUIET = FULL._replace(
    streams=StreamCounts(3, 0, 1),
    disk=Disk(250 * GIB, 80 * GIB, 12 * GIB, GIB),
    quotas=(QuotaUse("max_store_gib", GIB, 256 * GIB),),
    refused=(),
    senders=(),
    errors=(),
    standings=FULL.standings[-1:],
)


# -- what the server says ------------------------------------------------------------------------------------


class World:
    """A receiver over a store, and what tells an admin of both."""

    def __init__(self, root, **quotas: Any):
        self.clock, self.quotas = Clock(), Quotas(**quotas)
        self.store = LogStore(root, self.quotas, self.clock)
        self.counters = Counters(self.clock, self.clock)
        self.receiver = Receiver(
            self.store, lambda site, job_id: Admission(), clock=self.clock, counters=self.counters
        )
        self.sites: list[str] = []  # that are connected
        self.service = StatusService(
            self.store, self.quotas, self.counters, 30.0, "2.9.0", self.clock, lambda: self.sites
        )

    def send(
        self,
        site: str,
        data: bytes,
        job_id: str = JOB,
        offset: int = 0,
        close: bool = False,
        ahead: float = 0.0,
    ) -> None:
        writer, stream = RequestWriter(self.clock() + ahead, 0, "2.8.3"), StreamId(job_id, "log.txt")
        writer.frame(Frame(stream, offset, data, b"c"))
        if close:
            writer.close(Close(stream, len(data), "0" * 64, 0, ""))
        self.receiver.handle(writer.encode(), Peer(site))

    def status(self, named: bool = True) -> ServerStatus:
        self.store.commit()
        self.clock.advance(1)
        return read_status(json.loads(json.dumps(self.service.answer(encode_question(), named))))


@pytest.fixture
def world(memory_path):
    world = World(memory_path, stream=10, files=3)
    yield world
    world.store.close()


def test_the_server_tells_what_there_is_and_who_uses_most_of_it(world):
    world.send("site-1", b"1234567890")
    world.clock.advance(60)
    world.send("site-2", b"12345")
    world.send("site-2", b"123", "job-2")
    world.store.refuse(StreamKey(JOB, "site-3", "log.txt"), "policy")
    world.store.expect({StreamKey(JOB, "site-4", "log.txt"): "nothing came"})
    world.send("site-1", b"1", offset=10)  # one more than may be
    status = world.status()
    assert (status.package, status.runtime) == (__version__, "2.9.0")
    assert (status.upload_protocol, status.query_protocol, status.up) == (1, 1, 61.0)
    assert status.streams == StreamCounts(open=2, silent=0, closed=0, stopped=1, refused=1)
    assert (status.requests, status.disk.stored) == (4, 18)
    assert status.byte_rate == pytest.approx(19 / 61)
    assert [tuple(quota) for quota in status.quotas] == [
        ("max_store_gib", 18, world.quotas.store, ""),
        ("max_site_gib", 10, world.quotas.site, "site-1"),
        ("max_job_gib", 15, world.quotas.job, JOB),
        ("max_stream_gib", 10, 10, f"{JOB}/site-1/log.txt"),
        ("max_site_files", 1, 3, status.quotas[-1].whose),
    ]
    assert status.refused == (Refused("over a quota", 1, NOW + 60),)
    assert status.senders == (Refused("over a quota", 1, NOW + 60, "site-1"),)
    (problem,) = status.errors
    assert problem.site == "site-1" and "the stream quota of 10 bytes is used up" in problem.text
    assert {(site.site, site.stored, site.requests) for site in status.sites} == {
        ("site-1", 10, 2),
        ("site-2", 8, 2),
    }
    world.clock.advance(60)
    assert world.status().streams == StreamCounts(open=2, silent=2, closed=0, stopped=1, refused=1)


def test_what_the_runtimes_own_streamer_has_sent_is_counted_by_itself(world):
    """It was stopped for no limit, and may be whole: half-way federations have much of it."""
    key = StreamKey(JOB, "site-1", "log.txt")
    world.store.unchecked.append(key, 0, b"line")
    assert world.status().streams == StreamCounts(open=1)
    world.store.unchecked.stop(key)
    assert world.status().streams == StreamCounts(unchecked=1)


def test_a_copy_that_its_site_has_compared_in_part_was_stopped_for_no_limit_either(world):
    key = StreamKey(JOB, "site-1", "log.txt")
    world.store.unchecked.append(key, 0, b"line")
    world.store.append(key, 0, b"li", b"cursor")
    world.store.close_stream(key, Close(StreamId(JOB, "log.txt"), 2, "0" * 64, 0, "exit code 0"))
    assert world.store.info(key).unchecked and not world.store.info(key).is_stock
    world.store.commit()
    assert world.status().streams == StreamCounts(unchecked=1)


def test_a_server_that_does_not_count_it_is_understood():
    answer = json.loads(json.dumps(encode_status(FULL)))
    del answer["streams"]["unchecked"]
    assert read_status(answer).streams == FULL.streams._replace(unchecked=0)


def test_the_server_tells_of_its_disk(world, monkeypatch):
    disk = SimpleNamespace(f_frsize=10, f_blocks=1000, f_bavail=300)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    assert world.status().disk == Disk(10_000, 3000, 500, 0, str(world.store.root))


def test_an_empty_store_has_a_status_too(world):
    status = world.status()
    assert status.streams == StreamCounts() and [quota.argument for quota in status.quotas] == [
        "max_store_gib"
    ]
    assert not status.sites and not status.refused and status.byte_rate == 0


def test_the_heaviest_of_many_sites_are_told_by_what_they_send_and_by_what_they_have_stored(world):
    for number in range(3 * MAX_SHOWN):
        world.send(f"site-{number}", b"x" * (1 + number % 9), f"job-{number}")
    for _ in range(30):
        world.clock.advance(1)
        world.counters.turn()
    world.send("site-0", b"x", "job-x")
    sites = world.status().sites
    assert len(sites) == MAX_SHOWN and sites[0].site == "site-0"
    assert {site.stored for site in sites[1:]} >= {9, 8, 7}


def test_each_site_is_told_with_its_versions_and_when_it_was_heard_of_the_silent_first(world):
    world.sites = ["site-1", "site-2", "never-sent", "../no site", "server"]
    began = world.clock()
    world.send("gone", b"1", close=True, ahead=90)
    world.send("site-2", b"1")  # only bytes: that says no versions
    world.clock.advance(31)
    world.send("site-1", b"1", close=True)
    world.send("site-1", b"1", "job-2")
    world.store.expect({StreamKey(JOB, "expected", "log.txt"): "nothing came"})
    assert world.status().standings == (
        Standing("site-2", began, 1, 1, True),
        Standing("never-sent", connected=True),
        Standing("gone", began, 0, 0, False, __version__, "2.8.3", 1, 90.0),
        Standing("site-1", began + 31, 1, 0, True, __version__, "2.8.3", 1),
    )


def test_after_a_restart_it_is_known_when_a_site_was_heard_of_and_soon_what_it_runs(world, memory_path):
    world.send("site-1", b"1", close=True)
    world.store.commit()
    again = World.__new__(World)
    again.__dict__ = {**world.__dict__, "counters": Counters(world.clock, world.clock)}
    again.service = StatusService(world.store, world.quotas, again.counters, 30.0, "2.9.0", world.clock)
    again.receiver = Receiver(
        world.store, lambda site, job_id: Admission(), clock=world.clock, counters=again.counters
    )
    then = world.clock()
    assert again.status().standings == (Standing("site-1", then),)
    again.receiver.handle(RequestWriter(world.clock(), 0, "2.9.0").encode(), Peer("site-1"))
    assert again.status().standings == (
        Standing("site-1", then + 1, package=__version__, runtime="2.9.0", protocol=1),
    )


def test_a_site_that_still_sends_by_the_runtimes_own_streamer(world):
    stock = world.store.unchecked
    world.send("site-1", b"1", close=True)
    world.clock.advance(5)
    stock.append(StreamKey("job-2", "site-1", "log.txt"), 0, b"line")
    assert [row.stock for row in world.status().standings] == [True]
    world.clock.advance(5)
    world.send("site-1", b"1", "job-3", close=True)  # it has changed over
    assert [row.stock for row in world.status().standings] == [False]
    world.clock.advance(5)
    stock.append(StreamKey("job-4", "site-1", "log.txt"), 0, b"line")  # and back
    assert [row.stock for row in world.status().standings] == [True]
    world.receiver.handle(
        RequestWriter(world.clock(), 0).encode(), Peer("site-1")
    )  # it says what it runs now
    assert [row.stock for row in world.status().standings] == [False]


def test_more_sites_than_an_answer_holds_are_cut_behind_the_silent_ones(world):
    world.send("site-1", b"1")
    world.clock.advance(31)
    world.sites = [f"s-{number}" for number in range(MAX_STANDINGS + 5)]
    told = world.status().standings
    assert len(told) == MAX_STANDINGS and told[0].site == "site-1"


def test_who_asks_often_is_answered_from_what_was_found_a_moment_ago(world, monkeypatch):
    looks, parts = [], world.store.index.parts
    monkeypatch.setattr(world.store.index, "parts", lambda: looks.append(1) or parts())
    for _ in range(50):
        world.service.answer(encode_question(), True)
    assert len(looks) == 1
    world.status()
    assert len(looks) == 2


def test_without_names_no_site_no_job_no_directory_and_no_error_is_told(world):
    world.send("site-one", b"12345678901", "job-secret")
    world.send("site-one", b"1234567", "job-secret")
    world.receiver.handle(b"noise", Peer("site-two"))
    open_, totals = world.status(), world.status(named=False)
    said = json.dumps(encode_status(totals))
    for name in ("site-one", "site-two", "job-secret", str(world.store.root)):
        assert name not in said and name in json.dumps(encode_status(open_))
    assert not totals.named and totals.refused == open_.refused and totals.requests == 3
    assert [quota[:3] for quota in totals.quotas] == [quota[:3] for quota in open_.quotas]


def test_a_store_that_cannot_be_read_is_an_error_and_no_silence(world, monkeypatch, caplog):
    monkeypatch.setattr(world.store.index, "parts", lambda: 1 / 0)
    with pytest.raises(RetrievalError, match="ZeroDivisionError") as caught:
        world.status()
    assert caught.value.code is ErrorCode.INTERNAL_ERROR and "Traceback" in caplog.text


def test_a_damaged_index_is_told_in_its_own_words(world, monkeypatch):
    def damaged() -> None:
        raise DamagedError("the index is damaged, repair it")

    monkeypatch.setattr(world.store.index, "parts", damaged)
    with pytest.raises(RetrievalError, match=r"^the index is damaged, repair it") as caught:
        world.status()
    assert caught.value.code is ErrorCode.LOG_CHANGED  # as for the other questions


@pytest.mark.parametrize("question", [{}, {"v": 2}, {"v": "1"}, None, [], "status"])
def test_a_question_of_another_version_is_refused(world, question):
    reply = ErrorReply.decode(read_fields(world.service.answer(question, True)))
    assert reply.code is ErrorCode.INVALID_ARGS


def read_fields(answer: dict[str, Any]) -> Any:
    from nvflare_logstream.wire.fields import Fields

    return Fields(answer)


# -- who may ask ---------------------------------------------------------------------------------------------

POLICY = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": "any",
        "org_admin": {"view": "any", "operate": "o:site"},
        "lead": {"view": "any", "operate": "o:site"},
        "member": {"view": "none"},
    },
}


@pytest.fixture
def ask(world, monkeypatch):
    """Ask as a user of a role, through the runtime's own check of rights."""
    console = AdminConsole(monkeypatch, POLICY, [admin_command.SERVER_COMMAND])
    spec = admin_command.LogCommands(lambda job_id, request: {}, world.service.answer).get_spec()
    (status,) = (spec for spec in spec.cmd_specs if spec.name == "logstream_server")

    def ask(role: str, study: str = "default") -> ServerStatus | None:
        question = {ConnProps.CMD_PROPS: encode_question(), ConnProps.ACTIVE_STUDY: study}
        answer = console.send(status, role, **question)
        return read_status(answer) if answer else None

    return ask


@pytest.mark.parametrize("study", ["default", "cardio"])
def test_a_project_admin_sees_names_and_other_roles_with_the_right_to_view_see_totals(world, ask, study):
    world.send("site-1", b"12345")
    world.store.commit()
    full = ask("project_admin", study)
    assert full.named and full.sites and full.disk.directory
    for role in ("lead", "org_admin"):
        totals = ask(role, study)
        assert not totals.named and not totals.sites and totals.requests == full.requests
        assert "site-1" not in json.dumps(encode_status(totals)), "also where it may operate the server"
    for role in ("member", "stranger", ""):
        assert ask(role, study) is None


# -- how it travels ------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
COUNTS = st.integers(0, 1 << 62)
TIMES = st.floats(0, 9e10)
RATES = st.floats(0, 1e15)
VERSIONS = st.just("") | st.from_regex(r"[0-9A-Za-z][0-9A-Za-z.+_!-]{0,39}", fullmatch=True)
STATUSES = st.builds(
    ServerStatus,
    package=TEXTS,
    runtime=TEXTS,
    upload_protocol=st.integers(0, 99),
    query_protocol=st.integers(0, 99),
    now=TIMES,
    up=TIMES,
    streams=st.builds(StreamCounts, *[COUNTS] * 6),
    requests=COUNTS,
    request_rate=RATES,
    byte_rate=RATES,
    disk=st.builds(Disk, COUNTS, COUNTS, COUNTS, COUNTS, TEXTS),
    quotas=st.lists(st.builds(QuotaUse, TEXTS, COUNTS, COUNTS, TEXTS), max_size=3).map(tuple),
    refused=st.lists(st.builds(Refused, TEXTS, COUNTS, TIMES, TEXTS), max_size=3).map(tuple),
    named=st.booleans(),
    senders=st.lists(st.builds(Refused, TEXTS, COUNTS, TIMES, TEXTS), max_size=3).map(tuple),
    errors=st.lists(st.builds(Problem, TIMES, TEXTS, TEXTS, TEXTS), max_size=3).map(tuple),
    sites=st.lists(st.builds(SiteUse, TEXTS, COUNTS, RATES, COUNTS), max_size=3).map(tuple),
    standings=st.lists(
        st.builds(
            Standing,
            TEXTS,
            TIMES,
            COUNTS,
            COUNTS,
            st.booleans(),
            VERSIONS,
            VERSIONS,
            st.integers(0, 99),
            st.floats(-1e11, 1e11),
            st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
)


@given(STATUSES)
def test_a_status_comes_back_as_it_was(status):
    assert decode_status(json.loads(json.dumps(encode_status(status)))) == status


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data(), STATUSES, ANYTHING)
def test_whatever_stands_in_a_field_is_taken_or_refused(data, status, value):
    encoded = json.loads(json.dumps(encode_status(status)))
    encoded[data.draw(st.sampled_from(sorted(encoded)))] = value
    try:
        decode_status(encoded)
    except WireError as error:
        assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("now", None),
        ("streams.open", -1),
        ("disk.free", "1"),
        ("quotas.0.used", 1.5),
        ("senders.0.messages", -1),
        ("errors.0.at", "now"),
        ("sites.0.rate", float("nan")),
        ("byte_rate", float("inf")),
        ("sites", [{}] * 1001),
        ("errors.0.text", "x" * 401),
        ("package", None),
        ("standings.0.heard", -1),
        ("standings.0.silent", "1"),
        ("standings.0.package", "0.2\x1b[31m"),
        ("standings.0.runtime", None),
        ("standings", [{}] * 1001),
    ],
)
def test_a_damaged_status_is_refused_with_the_field(field, value):
    encoded = place = encode_status(FULL)
    *path, last = field.split(".")
    for step in path:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    with pytest.raises(WireError) as caught:
        decode_status(encoded)
    assert str(caught.value).startswith(field.replace(".0.", "[0].") + ": ")


def test_what_a_later_server_adds_is_ignored_and_its_kinds_are_shown():
    encoded = encode_status(FULL._replace(senders=(Refused("a new kind", 1, NOW, "site-1"),)))
    assert decode_status({**encoded, "new": 1}).senders[0].kind == "a new kind"


def test_nothing_that_a_server_says_can_move_the_terminal():
    evil = "\x1b[2J\x9b31m\n\u202e\u2028\x00"
    hostile = encode_status(
        FULL._replace(
            package=evil,
            runtime=evil,
            disk=FULL.disk._replace(directory=evil),
            quotas=(QuotaUse(evil, 1, 2, evil),),
            senders=(Refused(evil, 1, NOW, evil),),
            errors=(Problem(NOW, evil, evil, evil),),
            sites=(SiteUse(evil, 1, 1.0, 1),),
        )
    )

    def texts(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield str(value)
        elif isinstance(value, tuple):
            for entry in value:
                yield from texts(entry)

    found = list(texts(decode_status(hostile)))
    assert len(found) > 10 and all(text.isprintable() for text in found)


# -- the port ------------------------------------------------------------------------------------------------


def client(answer: Any) -> LogClient:
    return LogClient(SessionPort(Session(answer)))  # type: ignore[arg-type]


def test_the_question_is_a_command_of_its_own():
    session = Session(encode_status(FULL))
    assert LogClient(SessionPort(session)).server_status() == FULL  # type: ignore[arg-type]
    assert session.asked == [("logstream_server", encode_question())]


class Said(NamedTuple):
    """What a reader is told."""

    code: ErrorCode
    text: str
    hint: str


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            InternalError("Command logstream_server not found in server cmd list"),
            Said(ErrorCode.NO_RECEIVER, "has no .*JobLogReceiver.*, or an older one", "resources.json"),
        ),
        (AuthorizationError("not yours"), Said(ErrorCode.AUTH_FAILED, "not yours", "the server's status")),
        (
            ErrorReply(ErrorCode.SYSTEM_NOT_READY, "not started yet").encode(),
            Said(ErrorCode.CONNECTION_FAILED, "not started yet", "nvflare system status"),
        ),
        ({"v": 2}, Said(ErrorCode.INVALID_REPLY, "v: 2 is not allowed", "")),
    ],
)
def test_an_answer_that_is_none_says_what_to_do(answer, said):
    with pytest.raises(RetrievalError, match=said.text) as caught:
        client(answer).server_status()
    assert caught.value.code is said.code and said.hint in caught.value.hint


# -- what is shown -------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch, capsys):
    """Run the command with these answers of the server, one after another."""
    monkeypatch.setenv("TERM", "dumb")

    def shown(*answers: Any, arguments: tuple[str, ...] = ()) -> tuple[int, str, str]:
        waiting = iter(answers)

        class Port:
            def server_status(self, seconds: float) -> ServerStatus:
                answer = next(waiting, KeyboardInterrupt())
                if isinstance(answer, BaseException):
                    raise answer
                return answer

        @contextmanager
        def connected(self: Access) -> Iterator[LogClient]:
            yield LogClient(Port())  # type: ignore[arg-type]

        monkeypatch.setattr(Access, "client", connected)
        monkeypatch.setattr(command.time, "sleep", lambda seconds: None)
        code = run(["server", *arguments])
        return code, *capsys.readouterr()

    return shown


def test_what_is_wrong_comes_first_with_what_to_do(shown):
    code, out, err = shown(FULL)
    lines, squeezed = out.splitlines(), re.sub(" +", " ", out)
    assert code == 0 and not err
    assert lines[0] == "log receiver 0.9.0 on nvflare 2.9.0, up 1 d 3 h"
    problems = [line for line in lines if line.startswith("✗ ")]
    assert problems == lines[1 : 1 + len(problems)] and len(problems) == 4
    assert "3.0 GiB of the disk are free" in problems[0] and "/srv/[red]logstream" in problems[0]
    assert "min_free_percent" in problems[0]
    assert "94% of max_store_gib are used by all sites: delete jobs" in problems[1]
    assert "1 log was stopped and is not whole" in problems[2]
    assert "334 messages of site-4 refused (unreadable), the last 30 s ago: " in problems[3]
    for row in (
        "logs      12 open (2 silent), 340 closed, 4 kept back by their sites, 1 stopped, 6 by the "
        "runtime's own streamer, not checked",
        "incoming  1.4 MiB/s in 14.2 requests/s; 1,203,441 requests since the start",
        "refused   336 messages: 334 unreadable, 2 over a quota",
        "disk      240.0 GiB of logs in /srv/[red]logstream; 3.0 GiB of 250.0 GiB free, 12.0 GiB stay free",
        "max_site_gib      8.0 GiB   32.0 GiB   25% ██",
        "8f3c0000/site-2/log.txt",
        "site-2   12.0 GiB  878.9 KiB/s  1,000,000",
        "[bold]é",
        "frames[0].offset: -1 is not allowed",
        "site-4 6 min 40 s ago 0.2.0 1 2.8.3 2 of 3 open are silent",
        "site-9 never ? ? ? never sent any",
        "site-1 1 d 1 h ago ? ? ? none open",
        "[bold]é 2 h 1 min ago ? ? ? none open, not connected",
        "site-2 1 s ago 0.2.0 1 2.9.0 9 open",
        "site-8 1 min 0 s ago ? ? ? none open, by the runtime's own streamer",
        "?: not told since the receiver started 1 d 3 h ago, or a release up to 0.1.0",
    ):
        assert row in out or row in squeezed, row


def test_a_failure_of_the_server_itself_is_no_message_of_a_site(shown):
    failed = Refused(Kind.NOT_KEPT, 7, NOW - 5, "server")
    problem = Problem(NOW - 5, "server", Kind.NOT_KEPT, "OSError: No space left on device")
    _, out, _ = shown(QUIET._replace(refused=(failed,), senders=(failed,), errors=(problem,)))
    assert "✗ The work on the store failed (7 times), the last 5 s ago: " in out.splitlines()[1]
    assert "refused   0 messages" in map(str.rstrip, out.splitlines())
    assert "No space left on device" in out and out.count("refused") == 1


def test_where_nothing_is_wrong_it_says_so(shown):
    _, out, _ = shown(QUIET)
    assert out.splitlines()[1] == "✓ nothing is wrong" and "✗" not in out and "last errors" not in out


def test_who_sees_totals_only_is_told_so(shown):
    _, out, _ = shown(FULL.without_names())
    assert "Sites, jobs and errors are shown to project admins only." in out
    assert "334 messages refused (unreadable)" in out and "the fullest site" in out
    assert "site-2" not in out and "8f3c" not in out and "/srv" not in out


@pytest.mark.parametrize("status", [FULL, QUIET, FULL.without_names()])
def test_it_fits_into_80_columns(shown, monkeypatch, status):
    monkeypatch.setattr("nvflare_logstream.cli.screen._WIDE", 80)
    _, out, _ = shown(status)
    assert max(map(len, out.splitlines())) <= 80
    assert "max_store_gib" in out and ("site-2" in out) is status.named


def test_a_program_gets_one_envelope(shown):
    code, out, err = shown(FULL, arguments=("--format", "json"))
    assert code == 0 and not err and out.count("\n") == 1
    found = json.loads(out)
    assert (found["status"], found["exit_code"]) == ("ok", 0)
    data = found["data"]
    assert data["streams"] == FULL.streams._asdict() and data["streams"]["unchecked"] == 6
    assert data["senders"][0] == {"kind": "unreadable", "messages": 334, "last": NOW - 30, "site": "site-4"}
    assert data["quotas"][0] == {
        "argument": "max_store_gib",
        "used": 240 * GIB,
        "most": 256 * GIB,
        "whose": "",
    }


def test_watching_goes_on_until_it_is_interrupted(shown):
    code, out, _ = shown(FULL, QUIET, arguments=("--watch", "--format", "jsonl"))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 130 and [row["terminal"] for row in rows] == [False, False]
    assert rows[1]["data"]["streams"]["open"] == 3
    code, out, _ = shown(FULL, QUIET, arguments=("--watch",))
    assert code == 130 and out.count("log receiver") == 2


def test_one_envelope_cannot_be_refreshed(shown):
    code, out, _ = shown(FULL, arguments=("--watch", "--format", "json"))
    assert code == 4 and json.loads(out)["error_code"] == "INVALID_ARGS"


def test_a_server_that_is_gone_is_said(shown):
    code, out, err = shown(LostContactError(ErrorCode.CONNECTION_FAILED, "gone", "Is it up?"))
    assert (code, out) == (2, "") and err.startswith("gone\nHint: Is it up?\n")
