"""One long poll: what the server pushes while it lasts, put into order, and at last its reply."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import Empty, SimpleQueue

from nvflare_logstream.errors import ErrorCode, RetrievalError, WireError
from nvflare_logstream.wire.queries import FollowReply, FollowRequest, Pushed

_LATE_SECONDS = 1.0  # that a message may come after the reply
_MOST_HELD = 16 << 20  # bytes; what is more is left, and asked for again


class Poll:
    """A request under way; `run` and `take` may be called from any thread.

    A message that is lost costs time only: nothing behind it is given out, and the next request goes on from
    where the reader stands.

    Args:
        request: what is followed.
    """

    def __init__(self, request: FollowRequest):
        self.request = replace(request, push=uuid.uuid4().hex)
        self._arrived: SimpleQueue[FollowReply | BaseException | bytes] = SimpleQueue()
        self._held = 0

    def run(self, ask: Callable[[FollowRequest], FollowReply]) -> None:
        """Ask, and keep the reply or what was raised for `results`."""
        try:
            self._arrived.put(ask(self.request))
        except BaseException as error:
            self._arrived.put(error)

    def take(self, message: bytes) -> None:
        """Keep a message that the server pushed."""
        if self._held + len(message) <= _MOST_HELD:
            self._held += len(message)
            self._arrived.put(message)

    def results(self) -> Iterator[Pushed | FollowReply]:
        """What comes, in the order in which it was sent; the reply is the last.

        Raises:
            RetrievalError: if the request fails, or a message cannot be read.
        """
        early: dict[int, Pushed] = {}
        due = 0
        reply: FollowReply | None = None
        while reply is None or due < reply.pushed:
            try:
                item = self._arrived.get(timeout=_LATE_SECONDS if reply else None)
            except Empty:
                break
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, FollowReply):
                reply = item
            elif (pushed := _read(item)).name == self.request.push:
                self._held -= len(item)
                early[pushed.number] = pushed
            while due in early:
                yield early.pop(due)
                due += 1
        if reply:
            yield reply if due >= reply.pushed else replace(reply, parts=())  # they would leave a gap


def _read(message: bytes) -> Pushed:
    try:
        return Pushed.decode(json.loads(message))
    except (WireError, ValueError, RecursionError) as error:
        problem = f"what the server sent cannot be read: {error}"
        raise RetrievalError(ErrorCode.INVALID_REPLY, problem) from error
