"""The reader's side: job logs of a federation as a Python API over an admin session."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import AuthenticationError, InternalError, NoConnection, SessionClosed
from nvflare.fuel.flare_api.flare_api import Session

from nvflare_logstream.client.checks import Finding, verify_streams
from nvflare_logstream.client.exporter import Progress, export_job
from nvflare_logstream.client.follow import Follow
from nvflare_logstream.client.manifest import Manifest
from nvflare_logstream.client.model import (
    COMMAND,
    MAX_PART,
    Event,
    JobStreams,
    LogQuery,
    Part,
    SiteLog,
    Stream,
)
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.names import check_name

LATEST = "@latest"
_PATIENCE = 20.0  # seconds for a reply; a long poll has its own time before
_BUSY_PAUSE = 0.5  # seconds, when the server has as much to hash as it takes
_HASH_RATE = 50e6  # bytes a second that the slowest server hashes
_WHOLE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What the runtime raises when the server goes away; a server that was restarted does not know the session any more.
_LOST = (NoConnection, ConnectionError, SessionClosed, FLCommunicationError, AuthenticationError)


class NoAnswer(NoConnection):  # type: ignore[misc]
    """The connection stands, and the server does not answer in time."""


class LogClient:
    """Reads job logs through an admin session; use it from one thread.

    Beside the errors named at each method, the runtime's own come through: JobNotFound, AuthorizationError, NoConnection.

    Args:
        session: an open session of the runtime.
        reconnect: gives a new session after the connection was lost; without it, a lost connection ends a `follow`.
    """

    def __init__(self, session: Session, reconnect: Callable[[], Session] | None = None):
        self._session, self._reconnect = session, reconnect
        self._patience = _PATIENCE
        self._wait_for_replies(_PATIENCE)

    def _wait_for_replies(self, seconds: float) -> None:
        self._timeout = seconds
        self._session.set_timeout(seconds)

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def ask(self, job: str, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request about `job` and return the reply; the server has `wait` seconds more for one that says so.

        Raises:
            RetrievalError: if the server says no.
            ArgumentError: if `job` cannot be a job's id.
        """
        check_name("job", job)  # it becomes part of a command
        self._wait_for_replies(request.get("wait", 0.0) + self._patience)
        asked = time.monotonic()
        try:
            found = self._session._do_command(f"{COMMAND} {job}", enforce_meta=False, props=request)
        except NoConnection as error:
            if time.monotonic() - asked < self._timeout:
                raise
            raise NoAnswer(f"the server did not answer within {self._timeout:.0f} s") from error
        data: dict[str, Any] = self._session._get_dict_data(found)
        if data.get("code") == "SYSTEM_NOT_READY":
            raise NoConnection(str(data["error"]))
        if "error" in data:
            raise RetrievalError(ErrorCode(data.get("code", "INVALID_ARGS")), str(data["error"]))
        if not data:
            raise RetrievalError(
                ErrorCode.NO_RECEIVER,
                "the server has no nvflare_logstream.JobLogReceiver in its resources.json",
            )
        return data

    def find_job(self, text: str) -> str:
        """The id of the job that `text` names: an id, the beginning of exactly one, or "@latest" for the job submitted last.

        Raises:
            RetrievalError: JOB_NOT_FOUND, or INVALID_ARGS with the ids that begin so.
        """
        if _WHOLE_ID.fullmatch(text):
            return text
        if text == LATEST:
            jobs = self._session.list_jobs(reverse=True, limit=1)
        elif re.fullmatch(r"[0-9a-f][0-9a-f-]{0,35}", text):
            jobs = self._session.list_jobs(id_prefix=text)
        else:
            jobs = []
        ids = sorted(str(job["job_id"]) for job in jobs)
        if not ids:
            raise RetrievalError(ErrorCode.JOB_NOT_FOUND, f"no job that you may see has the id {text}")
        if len(ids) > 1:
            shown = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
            raise RetrievalError(
                ErrorCode.INVALID_ARGS, f"{text} is the beginning of {len(ids)} job ids: {shown}"
            )
        return ids[0]

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
        found, state = {}, self.job(job)
        query = query.fixed(state.now)
        for stream in query.choose(state.streams):
            parts = list(self.parts(job, stream, query)) if stream.available else []
            flags = (parts[-1].since_applied, parts[-1].truncated) if parts else (False, False)
            found[stream.site] = SiteLog(stream, "".join(part.text for part in parts), *flags)
        return found

    def parts(
        self,
        job: str,
        stream: Stream,
        query: LogQuery,
        whole_lines: bool = False,
        reading: dict[str, Any] | None = None,
    ) -> Iterator[Part]:
        """Read one stream in pieces of about a MiB.

        Args:
            job: the job's id.
            stream: which log.
            query: what of it.
            whole_lines: leave out the line that is just being written.
            reading: of the last part that came, to go on after it.
        """
        query = query.fixed(time.time())
        request = {
            "op": "read",
            "site": stream.site,
            "file": stream.file,
            "filters": query.filters(),
            "whole_lines": whole_lines,
        }
        done = False
        while not done:
            reply = self.ask(job, {**request, "reading": reading} if reading else request)
            part = Part(**{name: reply[name] for name in Part.__dataclass_fields__})
            reading, done = part.reading, part.done
            yield part

    def follow(self, job: str, query: LogQuery) -> Iterator[Event]:
        """Read, and go on reading as the log grows, until the job is over and every stream is closed.

        The last event is "over", with the job's status; it survives rotation, a frozen or restarted server (with
        `reconnect`) and the job's archiving, without a lost or repeated line.
        """
        return Follow(self, job, query, _LOST).events()

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
                raise RetrievalError(
                    ErrorCode.LOG_CHANGED, f"{stream.site}/{stream.file} is shorter than the server said"
                )
            yield data
            at += len(data)

    def digest(self, job: str, stream: Stream, start: int = 0) -> str:
        """sha256 (hex) of the server's copy of a stream from `start` on, as far as `stream.bytes`; hashed for this answer."""
        request = {
            "op": "digest",
            "site": stream.site,
            "file": stream.file,
            "from": start,
            "end": stream.bytes,
        }
        self._patience = _PATIENCE + (stream.bytes - start) / _HASH_RATE
        try:
            while (reply := self.ask(job, request)).get("busy"):
                time.sleep(_BUSY_PAUSE)
        finally:
            self._patience = _PATIENCE
        return str(reply["digest"])

    def export(
        self, job: str, dest: Path | str, force: bool = False, on_progress: Progress | None = None
    ) -> Manifest:
        """Copy all logs of a job, as far as they are stored now, into a directory; an interrupted export is gone on with.

        Args:
            job: the job's id.
            dest: new, empty, or an unfinished export of this job.
            force: take any directory; files of an earlier export in it are removed, others stay.
            on_progress: called with (bytes here, bytes in all, stream) after each part.

        Raises:
            RetrievalError: as `nvflare_logstream.client.exporter.export_job`.
        """
        fetch, digest = partial(self.fetch, job), partial(self.digest, job)
        return export_job(job, self.job(job), Path(dest), fetch, digest, force, on_progress)

    def verify(self, job: str) -> list[Finding]:
        """Have the server hash its copy of every closed stream again, and compare it with what the site said."""
        return verify_streams(self.streams(job), partial(self.digest, job))

    def come_back(self) -> None:
        """Replace the session, whose connection is lost, by a new one.

        Raises:
            NoConnection: if there is nobody to give one, or it cannot be had now.
        """
        if self._reconnect is None:
            raise NoConnection("the connection to the server was lost")
        self._session.api.close()  # Session.close() would wait for the answer of a server that is gone
        try:
            self._session = self._reconnect()
        except InternalError as error:  # a server that is just starting answers in many ways
            raise NoConnection(str(error)) from error
