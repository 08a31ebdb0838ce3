"""The port over an admin session: what is asked of the runtime, and what becomes of what it raises."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api import api_spec

from nvflare_logstream.errors import ArgumentError, ErrorCode, LostContactError, RetrievalError
from nvflare_logstream.flare import session_port
from nvflare_logstream.flare.session_port import SessionPort, explained
from nvflare_logstream.wire.queries import (
    ErrorReply,
    FetchReply,
    FetchRequest,
    JobStreams,
    StreamsReply,
    StreamsRequest,
)
from tests.unit.fake_runtime import ID, Session


def port(session: Session, reconnect: Callable[[], Session] | None = None) -> SessionPort:
    return SessionPort(session, reconnect)  # type: ignore[arg-type]


def test_a_request_travels_in_the_properties_of_the_admin_command():
    session = Session(FetchReply(b"\xff", 1).encode())
    request = FetchRequest("site-1", "log.txt")
    assert port(session).ask(ID, request, 7.0) == FetchReply(b"\xff", 1)
    assert session.asked == [(f"logstream {ID}", request.encode())] and session.timeouts == [7.0]


@pytest.mark.parametrize("job_id", ["", "a b", "--x", "../x"])
def test_what_cannot_be_an_id_never_becomes_part_of_a_command(job_id):
    session = Session()
    with pytest.raises(ArgumentError, match="job_id: "):
        port(session).ask(job_id, StreamsRequest(), 1.0)
    assert not session.asked


def test_jobs_are_listed_by_the_beginning_of_their_ids_or_the_newest_only():
    session = Session()
    assert port(session).job_ids("8f3c") == port(session).job_ids(None) == [ID]
    assert session.asked == [{"id_prefix": "8f3c"}, {"reverse": True, "limit": 1}]


def test_what_the_server_refuses_keeps_its_code_and_words():
    session = Session(ErrorReply(ErrorCode.LOG_NOT_FOUND, "no such log").encode())
    with pytest.raises(RetrievalError, match=r"^no such log$") as caught:
        port(session).ask(ID, StreamsRequest(), 1.0)
    assert caught.value.code is ErrorCode.LOG_NOT_FOUND and not isinstance(caught.value, LostContactError)


def test_a_server_whose_receiver_is_not_started_yet_counts_as_lost():
    session = Session(ErrorReply(ErrorCode.SYSTEM_NOT_READY, "not started yet").encode())
    with pytest.raises(LostContactError, match="not started yet") as caught:
        port(session).ask(ID, StreamsRequest(), 1.0)
    assert caught.value.code is ErrorCode.CONNECTION_FAILED and "nvflare system status" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "code"),
    [({}, ErrorCode.NO_RECEIVER), ({"v": 2}, ErrorCode.INVALID_REPLY), ([], ErrorCode.NO_RECEIVER)],
)
def test_an_answer_that_is_no_reply_is_refused(answer, code):
    with pytest.raises(RetrievalError) as caught:
        port(Session(answer)).ask(ID, StreamsRequest(), 1.0)
    assert caught.value.code is code


def test_a_server_that_does_not_answer_in_time_is_told_from_one_that_is_gone(monkeypatch):
    now = iter([0.0, 0.5, 0.0, 5.0])
    monkeypatch.setattr(session_port, "time", SimpleNamespace(monotonic=lambda: next(now)))
    session = Session(api_spec.NoConnection("no connection"))
    with pytest.raises(LostContactError, match="no connection") as caught:
        port(session).ask(ID, StreamsRequest(), 5.0)
    assert caught.value.code is ErrorCode.CONNECTION_FAILED
    with pytest.raises(LostContactError, match="did not answer within 5 s") as caught:
        port(session).ask(ID, StreamsRequest(), 5.0)
    assert caught.value.code is ErrorCode.TIMEOUT


def test_a_lost_session_is_replaced_without_waiting_for_the_server():
    old, new = Session(), Session(StreamsReply(JobStreams(ID, "RUNNING", ())).encode())
    survivor = port(old, lambda: new)
    survivor.reconnect()
    assert survivor.ask(ID, StreamsRequest(), 1.0).job.status == "RUNNING" and old.closed == ["api"]
    survivor.close()
    assert new.closed == ["session"]


@pytest.mark.parametrize("error", [api_spec.InternalError("starting"), api_spec.NoConnection("down")])
def test_a_session_that_cannot_be_had_now_may_be_had_later(error):
    def reconnect() -> Session:
        raise error

    for survivor in (port(Session(), reconnect), port(Session())):
        with pytest.raises(LostContactError) as caught:
            survivor.reconnect()
        assert caught.value.code is ErrorCode.CONNECTION_FAILED


# -- what the runtime raises -------------------------------------------------------------------------

RAISED = [
    (
        api_spec.JobNotFound("no such job"),
        "JOB_NOT_FOUND",
        "Only study 'research' was searched; name",
    ),
    (api_spec.AuthorizationError("not yours"), "AUTH_FAILED", "whose role may view this job"),
    (api_spec.AuthenticationError("who?"), "AUTH_FAILED", "nvflare config list"),
    (api_spec.NoConnection("gone"), "CONNECTION_FAILED", "nvflare system status"),
    (api_spec.SessionClosed("closed"), "CONNECTION_FAILED", "nvflare system status"),
    (api_spec.SessionExpired("expired"), "CONNECTION_FAILED", "nvflare system status"),
    (FLCommunicationError("no cell"), "CONNECTION_FAILED", "nvflare system status"),
    (ConnectionResetError("reset"), "CONNECTION_FAILED", "nvflare system status"),
    (
        api_spec.InternalError("command logstream not found"),
        "NO_RECEIVER",
        "nvflare_logstream.JobLogReceiver",
    ),
    (api_spec.InternalError("something else"), "INTERNAL_ERROR", ""),
]
FINAL = (api_spec.JobNotFound, api_spec.AuthorizationError, api_spec.InternalError)


@pytest.mark.parametrize(("error", "code", "hint"), RAISED, ids=lambda value: type(value).__name__)
def test_what_the_runtime_raises_becomes_a_code_and_a_hint(error, code, hint):
    """Whatever is asked; where the same request may succeed later, the error says so."""
    failing = port(Session(error, study="research"))
    for ask in (lambda: failing.ask(ID, StreamsRequest(), 1.0), lambda: failing.job_ids(None)):
        with pytest.raises(RetrievalError) as caught:
            ask()
        assert caught.value.code == code and hint in caught.value.hint and caught.value.__cause__ is error
        assert str(error) in str(caught.value) or code == "NO_RECEIVER"
        assert isinstance(caught.value, LostContactError) is not isinstance(error, FINAL)


@pytest.mark.parametrize(
    "error", [RetrievalError(ErrorCode.LOG_NOT_FOUND, "x"), ValueError("x"), KeyboardInterrupt()], ids=repr
)
def test_what_is_not_the_runtimes_is_left_alone(error):
    with pytest.raises(type(error)) as caught, explained("research"):
        raise error
    assert caught.value is error
