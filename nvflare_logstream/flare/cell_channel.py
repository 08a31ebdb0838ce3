"""The private cell channel: the one place that touches the runtime's cellnet.

The core cell is used, not the cell around it: a message is then one plain message that leaves no timer thread
behind, and the server sees the sender's name and origin as the authentication filter checked them.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellMessageHeaderKeys

from nvflare_logstream.errors import LinkError, NoReceiverError
from nvflare_logstream.site.link import Link
from nvflare_logstream.wire.peer import Peer

CHANNEL = "nvflare_logstream"
TOPIC = "stream"  # a request that waits for its reply
_PUSH_TOPIC = "push"  # what an admin is sent ahead of the reply to a command
_POST_TOPIC, _REPLY_TOPIC = "post", "reply"  # a request that does not, and what answers it
_NUMBER = "nvflare_logstream_number"  # header: which request a reply belongs to; without it none is wanted
_JOB = "nvflare_logstream_job"  # header: the job whose process sends; empty for a site's parent process
_NO_CALLBACK = "no callback"  # the error text of a cell that has no receiver on the channel


class CellLink(Link):
    """Sends requests to the server's parent process or, if that has no receiver, to the job's server process.

    Args:
        cell: the runtime's cell of this process.
        job_id: the job's id in a job process, so that its server process can be asked; empty in a parent
            process.
        timeout: seconds to wait for a reply.
        on_change: told whether there is a receiver when that is learned or changes, by the sending thread.

    Attributes:
        has_receiver: whether the last answer came from a receiver; None before the first.
    """

    def __init__(
        self,
        cell: Any,
        job_id: str = "",
        timeout: float = 15.0,
        on_change: Callable[[bool], None] = lambda has_receiver: None,
    ):
        self._core, self._job_id, self._timeout = cell.core_cell, job_id, timeout
        self._on_change = on_change
        self.has_receiver: bool | None = None
        self._targets = [FQCN.ROOT_SERVER] + ([FQCN.join([FQCN.ROOT_SERVER, job_id])] if job_id else [])
        self._posted = ""  # the number of the posted request whose reply is waited for
        self._reply: bytes | None = None
        self._replied = threading.Event()
        self._core.register_request_cb(channel=CHANNEL, topic=_REPLY_TOPIC, cb=self._take_reply)

    def send(self, payload: bytes) -> bytes:
        """Send a request and return the reply.

        Raises:
            NoReceiverError: if every process that was asked says that it has no receiver.
            LinkError: if there was no reply.
        """
        problem = ""
        for target in list(self._targets):
            with _as_link_error(target):
                reply = self._core.send_request(
                    channel=CHANNEL,
                    topic=TOPIC,
                    target=target,
                    request=Message({_JOB: self._job_id}, payload),
                    timeout=self._timeout,
                    optional=True,  # the runtime need not log a missing answer: the sender deals with it
                )
            code = reply.get_header(MessageHeaderKey.RETURN_CODE)
            if code == ReturnCode.OK:
                if target != self._targets[0]:
                    self._targets.reverse()  # ask first where the receiver was found
                self._learn(True)
                return bytes(reply.payload)
            problem = f"{target}: {code} {reply.get_header(MessageHeaderKey.ERROR, '')}"
            if reply.get_header(MessageHeaderKey.ERROR) != _NO_CALLBACK:
                raise LinkError(problem)
        self._learn(False)
        raise NoReceiverError(problem)

    def _learn(self, has_receiver: bool) -> None:
        if self.has_receiver is not has_receiver:
            self.has_receiver = has_receiver
            self._on_change(has_receiver)

    def post(self, payload: bytes) -> Callable[[], bytes]:
        """Send a request to where the last one was answered, and return a function that waits for the reply.

        The cell has no request that does not block, so the reply comes as a message of its own: no second
        thread is needed.
        """
        self._posted, self._reply = uuid.uuid4().hex, None
        self._replied.clear()
        target, problem = self._fire({_NUMBER: self._posted, _JOB: self._job_id}, payload)

        def collect() -> bytes:
            if problem:
                raise LinkError(f"{target}: {problem}")
            if not self._replied.wait(self._timeout) or self._reply is None:
                raise LinkError(f"{target}: no reply within {self._timeout:g} s")
            return self._reply

        return collect

    def tell(self, payload: bytes) -> None:
        """Send a request to which no answer is wanted: that saves each side the half of its messages.

        Raises:
            LinkError: if it cannot be sent.
        """
        target, problem = self._fire({_JOB: self._job_id}, payload)
        if problem:
            raise LinkError(f"{target}: {problem}")

    def _fire(self, headers: dict[str, str], payload: bytes) -> tuple[str, str]:
        """Send without waiting to where the last request was answered; return where, and what went wrong."""
        target = self._targets[0]
        with _as_link_error(target):
            message = Message(headers, payload)
            problems = self._core.fire_and_forget(CHANNEL, _POST_TOPIC, target, message, optional=True)
        return target, problems.get(target) or ""

    def _take_reply(self, message: Message) -> None:
        if message.get_header(_NUMBER) == self._posted:  # else it comes too late: the request was sent again
            self._reply = bytes(message.payload)
            self._replied.set()


@contextmanager
def _as_link_error(target: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the cell may be stopping; whatever it raises, there was no reply
        raise LinkError(f"{target}: {type(error).__name__}: {error}") from error


def has_receiver(cell: Any, timeout: float = 5.0) -> bool:
    """Whether the server's parent process takes logs itself.

    No answer counts as yes: two processes must never write into one store.
    """
    request = Message(payload=b"")
    reply = cell.core_cell.send_request(
        CHANNEL, TOPIC, FQCN.ROOT_SERVER, request, timeout=timeout, optional=True
    )
    return bool(reply.get_header(MessageHeaderKey.ERROR) != _NO_CALLBACK)


def serve(cell: Any, handle: Callable[[object, Peer, bool], bytes]) -> None:
    """Answer requests on this cell with `handle(payload, peer, told)`; what is told needs no answer."""
    core = cell.core_cell

    def answer(request: Message, told: bool = False) -> Message:
        site = request.get_header(CellMessageHeaderKeys.CLIENT_NAME) or ""
        origin = request.get_header(MessageHeaderKey.ORIGIN) or ""
        return Message(payload=handle(request.payload, peer_of(site, origin, request.get_header(_JOB)), told))

    def answer_posted(request: Message) -> None:
        number = request.get_header(_NUMBER)
        reply = answer(request, told=not number)
        if not number:
            return
        reply.set_header(_NUMBER, number)
        core.fire_and_forget(
            CHANNEL, _REPLY_TOPIC, request.get_header(MessageHeaderKey.ORIGIN), reply, optional=True
        )

    core.register_request_cb(channel=CHANNEL, topic=TOPIC, cb=answer)
    core.register_request_cb(channel=CHANNEL, topic=_POST_TOPIC, cb=answer_posted)


def pusher(cell: Any, request: Message) -> Callable[[dict[str, Any]], bool]:
    """What sends messages to the admin who sent `request`; false is returned where one cannot be sent."""
    core, target = cell.core_cell, request.get_header(MessageHeaderKey.ORIGIN)

    def push(message: dict[str, Any]) -> bool:
        payload = json.dumps(message).encode()
        try:
            problems = core.fire_and_forget(
                CHANNEL, _PUSH_TOPIC, target, Message(payload=payload), optional=True
            )
        except Exception:  # the cell may be stopping; whatever it raises, the reply has what was not sent
            return False
        return not problems.get(target)

    return push


def take_pushed(cell: Any, take: Callable[[bytes], None]) -> None:
    """Have `take` called, in threads of the runtime, with each message that a server pushes to this cell."""
    cell.core_cell.register_request_cb(
        channel=CHANNEL, topic=_PUSH_TOPIC, cb=lambda message: take(bytes(message.payload))
    )


def peer_of(site: str, origin: str, own_job: str | None = None) -> Peer:
    """Who sent a request.

    Args:
        site: the client's name as the server authenticated it; empty where nothing is verified.
        origin: the full name of the sender's cell, `[relay.]site` or `[relay.]site.<job id>`.
        own_job: the job that the sender says it belongs to; empty for a site's parent process, None if it
            does not say. It counts only where nothing is verified.
    """
    parts = FQCN.split(origin) if origin else []
    if not site and parts:  # an insecure federation or the simulator
        # Of two parts the first is a relay or the site: only the sender can tell.
        place = 0 if own_job is None else -2 if own_job and len(parts) > 1 else -1
        site = parts[place]
    job_id = parts[-1] if len(parts) > 1 and parts[-1] != site else ""
    return Peer(site, job_id)
