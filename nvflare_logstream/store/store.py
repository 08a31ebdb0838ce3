"""The server's copy of every stream: `<root>/<job_id>/<site>/<file>` and one index.

Rules:

* A file's content is exactly the logical sequence up to the stream's end; bytes are written only at that end.
* Data reach the disk before the cursor that points past them (`commit`). After a crash the files are cut back
  to the last committed end, and the senders go on from there.
* No open file and no thread per stream. Files are 0600, directories 0700.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nvflare_logstream.errors import GapError, QuotaError, StoreError
from nvflare_logstream.names import check_name
from nvflare_logstream.store.changes import Changes
from nvflare_logstream.store.index import Index
from nvflare_logstream.store.ledger import new_entries
from nvflare_logstream.store.loaded import LoadedStreams
from nvflare_logstream.store.quotas import FreeSpace, Quotas, Usage
from nvflare_logstream.streams import Loss, State, Stream, StreamKey
from nvflare_logstream.wire.upload import Close

__all__ = ["INDEX_FILE", "LogStore", "Quotas"]

INDEX_FILE = "index.sqlite"
_DEFAULT_QUOTAS = Quotas()


@contextmanager
def _as_store_error(key: StreamKey) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot keep {key}: {error}") from error


class LogStore:
    """Holds streams; thread-safe.

    Args:
        root: the store's directory, made if it is not there.
        quotas: how much may be stored, and by whom.
        clock: gives the time in seconds since the epoch.

    Raises:
        StoreError: if the index cannot be opened, or is one of a later release.
        OSError: if the directory cannot be made.
    """

    def __init__(self, root: Path, quotas: Quotas = _DEFAULT_QUOTAS, clock: Callable[[], float] = time.time):
        self.root, self._clock = Path(root), clock
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / INDEX_FILE).touch(mode=0o600)  # the files SQLite makes beside it get the same mode
        self.index = Index(self.root / INDEX_FILE)
        self._usage = Usage(quotas, self.index.parts())
        self._free = FreeSpace(self.root, quotas.free_share, clock)
        self._loaded = LoadedStreams(self.root, self.index, self._usage, clock)
        self._changes = Changes()

    def close(self) -> None:
        """Commit and close.

        Raises:
            StoreError: if the disk does not take it.
        """
        self.commit()
        self.index.close()

    # -- writing --------------------------------------------------------------------------------------------

    def path(self, key: StreamKey) -> Path:
        """The stream's file."""
        return self._loaded.path(key)

    def open(self, key: StreamKey, utc_offset: int = 0, skew: float = 0.0) -> Stream:
        """Make the stream if it is new, and say how far it is stored.

        Args:
            key: which stream.
            utc_offset: the site's offset from UTC in seconds.
            skew: the site's clock minus the server's, in seconds.

        Raises:
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the disk does not take it.
        """
        with self._loaded.lock, _as_store_error(key):
            file = self._loaded.load(key)
            if file.record.state is State.REFUSED:
                file.update(state=State.OPEN, reason="")
            file.update(utc_offset=utc_offset, skew=skew, last_seen=self._clock())
            self.wake_readers(key.job_id)
            return file.record

    def append(
        self,
        key: StreamKey,
        offset: int,
        data: bytes,
        cursor: bytes,
        losses: tuple[Loss, ...] = (),
        *,
        commit: bool = True,
    ) -> int:
        """Store bytes of a stream from logical `offset` on; bytes that are already stored are skipped.

        A new loss, which is sent only once, is committed; without `commit` by the caller, before it answers.

        Returns:
            The stream's end.

        Raises:
            GapError: if `offset` is beyond the end.
            QuotaError: if a quota is used up.
            StoreError: if the disk does not take the bytes, or too little of it is free.
        """
        with self._loaded.lock, _as_store_error(key):
            file = self._loaded.load(key)
            stream = file.record
            if offset > stream.end:
                raise GapError(stream.end, stream.cursor)
            new_losses = new_entries(stream.losses, losses) if losses else ()
            now = self._clock()
            data_end = offset + len(data)
            if data_end < stream.end or (data_end == stream.end and not new_losses):
                file.seen(now)
                return stream.end
            new_data = data[stream.end - offset :]
            try:
                self._usage.check(key, stream.end, len(new_data))
            except QuotaError as error:
                file.update(state=State.STOPPED, reason=str(error))
                raise
            if new_data:
                self._free.take(len(new_data))
                file.write(new_data)
            file.update(
                end=data_end,
                cursor=cursor,
                lines=stream.lines + new_data.count(b"\n"),
                state=State.OPEN,
                reason="",
                last_seen=now,
                last_data=now if new_data else stream.last_data,
                losses=stream.losses + new_losses,
            )
            self._usage.add(key.job_id, key.site, len(new_data))
        self.wake_readers(key.job_id)
        if new_losses and commit:
            self.commit()
        return data_end

    def close_stream(self, key: StreamKey, close: Close) -> Stream:
        """Close a stream: compare its length and digest with the site's; on disk after the next `commit`.

        Raises:
            GapError: if the site's total is not the stored length.
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the stored copy cannot be read.
        """
        with self._loaded.lock, _as_store_error(key):
            file = self._loaded.load(key)
            stream = file.record
            if close.total != stream.end:
                raise GapError(stream.end, stream.cursor)
            now = self._clock()
            if stream.state is not State.STOPPED:
                digest = file.digest(close.digest_from)
                agreed = digest == close.digest
                reason = f"the site's file has sha256 {close.digest}, the stored copy {digest}"
                file.update(state=State.CLOSED, agreed=agreed, reason="" if agreed else reason)
            file.update(
                total=close.total,
                digest=close.digest,
                digest_from=close.digest_from,
                outcome=close.outcome,
                closed=now,
                last_seen=now,
            )
            self.wake_readers(key.job_id)
            return file.record

    def refuse(self, key: StreamKey, reason: str, *, commit: bool = True) -> None:
        """Record that the site's policy keeps a stream back; what was stored before stays as it is.

        Raises:
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the disk does not take it.
        """
        with _as_store_error(key):
            self._loaded.refuse(key, reason)
        if commit:
            self.commit()

    def expect(self, key: StreamKey, reason: str) -> None:
        """Record that a site takes part in a job, so that a log that never comes is known to be missing.

        The site is expected under the file of `key`, until any stream of it in that job is opened or refused.

        Args:
            key: the site, its job, and the file to show as missing.
            reason: why it is missing.

        Raises:
            StoreError: if the disk does not take it.
        """
        self._loaded.expect(key, reason)

    def touch(self, site: str, job_id: str = "") -> None:
        """Note a sign of life for the open streams of a site, or of one of its jobs."""
        self._loaded.touch(site, job_id)

    def commit(self) -> None:
        """Bring everything to disk: first the data, then the cursors that point past them.

        Raises:
            StoreError: if the disk does not take it; nothing is forgotten.
        """
        self._loaded.commit()

    # -- reading --------------------------------------------------------------------------------------------

    def info(self, key: StreamKey) -> Stream | None:
        """What is known of one stream now; None if nothing is.

        Raises:
            StoreError: if the index cannot be read.
        """
        with self._loaded.lock:
            file = self._loaded.files.get(key)
            return file.record if file else self.index.load(key)

    def streams(self, job_id: str | None = None, site: str | None = None) -> list[Stream]:
        """What is known now of every stream that matches, in order of their keys.

        Raises:
            StoreError: if the index cannot be read.
        """
        streams = {stream.key: stream for stream in self.index.find(job_id, site)}
        with self._loaded.lock:
            for key, file in self._loaded.files.items():
                if job_id in (None, key.job_id) and site in (None, key.site):
                    streams[key] = file.record
        return [streams[key] for key in sorted(streams)]

    def wake_readers(self, job_id: str) -> None:
        """Wake readers who wait for something new of a job."""
        self._changes.wake(job_id)

    def changes(self, job_id: str) -> int:
        """A number that grows with everything new of a job."""
        return self._changes.count(job_id)

    def wait_for_change(self, job_id: str, seen: int, seconds: float) -> None:
        """Wait until `changes` is no longer `seen`, at most `seconds`."""
        self._changes.wait(job_id, seen, seconds)

    # -- keeping --------------------------------------------------------------------------------------------

    def release(self, job_id: str) -> None:
        """Commit, and forget in memory, a job whose streams are closed.

        Raises:
            StoreError: if the disk does not take it.
        """
        self.commit()
        self._loaded.release(job_id)

    def delete_job(self, job_id: str) -> None:
        """Remove a job's logs and all that is known of them.

        Raises:
            ArgumentError: if `job_id` is no plain name.
            StoreError: if the index cannot be changed.
        """
        check_name("job", job_id)
        self._loaded.delete_job(job_id)
        self._changes.forget(job_id)

    def sweep(self, keep_seconds: float, job_exists: Callable[[str], bool]) -> list[str]:
        """Remove jobs that are gone from the job store or too old, never to make room for others.

        A job with an open stream that was heard of within a day is never removed for age.

        Args:
            keep_seconds: how long after its last sign of life a job is kept.
            job_exists: whether the job store still has a job.

        Returns:
            The removed jobs.
        """
        jobs = self._usage.jobs_to_remove(self.index.jobs(), self._clock(), keep_seconds, job_exists)
        for job_id in (removed := list(jobs)):
            self.delete_job(job_id)
        return removed
