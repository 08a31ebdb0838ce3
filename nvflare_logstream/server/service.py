"""Answers readers from the store: streams, filtered text, new text as it comes, raw bytes and their digest.

Pure of the runtime. Requests arrive and replies leave as decoded maps. A reply never carries more than asked
for, nor more than a few MiB: what is longer goes out in parts, with a `reading` in the reply from which the
next request goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from threading import BoundedSemaphore
from typing import Any

from nvflare_logstream.errors import StoreError
from nvflare_logstream.filters.bounds import is_json, plan
from nvflare_logstream.filters.log import LogLines, last_line_end
from nvflare_logstream.hashing import hash_range
from nvflare_logstream.names import check_name
from nvflare_logstream.server.answers import answered
from nvflare_logstream.server.following import Followers, Push
from nvflare_logstream.server.job_logs import JobLogs
from nvflare_logstream.server.turns import Turns
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State, Stream
from nvflare_logstream.wire.queries import (
    MAX_PART,
    DigestReply,
    DigestRequest,
    FetchReply,
    FetchRequest,
    FollowRequest,
    Operation,
    ReadReply,
    ReadRequest,
    Reply,
    StreamsReply,
    StreamsRequest,
    decode_request,
    encode_reply,
)

MAX_HASHING = 2  # digests at a time: each keeps a core busy, and the server has jobs to run


class LogService:
    """Reads the store for others; thread-safe.

    Args:
        store: the streams.
        idle_timeout: seconds without a sign of life after which a site counts as silent.
        job_status: the status of a job in the runtime's words, "" if it is not known.
        clock: gives the time in seconds since the epoch.
    """

    def __init__(
        self,
        store: LogStore,
        idle_timeout: float,
        job_status: Callable[[str], str] = lambda job_id: "",
        clock: Callable[[], float] = time.time,
    ):
        self._logs = JobLogs(store, idle_timeout, job_status, clock)
        self._followers = Followers(self._logs)
        self._hashing = BoundedSemaphore(MAX_HASHING)
        self._turns = Turns()
        self._operations: dict[Operation, Callable[[str, Any], Reply]] = {
            Operation.STREAMS: self._streams,
            Operation.READ: self._read,
            Operation.FETCH: self._fetch,
            Operation.DIGEST: self._digest,
        }

    def answer(self, job_id: str, request: object, push: Push | None = None) -> dict[str, Any]:
        """The reply to `request` about `job_id`; one that is not allowed, or fails, gets an `ErrorReply`.

        `push` sends a message to who asked, ahead of the reply.
        """
        return answered(
            lambda: self._reply(job_id, request, push), f"a reader's request for the logs of job {job_id}"
        )

    def _reply(self, job_id: str, request: object, push: Push | None) -> dict[str, Any]:
        check_name("job_id", job_id)
        decoded = decode_request(request)
        if isinstance(decoded, FollowRequest):
            return encode_reply(decoded, self._followers.answer(job_id, decoded, push))
        return encode_reply(decoded, self._operations[decoded.operation](job_id, decoded))

    def _streams(self, job_id: str, request: StreamsRequest) -> StreamsReply:
        return StreamsReply(self._logs.job(job_id))

    def _read(self, job_id: str, request: ReadRequest) -> ReadReply:
        # Most logs are read in one short piece: the first waits for nobody.
        with self._turns.turn(waits=request.reading is not None) as seconds:
            return self._read_part(job_id, request, seconds)

    def _read_part(self, job_id: str, request: ReadRequest, seconds: float) -> ReadReply:
        stream = self._logs.stream(job_id, request.site, request.file)
        filters = request.filters.for_site(stream.utc_offset, stream.skew)
        log_lines = self._logs.log_lines(stream, timed=filters.by_time)
        rendered = self._logs.rendered_lines(stream) if request.as_text and is_json(log_lines) else None
        if request.whole_lines and stream.state is State.OPEN:
            log_lines.end = last_line_end(log_lines, 0)  # a follower comes back for the rest of the line
        if rendered:
            rendered.end, log_lines = log_lines.end, rendered
        reading = request.reading or plan(log_lines, filters)
        if not reading.is_of(stream.copy):
            raise _begun_anew(stream)
        if reading.end > stream.end:
            raise StoreError(
                f"the server was restarted and has less of {stream.file} than before, "
                f"until {stream.site} sends it again"
            )
        reading, text = reading._replace(copy=stream.copy).part(log_lines, filters, MAX_PART, seconds)
        if not self._logs.is_current(stream):  # it was begun anew while it was read
            raise _begun_anew(stream)
        return ReadReply(text, reading, log_lines.bytes_read)

    def _fetch(self, job_id: str, request: FetchRequest) -> FetchReply:
        stream = self._logs.stream(job_id, request.site, request.file)
        _check_offset(request.offset, stream)
        return FetchReply(self._logs.log_lines(stream).read(request.offset, request.most), stream.end)

    def _digest(self, job_id: str, request: DigestRequest) -> DigestReply:
        stream = self._logs.stream(job_id, request.site, request.file)
        _check_offset(request.end, stream)
        if not self._hashing.acquire(blocking=False):
            return DigestReply(None)
        try:
            return DigestReply(_sha256(self._logs.log_lines(stream), request.start, request.end))
        finally:
            self._hashing.release()


def _begun_anew(stream: Stream) -> StoreError:
    return StoreError(f"the server has begun its copy of {stream.file} of {stream.site} anew; read it again")


def _check_offset(offset: int, stream: Stream) -> None:
    """Refuse an offset beyond the stored end: whoever asks for it was told of a longer copy."""
    if offset > stream.end:
        raise StoreError(f"the server's copy of {stream.file} of {stream.site} ends at byte {stream.end} now")


def _sha256(log_lines: LogLines, start: int, end: int) -> str:
    """sha256 (hex) of the bytes from `start` to `end`."""
    hasher = hashlib.sha256()
    if hash_range(hasher, log_lines.read, start, end) < end:
        raise StoreError("the stored copy is shorter than its index says")
    return hasher.hexdigest()
