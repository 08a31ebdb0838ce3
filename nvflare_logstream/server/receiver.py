"""Takes requests from senders into the store: who may write what, and what to answer.

Pure of the runtime: the peer's identity comes in already authenticated, and the reply goes out as bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nvflare_logstream.errors import GapError, QuotaError, StoreError, WireError
from nvflare_logstream.server.pace import Pace
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State, StreamId, StreamKey
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload import Request, decode_request
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply


@dataclass(frozen=True)
class Admission:
    """Whether a site may write into a job: "ok", "later" (not known yet: try again) or "refused" (final).

    Attributes:
        status: the decision.
        reason: why, unless it is "ok".
        by_policy: the site takes part in the job, but has said that it keeps its logs.
    """

    status: Status = Status.OK
    reason: str = ""
    by_policy: bool = False


Admit = Callable[[str, str], Admission]  # (site, job)


@dataclass
class Counters:
    """What the receiver did since it started."""

    requests: int = 0
    refused_messages: int = 0
    data_bytes: int = 0
    last_error: str = ""


@dataclass
class _Answer:
    """Collects the reply: one entry a stream, the gravest one wins."""

    streams: dict[StreamId, StreamReply] = field(default_factory=dict)

    def put(self, reply: StreamReply) -> None:
        before = self.streams.get(reply.stream)
        if before is None or before.status is Status.OK:
            self.streams[reply.stream] = reply

    def stopped(self, stream: StreamId) -> bool:
        return stream in self.streams and self.streams[stream].status is not Status.OK


class Receiver:
    """Handles requests; called from many threads at once.

    Args:
        store: where the streams are kept.
        admit: who may write what.
        on_open: called with the key of every stream that a sender opens.
        on_close: called with the key of every stream that was closed.
        clock: gives the time in seconds since the epoch.
    """

    def __init__(
        self,
        store: LogStore,
        admit: Admit,
        on_open: Callable[[StreamKey], None] = lambda key: None,
        on_close: Callable[[StreamKey], None] = lambda key: None,
        clock: Callable[[], float] = time.time,
    ):
        self._store, self._admit, self._clock = store, admit, clock
        self._on_open, self._on_close = on_open, on_close
        self._pace = Pace()
        self.counters = Counters()

    def handle(self, payload: object, peer: Peer) -> bytes:
        """Take one request and return the reply; never raises for what came over the wire."""
        started = time.perf_counter()
        self.counters.requests += 1
        try:
            request = decode_request(payload)
            reply = self._take(request, peer)
        except WireError as error:
            self.counters.refused_messages += 1
            self.counters.last_error = f"{peer.site}: {error}"
            return Reply(error=str(error)).encode()
        except StoreError as error:  # the sender keeps what it has and comes again
            return Reply(error=str(error)).encode()
        wait = self._pace.wait(f"{peer.site}/{peer.job_id}", request.full, time.perf_counter() - started)
        return Reply(reply.streams, wait, "", reply.jobs_later).encode()

    def _take(self, request: Request, peer: Peer) -> Reply:
        answer, later = _Answer(), []
        for refusal in request.refusals:
            if (
                self._admitted(refusal.stream, peer, answer)
                or self._check(refusal.stream.job_id, peer).by_policy
            ):
                self._store.refuse(self._key(refusal.stream, peer), refusal.reason)
                answer.put(StreamReply(refusal.stream, Status.REFUSED, reason=refusal.reason))
        for job in request.known:
            if not self._list_known(job, peer, answer):
                later.append(job)
        for stream in request.opens:
            if self._admitted(stream, peer, answer):
                self._open(stream, request, peer, answer)
        self._store_frames(request, peer, answer)
        self._finish(request, peer, answer)
        if not (request.heads or request.opens or request.closes):
            # A sign of life: every open stream of this sender is still being watched.
            self._store.touch(peer.site, peer.job_id)
        return Reply(tuple(answer.streams.values()), jobs_later=tuple(later))

    def _key(self, stream: StreamId, peer: Peer) -> StreamKey:
        return StreamKey(stream.job_id, peer.site, stream.file)

    def _admitted(self, stream: StreamId, peer: Peer, answer: _Answer) -> bool:
        admission = self._check(stream.job_id, peer)
        if admission.status is not Status.OK:
            answer.put(StreamReply(stream, admission.status, reason=admission.reason))
        return admission.status is Status.OK

    def _check(self, job: str, peer: Peer) -> Admission:
        if peer.job_id and peer.job_id != job:
            return Admission(
                Status.REFUSED, f"a process of job {peer.job_id} may not write logs of job {job}"
            )
        return self._admit(peer.site, job)

    def _list_known(self, job: str, peer: Peer, answer: _Answer) -> bool:
        """Answer with every stream of the site in the job; False if the job cannot be judged yet."""
        admission = self._check(job, peer)
        if admission.status is Status.LATER:
            return False
        if admission.status is Status.OK:
            for info in self._store.streams(job, peer.site):
                verdict = info.verdict if info.state is State.CLOSED else None
                stream = StreamId(job, info.key.file)
                answer.put(StreamReply(stream, Status.OK, info.end, info.cursor, verdict))
        return True

    def _open(self, stream: StreamId, request: Request, peer: Peer, answer: _Answer) -> None:
        key = self._key(stream, peer)
        try:
            info = self._store.open(key, request.utc_offset, request.clock - self._clock())
        except StoreError as error:
            answer.put(StreamReply(stream, Status.LATER, reason=str(error)))
            return
        self._on_open(key)
        answer.put(StreamReply(stream, Status.OK, info.end, info.cursor))

    def _finish(self, request: Request, peer: Peer, answer: _Answer) -> None:
        """Close streams; they are on disk, in one commit, before the sender hears of it."""
        closed = []
        for close in request.closes:
            if not self._admitted(close.stream, peer, answer) or answer.stopped(close.stream):
                continue
            try:
                info = self._store.finish(self._key(close.stream, peer), close)
            except GapError as gap:
                answer.put(StreamReply(close.stream, Status.GAP, gap.end, gap.cursor))
            except StoreError as error:
                answer.put(StreamReply(close.stream, Status.LATER, reason=str(error)))
            else:
                answer.streams[close.stream] = StreamReply(
                    close.stream, Status.OK, info.end, verdict=info.verdict
                )
                closed.append(info.key)
        if closed:
            self._store.commit()
        for key in closed:
            self._on_close(key)

    def _store_frames(self, request: Request, peer: Peer, answer: _Answer) -> None:
        for frame in request.frames():
            stream = frame.stream
            if answer.stopped(stream) or not self._admitted(stream, peer, answer):
                continue
            try:
                end = self._store.append(
                    self._key(stream, peer), frame.offset, frame.data, frame.cursor, frame.losses
                )
                answer.streams[stream] = StreamReply(stream, Status.OK, end)
                self.counters.data_bytes += len(frame.data)
            except GapError as gap:
                answer.put(StreamReply(stream, Status.GAP, gap.end, gap.cursor))
            except QuotaError as error:
                answer.streams[stream] = StreamReply(stream, Status.REFUSED, reason=str(error))
            except StoreError as error:
                answer.put(StreamReply(stream, Status.LATER, reason=str(error)))
