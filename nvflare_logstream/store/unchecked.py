"""Copies of logs that the runtime's own streamer sends: it has no offset, no cursor and no digest.

Rules:

* Such a copy is never called complete, and never written into what a site's own sender has sent.
* It is compared with what a site's own sender sends, from the beginning on, and becomes that sender's when
  all of it is the same: then it can be checked. A sender that has less of the log takes nothing away; one
  that has other bytes replaces what differs, and the ledger says so.
* The runtime sends a log more than once, each time from its beginning. What is stored already is compared and
  passed over, so no byte is there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nvflare_logstream.errors import GapError, QuotaError, RefusedError, StoreError
from nvflare_logstream.store.file import StreamFile
from nvflare_logstream.store.ledger import new_entries
from nvflare_logstream.store.loaded import LoadedStreams
from nvflare_logstream.store.quotas import FreeSpace, Usage
from nvflare_logstream.streams import UNCHECKED, UNCHECKED_CURSOR, Loss, State, Stream, StreamKey

_SENT_BY = "which the runtime's own streamer had sent"


class Unchecked:
    """Writes such copies.

    Args:
        loaded: the streams.
        info: what is known of a stream.
        usage: counts the stored bytes.
        free: keeps a share of the disk free.
        clock: gives the time in seconds since the epoch.
    """

    def __init__(
        self,
        loaded: LoadedStreams,
        info: Callable[[StreamKey], Stream | None],
        usage: Usage,
        free: FreeSpace,
        clock: Callable[[], float],
    ):
        self._loaded, self._info, self._clock = loaded, info, clock
        self._usage, self._free = usage, free

    def append(self, key: StreamKey, offset: int, data: bytes) -> bool:
        """Store what came behind `offset` bytes of a log; returns whether any of it was new.

        Raises:
            TakenError: if the log is the site's own sender's.
            DifferentError: if other bytes are stored there.
            RefusedError: if the site keeps the log back, or the job's logs were removed.
            QuotaError: if a quota is used up.
            StoreError: if the store lost bytes that came before, or the disk takes none.
        """
        with self._changing(key) as file:
            stream, now = file.record, self._clock()
            if offset > stream.end:
                raise StoreError(f"the server has lost {offset - stream.end} bytes that came before")
            stored, new = data[: stream.end - offset], data[stream.end - offset :]
            if stored and not file.holds(offset, stored):
                raise DifferentError(f"another copy of {key} was sent, and differs from byte {offset} on")
            try:
                self._usage.check(key, stream.end, len(new))
            except QuotaError as error:
                self._stop(file, str(error))
                raise
            if new:
                self._free.take(len(new))
                file.write(new)
            elif stream.unchecked and stream.state is State.OPEN:
                file.seen(now)
                return False
            # What the site's own sender has ended stays so: nobody would end it again.
            if stream.is_stock or stream.state is not State.STOPPED:
                file.update(state=State.OPEN, reason=UNCHECKED)
            file.update(
                end=stream.end + len(new),
                cursor=stream.cursor or UNCHECKED_CURSOR,
                lines=stream.lines + new.count(b"\n"),
                last_seen=now,
                last_data=now if new else stream.last_data,
            )
            self._usage.add(key.job_id, key.site, len(new))
            return bool(new)

    def note(self, key: StreamKey, what: str) -> None:
        """Note in the ledger of such a copy what happened to it."""
        with self._changing(key) as file:
            self._note(file, what)

    def stop(self, key: StreamKey, why: str = "") -> bool:
        """End such a copy, which may begin again; `why` is said unless all was sent that was to be sent.

        Returns:
            Whether there was one to end.
        """
        known = self._info(key)
        if known is not None and known.is_stock and known.state is State.OPEN:
            with self._changing(key) as file:
                self._stop(file, why)
            return True
        return False

    @contextmanager
    def _changing(self, key: StreamKey) -> Iterator[StreamFile]:
        """The stream's file, if what it holds is no work of the site's own sender."""
        try:
            with self._loaded.lock:
                known = self._info(key)
                if known is not None and known.state is State.REFUSED:
                    raise RefusedError(known.reason)
                if known is not None and known.state is not State.EXPECTED and not known.unchecked:
                    raise TakenError(f"{key} comes from the site's own sender")
                yield self._loaded.load(key)
        except OSError as error:
            raise StoreError(f"cannot keep {key}: {error}") from error

    def _stop(self, file: StreamFile, why: str) -> None:
        if why:
            self._note(file, why)
        reason = f"{UNCHECKED}; {why}" if why else UNCHECKED
        file.update(state=State.STOPPED, reason=reason, closed=self._clock())

    def _note(self, file: StreamFile, what: str) -> None:
        stream = file.record
        file.update(losses=stream.losses + new_entries(stream.losses, [Loss(stream.end, 0, what)]))


class TakenError(RefusedError):
    """The log is the site's own sender's: nobody else writes into it."""


class DifferentError(RefusedError):
    """Other bytes of the log are stored than those that came."""


def is_shorter(stream: Stream, total: int) -> bool:
    """Whether this is such a copy, and the `total` bytes that its site's own sender has are less."""
    return stream.unchecked and stream.place[0] == total < stream.end


def close_shorter(file: StreamFile, total: int, outcome: str, now: float) -> None:
    """End such a copy for a site's own sender that has only `total` bytes of it.

    The file may have been cut or removed meanwhile, or that sender may not see the files of the job's
    process, in a container say.

    Args:
        file: the copy.
        total: what that sender has.
        outcome: how the job ended.
        now: the time, in seconds since the epoch.
    """
    why = "the site has no bytes of it to compare"
    if total:
        why = f"the site has only its first {total} bytes to compare"
    losses = new_entries(file.record.losses, [Loss(file.record.end, 0, why)])
    file.update(
        state=State.STOPPED,
        reason=f"{UNCHECKED}; {why}",
        outcome=outcome,
        closed=now,
        last_seen=now,
        losses=file.record.losses + losses,
    )


def compare(loaded: LoadedStreams, file: StreamFile, offset: int, data: bytes) -> None:
    """Compare such a copy with what its site's own sender sends; where they differ, that sender is right.

    What the copy has from its last place on is then forgotten, and its ledger says that something is missing:
    nobody knows whether the site still has all that it once let out.

    Raises:
        GapError: if that sender is to send what comes before first.
        StoreError, OSError: as `LoadedStreams.begin_again` does.
    """
    stream, (place, cursor) = file.record, file.record.place
    stored = data[: stream.end - offset]
    if offset > place or not file.holds(offset, stored[: place - offset]):
        raise GapError(place, cursor)
    if not file.holds(offset, stored):
        gone = stream.end - place
        note = (
            f"the site sends other bytes here; {gone} bytes from byte {place} on, {_SENT_BY}, were replaced"
        )
        loaded.begin_again(file, Loss(place, None, note), (place, stream.lines_compared, cursor))


def note_compared(
    file: StreamFile, offset: int, data: bytes, cursor: bytes, losses: tuple[Loss, ...], now: float
) -> int:
    """Note that a site's own sender has sent `data` of such a copy too; returns how far it is by now."""
    stream = file.record
    if new := data[stream.place[0] - offset :]:
        lines = stream.lines_compared + new.count(b"\n")
        stream = stream.compared(offset + len(data), lines, cursor)
    file.update(
        cursor=stream.cursor,
        state=State.OPEN,
        reason=UNCHECKED,
        last_seen=now,
        losses=stream.losses + losses,
    )
    return stream.place[0]


def all_compared(stream: Stream) -> Loss:
    """The note that a site's own sender has sent all bytes of such a copy too."""
    return Loss(stream.end, 0, f"the first {stream.end} bytes, {_SENT_BY}, are as the site sends them")
