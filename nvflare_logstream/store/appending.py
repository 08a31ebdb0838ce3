"""How a stream grows: its bytes, its ledger, and who may have no more of either."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nvflare_logstream.errors import GapError, QuotaError, StoreError
from nvflare_logstream.store.closing import check_let_out, may_go_on, reopened
from nvflare_logstream.store.file import StreamFile
from nvflare_logstream.store.ledger import new_entries
from nvflare_logstream.store.loaded import LoadedStreams
from nvflare_logstream.store.quotas import FreeSpace, Usage
from nvflare_logstream.store.unchecked import all_compared, compare, note_compared
from nvflare_logstream.streams import UNCHECKED, UNREADABLE, Loss, State, Stream, StreamKey, local_time


class Appended(NamedTuple):
    """What came of an append."""

    end: int  # the stream's
    is_new: bool = False  # readers have something new to see
    has_losses: bool = False  # its ledger has new entries


class Appending:
    """Writes to streams.

    Args:
        loaded: the streams.
        usage: counts the stored bytes.
        free: keeps a share of the disk free.
        clock: gives the time in seconds since the epoch.
    """

    def __init__(self, loaded: LoadedStreams, usage: Usage, free: FreeSpace, clock: Callable[[], float]):
        self._loaded, self._usage, self._free, self._clock = loaded, usage, free, clock

    def append(
        self,
        key: StreamKey,
        offset: int,
        data: bytes,
        cursor: bytes,
        losses: tuple[Loss, ...],
        may_reopen: bool,
    ) -> Appended:
        """Store bytes of a stream from logical `offset` on; bytes that are already stored are skipped.

        A closed stream is opened again by what is new, if it `may_reopen`; its ledger says so. To one of
        which its site has given up the rest, what comes without that is added, and it stays ended.

        Raises:
            GapError: if `offset` is beyond the end, or other bytes are stored there than those that came.
            QuotaError: if a quota is used up.
            RefusedError: if the stream is closed or kept back and may not be opened again, or the job's logs
                were removed.
            StoreError: if too little of the disk is free.
            OSError: if the disk does not take the bytes.
        """
        with self._loaded.lock:
            now, data_end = self._clock(), offset + len(data)
            file = self._load(key, offset, data, may_reopen)
            stream = file.record
            new_losses = new_entries(stream.losses, losses) if losses else ()
            if data_end <= stream.place[0] and not new_losses and (stream.over or not stream.unchecked):
                file.seen(now)
                return Appended(stream.place[0])
            if stream.state is State.CLOSED or (stream.over and stream.unchecked):
                new_losses = new_entries(stream.losses, (reopened(stream, may_reopen), *losses))
            if stream.unchecked and data_end < stream.end:
                end = note_compared(file, offset, data, cursor, new_losses, now)
                return Appended(end, bool(new_losses), bool(new_losses))
            if stream.unchecked and stream.end:
                new_losses += new_entries(stream.losses + new_losses, [all_compared(stream)])
            if data_end < stream.end:  # what is missing there is missing, whoever sent what follows
                data_end, cursor = stream.end, stream.cursor
            stored, new_data = data[: stream.end - offset], data[stream.end - offset :]
            if stored and new_data and not file.holds(offset, stored):
                # An old request came late: these bytes followed others than those that are here by now.
                raise GapError(stream.end, stream.cursor)
            self._write(file, new_data, now)
            is_open = may_go_on(stream, may_reopen)  # else nobody would end it once more
            file.update(
                end=data_end,
                cursor=cursor,
                lines=stream.lines + new_data.count(b"\n"),
                state=State.OPEN if is_open else stream.state,
                reason="" if is_open else stream.reason,
                last_seen=now,
                last_data=now if new_data else stream.last_data,
                losses=stream.losses + new_losses,
            )
            self._usage.add(key.job_id, key.site, len(new_data))
        return Appended(data_end, True, bool(new_losses))

    def _load(self, key: StreamKey, offset: int, data: bytes, may_reopen: bool) -> StreamFile:
        file = self._loaded.load(key)
        check_let_out(file.record, may_reopen)
        if file.record.unchecked:
            _check_late(file.record, offset + len(data), may_reopen)
            compare(self._loaded, file, offset, data)
        if offset > file.record.end:  # it is not heard of: nobody may wait for the answer
            raise GapError(file.record.end, file.record.cursor)
        file.is_heard = True
        return file

    def _write(self, file: StreamFile, data: bytes, now: float) -> None:
        """Write at the end; a disk that has no room is what the verdict says until it has."""
        try:
            self._usage.check(file.record.key, file.record.end, len(data))
        except QuotaError as error:
            file.update(state=State.STOPPED, reason=str(error))
            raise
        if not data:
            return
        try:
            self._free.take(len(data))
            file.write(data)
        except (StoreError, OSError) as error:
            why = (
                f"the server's disk: {error.strerror or error}" if isinstance(error, OSError) else str(error)
            )
            file.wait(f"the site waits: {why}", now)
            raise

    def unreadable(self, key: StreamKey, since: float, why: str, outcome: str | None) -> Stream:
        """Record that the site cannot read the log of an open stream, or can again.

        Args:
            key: which stream.
            since: when it was tried first, in seconds since the epoch.
            why: the error in words; empty if the log can be read again.
            outcome: how the job's process ended, if the site gives up; None while it goes on trying.

        Raises:
            RefusedError: if the job's logs were removed.
            OSError: if the disk fails.
        """
        with self._loaded.lock:
            file = self._loaded.load(key)
            stream, now = file.record, self._clock()
            if stream.state is not State.OPEN or (stream.unchecked and outcome is None):
                return stream
            reason, was_unreadable = stream.reason, stream.reason.startswith(UNREADABLE)
            if not why and was_unreadable:
                reason = ""
            elif why and not (was_unreadable and reason.endswith(f": {why}")):  # else it was said before
                reason = f"{UNREADABLE}{local_time(min(max(since, stream.opened), now))}: {why}"
            if stream.unchecked and why:
                reason = f"{UNCHECKED}; {reason}"
            file.update(reason=reason, last_seen=now)
            if outcome is not None:
                file.update(state=State.STOPPED, outcome=outcome, closed=now)
            return file.record


def _check_late(stream: Stream, data_end: int, may_reopen: bool) -> None:
    """Check that what comes of a copy that its site has ended, up to `data_end`, may replace any of it.

    Raises:
        RefusedError: if it may not.
    """
    if stream.over and data_end > stream.place[0]:
        reopened(stream, may_reopen)
