"""The reader's side: job logs of a federation as a Python API."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from nvflare_logstream.client.checks import Finding, verify_streams
from nvflare_logstream.client.compare import compare_export
from nvflare_logstream.client.exporter import Progress, export_job
from nvflare_logstream.client.follow import Follow
from nvflare_logstream.client.manifest import Manifest, Sign
from nvflare_logstream.client.model import Event, JobStreams, SiteLog
from nvflare_logstream.client.parts import PATIENCE, ask_streams, read_parts
from nvflare_logstream.client.port import Port
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import ErrorCode, RetrievalError, show
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.names import is_name, server_first
from nvflare_logstream.streams import Stream
from nvflare_logstream.wire.job_list import JobList, JobQuestion
from nvflare_logstream.wire.queries import MAX_PART, DigestRequest, FetchRequest, ReadReply
from nvflare_logstream.wire.server_status import ServerStatus

LATEST = "@latest"
_BUSY_PAUSE = 0.5  # seconds, when the server has as much to hash as it takes
_HASH_RATE = 50e6  # bytes a second that the slowest server hashes
_BUSY_SECONDS = 900.0  # as long as others may have logs hashed before it is our turn
_WHOLE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{0,35}")


def may_name_a_job(text: str) -> bool:
    """Whether `LogClient.find_job` would ask the server for it."""
    return text == LATEST or _BEGINNING.fullmatch(text) is not None


class LogClient:
    """Reads job logs; use it from one thread.

    Every method that asks the server raises RetrievalError if it says no, and LostContactError, which is
    one, if it cannot be reached.

    Args:
        port: the way to the server, such as `nvflare_logstream.SessionPort(session)`.
        clock: gives seconds that only grow.
        sleep: waits some seconds.
    """

    def __init__(
        self,
        port: Port,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._port, self._clock, self._sleep = port, clock, sleep

    def close(self) -> None:
        """End the connection."""
        self._port.close()

    def find_job(self, text: str) -> str:
        """The id of the job that `text` names: an id, the beginning of exactly one, or "@latest".

        The latest is the job that was submitted last, of those the user may see.

        Raises:
            RetrievalError: JOB_NOT_FOUND, or INVALID_ARGS with the ids that begin so.
        """
        if _WHOLE_ID.fullmatch(text):
            return text
        if text == LATEST:
            job_ids = self._port.job_ids(None)
        else:
            job_ids = sorted(self._port.job_ids(text)) if _BEGINNING.fullmatch(text) else []
        for job_id in job_ids:
            if not is_name(job_id):  # it is shown, and becomes part of a command
                problem = f"the server's list of jobs cannot be read: job_id: {show(job_id)} is no id"
                raise RetrievalError(ErrorCode.INVALID_REPLY, problem)
        if not job_ids and text == LATEST:
            hint = "`nvflare job submit -j DIR` submits one; --study shows the jobs of another study."
            problem = f"{LATEST}: there is no job yet that you may see"
            raise RetrievalError(ErrorCode.JOB_NOT_FOUND, problem, hint)
        if not job_ids:
            hint = "`nvflare-logstream status` lists the jobs of a study (--study)."
            problem = f"no job that you may see has the id {text}"
            raise RetrievalError(ErrorCode.JOB_NOT_FOUND, problem, hint)
        if len(job_ids) > 1:
            shown = ", ".join(job_ids[:5]) + (", …" if len(job_ids) > 5 else "")
            problem = f"{text} is the beginning of {len(job_ids)} job ids: {shown}"
            raise RetrievalError(ErrorCode.INVALID_ARGS, problem)
        return job_ids[0]

    def server_status(self) -> ServerStatus:
        """How the server's receiver is doing; with names of sites and jobs only for project admins."""
        return self._port.server_status(PATIENCE)

    def jobs(self, question: JobQuestion = JobQuestion()) -> JobList:  # noqa: B008 - it cannot be changed
        """The jobs that the user may see, newest first, with the verdicts on their logs."""
        return self._port.jobs(question, PATIENCE)

    def job(self, job_id: str) -> JobStreams:
        """The job's status and its streams."""
        return ask_streams(self._port, job_id)

    def streams(self, job_id: str) -> tuple[Stream, ...]:
        """Every stream of a job, with its verdict."""
        return self.job(job_id).streams

    def read(self, job_id: str, query: LogQuery) -> dict[str, SiteLog]:
        """What `query` finds, by site.

        A site without a copy has an empty text, and its stream's verdict says why; a name in the query that
        no site has is there with the reason.

        Example: `client.read(job_id, LogQuery(sites=("all",), tail=20))["site-1"].text`
        """
        job = self.job(job_id)
        query = query.fixed(job.now)
        logs = {name: SiteLog(None, reason=reason) for name, reason in query.unmatched(job.streams).items()}
        for stream in query.choose(job.streams):
            parts = list(self.parts(job_id, stream, query)) if stream.available else []
            text = "".join(part.text for part in parts)
            since, cut, until = (
                (parts[-1].since_applied, parts[-1].truncated, parts[-1].until_applied)
                if parts
                else [False] * 3
            )
            until_applied = until and query.until is not None
            logs[stream.site] = SiteLog(stream, text, since, cut, until_applied=until_applied)
        return {site: logs[site] for site in sorted(logs, key=server_first)}

    def parts(
        self,
        job_id: str,
        stream: Stream,
        query: LogQuery,
        whole_lines: bool = False,
        reading: Reading | None = None,
        as_text: bool = False,
    ) -> Iterator[ReadReply]:
        """Read one stream in pieces of about a MiB.

        Args:
            job_id: the job's id.
            stream: which log.
            query: what of it.
            whole_lines: leave out the line that is just being written.
            reading: of the last part that came, to go on after it.
            as_text: render a JSON log as text before `since`, `until`, `tail` and `max_bytes` are applied, as
                the runtime's command does; with `level` or `grep` its records are filtered, and come as they
                are.
        """
        if query.fixed(0.0) != query:  # it has times that count from the present, which the server knows
            query = query.fixed(self.job(job_id).now)
        return read_parts(self._port, job_id, stream, query, whole_lines, reading, as_text)

    def follow(
        self,
        job_id: str,
        query: LogQuery,
        merged: bool = False,
        growing: bool = False,
        as_text: bool = False,
    ) -> Iterator[Event]:
        """Read, and go on reading as the log grows, until the job is over and every stream is closed.

        With `merged`, what is there of several sites comes in the order of its corrected time; no more than a
        part of each log is held for it. With `growing`, GROWING events tell how a line reads that has not
        ended and overwrites itself, as progress bars do. `as_text` is that of `parts`.

        The last event is OVER, with the job's status, or PAST where the query's `until` has passed. Following
        survives rotation, a frozen or restarted server (where the port can reconnect) and the job's
        archiving, without a lost or repeated line.
        """
        return Follow(self._port, job_id, query, self._clock, self._sleep, merged, growing, as_text).events()

    def fetch(self, job_id: str, stream: Stream, start: int = 0) -> Iterator[bytes]:
        """The bytes of a stream from `start` to `stream.end`, in parts."""
        offset = start
        while offset < stream.end:
            request = FetchRequest(stream.site, stream.file, offset, min(MAX_PART, stream.end - offset))
            data = self._port.ask(job_id, request, PATIENCE).data
            if not data:
                problem = f"{stream.site}/{stream.file} is shorter than the server said"
                raise RetrievalError(ErrorCode.LOG_CHANGED, problem)
            yield data
            offset += len(data)

    def digest(self, job_id: str, stream: Stream, start: int = 0) -> str:
        """sha256 (hex) of the server's copy from `start` to `stream.end`, hashed for this answer."""
        request = DigestRequest(stream.site, stream.file, start, stream.end)
        seconds = PATIENCE + (stream.end - start) / _HASH_RATE
        deadline = self._clock() + _BUSY_SECONDS
        while (digest := self._port.ask(job_id, request, seconds).digest) is None:
            if self._clock() > deadline:
                problem = f"{stream.site}/{stream.file} is not compared: the server is busy with other logs"
                raise RetrievalError(ErrorCode.TIMEOUT, f"{problem}; try again later")
            self._sleep(_BUSY_PAUSE)
        return digest

    def export(
        self,
        job_id: str,
        dest: Path | str,
        force: bool = False,
        on_progress: Progress | None = None,
        sign: Sign | None = None,
    ) -> Manifest:
        """Copy all logs of a job, as far as they are stored now; resume an interrupted export.

        Args:
            job_id: the job's id.
            dest: new, empty, or an unfinished export of this job.
            force: take any directory; files of an earlier export in it are removed, others stay.
            on_progress: called with (bytes here, bytes in all, stream) after each part.
            sign: signs the manifest, such as `nvflare_logstream.client.signature.Signer.sign`.

        Raises:
            RetrievalError: as `nvflare_logstream.client.exporter.export_job`.
        """
        fetch, digest = partial(self.fetch, job_id), partial(self.digest, job_id)
        return export_job(self.job(job_id), Path(dest), fetch, digest, force, on_progress, sign)

    def verify(self, job_id: str) -> list[Finding]:
        """Have the server hash its copy of every closed stream again; compare it with what the site said."""
        return verify_streams(self.streams(job_id), partial(self.digest, job_id))

    def verify_export(self, job_id: str, dest: Path | str, manifest: Manifest | None = None) -> list[Finding]:
        """Compare an export with what the server has of the job now.

        Args:
            job_id: the job's id.
            dest: the export's directory.
            manifest: of it, where that was read already.

        Raises:
            RetrievalError: as `nvflare_logstream.client.compare.compare_export`.
        """
        dest = Path(dest)
        manifest = manifest or Manifest.load(dest)
        return compare_export(dest, manifest, self.job(job_id), partial(self.digest, job_id))
