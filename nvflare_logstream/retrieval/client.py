"""The reader's side: job logs of a federation as a Python API over an admin session."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    NoConnection,
    SessionClosed,
)
from nvflare.fuel.flare_api.flare_api import Session

from nvflare_logstream.retrieval.export import Progress, export_job
from nvflare_logstream.retrieval.manifest import Manifest
from nvflare_logstream.retrieval.model import Event, JobStreams, LogQuery, RetrievalError, SiteLog, Stream
from nvflare_logstream.retrieval.query import COMMAND, MAX_PART, MAX_WAIT
from nvflare_logstream.retrieval.verify import Finding, verify_streams
from nvflare_logstream.server.verdict import NEVER_SEEN, PARTIAL, REFUSED, STREAMING

_TIMEOUT = MAX_WAIT + 20.0  # seconds for a reply
_BUSY_PAUSE = 0.5  # seconds, when the server has as many waiting followers, or as much to hash, as it takes
_HASH_RATE = 50e6  # bytes a second that the slowest server hashes
_RECONNECT_SECONDS = 300.0
_RECONNECT_PAUSE = 1.0


class LogClient:
    """Reads job logs through an admin session; use it from one thread.

    Args:
        session: an open session of the runtime.
        reconnect: gives a new session after the connection was lost; without it, a lost connection ends a `follow`.
    """

    def __init__(self, session: Session, reconnect: Callable[[], Session] | None = None):
        self._session, self._reconnect = session, reconnect
        session.set_timeout(_TIMEOUT)

    def ask(self, job: str, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request about `job` and return the reply.

        Raises:
            RetrievalError: if the server says no; the runtime's own exceptions if it is not there or does not allow it.
        """
        found = self._session._do_command(f"{COMMAND} {job}", enforce_meta=False, props=request)
        data: dict[str, Any] = self._session._get_dict_data(found)
        if "error" in data:
            raise RetrievalError("INVALID_ARGS", str(data["error"]))
        if not data:
            raise RetrievalError("NO_RECEIVER", "the server has no nvflare_logstream.JobLogReceiver in its resources.json")
        return data

    def job(self, job: str) -> JobStreams:
        """The job's status and its streams."""
        return JobStreams.from_reply(self.ask(job, {"op": "streams"}))

    def streams(self, job: str) -> tuple[Stream, ...]:
        """Every stream of a job, with its verdict."""
        return self.job(job).streams

    def read(self, job: str, query: LogQuery) -> dict[str, SiteLog]:
        """What `query` finds, by site; a site without a copy has an empty text and says why in its stream's verdict.

        Example: `client.read(job, LogQuery(sites=("all",), tail=20))["site-1"].text`
        """
        found = {}
        for stream in self.streams(job):
            if stream.file == query.file and query.wants(stream.site):
                *_, found[stream.site] = self.read_parts(job, stream, query)
        return found

    def read_parts(self, job: str, stream: Stream, query: LogQuery) -> Iterator[SiteLog]:
        """Read one stream; yields the growing log after each part, so that a long one can be shown as it comes."""
        log = SiteLog(stream)
        if not stream.available:
            yield log
            return
        request = {"op": "read", "site": stream.site, "file": stream.file, "filters": query.filters()}
        while not log.done:
            reply = self.ask(job, {**request, "reading": log.reading} if log.reading else request)
            log.text += reply["text"]
            log.reading, log.done = reply["reading"], reply["done"]
            log.since_applied, log.truncated = reply["since_applied"], reply["truncated"]
            yield log

    def follow(self, job: str, query: LogQuery) -> Iterator[Event]:
        """Read, and go on reading as the log grows, until the job is over and every stream is closed.

        The last event is "over", with the job's status; it survives rotation, a frozen or restarted server (with
        `reconnect`) and the job's archiving, without a lost or repeated line.
        """
        return _Follow(self, job, query).events()

    def fetch(self, job: str, stream: Stream, start: int = 0) -> Iterator[bytes]:
        """The bytes of a stream from `start` on, in parts."""
        at = start
        while at < stream.bytes:
            request = {
                "op": "fetch",
                "site": stream.site,
                "file": stream.file,
                "at": at,
                "most": min(MAX_PART, stream.bytes - at),
            }
            data = base64.b64decode(self.ask(job, request)["data"])
            if not data:
                raise RetrievalError("LOG_CHANGED", f"{stream.site}/{stream.file} is shorter than the server said")
            yield data
            at += len(data)

    def digest(self, job: str, stream: Stream, start: int = 0) -> str:
        """sha256 (hex) of the server's copy of a stream from `start` on, as far as `stream.bytes`; hashed for this answer."""
        request = {"op": "digest", "site": stream.site, "file": stream.file, "from": start, "end": stream.bytes}
        self._session.set_timeout(_TIMEOUT + (stream.bytes - start) / _HASH_RATE)
        try:
            while (reply := self.ask(job, request)).get("busy"):
                time.sleep(_BUSY_PAUSE)
        finally:
            self._session.set_timeout(_TIMEOUT)
        return str(reply["digest"])

    def export(self, job: str, dest: Path | str, force: bool = False, on_progress: Progress | None = None) -> Manifest:
        """Copy all logs of a job, as far as they are stored now, into a directory; an interrupted export is gone on with.

        Args:
            job: the job's id.
            dest: new, empty, or an unfinished export of this job.
            force: take any directory; files of an earlier export in it are removed, others stay.
            on_progress: called with (bytes here, bytes in all, stream) after each part.

        Raises:
            RetrievalError: as `nvflare_logstream.retrieval.export.export_job`.
        """
        fetch, digest = partial(self.fetch, job), partial(self.digest, job)
        return export_job(job, self.job(job), Path(dest), fetch, digest, force, on_progress)

    def verify(self, job: str) -> list[Finding]:
        """Have the server hash its copy of every closed stream again, and compare it with what the site said."""
        return verify_streams(self.streams(job), partial(self.digest, job))

    def lost_connection(self) -> None:
        """Try to get a new session.

        Raises:
            NoConnection: if there is nobody to give one, or it cannot be had now.
        """
        if self._reconnect is None:
            raise NoConnection("the connection to the server was lost")
        try:
            self._session = self._reconnect()
        except (AuthenticationError, AuthorizationError):
            raise
        except Exception as error:  # a server that is just starting answers in many ways
            raise NoConnection(str(error)) from error
        self._session.set_timeout(_TIMEOUT)


class _Follow:
    """One follow under way: where it stands at every site."""

    def __init__(self, client: LogClient, job: str, query: LogQuery):
        self._client, self._job, self._query = client, job, query
        self._readings: dict[str, Any] = {}
        self._verdicts: dict[str, str] = {}
        self._told: object = None  # what the server last said of the streams: it answers at once when that changes

    def events(self) -> Iterator[Event]:
        joined = self._client.job(self._job)
        while True:
            yield from self._notices(joined.streams)
            yield from self._begin(joined.streams)
            if joined.over and self._all_closed(joined.streams):
                yield Event("over", "", joined.status)
                return
            request = {"op": "follow", "places": self._places(), "wait": MAX_WAIT, "verdicts": self._told, **self._shape()}
            try:
                reply = self._client.ask(self._job, request)
            except (NoConnection, InternalError, ConnectionError, SessionClosed) as error:
                yield from self._come_back(error)
                joined = self._client.job(self._job)
                continue
            self._told = reply["verdicts"]
            for part in reply["parts"]:
                self._readings[part["site"]] = part["reading"]
                if part["text"]:
                    yield Event("text", part["site"], part["text"])
            if reply["busy"]:
                time.sleep(_BUSY_PAUSE)
            joined = JobStreams.from_reply(reply)

    def _shape(self) -> dict[str, Any]:
        # A follow has no end: what bounds the beginning was applied when the site's log was first read.
        return {"filters": {k: v for k, v in self._query.filters().items() if k not in ("tail", "max_bytes")}}

    def _places(self) -> list[dict[str, Any]]:
        return [{"site": site, "file": self._query.file, "reading": reading} for site, reading in self._readings.items()]

    def _wanted(self, streams: tuple[Stream, ...]) -> list[Stream]:
        return [s for s in streams if s.file == self._query.file and self._query.wants(s.site)]

    def _begin(self, streams: tuple[Stream, ...]) -> Iterator[Event]:
        """Read the present content of logs that have joined."""
        for stream in self._wanted(streams):
            if stream.site in self._readings or not stream.available:
                continue
            log = SiteLog(stream)
            sent = 0
            for log in self._client.read_parts(self._job, stream, self._query):
                if len(log.text) > sent:
                    yield Event("text", stream.site, log.text[sent:])
                sent = len(log.text)
            self._readings[stream.site] = log.reading

    def _notices(self, streams: tuple[Stream, ...]) -> Iterator[Event]:
        for stream in self._wanted(streams):
            before, self._verdicts[stream.site] = self._verdicts.get(stream.site), stream.verdict
            if before == stream.verdict:
                continue
            if stream.verdict == STREAMING:
                kind = "joined" if before in (None, NEVER_SEEN) else "reconnected"
                yield Event(kind, stream.site, "")
            elif stream.verdict == REFUSED:
                yield Event("refused", stream.site, stream.reason)
            elif stream.closed:
                ending = f"{stream.verdict}{f' ({stream.reason})' if stream.reason else ''}, {stream.outcome}"
                yield Event("ended", stream.site, ending)
            elif stream.verdict == PARTIAL:
                yield Event("silent", stream.site, stream.reason)

    def _all_closed(self, streams: tuple[Stream, ...]) -> bool:
        """Nothing more will come: every stream is closed, kept back or given up, and what there is has been read."""
        for stream in self._wanted(streams):
            reading = self._readings.get(stream.site)
            if stream.available and (reading is None or reading["at"] < stream.bytes):
                return False
            if stream.verdict == STREAMING:
                return False
        return True

    def _come_back(self, error: Exception) -> Iterator[Event]:
        yield Event("lost contact", "", str(error))
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while True:
            try:
                self._client.lost_connection()
                self._client.job(self._job)
                break
            except (NoConnection, InternalError, ConnectionError, SessionClosed):
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RECONNECT_PAUSE)
        yield Event("back", "", "")
