"""Adds bytes that arrive after the runtime has archived a job's run directory to that archive, once.

The runtime's own `nvflare job logs` and `nvflare job download` read the archive, a zip that is the component
"workspace" of the job store; this gives them the complete log. The sites' error logs become components too,
as the runtime's own receiver makes them: its `download_job_components` reads those.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import WorkspaceConstants
from nvflare.apis.job_def import JobMetaKey, RunStatus
from nvflare.apis.storage import WORKSPACE, DataTypes

from nvflare_logstream.client.model import UNKNOWN
from nvflare_logstream.errors import StoreError
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.store.rebuild import REBUILT, SCRATCH
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State, Stream, StreamKey

_WAIT_FOR_CLOSE = (
    120.0  # seconds after the archiving; then what is there is added, whether its streams are closed or not
)
# Seconds after the first failure, then twice as many each time: each try reads the whole archive.
_WAIT_AFTER_FAILURE, _LONGEST_WAIT = 60.0, 3600.0
_REST = 10  # times as long as an archive took to write, until it is written again
_WAIT_AFTER_LATE_CLOSE = 1.0  # seconds; streams of a site are closed one after the other
_COPY_STEP = 1 << 20  # bytes
_ZIP64_FROM = 1 << 30  # bytes; above, an entry may outgrow the plain format

_logger = logging.getLogger(__name__)


class ArchiveKeeper:
    """Compares archives with the store when a job's streams are closed, and rewrites those that lack bytes.

    Args:
        engine: the server's engine, for its job store.
        store: the streams.
        clock: gives the time in seconds, from any beginning.

    Attributes:
        due: set while there may be something to `update`.
    """

    def __init__(self, engine: Any, store: LogStore, clock: Callable[[], float] = time.monotonic):
        self._engine, self._store, self._clock = engine, store, clock
        self.due = threading.Event()
        self._lock = threading.Lock()
        # Jobs whose archive, and streams whose copy, is not looked at again before this time.
        self._resting: dict[str | StreamKey, float] = {}
        self._pending: dict[str, float] = {}  # ids of archived jobs, with the time at which to wait no longer
        self._error_logs: set[StreamKey] = set()  # that were closed, and are not in the job store yet
        self._failures: dict[str, int] = {}  # by job: how often its archive was not completed
        self._earlier: list[str] = []  # jobs that an earlier life has left, the oldest first
        self._next_earlier = 0.0  # when the next of them may be looked at
        self._taken: set[str] = set()  # those of them that are pending

    def start(self) -> None:
        """Find the jobs whose archives an earlier life of this process has not completed; never raises."""
        try:
            earlier = self._store.index.unarchived()
        except StoreError as error:
            _logger.error("archives of earlier jobs may lack the rest of their logs: %s", error)
            return
        with self._lock:
            self._earlier = earlier[::-1]
            if earlier:
                self.due.set()

    def status(self, job_id: str) -> str:
        """The job's status in the job store; `UNKNOWN` where nobody will ever write how it ended.

        A server that is restarted does not take up its jobs again: the job store says for ever that they run.
        """
        with self._engine.new_context() as fl_ctx:
            job = self._engine.job_def_manager.get_job(job_id, fl_ctx)
        if job is None:
            return UNKNOWN
        status = str(job.meta.get(JobMetaKey.STATUS.value, UNKNOWN))
        forgotten = status == RunStatus.RUNNING.value and job_id not in self._engine.job_runner.running_jobs
        return UNKNOWN if forgotten else status

    def job_archived(self, job_id: str) -> None:
        """The runtime has archived and ended the job."""
        with self._lock:
            self._pending[job_id] = self._clock() + _WAIT_FOR_CLOSE
            self.due.set()

    def stream_closed(self, key: StreamKey) -> None:
        """A stream was closed; if its job ended long ago, its archive has to be compared again."""
        with self._lock:
            if key.file == WorkspaceConstants.ERROR_LOG_FILE_NAME:
                self._error_logs.add(key)
                self.due.set()
            if key.job_id not in self._pending and key.job_id not in self._engine.run_processes:
                self._pending[key.job_id] = self._clock() + _WAIT_AFTER_LATE_CLOSE
                self.due.set()

    def update(self) -> None:
        """Bring the archives of finished jobs up to date; called by the store's keeper thread.

        A job whose archive cannot be completed is tried again a minute later, then ever less often, and holds
        up no other job. One that sites go on with takes a tenth of the time, however often they close its
        streams. So do all together that an earlier life has left, of which a turn takes one at most.
        """
        began = self._clock()
        self._resting = {what: until for what, until in self._resting.items() if began < until}
        with self._lock:
            job_id = self._earlier.pop() if self._earlier and began >= self._next_earlier else ""
            if job_id and job_id not in self._engine.run_processes:
                self._pending.setdefault(job_id, began + _WAIT_FOR_CLOSE)
                self._taken.add(job_id)
            pending = dict(self._pending)
        failure = self._keep_error_logs()
        for job_id, deadline in pending.items():
            if job_id in self._resting:
                continue
            with self._lock:  # first: a stream that is closed while the archive is written needs another one
                del self._pending[job_id]
            started = self._clock()
            try:
                is_done = self._update_job(job_id, deadline)
            except Exception as error:  # each storage has its own errors
                failure, is_done = error, False
                self._rest_after_failure(job_id, error)
            if job_id in self._taken:
                self._next_earlier = max(self._next_earlier, _rested(started, self._clock()))
            if is_done:
                self._failures.pop(job_id, None)
                self._taken.discard(job_id)
            else:
                with self._lock:
                    self._pending[job_id] = max(deadline, self._pending.get(job_id, deadline))
        with self._lock:
            if not (self._pending or self._earlier or self._error_logs):
                self.due.clear()
        if failure:
            raise failure

    def _rest_after_failure(self, job_id: str, error: Exception) -> None:
        count = self._failures[job_id] = self._failures.get(job_id, 0) + 1
        self._resting[job_id] = self._clock() + min(
            _WAIT_AFTER_FAILURE * 2 ** min(count - 1, 9), _LONGEST_WAIT
        )
        if count == 1:
            _logger.error("job %s: its archive cannot be completed, which is tried again: %s", job_id, error)

    def _update_job(self, job_id: str, deadline: float) -> bool:
        """Bring a job's archive up to date; returns whether that is done, or has to wait."""
        known = self._store.streams(job_id, brief=True)
        streams = [stream for stream in known if stream.site != SERVER_SITE]
        # Before 2.8 the runtime tells of a job's end first; what it has archived it removes.
        to_come = Path(self._engine.get_workspace().get_run_dir(job_id)).is_dir()
        if (to_come or any(stream.state is State.OPEN for stream in streams)) and self._clock() < deadline:
            return False
        began = self._clock()
        there = [stream for stream in streams if self._store.path(stream.key).exists()]
        has_archive = self._complete(job_id, there)
        for stream in there:
            if stream.file == WorkspaceConstants.ERROR_LOG_FILE_NAME and stream.end:
                self._keep_error_log(job_id, stream)
        self._resting[job_id] = _rested(began, self._clock())
        self._store.unload(job_id)
        if has_archive:  # else nobody knows whether there is none or the job store is away
            self._store.index.note_archived(job_id, sum(stream.end for stream in streams))
        return True

    def _complete(self, job_id: str, streams: list[Stream]) -> bool:
        """Add to a job's archive what it lacks; returns whether the job has one."""
        with tempfile.TemporaryDirectory(dir=self._store.root, prefix=SCRATCH) as scratch:
            archive = self._fetch(job_id, scratch, WORKSPACE)
            if archive is None:
                return False
            with zipfile.ZipFile(archive) as old:
                sizes = {entry.filename: entry.file_size for entry in old.infolist()}
                missing = {
                    _entry(stream): stream
                    for stream in streams
                    if _differs(sizes.get(_entry(stream), -1), stream)
                }
                if not missing:
                    return True
                self._store.check_room(
                    archive.stat().st_size + sum(stream.end for stream in missing.values())
                )
                path = Path(scratch) / "completed.zip"
                with zipfile.ZipFile(path, "w") as new:
                    _copy(old, new, set(missing))
                    for name, stream in missing.items():
                        new.write(self._store.path(stream.key), name)
            with self._engine.new_context() as fl_ctx:
                self._engine.job_def_manager.save_workspace(job_id, str(path), fl_ctx)
            files = ", ".join(sorted(missing))
            _logger.info("job %s: added the rest of %s to its archived workspace", job_id, files)
            return True

    def _keep_error_logs(self) -> Exception | None:
        """Keep what was closed; returns what failed. It is tried again when the job's archive is due."""
        failure = None
        with self._lock:
            keys = {key for key in self._error_logs if key not in self._resting}
            self._error_logs -= keys
        for key in keys:
            began = self._clock()
            try:
                if (stream := self._store.info(key)) and stream.end:
                    self._keep_error_log(key.job_id, stream)
            except Exception as error:  # each storage has its own errors
                failure = error
            self._resting[key] = _rested(began, self._clock())
        return failure

    def _keep_error_log(self, job_id: str, stream: Stream) -> None:
        """Put a site's error log into the job store, unless one that is as long is there."""
        manager, kind = self._engine.job_def_manager, DataTypes.ERRORLOG.value
        with self._engine.new_context() as fl_ctx:
            if manager.get_job(job_id, fl_ctx) is None:  # deleted, say
                return
        with tempfile.TemporaryDirectory(dir=self._store.root, prefix=SCRATCH) as scratch:
            kept = self._fetch(job_id, scratch, f"{kind}_{stream.site}")
            if kept is not None and kept.stat().st_size >= stream.end:
                return
            self._store.check_room(stream.end)
            copy = Path(scratch) / "copy"  # the job store takes it away
            shutil.copyfile(self._store.path(stream.key), copy)
            with self._engine.new_context() as fl_ctx:
                manager.set_client_data(job_id, str(copy), stream.site, kind, fl_ctx)

    def _fetch(self, job_id: str, scratch: str, component: str) -> Path | None:
        """Bring a component of a job below `scratch`; None if the job has none."""
        manager = self._engine.job_def_manager
        with self._engine.new_context() as fl_ctx:
            try:
                manager.get_storage_for_download(job_id, scratch, component, component, fl_ctx)
            except Exception as error:  # each storage has its own errors for a component that is not there
                _logger.debug("job %s: no component %s: %s", job_id, component, error)
                return None
        path = Path(scratch) / job_id / component
        return path if path.exists() else None


def _copy(old: zipfile.ZipFile, new: zipfile.ZipFile, without: set[str]) -> None:
    for entry in old.infolist():
        if entry.filename in without:
            continue
        if entry.is_dir():
            new.writestr(entry, b"")
            continue
        with (
            old.open(entry) as source,
            new.open(entry, "w", force_zip64=entry.file_size > _ZIP64_FROM) as target,
        ):
            shutil.copyfileobj(source, target, _COPY_STEP)


def _differs(size: int, stream: Stream) -> bool:
    """Whether an archive that has `size` bytes of a stream needs what is stored of it.

    Of one that has not ended the store may have less, after a crash, until its site has sent that again. So
    it may where the index was lost: what lost it may have cut the file too.
    """
    may_be_less = not stream.ended or stream.reason == REBUILT
    return size < stream.end if may_be_less else size != stream.end


def _rested(began: float, now: float) -> float:
    """When to go on with what took the time from `began` until `now`."""
    return now + _REST * (now - began)


def _entry(stream: Stream) -> str:
    """The stream's name in an archive."""
    return f"{stream.site}/{stream.file}"
