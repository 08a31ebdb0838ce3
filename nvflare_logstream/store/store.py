"""The server's copy of every stream: `<root>/<job_id>/<site>/<file>` and one index.

Rules:

* A file's content is exactly the logical sequence up to the stream's end; bytes are written only at that end.
* Data reach the disk before the cursor that points past them (`commit`). After a crash the files are cut back
  to the last committed end, and the senders go on from there.
* No open file and no thread per stream. Files are 0600, directories 0700.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from nvflare_logstream.errors import CommitError
from nvflare_logstream.names import check_name
from nvflare_logstream.store.appending import Appending
from nvflare_logstream.store.changes import Changes
from nvflare_logstream.store.closing import Closing, check_let_out, may_go_on
from nvflare_logstream.store.file import as_store_error, not_kept
from nvflare_logstream.store.index import INDEX_FILE
from nvflare_logstream.store.loaded import LoadedStreams
from nvflare_logstream.store.quotas import FreeSpace, Quotas, Usage
from nvflare_logstream.store.rebuild import clear_scratch, open_index
from nvflare_logstream.store.retention import Removal, Retention
from nvflare_logstream.store.unchecked import Unchecked
from nvflare_logstream.streams import UNREADABLE, Loss, State, Stream, StreamKey
from nvflare_logstream.wire.upload import Close

__all__ = ["INDEX_FILE", "LogStore", "Quotas"]

_DEFAULT_QUOTAS = Quotas()


class LogStore:
    """Holds streams; thread-safe.

    Args:
        root: the store's directory, made if it is not there.
        quotas: how much may be stored, and by whom.
        clock: gives the time in seconds since the epoch.
        uptime: gives the time in seconds, from any beginning, in steps of the time that really passed.

    Raises:
        StoreError: if the index cannot be opened, or is one of a later release.
        OSError: if the directory cannot be made.
    """

    def __init__(
        self,
        root: Path,
        quotas: Quotas = _DEFAULT_QUOTAS,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ):
        self.root, self._clock = Path(root), clock
        self.index = open_index(self.root)
        self._usage = Usage(quotas, self.index.parts())
        self._free = FreeSpace(self.root, quotas.free_share, clock)
        self._changes = Changes()
        self._loaded = LoadedStreams(self.root, self.index, self._usage, clock, self.wake_readers)
        self._appending = Appending(self._loaded, self._usage, self._free, clock)
        self._closing = Closing(self._loaded, clock)
        self.unchecked = Unchecked(self._loaded, self.info, self._usage, self._free, clock)
        self._retention = Retention(self.index, self.delete_job, clock, uptime)
        clear_scratch(self.root)
        self._loaded.remove_rest()

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

    def open(
        self,
        key: StreamKey,
        utc_offset: int = 0,
        skew: float = 0.0,
        may_reopen: bool = True,
        *,
        readable: bool = True,
    ) -> Stream:
        """Make the stream if it is new, and say how far it is stored.

        Args:
            key: which stream.
            utc_offset: the site's offset from UTC in seconds.
            skew: the site's clock minus the server's, in seconds.
            may_reopen: one that its site keeps back, or has given up, may go on.
            readable: the site does not say at the same time that it cannot read the log.

        Raises:
            RefusedError: if the job's logs were removed, or the site keeps it back.
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the disk does not take it.
        """
        with self._loaded.lock, as_store_error(key):
            file = self._loaded.load(key)
            check_let_out(file.record, may_reopen)
            was_unreadable = file.record.reason.startswith(UNREADABLE) and may_go_on(file.record, may_reopen)
            if file.record.state is State.REFUSED or (was_unreadable and readable):
                file.update(state=State.OPEN, reason="")
            file.is_heard = True
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
        may_reopen: bool = True,
        *,
        commit: bool = True,
    ) -> int:
        """Store bytes of a stream from logical `offset` on, see `Appending.append`, and return its end.

        A new loss, which is sent only once, is committed; without `commit` by the caller, before it answers.
        """
        try:
            end, is_new, has_losses = self._appending.append(key, offset, data, cursor, losses, may_reopen)
        except OSError as error:
            raise not_kept(key, error) from error
        if is_new:
            self.wake_readers(key.job_id)
        if has_losses and commit:
            self.commit(key)
        return end

    def close_stream(self, key: StreamKey, close: Close) -> Stream:
        """Close a stream: compare the bytes on disk with the site's.

        A copy that differs is begun again, once, if the site still has every byte of it. Readers see a close
        when it is on disk, after the next commit, and are woken then.

        Raises:
            GapError: if the site has to send more before it closes.
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the stored copy cannot be read.
        """
        with as_store_error(key):
            return self._closing.close(key, close)

    def unreadable(self, key: StreamKey, since: float, why: str, outcome: str | None = None) -> Stream:
        """Record that the site cannot read a log now, or can again; see `Appending.unreadable`."""
        with as_store_error(key):
            stream = self._appending.unreadable(key, since, why, outcome)
        self.wake_readers(key.job_id)
        return stream

    def refuse(self, key: StreamKey, reason: str, *, commit: bool = True) -> None:
        """Record that the site's policy keeps a stream back; what was stored before stays as it is.

        Raises:
            RefusedError: if the job's logs were removed.
            QuotaError: if it is new, and its site has too many in this job.
            StoreError: if the disk does not take it.
        """
        with as_store_error(key):
            self._loaded.refuse(key, reason)
        self.wake_readers(key.job_id)
        if commit:
            self.commit(key)

    def expect(self, reasons: Mapping[StreamKey, str]) -> None:
        """Record which sites take part in a job, so that a log that never comes is known to be missing.

        A site is expected under the file of its key, until any stream of it in that job is opened or refused.

        Args:
            reasons: why a log is missing, by the site, its job, and the file to show.

        Raises:
            StoreError: if the disk does not take it.
        """
        now = self._clock()
        self.index.expect(
            Stream(key, state=State.EXPECTED, reason=reason, opened=now, last_seen=now)
            for key, reason in reasons.items()
        )

    def touch(self, site: str, job_id: str = "") -> list[Stream]:
        """Note a sign of life for a site's open streams, see `LoadedStreams.touch`."""
        return self._loaded.touch(site, job_id)

    def commit(self, *keys: StreamKey) -> None:
        """Bring everything to disk: first the data, then the cursors that point past them.

        Args:
            keys: the streams whose failure is an error; all if none is given.

        Raises:
            CommitError: if the disk does not take some of these streams.
            StoreError: if the index cannot be written; nothing is forgotten.
        """
        failed = {key: why for key, why in self._loaded.commit().items() if not keys or key in keys}
        if failed:
            raise CommitError(failed)

    # -- reading --------------------------------------------------------------------------------------------

    def info(self, key: StreamKey) -> Stream | None:
        """What is known of one stream now; None if nothing is.

        Raises:
            StoreError: if the index cannot be read.
        """
        with self._loaded.lock:
            file = self._loaded.files.get(key)
            return file.shown if file else self.index.load(key)

    def version(self, key: StreamKey) -> object:
        """Stays equal only while what is stored of a stream just grows, see `LoadedStreams.version`."""
        return self._loaded.version(key)

    def streams(
        self, job_id: str | None = None, site: str | None = None, *, brief: bool = False
    ) -> list[Stream]:
        """What is known now of every stream that matches, in order of their keys.

        With `brief`, ledgers may lack all but the first entry about missing bytes: that costs much less.

        Raises:
            StoreError: if the index cannot be read.
        """
        streams = {stream.key: stream for stream in self.index.find(job_id, site, brief=brief)}
        with self._loaded.lock:
            for key, file in self._loaded.files.items():
                if job_id in (None, key.job_id) and site in (None, key.site):
                    streams[key] = file.shown
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

    def unload(self, job_id: str) -> None:
        """Commit, and forget in memory, a job whose streams are closed; what the disk does not take stays.

        Raises:
            StoreError: if the index cannot be written.
        """
        self._loaded.commit()
        self._loaded.unload(job_id)

    def delete_job(self, job_id: str, reason: str = "the job was deleted") -> None:
        """Remove a job's logs for good: of all that is known of them, only the reason is kept.

        Raises:
            ArgumentError: if `job_id` is no plain name.
            StoreError: if the index cannot be changed.
        """
        check_name("job_id", job_id)
        self._loaded.delete_job(job_id, reason)
        self.wake_readers(job_id)
        self._changes.forget(job_id)

    def check_kept(self, job_id: str) -> None:
        """Check that a job's logs were not removed, see `LoadedStreams.check_kept`."""
        self._loaded.check_kept(job_id)

    def check_room(self, size: int) -> None:
        """Check that `size` bytes that are to be written beside the streams leave enough of the disk free.

        Raises:
            StoreError: if they do not.
            OSError: if the disk cannot be asked.
        """
        with self._loaded.lock:
            self._free.take(size)

    def sweep(self, keep_seconds: float, deleted: Callable[[str], bool]) -> list[Removal]:
        """Remove jobs whose logs have to go, see `Retention.sweep`."""
        self._loaded.remove_rest()
        return self._retention.sweep(keep_seconds, deleted)
