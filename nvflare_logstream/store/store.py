"""The server's copy of every stream: `<root>/<job>/<site>/<file>` and one index.

Rules:

* A file's content is exactly the logical sequence up to the stream's end; bytes are written only at that end.
* Data reach the disk before the cursor that points past them (`commit`). After a crash the files are cut back to the last
  committed end, and the senders go on from there.
* No open file and no thread per stream. Files are 0600, directories 0700.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nvflare_logstream.errors import GapError, QuotaError, StoreError
from nvflare_logstream.names import check_name
from nvflare_logstream.store.file import StreamFile
from nvflare_logstream.store.index import MAX_LOSSES, Index
from nvflare_logstream.streams import Loss, State, Stream, StreamKey
from nvflare_logstream.wire.upload import Close

INDEX_FILE = "index.sqlite"


@dataclass(frozen=True)
class Quotas:
    """Most bytes that may be stored."""

    stream: int = 16 << 30
    job: int = 64 << 30
    store: int = 256 << 30


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
        quotas: most bytes a stream, a job and the whole store may hold.
        clock: gives the time in seconds since the epoch.
    """

    def __init__(self, root: Path, quotas: Quotas = Quotas(), clock: Callable[[], float] = time.time):
        self.root, self._quotas, self._clock = Path(root), quotas, clock
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / INDEX_FILE).touch(mode=0o600)  # the files SQLite makes beside it get the same mode
        self.index = Index(self.root / INDEX_FILE)
        self._lock = threading.RLock()
        self._commit_lock = threading.Lock()
        self._streams: dict[StreamKey, StreamFile] = {}
        self._changed = threading.Condition()
        self._changes: dict[str, int] = {}  # counts, by job, what a reader may want to look at again
        self._job_bytes = {job: size for job, size, _, _ in self.index.jobs()}

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        self.index.close()

    # -- writing ------------------------------------------------------------------------------------------------

    def path(self, key: StreamKey) -> Path:
        """Where the stream's bytes stand."""
        return self.root / key.job_id / key.site / key.file

    def open(self, key: StreamKey, utc_offset: int = 0, skew: float = 0.0) -> Stream:
        """Make the stream if it is new, and say how far it is stored.

        Raises:
            StoreError: if the disk does not take it.
        """
        with self._lock, _as_store_error(key):
            stream = self._load(key)
            if stream.info.state in (State.REFUSED, State.EXPECTED):
                stream.update(state=State.OPEN, reason="")
            stream.update(utc_offset=utc_offset, skew=skew, last_seen=self._clock())
            self.tell(key.job_id)
            return stream.info

    def append(
        self, key: StreamKey, offset: int, data: bytes, cursor: bytes, losses: tuple[Loss, ...] = ()
    ) -> int:
        """Store bytes of a stream from logical `offset` on; what is already stored is passed over.

        Returns:
            The stream's end.

        Raises:
            GapError: if `offset` is beyond the end.
            QuotaError: if a quota is used up; StoreError: if the disk does not take the bytes.
        """
        with self._lock, _as_store_error(key):
            stream = self._load(key)
            info = stream.info
            if offset > info.end:
                raise GapError(info.end, info.cursor)
            told = [loss for loss in losses if loss not in info.losses]
            now = self._clock()
            if offset + len(data) < info.end or (offset + len(data) == info.end and not told):
                stream.seen(now)
                return info.end
            fresh = data[info.end - offset :]
            self._check_quotas(stream, len(fresh))
            if fresh:
                stream.write(fresh)
            stream.update(
                end=info.end + len(fresh),
                cursor=cursor,
                lines=info.lines + fresh.count(b"\n"),
                state=State.OPEN,
                reason="",
                last_seen=now,
                last_data=now if fresh else info.last_data,
                losses=info.losses + tuple(told[: MAX_LOSSES - len(info.losses)]),
            )
            self._job_bytes[key.job_id] = self._job_bytes.get(key.job_id, 0) + len(fresh)
            end = stream.info.end
        self.tell(key.job_id)
        if told:  # unlike bytes, a loss that a crash takes from us is not told again
            self.commit()
        return end

    def finish(self, key: StreamKey, close: Close) -> Stream:
        """End a stream: compare its length and digest with the site's. It is on disk after the next `commit`.

        Raises:
            GapError: if the site's total is not the stored length.
            StoreError: if the stored copy cannot be read.
        """
        with self._lock, _as_store_error(key):
            stream = self._load(key)
            info = stream.info
            if close.total != info.end:
                raise GapError(info.end, info.cursor)
            now = self._clock()
            if info.state is not State.STOPPED:
                stored = stream.digest(close.digest_from)
                agreed = stored == close.digest
                reason = (
                    "" if agreed else f"the site's file has sha256 {close.digest}, the stored copy {stored}"
                )
                stream.update(state=State.CLOSED, agreed=agreed, reason=reason)
            stream.update(
                total=close.total,
                digest=close.digest,
                digest_from=close.digest_from,
                outcome=close.outcome,
                closed=now,
                last_seen=now,
            )
            self.tell(key.job_id)
            return stream.info

    def refuse(self, key: StreamKey, reason: str) -> None:
        """Record that the site's policy keeps a stream back; what was stored before stays as it is.

        Raises:
            StoreError: if the disk does not take it.
        """
        with self._lock, _as_store_error(key):
            stream = self._streams.get(key)
            info = stream.info if stream else self.index.load(key) or Stream(key, opened=self._clock())
            if info.state not in (State.OPEN, State.EXPECTED):
                return
            refused: dict[str, Any] = {"state": State.REFUSED, "reason": reason, "last_seen": self._clock()}
            if not stream:
                self.index.save([replace(info, **refused)])
                return
            stream.update(**refused)
        self.commit()

    def expect(self, key: StreamKey, reason: str) -> None:
        """Record that a site takes part in a job, so that a log that never comes is known to be missing; `reason`: why it is."""
        with self._lock:
            if key not in self._streams and self.index.load(key) is None:
                now = self._clock()
                self.index.save([Stream(key, state=State.EXPECTED, reason=reason, opened=now, last_seen=now)])

    def touch(self, site: str, job: str = "") -> None:
        """Note a sign of life for the open streams of a site, or of one of its jobs."""
        with self._lock:
            for key, stream in self._streams.items():
                if key.site == site and (not job or key.job_id == job) and stream.info.state is State.OPEN:
                    stream.update(last_seen=self._clock())

    def commit(self) -> None:
        """Bring everything to disk: first the data, then the cursors that point past them.

        Raises:
            StoreError: if the disk does not take it; nothing is forgotten.
        """
        with self._commit_lock:
            with self._lock:
                dirty = [stream for stream in self._streams.values() if stream.dirty]
                rows = [(stream, stream.info) for stream in dirty]
                for stream in dirty:
                    stream.dirty = False
            try:
                self.index.save([row for stream, row in rows if stream.sync()])
            except (OSError, StoreError) as error:
                with self._lock:
                    for stream in dirty:
                        stream.dirty = True
                raise StoreError(f"cannot commit: {error}") from error

    def release(self, job: str) -> None:
        """Commit, and forget in memory, a job whose streams are closed."""
        self.commit()
        with self._lock:
            for key in [key for key, s in self._streams.items() if key.job_id == job and not s.dirty]:
                del self._streams[key]

    def _check_quotas(self, stream: StreamFile, more: int) -> None:
        info, job = stream.info, stream.info.key.job_id
        used = self._job_bytes.get(job, 0)
        for what, have, most in (
            ("stream", info.end, self._quotas.stream),
            ("job", used, self._quotas.job),
            ("store", sum(self._job_bytes.values()), self._quotas.store),
        ):
            if have + more > most:
                reason = f"server gave up at byte {info.end}: the {what} quota of {most} bytes is used up"
                stream.update(state=State.STOPPED, reason=reason)
                raise QuotaError(reason)

    def _load(self, key: StreamKey) -> StreamFile:
        """The stream, with a file that is as long as its index says; a new stream if it is not known."""
        stream = self._streams.get(key)
        if stream is None:
            info, now = self.index.load(key), self._clock()
            stream = StreamFile(info or Stream(key, opened=now, last_seen=now), self.path(key))
            if stream.size() > stream.info.end:
                os.truncate(
                    stream.path, stream.info.end
                )  # written after the last commit: the sender sends it again
            if info is None:
                self.index.save([stream.info])
        if (
            stream.size() < stream.info.end
        ):  # new, or somebody damaged the store: take the stream from its start
            if stream.info.end:
                self._job_bytes[key.job_id] -= stream.info.end
                stream.update(state=State.OPEN, reason="")
            stream.start_again()
        self._streams[key] = stream
        return stream

    # -- reading and keeping ------------------------------------------------------------------------------------

    def tell(self, job: str) -> None:
        """Wake readers who wait for something new of a job."""
        with self._changed:
            self._changes[job] = self._changes.get(job, 0) + 1
            self._changed.notify_all()

    def changes(self, job: str) -> int:
        """A number that grows with everything new of a job."""
        return self._changes.get(job, 0)

    def wait_for_change(self, job: str, seen: int, seconds: float) -> None:
        """Wait until `changes` is no longer `seen`, at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self.changes(job) != seen, seconds)

    def info(self, key: StreamKey) -> Stream | None:
        """What is known of one stream, as it stands now; None if nothing is."""
        with self._lock:
            stream = self._streams.get(key)
            return stream.info if stream else self.index.load(key)

    def streams(self, job: str | None = None, site: str | None = None) -> list[Stream]:
        """What is known of every stream that matches, as it stands now."""
        found = {info.key: info for info in self.index.find(job, site)}
        with self._lock:
            for key, stream in self._streams.items():
                if (job is None or key.job_id == job) and (site is None or key.site == site):
                    found[key] = stream.info
        return [found[key] for key in sorted(found)]

    def delete_job(self, job: str) -> None:
        """Remove a job's logs and all that is known of them."""
        check_name("job", job)
        with self._commit_lock, self._lock:
            for key in [key for key in self._streams if key.job_id == job]:
                del self._streams[key]
            self.index.delete_job(job)
            self._job_bytes.pop(job, None)
            self._changes.pop(job, None)
            shutil.rmtree(self.root / job, ignore_errors=True)

    def sweep(self, keep_seconds: float, job_exists: Callable[[str], bool]) -> list[str]:
        """Remove jobs that are gone from the job store, too old, or, oldest first, too much for the store's quota.

        Jobs with an open stream that was heard of within a day are never removed for age or size.

        Returns:
            The removed jobs.
        """
        now, removed = self._clock(), []
        jobs = sorted(self.index.jobs(), key=lambda row: row[2])
        stored = sum(size for _, size, _, _ in jobs)
        for job, size, seen, is_open in jobs:
            busy = is_open and now - seen < 86400
            old = now - seen > keep_seconds or stored > self._quotas.store * 9 // 10
            if not job_exists(job) or (old and not busy):
                self.delete_job(job)
                stored -= size
                removed.append(job)
        return removed
