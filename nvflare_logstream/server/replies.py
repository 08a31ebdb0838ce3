"""What a request is answered, stream by stream, and what of it was not taken."""

from __future__ import annotations

from collections.abc import Iterable

from nvflare_logstream.errors import (
    ArgumentError,
    BusyError,
    QuotaError,
    RefusedError,
    StoreError,
    WireError,
)
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.streams import StreamId, StreamKey
from nvflare_logstream.wire.server_status import Kind
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply

_KINDS: tuple[tuple[type[Exception], Kind], ...] = (  # the first that fits
    (QuotaError, Kind.OVER_QUOTA),
    (RefusedError, Kind.ENDED),
    (StoreError, Kind.NOT_STORED),
    (BusyError, Kind.TOO_MUCH),
    (ArgumentError, Kind.BAD_NAME),
    (WireError, Kind.UNREADABLE),
)


def kind_of(error: Exception) -> Kind:
    """Why something was not taken, in one word."""
    return next(kind for error_class, kind in _KINDS if isinstance(error, error_class))


class Replies:
    """One reply for each stream: a later one replaces an earlier one, unless that was not OK.

    Attributes:
        by_stream: the replies.
        uncommitted: streams whose part has to be on disk before the sender hears of it.
        not_taken: why parts of the request were not taken, one reason a kind.
        admissions: by job; to judge one may cost looks into the job store.
        listed: bytes said of known jobs.
        jobs_later: jobs to ask for again.
        closed: streams that end with this request.
    """

    def __init__(self) -> None:
        self.by_stream: dict[StreamId, StreamReply] = {}
        self.uncommitted: set[StreamKey] = set()
        self.not_taken: dict[Kind, str] = {}
        self.admissions: dict[str, Admission] = {}
        self.listed = 0
        self.jobs_later: tuple[str, ...] = ()
        self.closed: list[StreamKey] = []

    def encode(self, wait: float) -> bytes:
        """All of it as one reply to a sender that is to `wait` so many seconds."""
        return Reply(tuple(self.by_stream.values()), wait, jobs_later=self.jobs_later).encode()

    def add(self, reply: StreamReply) -> None:
        """Answer for a stream."""
        if not self.failed(reply.stream):
            self.by_stream[reply.stream] = reply

    def failed(self, stream: StreamId) -> bool:
        """Whether the answer for a stream is other than OK."""
        reply = self.by_stream.get(stream)
        return reply is not None and reply.status is not Status.OK

    def refuse(self, stream: StreamId, error: StoreError) -> None:
        """A quota is final, and so is a removal; what the disk does not take now, it may take later."""
        status = Status.REFUSED if isinstance(error, RefusedError) else Status.LATER
        self.add(StreamReply(stream, status, reason=str(error)))
        self.note(kind_of(error), stream, str(error))

    def take_back(self, stream: StreamId, reason: str) -> None:
        """Whatever was to be said of a stream: its sender is to come again."""
        self.by_stream[stream] = StreamReply(stream, Status.LATER, reason=reason)
        self.note(Kind.NOT_STORED, stream, reason)

    def put_off(self, streams: Iterable[StreamId], reason: str) -> None:
        """A site asks for too much at a time: it is to come again with these."""
        for stream in streams:
            self.add(StreamReply(stream, Status.LATER, reason=reason))
            self.note(Kind.TOO_MUCH, stream, reason)

    def note(self, kind: Kind, stream: StreamId, reason: str) -> None:
        """Note for the operator that a part of the request was not taken."""
        self.not_taken[kind] = f"{stream.job_id}/{stream.file}: {reason}"
