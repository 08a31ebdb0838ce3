"""Long polls: what is new in the logs that a reader follows, as soon as there is anything new."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cache
from threading import BoundedSemaphore

from nvflare_logstream.errors import LogNotFoundError
from nvflare_logstream.filters.bounds import has_time, is_json
from nvflare_logstream.filters.log import last_line_end
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.server.job_logs import JobLogs
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.wire.queries import (
    MAX_PART,
    FilterOptions,
    FollowedPart,
    FollowReply,
    FollowRequest,
    JobStreams,
    Place,
)

# Long polls at a time: the runtime has 64 threads for everything; further followers are sent back at once.
MAX_WAITING = 16
_FiltersFor = Callable[[Stream], Filters]


class Followers:
    """Answers those who follow logs; thread-safe.

    Args:
        logs: the stored logs.
    """

    def __init__(self, logs: JobLogs):
        self._logs = logs
        self._waiting = BoundedSemaphore(MAX_WAITING)

    def answer(self, job_id: str, request: FollowRequest) -> FollowReply:
        """What is new since the request's places and its mark; waits for it as long as the request says.

        Raises:
            LogNotFoundError: if a log that is followed is no longer there.
        """
        deadline, busy = time.monotonic() + request.wait, False
        places = {StreamKey(job_id, place.site, place.file): place for place in request.places}
        filters_for = _by_clock(request.filters.unbounded())
        parts: dict[StreamKey, FollowedPart] = {}
        while True:
            changes = self._logs.changes(job_id)
            job = self._logs.job(job_id)
            new = self._new_parts(places, filters_for, job)
            parts |= new
            places |= {key: part.place for key, part in new.items()}
            mark, seconds_left = _mark(job), deadline - time.monotonic()
            # New lines of which the filters keep none are no reason to answer; `places` has where they end.
            if any(part.text for part in parts.values()) or seconds_left <= 0 or mark != request.mark:
                break
            if not self._waiting.acquire(blocking=False):
                busy = True
                break
            try:
                self._logs.wait_for_change(job_id, changes, seconds_left)
            finally:
                self._waiting.release()
        return FollowReply(job, tuple(parts.values()), mark, busy)

    def _new_parts(
        self, places: dict[StreamKey, Place], filters_for: _FiltersFor, job: JobStreams
    ) -> dict[StreamKey, FollowedPart]:
        streams = {stream.key: stream for stream in job.streams}
        parts, size = {}, 0
        for key, place in places.items():
            stream = streams.get(key)
            if stream is None:
                problem = f"the server no longer has the log {key.file} of {key.site} for job {key.job_id}"
                raise LogNotFoundError(problem)
            if size < MAX_PART and (part := self._new_part(stream, place, filters_for, MAX_PART - size)):
                size += len(part.text)
                parts[key] = part
        return parts

    def _new_part(
        self, stream: Stream, place: Place, filters_for: _FiltersFor, most: int
    ) -> FollowedPart | None:
        reading = place.reading
        if (
            stream.end <= reading.offset
        ):  # after a crash the server may even have less, until it is sent again
            return None
        log_lines, filters = self._logs.log_lines(stream), filters_for(stream)
        end = last_line_end(log_lines, reading.offset) if stream.state is State.OPEN else stream.end
        if end <= reading.offset:
            return None
        if not reading.offset:  # there was no line yet that could tell
            reading = reading._replace(json=is_json(log_lines))
        if not reading.timed and (filters.since or filters.until):
            reading = reading._replace(timed=has_time(log_lines, reading))
        reading, text = reading._replace(end=end).part(log_lines, filters, most)
        return FollowedPart(place._replace(reading=reading), text)


def _by_clock(options: FilterOptions) -> _FiltersFor:
    """The filters for a stream: where they have times, by its site's clock, else the same for all."""
    for_clock, has_times = cache(options.for_site), options.since is not None or options.until is not None
    return lambda stream: for_clock(stream.utc_offset, stream.skew) if has_times else for_clock(None)


def _mark(job: JobStreams) -> str:
    """Changes when a site joins, falls silent, is refused or ends, and with the job's status."""
    verdicts = [(stream.site, stream.file, stream.verdict.value) for stream in job.streams]
    return hashlib.sha256(repr((job.status, verdicts)).encode()).hexdigest()
