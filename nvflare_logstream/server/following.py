"""Long polls: what is new in the logs that a reader follows, as soon as there is anything new."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cache
from threading import BoundedSemaphore
from typing import Any

from nvflare_logstream import lines
from nvflare_logstream.errors import LogNotFoundError, StoreError
from nvflare_logstream.filters.bounds import is_json
from nvflare_logstream.filters.log import BLANK, LogLines, last_line_end
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.filters.timed_blocks import find_time
from nvflare_logstream.server.job_logs import JobLogs
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.wire.queries import (
    MAX_GROWING,
    MAX_PART,
    FilterOptions,
    FollowedPart,
    FollowReply,
    FollowRequest,
    Growing,
    JobStreams,
    Place,
    Pushed,
)

# Long polls at a time: the runtime has 64 threads for everything; further followers are sent back at once.
MAX_WAITING = 16
_MOST_SECONDS = 2.0  # that one look for new text takes
_REST = 20  # times the work of a look that it is rested: a follower takes a twentieth of a core at most
_LONGEST_REST = 1.0  # seconds
_FiltersFor = Callable[[Stream], Filters]
Push = Callable[[dict[str, Any]], bool]  # sends a message to the follower; false if that did not work


class Followers:
    """Answers those who follow logs; thread-safe.

    Args:
        logs: the stored logs.
    """

    def __init__(self, logs: JobLogs):
        self._logs = logs
        self._waiting = BoundedSemaphore(MAX_WAITING)

    def answer(self, job_id: str, request: FollowRequest, push: Push | None = None) -> FollowReply:
        """What is new since the request's places and its mark; waits for it as long as the request says.

        Args:
            job_id: the job's id.
            request: what is followed.
            push: sends what is new at once, where the request wants that: each reply, and the command that
                asks for it, costs both sides much more.

        Raises:
            LogNotFoundError: if a log that is followed is no longer there.
        """
        deadline, busy = time.monotonic() + request.wait, False
        places = {StreamKey(job_id, place.site, place.file): place for place in request.places}
        filters_for = _by_clock(request.filters.unbounded())
        parts: dict[StreamKey, FollowedPart] = {}
        growing: dict[StreamKey, str] = {}
        pushed = size = 0
        while True:
            began, changes = time.thread_time(), self._logs.changes(job_id)
            job = self._logs.job(job_id)
            new, there_is_more = self._new_parts(places, filters_for, job, request.as_text)
            parts |= new
            places |= {key: part.place for key, part in new.items()}
            mark, rest = _mark(job), 0.0
            if deadline <= time.monotonic() or mark != request.mark:
                break
            grown = self._grown(places, job, growing) if request.growing and request.push else ()
            text = sum(len(part.text) for part in parts.values())
            # New lines of which the filters keep none are no reason to answer; `places` has where they end.
            if text or grown:
                size += text + sum(len(line.text) for line in grown)
                if push is None or not request.push or size >= MAX_PART:  # the follower holds what it is sent
                    break
                if not push(Pushed(request.push, pushed, tuple(parts.values()), grown).encode()):
                    break
                pushed, parts, rest = pushed + 1, {}, request.pace
            if text or grown or there_is_more:
                rest = max(rest, min(_REST * (time.thread_time() - began), _LONGEST_REST))
            if not self._waiting.acquire(blocking=False):
                busy = True
                break
            try:
                time.sleep(max(0.0, min(rest, deadline - time.monotonic())))
                if not there_is_more:
                    self._logs.wait_for_change(job_id, changes, max(0.0, deadline - time.monotonic()))
            finally:
                self._waiting.release()
        return FollowReply(job, tuple(parts.values()), mark, busy, pushed)

    def _new_parts(
        self, places: dict[StreamKey, Place], filters_for: _FiltersFor, job: JobStreams, as_text: bool
    ) -> tuple[dict[StreamKey, FollowedPart], bool]:
        """What has come in each log, and whether there is more than fits into one look."""
        streams = {stream.key: stream for stream in job.streams}
        grown: list[tuple[Stream, Place]] = []
        for key, place in places.items():
            stream = streams.get(key)
            if stream is None:
                problem = f"the server no longer has the log {key.file} of {key.site} for job {key.job_id}"
                raise LogNotFoundError(problem)
            # After a crash there may even be less, until it is sent again.
            if stream.end > place.reading.offset and place.reading.is_of(stream.copy):
                grown.append((stream, place))
        parts, size, ends, there_is_more = {}, 0, time.monotonic() + _MOST_SECONDS, False
        for number, (stream, place) in enumerate(grown):
            others = len(grown) - number  # each log gets its share of what one reply may hold and take
            most, seconds = (MAX_PART - size) // others, (ends - time.monotonic()) / others
            part, is_more = self._look_at(stream, place, filters_for(stream), as_text, most, seconds)
            if part is not None:
                size += len(part.text)
                parts[stream.key] = part
                there_is_more |= is_more
            if size >= MAX_PART:
                break
        return parts, there_is_more

    def _look_at(
        self, stream: Stream, place: Place, filters: Filters, as_text: bool, most: int, seconds: float
    ) -> tuple[FollowedPart | None, bool]:
        """What has come in one log, and whether there is more; None where no line has ended."""
        log_lines = self._logs.log_lines(stream)
        try:
            # While the log is written, an unfinished line is not given out.
            is_open, start = stream.state is State.OPEN, place.reading.offset
            end = last_line_end(log_lines, start) if is_open else stream.end
            if end <= start:
                return None, False
            place = _told(log_lines, place, as_text)
            if place.reading.rendered:
                log_lines = self._logs.rendered_lines(stream)
            part = _new_part(log_lines, stream, place, filters, end, most, seconds)
        except StoreError:
            if self._logs.is_current(stream):
                raise
            return None, False
        # A copy that was begun anew while it was read is one of which the follower has to hear first.
        return (part, part.place.reading.offset < end) if self._logs.is_current(stream) else (None, False)

    def _grown(
        self, places: dict[StreamKey, Place], job: JobStreams, told: dict[StreamKey, str]
    ) -> tuple[Growing, ...]:
        """Unfinished lines that overwrite themselves and have changed since they were noted in `told`."""
        grown = []
        for stream in job.streams:
            place = places.get(stream.key)
            if place is None or stream.state is not State.OPEN or stream.end <= place.reading.offset:
                continue
            if not place.reading.is_of(stream.copy):
                continue
            if place.reading.state is not None and not place.reading.state.in_time:
                continue  # the record that it belongs to is left out
            start = max(place.reading.offset, stream.end - MAX_GROWING)
            try:
                data = self._logs.log_lines(stream).read(start, stream.end - start)
            except StoreError:
                if self._logs.is_current(stream):
                    raise
                continue
            if not self._logs.is_current(stream):
                continue
            if b"\r" in data and b"\n" not in data:
                text = lines.last_states(data.decode(errors="replace")).rstrip("\r")
                if told.get(stream.key) != text:
                    told[stream.key] = text
                    grown.append(Growing(stream.site, stream.file, text))
        return tuple(grown)


def _told(log_lines: LogLines, place: Place, as_text: bool) -> Place:
    """The place with what kind of log it is, where no line could tell before."""
    reading = place.reading
    if log_lines.read(0, min(reading.offset, BLANK)).strip() or not is_json(log_lines):
        return place
    return place._replace(reading=reading._replace(json=not as_text, rendered=as_text))


def _new_part(
    log_lines: LogLines, stream: Stream, place: Place, filters: Filters, end: int, most: int, seconds: float
) -> FollowedPart:
    reading, began = place.reading, time.monotonic()
    if not reading.timed and filters.by_time:
        reading, end = _looked_for_time(log_lines, reading, end, began + seconds / 2)
    seconds -= time.monotonic() - began
    reading = reading._replace(end=end, copy=stream.copy)
    reading, text = reading.part(log_lines, filters, most, seconds)
    return FollowedPart(place._replace(reading=reading), text)


def _looked_for_time(log_lines: LogLines, reading: Reading, end: int, deadline: float) -> tuple[Reading, int]:
    """The reading with what is known of times from its place on, and how far that counts.

    A follower cannot wait until all that came is looked at: what has no time so far is given out.
    """
    if reading.offset < reading.end:  # an earlier part found no time up to there
        return reading, min(end, reading.end)
    looked, timed = find_time(
        log_lines, reading.offset, end, reading.json, lambda: time.monotonic() >= deadline
    )
    return reading._replace(timed=timed), end if timed else looked


def _by_clock(options: FilterOptions) -> _FiltersFor:
    """The filters for a stream: where times count, by its site's clock, else the same for all."""
    for_clock, by_time = cache(options.for_site), options.for_site(None).by_time
    return lambda stream: for_clock(stream.utc_offset, stream.skew) if by_time else for_clock(None)


def _mark(job: JobStreams) -> str:
    """Changes when a site joins, falls silent, is refused or ends, with a new copy and the job's status."""
    verdicts = [(stream.site, stream.file, stream.verdict.value) for stream in job.streams]
    verdicts += [(stream.site, stream.file, str(stream.copy)) for stream in job.streams if stream.copy > 1]
    return hashlib.sha256(repr((job.status, verdicts)).encode()).hexdigest()
