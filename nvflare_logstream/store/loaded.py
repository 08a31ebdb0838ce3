"""The streams that the store has in memory, and how they come to disk together."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nvflare_logstream.errors import QuotaError, RefusedError, StoreError
from nvflare_logstream.store.file import StreamFile, UnsyncedError, mark_of
from nvflare_logstream.store.index import Index
from nvflare_logstream.store.ledger import new_entries
from nvflare_logstream.store.quotas import Usage
from nvflare_logstream.store.rebuild import REBUILT, from_file
from nvflare_logstream.streams import UNCHECKED, UNCHECKED_CURSOR, Loss, State, Stream, StreamKey

_Wake = Callable[[str], None]
_LIVE = 300.0  # seconds; a stream not heard of for so long when the server went down was not live


class LoadedStreams:
    """Loads a stream when somebody writes to it, commits all as a group, unloads a job that is over.

    Whoever loads a stream holds `lock` until the change is made.

    Args:
        root: the store's directory.
        index: what was committed.
        usage: counts the stored bytes.
        clock: gives the time in seconds since the epoch.
        wake: wakes a job's readers, once a close is on disk.

    Attributes:
        lock: guards `files`, their records and the usage.
        files: the loaded streams.
    """

    def __init__(self, root: Path, index: Index, usage: Usage, clock: Callable[[], float], wake: _Wake):
        self._root, self._index, self._usage, self._clock, self._wake = root, index, usage, clock, wake
        self.lock = threading.RLock()
        self._commit_lock = threading.Lock()
        self.files: dict[StreamKey, StreamFile] = {}
        self._unsure: dict[StreamKey, str] = {}  # streams to go back, and why: nobody knows what is on disk
        self._resumable: dict[str, set[StreamKey]] = {}  # by site: live when the server went down
        for key in index.live(_LIVE, clock()):
            self._resumable.setdefault(key.site, set()).add(key)

    def path(self, key: StreamKey) -> Path:
        """The stream's file."""
        return self._root / key.job_id / key.site / key.file

    def version(self, key: StreamKey) -> object:
        """Stays equal only while a stream's file has no change but what the store adds at its end.

        Raises:
            StoreError: if the file cannot be looked at.
        """
        try:
            with self.lock:
                file = self.files.get(key)
                return file.version() if file else mark_of(self.path(key).lstat())
        except OSError as error:
            raise StoreError(f"cannot look at {key}: {error.strerror}") from error

    def load(self, key: StreamKey) -> StreamFile:
        """The stream, made if it is new, with a file that is as long as its record says.

        Raises:
            RefusedError: if the stream is new and its job's logs were removed.
            QuotaError: if it is new, and its site has too many in this job.
            StoreError, OSError: if the index or the disk does not take or give it.
        """
        if key in self._unsure:
            self._go_back(key)
        file = self.files.get(key)
        if file is None:
            record, now = self._index.load(key), self._clock()
            if record is None:
                self.check_kept(key.job_id)
            self.check_files(key, record)
            stored = from_file(key, self.path(key)) if record is None else None
            file = StreamFile(record or stored or Stream(key, opened=now, last_seen=now), self.path(key))
            file.listed = len(file.record.losses)
            if record is None:
                self._index.add(file.record)
                self._usage.add(key.job_id, key.site, file.record.end)
        size = file.size()
        if size > file.record.end:  # written after the last commit, say: the sender sends it again
            os.truncate(file.path, file.record.end)
        if size < file.record.end > 0:  # somebody damaged the store: what the site still has is taken again
            is_left = f"cut to {size} bytes" if size >= 0 else "removed"
            reason = f"the stored copy, {file.record.end} bytes, was {is_left} at the server, and taken again"
            entry = Loss(0, None, f"{reason} from what the site still had")
            self.begin_again(file, entry, (0, 0, UNCHECKED_CURSOR if file.record.unchecked else b""))
        elif size < 0:
            file.start_again()
        if file.record.state is State.EXPECTED or file.record.reason == REBUILT:
            file.update(state=State.OPEN, reason="")
        self.files[key] = file
        return file

    def refuse(self, key: StreamKey, reason: str) -> None:
        """Record that the site keeps a stream back, or the rest of it; one that it has ended stays as it is.

        Raises:
            RefusedError: if the job's logs were removed.
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the index does not take it.
        """
        with self.lock:
            file, now = self.files.get(key), self._clock()
            known = file.record if file else self._index.load(key)
            if known is None:
                self.check_kept(key.job_id)
            self.check_files(key, known)
            stream = known or Stream(key, opened=now)
            reason += f", from byte {stream.end} on" if stream.end else ""
            if stream.over or (stream.state, stream.reason) == (State.REFUSED, reason):
                return
            if file is None:
                self._index.add(stream._replace(state=State.REFUSED, reason=reason, last_seen=now))
            else:
                file.update(state=State.REFUSED, reason=reason, last_seen=now)

    def touch(self, site: str, job_id: str) -> list[Stream]:
        """Note a sign of life for the open streams of a site's own senders, or of those of one of its jobs.

        Returns:
            Those of which nothing else was heard since the server started: their senders do not know yet that
            bytes that were not committed are to be sent again.
        """
        unheard = []
        with self.lock:
            self._load_live(site, job_id)
            for key, file in self.files.items():
                if key.site != site or job_id not in ("", key.job_id) or file.record.is_stock:
                    continue
                if file.record.state is State.OPEN:
                    file.update(last_seen=self._clock())
                    if not file.is_heard:
                        unheard.append(file.record)
        return unheard

    def _load_live(self, site: str, job_id: str) -> None:
        """Load, once, the streams that were live when the server went down."""
        keys = self._resumable.get(site, set())
        due = {key for key in keys if job_id in ("", key.job_id)}
        keys -= due
        for key in due - self.files.keys():
            with suppress(OSError, StoreError):  # this stream's own trouble; its next frame hears of it
                self.load(key)

    def check_kept(self, job_id: str) -> None:
        """Check that a job's logs were not removed: they do not come back.

        Raises:
            RefusedError: if they were; it says why.
            StoreError: if the index cannot be read.
        """
        if reason := self._index.forgotten(job_id):
            raise RefusedError(f"the server has removed the logs of job {job_id}: {reason}")

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

    def begin_again(self, file: StreamFile, entry: Loss, kept: tuple[int, int, bytes] = (0, 0, b"")) -> None:
        """Forget a stream's bytes but those `kept` (offset, lines, cursor); `entry` says so in its ledger.

        Raises:
            StoreError: if the index does not take it; nothing is forgotten then.
            OSError: if the disk does not.
        """
        stream, (end, lines, cursor) = file.record, kept
        losses = stream.losses + new_entries(stream.losses, [entry])
        again = stream._replace(end=end, cursor=cursor, lines=lines, came="", losses=losses, agreed=False)
        reason = UNCHECKED if again.unchecked else ""
        again = again._replace(state=State.OPEN, reason=reason, copy=stream.copy + 1)
        if end:  # the index will say that these are there
            self._unsure[stream.key] = "the disk does not take what came before"
            file.sync(set())
            del self._unsure[stream.key]
        self._index.save([again])  # first: a crash in between finds a file that is too long, and cuts it
        self._usage.add(stream.key.job_id, stream.site, end - stream.end)
        file.record, file.listed = again, len(losses)
        file.update(state=again.state)  # a commit that is under way may still write the record of before
        file.start_again(end)

    def commit(self) -> dict[StreamKey, str]:
        """Bring everything to disk: first the data, then the cursors that point past them.

        Returns:
            The streams that failed, and why. One of which nobody knows what is on disk goes back to what was
            committed before: its site sends the rest again.

        Raises:
            StoreError: if the index cannot be written; nothing is forgotten.
        """
        with self._commit_lock:
            with self.lock:
                failed = dict(self._unsure)
                files = [file for key, file in self.files.items() if file.dirty and key not in failed]
                dirty = [(file, file.note_what_came()) for file in files]
                for file, _ in dirty:
                    file.dirty = False
            synced, directories = [], set[Path]()
            for file, record in dirty:
                try:
                    if file.sync(directories):
                        synced.append((file, record))
                except OSError as error:
                    failed[record.key] = str(error)
                    file.dirty = True
                    if isinstance(error, UnsyncedError):
                        self._unsure[record.key] = str(error)
            try:
                self._index.save(
                    [record for _, record in synced], {record.key: file.listed for file, record in synced}
                )
            except StoreError as error:
                with self.lock:
                    for file, _ in dirty:
                        file.dirty = True
                raise StoreError(f"cannot commit: {error}") from error
            with self.lock:
                for file, record in synced:
                    if file.committed(record):
                        self._wake(record.key.job_id)
                for key in list(self._unsure):
                    self._go_back(key)
        return failed

    def _go_back(self, key: StreamKey) -> None:
        """Go back to what was committed of a stream; the next load cuts the file.

        Raises:
            StoreError: if the index cannot be read; it is tried again before the stream is used.
        """
        committed = self._index.load(key)
        if file := self.files.pop(key, None):
            self._usage.add(key.job_id, key.site, (committed.end if committed else 0) - file.record.end)
        del self._unsure[key]

    def unload(self, job_id: str) -> None:
        """Forget a job's committed streams in memory."""
        with self.lock:
            for key in [key for key, file in self.files.items() if key.job_id == job_id and not file.dirty]:
                del self.files[key]

    def delete_job(self, job_id: str, reason: str) -> None:
        """Remove a job from memory, from the index and from the disk; the index keeps the reason.

        Raises:
            StoreError: if the index cannot be changed.
        """
        with self._commit_lock, self.lock:
            for key in [key for key in self.files if key.job_id == job_id]:
                del self.files[key]
            self._index.delete_job(job_id, reason, self._clock())
            self._usage.forget(job_id)
        # Nobody comes back to it: that may take its time. What is left goes with `remove_rest`.
        shutil.rmtree(self._root / job_id, ignore_errors=True)
        self._index.delete_ledgers(job_id)

    def remove_rest(self) -> None:
        """Remove what a failure or a crash has left of removed jobs.

        Raises:
            StoreError: if the index cannot be read or changed.
        """
        for job_id in self._index.half_deleted():
            self._index.delete_ledgers(job_id)
        with suppress(OSError):
            for job_id in self._index.all_forgotten().intersection(os.listdir(self._root)):
                shutil.rmtree(self._root / job_id, ignore_errors=True)
