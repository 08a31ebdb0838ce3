"""Answers a reader's requests from the store: which streams there are, filtered text, new text as it comes, raw bytes and
their digest.

Pure of the runtime: a request is a dict that came over the wire, a reply is one that goes out. Every field of a request is
checked, and refused with an error that names it. A reply never carries more than asked for, nor more than a few MiB: what is
longer goes out in parts, with a `reading` in the reply from which the next request goes on.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from threading import BoundedSemaphore
from typing import Any

from nvflare_logstream import lines
from nvflare_logstream.client.model import MAX_PART, MAX_WAIT
from nvflare_logstream.errors import ArgumentError, LogStreamError, StoreError
from nvflare_logstream.filters.bounds import has_time, is_json, plan
from nvflare_logstream.filters.line_filter import MAX_BEFORE, LineState
from nvflare_logstream.filters.log import FileLog, LogLines, last_line_end
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import FILTER_NAMES, Filters
from nvflare_logstream.names import check_name
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State, Stream, StreamKey

MAX_WAITING = 16  # long polls at a time; the runtime has 64 threads for everything, and further followers come back instead
MAX_FOLLOWED = 1000  # streams in one request
MAX_HASHING = 2  # digests at a time: each keeps a core busy, and the server has jobs to run
_HASH_STEP = 1 << 20
_logger = logging.getLogger(__name__)
_FAR = 1 << 62


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
        job_status: Callable[[str], str] = lambda job: "",
        clock: Callable[[], float] = time.time,
    ):
        self._store, self._idle, self._status, self._clock = store, idle_timeout, job_status, clock
        self._waiting = BoundedSemaphore(MAX_WAITING)
        self._hashing = BoundedSemaphore(MAX_HASHING)

    def answer(self, job: str, request: object) -> dict[str, Any]:
        """The reply to a request about `job`; one that is not allowed gets {"error": text, "code": …}."""
        try:
            check_name("job", job)
            if not isinstance(request, dict):
                raise ArgumentError("request", request, "a map")
            operations = {
                "streams": self._streams,
                "read": self._read,
                "follow": self._follow,
                "fetch": self._fetch,
                "digest": self._digest,
            }
            wanted = request.get("op")
            if not isinstance(wanted, str) or wanted not in operations:
                raise ArgumentError("op", wanted, f"one of {', '.join(operations)}")
            return operations[wanted](job, request)
        except LogStreamError as error:
            codes = {ArgumentError: "INVALID_ARGS", StoreError: "LOG_CHANGED"}
            return {"error": str(error), "code": codes.get(type(error), "LOG_NOT_FOUND")}
        except (
            Exception
        ) as error:  # whatever a request can still do to us, it gets an answer and the server's log one entry
            _logger.exception("job %s: a reader's request failed", job)
            return {"error": f"{type(error).__name__}: {error}", "code": "INTERNAL_ERROR"}

    # -- operations ---------------------------------------------------------------------------------------------

    def _streams(self, job: str, request: dict[str, Any]) -> dict[str, Any]:
        return self._reply(self._store.streams(job), self._status(job))

    def _reply(self, streams: list[Stream], status: str) -> dict[str, Any]:
        now = self._clock()
        return {"streams": [self._row(info, now) for info in streams], "job_status": status, "now": now}

    def _row(self, info: Stream, now: float) -> dict[str, Any]:
        info = info.as_of(now, self._idle)
        row = {
            "site": info.site,
            "file": info.file,
            "bytes": info.end,
            "verdict": info.verdict,
            "reason": info.verdict_reason,
        }
        same = (
            "lines",
            "state",
            "total",
            "digest",
            "digest_from",
            "outcome",
            "opened",
            "last_seen",
            "last_data",
            "closed",
        )
        row.update({name: getattr(info, name) for name in (*same, "utc_offset", "skew")})
        row["live"] = info.live
        row["losses"] = [[loss.offset, loss.length, loss.reason] for loss in info.losses]
        return row

    def _read(self, job: str, request: dict[str, Any]) -> dict[str, Any]:
        info = self._info(job, request)
        source, filters = self._source(info), self._filters(request, info)
        token = request.get("reading")
        if request.get("whole_lines") is True and info.state is State.OPEN:
            source.end = last_line_end(source, 0)  # a follower comes back for the rest of the line
        reading = plan(source, filters) if token is None else decode_reading(token, _FAR)
        if reading.end > info.end:
            raise StoreError(
                f"the server was restarted and has less of {info.key.file} than before, until {info.key.site} sends it again"
            )
        reading, text = reading.part(source, filters, MAX_PART)
        return {
            "text": text,
            "reading": encode_reading(reading),
            "done": reading.done,
            "since_applied": reading.since_applied,
            "truncated": reading.truncated,
            "read": source.bytes_read,
        }

    def _follow(self, job: str, request: dict[str, Any]) -> dict[str, Any]:
        places = request.get("places")
        if not isinstance(places, list) or len(places) > MAX_FOLLOWED:
            raise ArgumentError("places", places, f"a list of at most {MAX_FOLLOWED} places")
        wait = request.get("wait", 0)
        if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait <= MAX_WAIT:
            raise ArgumentError("wait", wait, f"a number of seconds from 0 to {MAX_WAIT:g}")
        deadline, busy, before = time.monotonic() + wait, False, request.get("verdicts")
        parts: dict[StreamKey, dict[str, Any]] = {}
        while True:
            seen = self._store.changes(job)
            streams = self._store.streams(job)
            verdicts = self._verdicts(job, streams)
            parts |= self._new_parts(
                job, request, [*places, *parts.values()], {info.key: info for info in streams}
            )
            left = deadline - time.monotonic()
            # New text of which the filters keep nothing is no reason to answer; where it ends is remembered in `parts`.
            if any(part["text"] for part in parts.values()) or left <= 0 or verdicts != before:
                break
            if not self._waiting.acquire(blocking=False):
                busy = True  # come back in a moment: the server's threads are for others too
                break
            try:
                self._store.wait_for_change(job, seen, left)
            finally:
                self._waiting.release()
        return {
            "parts": list(parts.values()),
            "busy": busy,
            "verdicts": verdicts,
            **self._reply(streams, verdicts[-1][0]),
        }

    def _verdicts(self, job: str, streams: list[Stream]) -> list[list[str]]:
        """What a follower wants to be told of at once: a site that joins, falls silent, is refused or ends; and the job's end."""
        now = self._clock()
        rows = [[info.key.site, info.key.file, str(info.as_of(now, self._idle).verdict)] for info in streams]
        return [*rows, [self._status(job)]]

    def _new_parts(
        self, job: str, request: dict[str, Any], places: list[Any], streams: dict[StreamKey, Stream]
    ) -> dict[StreamKey, dict[str, Any]]:
        parts, size = {}, 0
        for key, token in self._readings(job, places).items():
            info = streams.get(key)
            if info is None:
                raise LogStreamError(
                    f"the server no longer has the log {key.file} of {key.site} for job {job}"
                )
            reading = decode_reading(
                token, _FAR
            )  # after a crash the server has less than it gave out, until it is sent again
            if info.end <= reading.at or size >= MAX_PART:
                continue
            source, filters = (
                self._source(info),
                replace(self._filters(request, info), tail=None, max_bytes=None),
            )
            end = info.end if info.state is not State.OPEN else last_line_end(source, reading.at)
            if end <= reading.at:
                continue
            if not reading.at:  # there was no line yet that could tell
                reading = replace(reading, json=is_json(source))
            if not reading.timed and (filters.since or filters.until):
                reading = replace(reading, timed=has_time(source, reading))
            reading, text = replace(reading, end=end).part(source, filters, MAX_PART - size)
            size += len(text)
            parts[key] = {
                "site": key.site,
                "file": key.file,
                "text": text,
                "reading": encode_reading(reading),
            }
        return parts

    def _readings(self, job: str, places: list[Any]) -> dict[StreamKey, object]:
        """Where the follower stands at each stream; of two places at the same stream the later one counts."""
        for place in places:
            if not isinstance(place, dict):
                raise ArgumentError("places", place, "maps with site, file and reading")
        return {self._key(job, place): place.get("reading") for place in places}

    def _fetch(self, job: str, request: dict[str, Any]) -> dict[str, Any]:
        info = self._info(job, request)
        at = _whole("at", request.get("at", 0), info.end)
        most = _whole("most", request.get("most", MAX_PART), MAX_PART)
        data = self._source(info).read(at, most)
        return {"data": base64.b64encode(data).decode(), "end": info.end}

    def _digest(self, job: str, request: dict[str, Any]) -> dict[str, Any]:
        info = self._info(job, request)
        end = _whole("end", request.get("end", info.end), info.end)
        start = _whole("from", request.get("from", 0), end)
        if not self._hashing.acquire(blocking=False):
            return {"busy": True}
        try:
            return {"digest": _sha256(self._source(info), start, end), "from": start, "end": end}
        finally:
            self._hashing.release()

    # -- checking -----------------------------------------------------------------------------------------------

    def _info(self, job: str, request: dict[str, Any]) -> Stream:
        key = self._key(job, request)
        info = self._store.info(key)
        if info is None or not self._store.path(key).exists():
            raise LogStreamError(f"the server has no log {key.file} of {key.site} for job {job}")
        return info

    def _key(self, job: str, request: dict[str, Any]) -> StreamKey:
        return StreamKey(
            job, check_name("site", request.get("site")), check_name("file", request.get("file"))
        )

    def _source(self, info: Stream) -> LogLines:
        return LogLines(FileLog(self._store.path(info.key), info.end))

    def _filters(self, request: dict[str, Any], info: Stream) -> Filters:
        given = request.get("filters") or {}
        if not isinstance(given, dict):
            raise ArgumentError("filters", given, "a map")
        values: dict[str, Any] = {}
        for name in ("since", "until"):
            value = given.get(name)
            if value is not None and not isinstance(value, str):
                raise ArgumentError(name, value, "a text")
            # The zone of a site is known from its sender; of the server's own logs it is the server's.
            values[name] = (
                None if value is None else lines.parse_since(name, value, utc_offset=info.utc_offset)
            )
        values |= {
            name: given[name] for name in FILTER_NAMES if name not in values and given.get(name) is not None
        }
        return Filters(**values)


def _whole(name: str, value: object, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise ArgumentError(name, value, f"a whole number from 0 to {high}")
    return value


def _sha256(source: LogLines, start: int, end: int) -> str:
    """sha256 (hex) of the bytes from `start` to `end`."""
    hasher, at = hashlib.sha256(), start
    while at < end:
        data = source.read(at, min(_HASH_STEP, end - at))
        if not data:
            raise StoreError("the stored copy is shorter than its index says")
        hasher.update(data)
        at += len(data)
    return hasher.hexdigest()


def encode_reading(reading: Reading) -> dict[str, Any]:
    """A reading as it travels."""
    return asdict(reading)


def decode_reading(token: object, end: int) -> Reading:
    """Read back a reading that a client returned, for a stream that is stored up to `end`.

    Raises:
        ArgumentError: naming the field, its value and what is allowed.
    """
    if not isinstance(token, dict):
        raise ArgumentError("reading", token, "the reading of an earlier reply")
    values: dict[str, Any] = {
        name: _whole(f"reading.{name}", token.get(name, 0), end) for name in ("at", "end", "start")
    }
    if values["at"] > values["end"]:
        raise ArgumentError("reading.at", values["at"], f"at most reading.end, {values['end']}")
    counts = ("skip_lines", "skip_bytes", "counted", "cut")
    values |= {name: _whole(f"reading.{name}", token.get(name, 0), _FAR) for name in counts}
    values["counting"] = token.get("counting", "")
    if values["counting"] not in ("", "lines", "bytes"):
        raise ArgumentError("reading.counting", values["counting"], 'one of "", "lines", "bytes"')
    values |= {name: token.get(name) is True for name in ("json", "timed", "since_applied", "truncated")}
    state = token.get("state")
    if state is None:
        return Reading(**values)
    before = state.get("before", []) if isinstance(state, dict) else None
    if (
        not isinstance(before, (list, tuple))
        or len(before) > 1000
        or not all(isinstance(line, str) for line in before)
    ):
        raise ArgumentError("reading.state", state, "the state of an earlier reply")
    if sum(map(len, before)) > 2 * MAX_BEFORE or not "".join(before).encode(
        "utf-8", errors="ignore"
    ).decode() == "".join(before):
        raise ArgumentError("reading.state", "before", f"at most {MAX_BEFORE} characters of text")
    after = _whole("reading.state.after", state.get("after", 0), 1000)
    found = LineState(state.get("in_time") is True, state.get("in_level") is True, tuple(before), after)
    return Reading(**values, state=found)
