"""The streams that the store has in memory, and how they come to disk together."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from nvflare_logstream.errors import QuotaError, StoreError
from nvflare_logstream.store.file import StreamFile
from nvflare_logstream.store.index import Index
from nvflare_logstream.store.quotas import Usage
from nvflare_logstream.streams import State, Stream, StreamKey


class LoadedStreams:
    """Loads a stream when somebody writes to it, commits all as a group, releases a job that is over.

    Whoever loads a stream holds `lock` until the change is made.

    Args:
        root: the store's directory.
        index: what was committed.
        usage: counts the stored bytes.
        clock: gives the time in seconds since the epoch.

    Attributes:
        lock: guards `files`, their records and the usage.
        files: the loaded streams.
    """

    def __init__(self, root: Path, index: Index, usage: Usage, clock: Callable[[], float]):
        self._root, self._index, self._usage, self._clock = root, index, usage, clock
        self.lock = threading.RLock()
        self._commit_lock = threading.Lock()
        self.files: dict[StreamKey, StreamFile] = {}

    def path(self, key: StreamKey) -> Path:
        """The stream's file."""
        return self._root / key.job_id / key.site / key.file

    def load(self, key: StreamKey) -> StreamFile:
        """The stream, made if it is new, with a file that is as long as its record says.

        Raises:
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the index does not take or give it.
            OSError: if the disk does not.
        """
        file = self.files.get(key)
        if file is None:
            record, now = self._index.load(key), self._clock()
            file = StreamFile(record or Stream(key, opened=now, last_seen=now), self.path(key))
            self.check_files(key, record)
            if file.size() > file.record.end:  # written after the last commit: the sender sends it again
                os.truncate(file.path, file.record.end)
            if record is None:
                self._index.add(file.record)
        if file.size() < file.record.end:  # new, or somebody damaged the store: take it from its start
            if file.record.end:
                self._usage.add(key.job_id, key.site, -file.record.end)
                file.update(state=State.OPEN, reason="")
            file.start_again()
        if file.record.state is State.EXPECTED:
            file.update(state=State.OPEN, reason="")
        self.files[key] = file
        return file

    def refuse(self, key: StreamKey, reason: str) -> None:
        """Record that the site keeps a stream back; one that is over stays as it is.

        Raises:
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the index does not take it.
        """
        with self.lock:
            file, now = self.files.get(key), self._clock()
            known = file.record if file else self._index.load(key)
            self.check_files(key, known)
            stream = known or Stream(key, opened=now)
            if stream.state not in (State.OPEN, State.EXPECTED):
                return
            if file is None:
                self._index.add(stream._replace(state=State.REFUSED, reason=reason, last_seen=now))
            else:
                file.update(state=State.REFUSED, reason=reason, last_seen=now)

    def expect(self, key: StreamKey, reason: str) -> None:
        """Record that a site takes part in a job, unless something of it is known already.

        Raises:
            StoreError: if the index does not take it.
        """
        with self.lock:
            if not self._index.find(key.job_id, key.site):
                now = self._clock()
                expected = Stream(key, state=State.EXPECTED, reason=reason, opened=now, last_seen=now)
                self._index.save([expected])

    def touch(self, site: str, job_id: str) -> None:
        """Note a sign of life for the open streams of a site, or of one of its jobs."""
        with self.lock:
            for key, file in self.files.items():
                if key.site == site and job_id in ("", key.job_id) and file.record.state is State.OPEN:
                    file.update(last_seen=self._clock())

    def check_files(self, key: StreamKey, record: Stream | None) -> None:
        """Check that a site may have this stream beside its others of the job.

        The first that is too many is recorded, so that readers see it; those after it are not, or their
        records would be what fills the server.

        Args:
            key: which stream.
            record: what is known of it.

        Raises:
            QuotaError: if it is too many.
            StoreError: if the index does not take or give it.
        """
        if record is not None and (record.state is not State.STOPPED or self.path(key).exists()):
            return
        others = self._index.count_files(key.job_id, key.site) - (record is not None)
        try:
            self._usage.check_files(others + 1)
        except QuotaError as error:
            if record is None and others == self._usage.quotas.files:
                now = self._clock()
                stopped = Stream(key, state=State.STOPPED, reason=str(error), opened=now, last_seen=now)
                self._index.add(stopped)
            raise

    def commit(self) -> None:
        """Bring everything to disk: first the data, then the cursors that point past them.

        Raises:
            StoreError: if the disk does not take it; nothing is forgotten.
        """
        with self._commit_lock:
            with self.lock:
                dirty = [(file, file.record) for file in self.files.values() if file.dirty]
                for file, _ in dirty:
                    file.dirty = False
            try:
                self._index.save([record for file, record in dirty if file.sync()])
            except (OSError, StoreError) as error:
                with self.lock:
                    for file, _ in dirty:
                        file.dirty = True
                raise StoreError(f"cannot commit: {error}") from error

    def release(self, job_id: str) -> None:
        """Forget a job's committed streams in memory."""
        with self.lock:
            for key in [key for key, file in self.files.items() if key.job_id == job_id and not file.dirty]:
                del self.files[key]

    def delete_job(self, job_id: str) -> None:
        """Remove a job from memory, from the index and from the disk.

        Raises:
            StoreError: if the index cannot be changed.
        """
        with self._commit_lock, self.lock:
            for key in [key for key in self.files if key.job_id == job_id]:
                del self.files[key]
            self._index.delete_job(job_id)
            self._usage.forget(job_id)
            shutil.rmtree(self._root / job_id, ignore_errors=True)
