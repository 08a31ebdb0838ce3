"""What answers to readers are made of: a job's streams as judged now, and stored logs."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from nvflare_logstream.errors import LogNotFoundError
from nvflare_logstream.filters.log import FileLog, LogLines
from nvflare_logstream.filters.rendered import RenderedLines
from nvflare_logstream.filters.times import LogTimes
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Stream, StreamKey
from nvflare_logstream.wire.queries import JobStreams

# Of all logs together, each of some 256 KiB: what is known of more is forgotten, and learned again.
_MAX_CHUNKS = 1 << 18
_MAX_LOGS = 1000  # of which anything is known: one that is short has no chunk, and is known to be so


class JobLogs:
    """The stored logs of jobs, for readers; thread-safe.

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
        job_status: Callable[[str], str],
        clock: Callable[[], float],
    ):
        self._store, self._idle_timeout = store, idle_timeout
        self._job_status, self._clock = job_status, clock
        self._times: dict[StreamKey, tuple[object, LogTimes]] = {}
        self._times_lock = Lock()

    def job(self, job_id: str) -> JobStreams:
        """The job's status and its streams, as judged now."""
        streams, now = self._store.streams(job_id), self._clock()
        judged = tuple(stream.as_of(now, self._idle_timeout) for stream in streams)
        return JobStreams(job_id, self._job_status(job_id), judged, now)

    def stream(self, job_id: str, site: str, file: str) -> Stream:
        """A stream of which there is a stored copy.

        Raises:
            LogNotFoundError: if there is none.
        """
        key = StreamKey(job_id, site, file)
        stream = self._store.info(key)
        if stream is None or not self._store.path(key).exists():
            raise LogNotFoundError(f"the server has no log {file} of {site} for job {job_id}")
        return stream

    def is_current(self, stream: Stream) -> bool:
        """Whether the stored copy is still the one of this record, and was not begun again.

        What was read since the record was taken is of that copy, if this is so afterwards.
        """
        known = self._store.info(stream.key)
        return known is not None and known.copy == stream.copy

    def log_lines(self, stream: Stream, timed: bool = False) -> LogLines:
        """The lines of a stream's stored bytes.

        Args:
            stream: which log.
            timed: with what is known of the times in it.

        Raises:
            StoreError: if the file is not there.
        """
        times = self._times_of(stream.key) if timed else None
        return LogLines(FileLog(self._store.path(stream.key), stream.end), times)

    def _times_of(self, key: StreamKey) -> LogTimes:
        """What is known of the times in a log, as long as nobody changed what is stored; else nothing."""
        version = self._store.version(key)
        with self._times_lock:
            known_version, times = self._times.pop(key, (None, LogTimes()))
            if known_version != version:
                times = LogTimes()
            self._times[key] = version, times  # as the last one: the first was not asked for the longest
            while len(self._times) > 1 and self._is_too_much():
                del self._times[next(iter(self._times))]
            return times

    def _is_too_much(self) -> bool:
        """Whether more is known of times than is kept."""
        known = self._times.values()
        return len(known) > _MAX_LOGS or sum(len(times) for _, times in known) > _MAX_CHUNKS

    def rendered_lines(self, stream: Stream) -> RenderedLines:
        """The lines of a stream's stored bytes, which are JSON, as text."""
        return RenderedLines(FileLog(self._store.path(stream.key), stream.end))

    def changes(self, job_id: str) -> int:
        """How many changes of the job's streams there were so far."""
        return self._store.changes(job_id)

    def wait_for_change(self, job_id: str, seen: int, seconds: float) -> None:
        """Wait until there were more changes than `seen`, at most `seconds`."""
        self._store.wait_for_change(job_id, seen, seconds)
