"""The reader's port over an admin session; what the runtime raises becomes an error of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    JobNotFound,
    NoConnection,
    SessionClosed,
)
from nvflare.fuel.flare_api.flare_api import Session

from nvflare_logstream.client.port import Port, read_jobs, read_reply, read_status
from nvflare_logstream.errors import ErrorCode, LostContactError, NoReconnectError, RetrievalError
from nvflare_logstream.flare import runtime
from nvflare_logstream.flare.admin_protocol import COMMAND, JOBS_COMMAND, SERVER_COMMAND
from nvflare_logstream.names import check_name
from nvflare_logstream.wire.job_list import JobList, JobQuestion
from nvflare_logstream.wire.job_list import encode_question as encode_job_question
from nvflare_logstream.wire.queries import ReplyT, Request
from nvflare_logstream.wire.server_status import ServerStatus, encode_question

_NO_RECEIVER = "the server has no nvflare_logstream.JobLogReceiver in its resources.json"
_LIST_SECONDS = 20.0  # that the server has to list jobs
_NOT_CONNECTED = (
    "Is the server up (`nvflare system status`) and is this the right start-up kit (`nvflare config list`)?"
)


class SessionPort(Port):
    """Asks the server through an admin session; use it from one thread.

    Args:
        session: an open session of the runtime.
        reconnect: gives a new session after the connection was lost; without it, a lost connection ends a
            `follow` at once.
    """

    def __init__(self, session: Session, reconnect: Callable[[], Session] | None = None):
        self._session, self._reconnect = session, reconnect

    def ask(self, job_id: str, request: Request[ReplyT], seconds: float) -> ReplyT:
        """Send one request about a job and return its reply; see `Port.ask`.

        Raises:
            RetrievalError: if the server says no, with a code and a hint.
            LostContactError: TIMEOUT, CONNECTION_FAILED, or AUTH_FAILED (a restarted server does not know the
                session).
            ArgumentError: if `job_id` cannot be a job's id.
        """
        check_name("job_id", job_id)  # it becomes part of a command
        answer = self._answer(f"{COMMAND} {job_id}", request.encode(), seconds)
        with _ready():
            return read_reply(job_id, request, answer)

    def server_status(self, seconds: float) -> ServerStatus:
        """Ask how the server's receiver is doing; see `Port.server_status`."""
        answer = self._answer_of_later(SERVER_COMMAND, encode_question(), seconds, "the server's status")
        with _ready():
            return read_status(answer)

    def jobs(self, question: JobQuestion, seconds: float) -> JobList:
        """Ask which jobs have which logs; see `Port.jobs`."""
        answer = self._answer_of_later(JOBS_COMMAND, encode_job_question(question), seconds, "jobs")
        with _ready():
            return read_jobs(answer)

    def _answer_of_later(self, command: str, properties: dict[str, Any], seconds: float, what: str) -> object:
        """The answer to a command about no job, which a receiver has only since a later release."""
        try:
            return self._answer(command, properties, seconds)
        except RetrievalError as error:
            if error.code is ErrorCode.NO_RECEIVER:
                raise RetrievalError(error.code, f"{error}, or an older one", error.hint) from error
            if isinstance(error.__cause__, AuthorizationError):
                hint = f"Use a start-up kit whose role may view {what}."
                raise RetrievalError(error.code, str(error), hint) from error
            raise

    def _answer(self, command: str, properties: dict[str, Any], seconds: float) -> object:
        with explained(self._study()):
            answer = self._send(command, properties, seconds)
        if not answer:
            raise RetrievalError(ErrorCode.NO_RECEIVER, _NO_RECEIVER)
        return answer

    def _send(self, command: str, properties: dict[str, Any], seconds: float) -> object:
        asked = time.monotonic()
        try:
            return runtime.send_command(self._session, command, properties, seconds)
        except NoConnection as error:
            if time.monotonic() - asked < seconds:
                raise
            hint = "Try again; if it goes on, look at the server's log."
            problem = f"the server did not answer within {seconds:.0f} s"
            raise LostContactError(ErrorCode.TIMEOUT, problem, hint) from error

    def job_ids(self, prefix: str | None) -> list[str]:
        """The ids of the jobs that begin with `prefix`, with None that of the newest; see `Port.job_ids`."""
        wanted = {"reverse": True, "limit": 1} if prefix is None else {"id_prefix": prefix}
        with explained(self._study()):
            self._session.set_timeout(_LIST_SECONDS)
            return [str(job["job_id"]) for job in self._session.list_jobs(**wanted)]

    def reconnect(self) -> None:
        """Replace the session, whose connection is lost, by a new one; see `Port.reconnect`."""
        if self._reconnect is None:
            problem = "the connection to the server was lost"
            raise NoReconnectError(ErrorCode.CONNECTION_FAILED, problem, _NOT_CONNECTED)
        runtime.close_session(self._session)
        with explained(self._study()):
            try:
                self._session = self._reconnect()
            except InternalError as error:  # a server that is just starting answers in many ways
                raise NoConnection(str(error)) from error

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def _study(self) -> str:
        return runtime.study_of(self._session)


@contextmanager
def _ready() -> Iterator[None]:
    """Say what to do about a server that is there, but not ready yet."""
    try:
        yield
    except LostContactError as error:
        raise LostContactError(error.code, str(error), _NOT_CONNECTED) from error


@contextmanager
def explained(study: str) -> Iterator[None]:
    """Turn the runtime's exceptions into errors with a code and a hint.

    Raises:
        RetrievalError: instead of them; a LostContactError where the same request may succeed later.
    """
    try:
        yield
    except JobNotFound as error:
        hint = (
            f"Only study '{study}' was searched; name another one with --study. "
            "`nvflare job list` shows the jobs of a study."
        )
        raise RetrievalError(ErrorCode.JOB_NOT_FOUND, str(error), hint) from error
    except AuthorizationError as error:
        hint = "Use a start-up kit whose role may view this job."
        raise RetrievalError(ErrorCode.AUTH_FAILED, str(error), hint) from error
    except AuthenticationError as error:
        hint = "Check the start-up kit (`nvflare config list`) and the study's name."
        raise LostContactError(ErrorCode.AUTH_FAILED, str(error), hint) from error
    except (ConnectionError, SessionClosed, FLCommunicationError) as error:
        # NoConnection is a ConnectionError.
        raise LostContactError(ErrorCode.CONNECTION_FAILED, str(error), _NOT_CONNECTED) from error
    except InternalError as error:
        if "not found" in str(error):  # the runtime's words for a command that its server does not have
            hint = "Add nvflare_logstream.JobLogReceiver to the server's resources.json."
            raise RetrievalError(ErrorCode.NO_RECEIVER, _NO_RECEIVER, hint) from error
        raise RetrievalError(ErrorCode.INTERNAL_ERROR, str(error)) from error
