"""Bytes that arrive after the runtime has archived a job's run directory are added to the archive, once.

The runtime's own `nvflare job logs` and `nvflare job download` read that archive (component "workspace" of the job store, a zip);
with this they end with the complete log.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from nvflare.apis.job_def import JobMetaKey, RunStatus
from nvflare.apis.storage import WORKSPACE

from nvflare_logstream.client.model import UNKNOWN
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State, Stream, StreamKey

_WAIT_FOR_CLOSE = 120.0  # seconds after the archiving until what is there is added, closed or not

_logger = logging.getLogger(__name__)


class ArchiveKeeper:
    """Compares archives with the store when a job's streams are closed, and rewrites those that lack bytes.

    Args:
        engine: the server's engine, for its job store.
        store: the streams.
    """

    def __init__(self, engine: Any, store: LogStore):
        self._engine, self._store = engine, store
        self._lock = threading.Lock()
        self._pending: dict[str, float] = {}  # archived jobs, with the time at which to wait no longer

    def status(self, job: str) -> str:
        """The job's status in the job store; `UNKNOWN` where nobody will ever write how it ended.

        A server that is restarted does not take up its jobs again: the job store says for ever that they run.
        """
        with self._engine.new_context() as fl_ctx:
            found = self._engine.job_def_manager.get_job(job, fl_ctx)
        if found is None:
            return UNKNOWN
        status = str(found.meta.get(JobMetaKey.STATUS.value, UNKNOWN))
        forgotten = status == RunStatus.RUNNING.value and job not in self._engine.job_runner.running_jobs
        return UNKNOWN if forgotten else status

    def job_archived(self, job: str) -> None:
        """The runtime has archived and ended the job."""
        with self._lock:
            self._pending[job] = time.monotonic() + _WAIT_FOR_CLOSE

    def stream_closed(self, key: StreamKey) -> None:
        """A stream was closed; where its job ended long ago, its archive is looked at again."""
        with self._lock:
            if key.job_id not in self._pending and key.job_id not in self._engine.run_processes:
                self._pending[key.job_id] = time.monotonic() + 1.0

    def update(self) -> None:
        """Bring the archives of finished jobs up to date; called by the store's keeper thread."""
        with self._lock:
            pending = dict(self._pending)
        for job, deadline in pending.items():
            streams = [info for info in self._store.streams(job) if info.key.site != SERVER_SITE]
            if any(info.state is State.OPEN for info in streams) and time.monotonic() < deadline:
                continue
            self._complete(job, [info for info in streams if self._store.path(info.key).exists()])
            with self._lock:
                self._pending.pop(job, None)
            self._store.release(job)

    def _complete(self, job: str, streams: list[Stream]) -> None:
        with tempfile.TemporaryDirectory(dir=self._store.root, prefix=".archive-") as scratch:
            archived = self._fetch(job, scratch)
            if archived is None:
                return
            with zipfile.ZipFile(archived) as old:
                sizes = {entry.filename: entry.file_size for entry in old.infolist()}
                missing = {_member(s): s for s in streams if sizes.get(_member(s)) != s.end}
                if not missing:
                    return
                path = Path(scratch) / "completed.zip"
                with zipfile.ZipFile(path, "w") as new:
                    self._copy(old, new, set(missing))
                    for name, info in missing.items():
                        new.write(self._store.path(info.key), name)
            with self._engine.new_context() as fl_ctx:
                self._engine.job_def_manager.save_workspace(job, str(path), fl_ctx)
            _logger.info(
                "job %s: added the rest of %s to its archived workspace", job, ", ".join(sorted(missing))
            )

    @staticmethod
    def _copy(old: zipfile.ZipFile, new: zipfile.ZipFile, without: set[str]) -> None:
        for entry in old.infolist():
            if entry.filename in without:
                continue
            if entry.is_dir():
                new.writestr(entry, b"")
                continue
            with (
                old.open(entry) as source,
                new.open(entry, "w", force_zip64=entry.file_size > 1 << 30) as target,
            ):
                shutil.copyfileobj(source, target, 1 << 20)

    def _fetch(self, job: str, scratch: str) -> Path | None:
        with self._engine.new_context() as fl_ctx:
            try:
                self._engine.job_def_manager.get_storage_for_download(
                    job, scratch, WORKSPACE, "workspace.zip", fl_ctx
                )
            except Exception as error:  # each storage has its own errors; a job without an archive is not one
                _logger.debug("job %s: no archived workspace: %s", job, error)
                return None
        path = Path(scratch) / job / "workspace.zip"
        return path if path.exists() else None


def _member(info: Stream) -> str:
    return f"{info.key.site}/{info.key.file}"
