"""How the reader's side reaches a server: one typed port, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from nvflare_logstream.errors import ErrorCode, LostContactError, OlderPeerError, RetrievalError, WireError
from nvflare_logstream.wire.job_list import JobList, JobQuestion, decode_jobs
from nvflare_logstream.wire.queries import ErrorReply, ReplyT, Request, decode_reply
from nvflare_logstream.wire.server_status import ServerStatus, decode_status

AnswerT = TypeVar("AnswerT")


class Port(Protocol):
    """Asks a server; used from one thread."""

    def ask(self, job_id: str, request: Request[ReplyT], seconds: float) -> ReplyT:
        """Send one request about a job and return its reply.

        Args:
            job_id: the job's id.
            request: what to ask.
            seconds: how long the server has to answer.

        Raises:
            RetrievalError: if the server says no.
            LostContactError: if the server cannot be reached now.
        """

    def job_ids(self, prefix: str | None) -> list[str]:
        """The ids that begin with `prefix`, of the jobs the user may see; with None only the newest job's.

        Raises:
            RetrievalError: as `ask`.
        """

    def server_status(self, seconds: float) -> ServerStatus:
        """Ask how the server's receiver is doing; it has `seconds` to answer.

        Raises:
            RetrievalError: as `ask`.
        """
        raise NotImplementedError

    def jobs(self, question: JobQuestion, seconds: float) -> JobList:
        """Ask which jobs have which logs; the server has `seconds` to answer.

        Raises:
            RetrievalError: as `ask`.
        """
        raise NotImplementedError

    def reconnect(self) -> None:
        """Replace a connection that was lost.

        Raises:
            NoReconnectError: if there is no way to.
            LostContactError: if the server cannot be reached now.
        """

    def close(self) -> None:
        """End the connection."""


def read_reply(job_id: str, request: Request[ReplyT], answer: object) -> ReplyT:
    """The reply in what came back for a request; for those who write a port.

    Raises:
        RetrievalError: with the server's code and words, or INVALID_REPLY naming the field.
        LostContactError: if the server is there, but not ready yet.
    """
    return _read(lambda: decode_reply(job_id, request, answer))


def read_status(answer: object) -> ServerStatus:
    """The server's status in what came back for the question; for those who write a port.

    Raises:
        RetrievalError: as `read_reply`.
    """
    return _read(lambda: decode_status(answer))


def read_jobs(answer: object) -> JobList:
    """The list of jobs in what came back for the question; for those who write a port.

    Raises:
        RetrievalError: as `read_reply`.
    """
    return _read(lambda: decode_jobs(answer))


def _read(decode: Callable[[], AnswerT | ErrorReply]) -> AnswerT:
    try:
        reply = decode()
    except OlderPeerError as error:
        hint = "Do without, or have the server's nvflare_logstream updated."
        raise RetrievalError(ErrorCode.SERVER_TOO_OLD, str(error), hint) from error
    except WireError as error:
        raise RetrievalError(
            ErrorCode.INVALID_REPLY, f"the server's reply cannot be read: {error}"
        ) from error
    if not isinstance(reply, ErrorReply):
        return reply
    if reply.code is ErrorCode.SYSTEM_NOT_READY:
        raise LostContactError(ErrorCode.CONNECTION_FAILED, reply.text)
    raise RetrievalError(reply.code, reply.text)
