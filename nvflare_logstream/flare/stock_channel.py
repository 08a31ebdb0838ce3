"""The way by which the runtime's own log streamers send, and who sends, as the server has checked it.

The runtime hands its own receiver the context that a sender puts into its message, in which it may claim any
name. The message around it has the sender's name and origin as the server authenticated them. So the parts of
logs are taken where that message comes in; all else that comes there goes on to the runtime.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.shareable import ReservedHeaderKey, ReturnCode, Shareable, make_reply
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey
from nvflare.fuel.f3.cellnet.defs import ReturnCode as CellReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellMessageHeaderKeys

from nvflare_logstream.flare.cell_channel import peer_of
from nvflare_logstream.flare.runtime_stock import StockNames, stock_names
from nvflare_logstream.lines import in_one_line
from nvflare_logstream.server.unchecked import Outcome, Part, UncheckedReceiver
from nvflare_logstream.wire.peer import Peer

_ANSWERS = {
    Outcome.TAKEN: ReturnCode.OK,
    Outcome.LATER: ReturnCode.EXECUTION_EXCEPTION,  # what a streamer's first part may be answered a few times
    Outcome.REFUSED: ReturnCode.TASK_ABORTED,
}
_MOST_WAITING = 48  # messages; the runtime has 64 threads for them
_NOT_TAKEN = (
    "%s sends %s by the runtime's own streamer to this job's process, where nobody takes it: set its "
    "target_parent_server to true, or put nvflare_logstream.JobLogStreamer in its place"
)
_WAIT_SECONDS = 4.0  # the runtime's own streamer waits 5 s for its answer
_logger = logging.getLogger(__name__)


class ComingReceiver:
    """A receiver that is still being started.

    A streamer whose first part nobody takes gives the log up: only that part names it. So what comes
    meanwhile waits.
    """

    def __init__(self) -> None:
        self._receiver: UncheckedReceiver | None = None
        self._is_decided = threading.Event()
        self._places = threading.Semaphore(_MOST_WAITING)

    def decide(self, receiver: UncheckedReceiver | None) -> None:
        """Here it is; None if there will be none."""
        self._receiver = receiver
        self._is_decided.set()

    def get(self) -> UncheckedReceiver | None:
        """The receiver, after a wait if need be; None if there is none."""
        if not self._is_decided.is_set() and self._places.acquire(blocking=False):
            try:
                self._is_decided.wait(_WAIT_SECONDS)
            finally:
                self._places.release()
        return self._receiver


def serve_stock(cell: Any, find: Callable[[], UncheckedReceiver | None]) -> None:
    """Have a receiver take what the runtime's own streamers send to this cell, if the runtime has any.

    Args:
        cell: the runtime's cell of this process.
        find: gives the receiver; where there is none, the runtime gets what came.
    """
    names = stock_names()
    if names is None:
        return
    channel, is_said = CellChannel.AUX_COMMUNICATION, False

    def go_on(request: Message) -> Message:
        """Hand a message to the runtime, which takes all messages of the channel."""
        callback = cell.core_cell.req_reg.find(channel, "*")
        reply: Message = callback.cb(request, *callback.args, **callback.kwargs)
        return reply

    def taken_by_runtime(request: Message, part: Part) -> Message:
        """Hand on a part of a log, and say so once where the runtime has no receiver for it either."""
        nonlocal is_said
        reply = go_on(request)
        if not is_said and part.file and reply.payload.get_return_code() == ReturnCode.EXECUTION_EXCEPTION:
            is_said = True
            _logger.warning(_NOT_TAKEN, in_one_line(_peer(request).site), in_one_line(part.file))
        return reply

    def answer(request: Message) -> Message:
        read = _read(request.payload, names)
        receiver = find() if read else None
        if read is None:
            return go_on(request)
        if receiver is None:
            return taken_by_runtime(request, read)
        outcome = receiver.take(read, _peer(request))
        reply = Message(payload=make_reply(_ANSWERS[outcome]))
        reply.set_header(MessageHeaderKey.RETURN_CODE, CellReturnCode.OK)
        return reply

    def answer_abort(request: Message) -> Message:
        upload_id = _header(request.payload, names.upload_id)
        receiver, peer = find(), _peer(request)
        if receiver is None or not isinstance(upload_id, str) or not receiver.knows(upload_id, peer):
            return go_on(request)
        receiver.give_up(upload_id, peer)
        return Message(payload=make_reply(ReturnCode.OK))

    _register(cell, channel, names.part_topic, answer)
    _register(cell, channel, names.abort_topic, answer_abort)


def _register(cell: Any, channel: str, topic: str, callback: Callable[[Message], Message]) -> None:
    # By names: the cell decides by the channel's name how messages of this channel come in.
    cell.register_request_cb(channel=channel, topic=topic, cb=callback)


def _peer(request: Message) -> Peer:
    """Who sent a message; the job that it names counts only where nothing is verified."""
    site = request.get_header(CellMessageHeaderKeys.CLIENT_NAME) or ""
    origin = request.get_header(MessageHeaderKey.ORIGIN) or ""
    claimed = _header(request.payload, ReservedHeaderKey.PEER_PROPS)
    job_id = claimed.get(ReservedKey.RUN_NUM) if isinstance(claimed, dict) else None
    is_job = bool(origin) and FQCN.split(origin)[-1] == job_id
    return peer_of(site, origin, str(job_id) if is_job else "")


def _header(payload: object, name: str) -> Any:
    headers = payload.get(ReservedHeaderKey.HEADERS) if isinstance(payload, Shareable) else None
    return headers.get(name) if isinstance(headers, dict) else None


def _read(payload: object, names: StockNames) -> Part | None:
    """The part of a log in a message; None for anything else, also what only looks like one."""
    if not isinstance(payload, Shareable) or _header(payload, names.channel) != names.log_channel:
        return None
    if _header(payload, names.topic) != names.log_topic:
        return None
    upload_id, number = _header(payload, names.upload_id), _header(payload, names.number)
    context = _header(payload, names.context)
    context = context if isinstance(context, dict) else {}
    job_id, file = context.get(names.job_id, ""), context.get(names.file, "")
    data = payload.get(names.data) or b""
    is_readable = (
        all(isinstance(value, str) for value in (upload_id, job_id, file))
        and type(number) is int
        and isinstance(data, bytes)
    )
    return Part(upload_id, number, job_id, file, data, bool(payload.get(names.eof))) if is_readable else None
