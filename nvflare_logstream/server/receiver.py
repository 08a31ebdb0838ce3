"""Takes requests from senders into the store: who may write what, and what to answer.

Pure of the runtime: the peer's identity comes in already authenticated, and the reply goes out as bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import lru_cache

from nvflare_logstream.errors import (
    ArgumentError,
    BusyError,
    CommitError,
    GapError,
    QuotaError,
    RefusedError,
    StoreError,
    WireError,
)
from nvflare_logstream.server.admission import Admission, Admit
from nvflare_logstream.server.counters import Counters
from nvflare_logstream.server.failures import Failures
from nvflare_logstream.server.limits import Limits, SiteLimits
from nvflare_logstream.server.pace import Pace
from nvflare_logstream.server.replies import Replies, kind_of
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State, StreamId, StreamKey
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.server_status import Kind
from nvflare_logstream.wire.upload import Close, Refusal
from nvflare_logstream.wire.upload_reader import Request, decode_request
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply

_DEFAULT_LIMITS = Limits()
_known_key = lru_cache(4096)(StreamKey)  # a key is checked once, and not with each of its frames
_MOST_LISTED = 4 << 20  # bytes of a reply about known jobs; a cursor alone may have 16 KiB


class Receiver:
    """Handles requests; called from many threads at once.

    Args:
        store: where the streams are kept.
        admit: who may write what.
        on_open: called with the key of every stream that a sender opens.
        on_close: called with the key of every stream that was closed.
        clock: gives the time in seconds since the epoch.
        limits: what one site may ask.
        counters: where it is counted what comes, and what is not taken.
    """

    def __init__(
        self,
        store: LogStore,
        admit: Admit,
        on_open: Callable[[StreamKey], None] = lambda key: None,
        on_close: Callable[[StreamKey], None] = lambda key: None,
        clock: Callable[[], float] = time.time,
        limits: Limits = _DEFAULT_LIMITS,
        counters: Counters | None = None,
    ):
        self._store, self._admit, self._clock = store, admit, clock
        self._on_open, self._on_close = on_open, on_close
        self._pace = Pace()
        self._limits, self._sites = limits, SiteLimits(limits)
        self._counters = counters or Counters()
        self._failures = Failures(clock)

    def handle(self, payload: object, peer: Peer, told: bool = False) -> bytes:
        """Take one request, `told` if nobody waits for the reply, and return that; never raises for it."""
        started, used, replies = time.perf_counter(), time.thread_time(), Replies()
        try:
            self._sites.enter(peer.site, told)
            try:
                with self._sites.work(peer.site):
                    request = decode_request(payload)
                    self._take(request, peer, replies)
                self._end(request, peer, replies)
            finally:
                self._sites.leave(peer.site)
        except (WireError, StoreError, BusyError, ArgumentError) as error:
            # The sender keeps what it has and comes again.
            self._counters.took(peer.site, 0)
            self._counters.refused(peer.site, kind_of(error), str(error))
            return Reply(error=str(error)).encode()
        except Exception as error:  # a defect, or a runtime of another kind: neither end may be left to guess
            self._counters.took(peer.site, 0)
            return Reply(error=self._failures.log(peer.site, error)).encode()
        self._counters.took(peer.site, request.size, request.versions, request.clock)
        cost = None
        if not (request.opens or request.closes or replies.uncommitted):  # these come once for a stream
            # A small request costs what it computes, whoever has the core; a full one also what it waits.
            cost = time.perf_counter() - started if request.full else time.thread_time() - used
        wait = self._pace.wait(f"{peer.site}/{peer.job_id}", request.full, cost)
        return replies.encode(wait)

    def _take(self, request: Request, peer: Peer, replies: Replies) -> None:
        """Take all but the closes, which may have to wait for the disk."""
        if request.refusals:
            self._refuse_streams(request, peer, replies)
        if request.known:
            self._list_all_known(request, peer, replies)
        if request.opens:
            self._open_streams(request, peer, replies)
        self._store_frames(request, peer, replies)
        if request.unreadable:
            self._note_unreadable(request, peer, replies)

    def _end(self, request: Request, peer: Peer, replies: Replies) -> None:
        """Close streams, and bring to disk what has to be there before the sender hears of it."""
        if request.closes:
            self._close_streams(request, peer, replies)
        failed = self._commit(replies)
        for key in replies.closed:
            if key not in failed:
                self._on_close(key)
        if not (request.heads or request.opens or request.closes):
            # A sign of life: every open stream of this sender is still being watched.
            for opened in self._store.touch(peer.site, peer.job_id):
                # The server was restarted since. A sender that stands elsewhere asks for the cursor.
                stream = StreamId(opened.key.job_id, opened.file)
                replies.add(StreamReply(stream, Status.OK, opened.place[0]))
        for kind, why in replies.not_taken.items():
            self._counters.refused(peer.site, kind, why)

    def _key(self, stream: StreamId, peer: Peer) -> StreamKey:
        return _known_key(stream.job_id, peer.site, stream.file)

    def _admission(self, job_id: str, peer: Peer, replies: Replies) -> Admission:
        if peer.job_id and peer.job_id != job_id:
            reason = f"a process of job {peer.job_id} may not write logs of job {job_id}"
            return Admission(Status.REFUSED, reason)
        if job_id not in replies.admissions:
            most = self._limits.asked
            if len(replies.admissions) >= most:
                return Admission(Status.LATER, f"a request may be about {most} jobs; come again")
            replies.admissions[job_id] = self._admit(peer.site, job_id)
        return replies.admissions[job_id]

    def _admitted(self, stream: StreamId, peer: Peer, replies: Replies) -> bool:
        """Whether the peer may write this stream; if not, the reply says why."""
        admission = self._admission(stream.job_id, peer, replies)
        if admission.status is Status.OK and peer.job_id:
            # What the site keeps back only its parent process may let out again.
            known = self._store.info(self._key(stream, peer))
            if known is not None and known.state is State.REFUSED:
                admission = Admission(Status.REFUSED, known.reason)
        if admission.status is not Status.OK:
            replies.add(StreamReply(stream, admission.status, reason=admission.reason))
            if admission.status is Status.REFUSED and not admission.by_policy:
                replies.note(Kind.NOT_ADMITTED, stream, admission.reason)
        return admission.status is Status.OK

    def _refuse_streams(self, request: Request, peer: Peer, replies: Replies) -> None:
        """Record what the site's policy keeps back, also for a site that is not let in because of it."""
        most = self._limits.asked
        later = [refusal.stream for refusal in request.refusals[most:]]
        replies.put_off(later, f"a request may refuse {most} streams; come again")
        for refusal in request.refusals[:most]:
            stream = refusal.stream
            if (
                self._admitted(stream, peer, replies)
                or self._admission(stream.job_id, peer, replies).by_policy
            ):
                self._refuse(refusal, peer, replies)

    def _refuse(self, refusal: Refusal, peer: Peer, replies: Replies) -> None:
        key, reason = self._key(refusal.stream, peer), refusal.reason
        try:
            self._store.refuse(key, reason, commit=False)
            replies.uncommitted.add(key)
        except QuotaError as error:
            replies.refuse(refusal.stream, error)
        except RefusedError:
            pass  # its logs were removed: there is nothing to say of them
        replies.add(StreamReply(refusal.stream, Status.REFUSED, reason=reason))

    def _list_all_known(self, request: Request, peer: Peer, replies: Replies) -> None:
        known, most = list(dict.fromkeys(request.known)), self._limits.asked
        later = [job for job in known[:most] if not self._list_known(job, peer, replies)]
        replies.jobs_later = (*later, *known[most:])

    def _list_known(self, job_id: str, peer: Peer, replies: Replies) -> bool:
        """Reply with every stream that the site sent of the job; False if the job cannot be judged yet."""
        admission = self._admission(job_id, peer, replies)
        if admission.status is Status.LATER or replies.listed > _MOST_LISTED:
            return False
        if admission.status is Status.OK:
            for stream in self._store.streams(job_id, peer.site, brief=True):
                if stream.state is State.EXPECTED:
                    continue  # an assumption of the server, which must not make the site send another file
                verdict = stream.verdict if stream.state is State.CLOSED else None
                stream_id = StreamId(job_id, stream.file)
                replies.add(StreamReply(stream_id, Status.OK, *stream.place, verdict))
                replies.listed += len(stream.cursor)
        return True

    def _open_streams(self, request: Request, peer: Peer, replies: Replies) -> None:
        most, skew = self._limits.asked, request.clock - self._clock()
        bad = {log.stream for log in request.unreadable if log.reason}
        for stream in request.opens[:most]:
            if not self._admitted(stream, peer, replies):
                continue
            key = self._key(stream, peer)
            try:
                can_read = stream not in bad
                opened = self._store.open(key, request.utc_offset, skew, not peer.job_id, readable=can_read)
            except StoreError as error:
                replies.refuse(stream, error)
                continue
            self._on_open(key)
            replies.add(StreamReply(stream, Status.OK, *opened.place))
        replies.put_off(request.opens[most:], f"a request may open {most} streams; come again")

    def _store_frames(self, request: Request, peer: Peer, replies: Replies) -> None:
        most, streams = self._limits.asked, set[StreamId]()
        for frame in request.frames():
            stream = frame.stream
            if len(streams) >= most and stream not in streams:
                replies.put_off([stream], f"a request may be about {most} streams; come again")
                continue
            streams.add(stream)
            if replies.failed(stream) or not self._admitted(stream, peer, replies):
                continue
            key = self._key(stream, peer)
            try:
                # A late frame of a job's process must not undo the close that its parent sent.
                end = self._store.append(
                    key, frame.offset, frame.data, frame.cursor, frame.losses, not peer.job_id, commit=False
                )
                replies.add(StreamReply(stream, Status.OK, end))
                # Once a stream has begun, its cursor shows what rotation deletes while the server is down.
                if frame.losses or not frame.offset:
                    replies.uncommitted.add(key)
            except GapError as gap:
                replies.add(StreamReply(stream, Status.GAP, gap.end, gap.cursor))
            except StoreError as error:
                replies.refuse(stream, error)

    def _note_unreadable(self, request: Request, peer: Peer, replies: Replies) -> None:
        """Record what the site cannot read, and what of that it gives up."""
        skew = request.clock - self._clock()
        for log in request.unreadable[: self._limits.asked]:
            if replies.failed(log.stream) or not self._admitted(log.stream, peer, replies):
                continue
            key = self._key(log.stream, peer)
            try:
                record = self._store.unreadable(key, log.since - skew, log.reason, log.outcome)
            except StoreError as error:
                replies.refuse(log.stream, error)
                continue
            replies.uncommitted.add(key)
            if log.outcome is not None and record.state is State.STOPPED:
                replies.closed.append(key)
            if log.stream not in replies.by_stream:
                replies.add(StreamReply(log.stream, Status.OK, record.place[0]))

    def _close_streams(self, request: Request, peer: Peer, replies: Replies) -> None:
        """Close streams, which are on disk after the next commit."""
        for number, close in enumerate(request.closes):
            stream = close.stream
            if replies.failed(stream) or not self._admitted(stream, peer, replies):
                continue
            key = self._key(stream, peer)
            if number >= self._limits.asked or not self._may_compare(key, close):
                replies.put_off([stream], f"{peer.site} has too much to compare at a time; come again")
                continue
            try:
                record = self._store.close_stream(key, close)
                replies.add(StreamReply(stream, Status.OK, record.place[0], verdict=record.verdict))
                replies.closed.append(key)
                replies.uncommitted.add(key)
            except GapError as gap:
                replies.add(StreamReply(stream, Status.GAP, gap.end, gap.cursor))
            except StoreError as error:
                replies.refuse(stream, error)

    def _may_compare(self, key: StreamKey, close: Close) -> bool:
        """Whether a site may have this compared now; what does not end where the copy does costs nothing."""
        stored = self._store.info(key)
        if stored is None or stored.unchecked or stored.end != close.total:
            return True
        return self._sites.may_hash(key.site, close.total - close.digest_from)

    def _commit(self, replies: Replies) -> Collection[StreamKey]:
        """Bring to disk, once, what the sender will not say again; returns what the disk does not take."""
        if not replies.uncommitted:
            return ()
        try:
            self._store.commit(*replies.uncommitted)
        except CommitError as error:
            for key, reason in error.failed.items():
                replies.take_back(StreamId(key.job_id, key.file), reason)
            return error.failed
        return ()
