"""The end of a stream: what the site says it was, compared with what is on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nvflare_logstream.errors import GapError, RefusedError, StoreError
from nvflare_logstream.store.file import StreamFile, digest_of
from nvflare_logstream.store.ledger import MAX_LOSSES
from nvflare_logstream.store.loaded import LoadedStreams
from nvflare_logstream.store.rebuild import is_rebuilt
from nvflare_logstream.store.unchecked import close_shorter, is_shorter
from nvflare_logstream.streams import END_UNSEEN, UNREADABLE, Loss, State, Stream, StreamKey, local_time
from nvflare_logstream.wire.upload import Close

_PATIENCE = 10.0  # seconds that a repeated close waits for the first: less than a site waits for its answer
_NOT_COMPARED = "the server's index was rebuilt, and the site no longer has"
_TAKEN_AGAIN = "the stored copy differed from the site's file and was taken again"


class Closing:
    """Closes streams. The copy is read from disk, outside the store's lock and one at a time per core.

    Args:
        loaded: the streams.
        clock: gives the time in seconds since the epoch.
    """

    def __init__(self, loaded: LoadedStreams, clock: Callable[[], float]):
        self._loaded, self._clock = loaded, clock
        self._cores = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._freed = threading.Condition()
        self._being_read: set[StreamKey] = set()

    def close(self, key: StreamKey, close: Close) -> Stream:
        """Close a stream, or begin it again where its copy differs and the site still has all of it.

        Raises:
            GapError: where the site is to go on before it closes.
            StoreError: if the copy cannot be read, or is being read for another request.
            OSError: if the disk fails.
        """
        with self._alone(key):
            with self._loaded.lock:
                file = self._loaded.load(key)
                if is_shorter(file.record, close.total):
                    close_shorter(file, close.total, close.outcome, self._clock())
                    return file.record
                file = self._at_end(key, close)
                end, mark = file.record.end, file.fingerprint(close.digest_from)
                mark_read, digest = file.read
            if mark != mark_read:
                with self._cores:
                    digest = digest_of(file.path, close.digest_from, end)
            is_damaged = False
            if digest != close.digest and not close.digest_from:
                with self._cores:  # what is as it came is kept: it is the site's file that has changed
                    is_damaged = not file.is_as_it_came(digest)
            with self._loaded.lock:
                file = self._at_end(key, close)
                if file.fingerprint(close.digest_from) == mark:
                    file.read = (mark, digest)
                return self._judge(file, close, digest, is_damaged)

    def _at_end(self, key: StreamKey, close: Close) -> StreamFile:
        file = self._loaded.load(key)
        place, cursor = file.record.place
        if close.total != place:
            raise GapError(place, cursor)
        if file.record.unchecked:  # an empty one: else it is compared by now
            file.update(cursor=b"", state=State.OPEN, reason="")
        return file

    def _judge(self, file: StreamFile, close: Close, digest: str, is_damaged: bool) -> Stream:
        stream, now, agreed = file.record, self._clock(), digest == close.digest
        if stream.state is not State.STOPPED or stream.reason.startswith(UNREADABLE):
            if is_damaged and _may_be_taken_again(stream):
                # Only where the site's file is what came, it is known that nothing is missing afterwards.
                missing = 0 if file.received == close.digest else None
                self._loaded.begin_again(file, Loss(0, missing, _TAKEN_AGAIN))
                raise GapError(0, b"")
            reason = f"the site's file has sha256 {close.digest}, the stored copy {digest}"
            if agreed and close.digest_from and is_rebuilt(stream):
                agreed, reason = False, f"{_NOT_COMPARED} the first {close.digest_from} bytes to compare"
            file.update(state=State.CLOSED, agreed=agreed, reason="" if agreed else reason)
        file.update(
            total=close.total,
            digest=close.digest,
            digest_from=close.digest_from,
            outcome=close.outcome,
            closed=now,
            last_seen=now,
        )
        return file.record

    @contextmanager
    def _alone(self, key: StreamKey) -> Iterator[None]:
        with self._freed:
            if not self._freed.wait_for(lambda: key not in self._being_read, _PATIENCE):
                raise StoreError(f"the stored copy of {key} is still being compared; ask again")
            self._being_read.add(key)
        try:
            yield
        finally:
            with self._freed:
                self._being_read.discard(key)
                self._freed.notify_all()


def _may_be_taken_again(stream: Stream) -> bool:
    """Whether this was not tried before, and the ledger can still say so."""
    tried = any(loss.reason == _TAKEN_AGAIN for loss in stream.losses)
    return not tried and len(stream.losses) < MAX_LOSSES - 1


def may_go_on(stream: Stream, allowed: bool) -> bool:
    """Whether a stream may be open from now on; one that its site has ended only if that is `allowed`."""
    # Who ended it may not have seen how the job ended, so its process may be alive, in a container say.
    return allowed or not stream.over or stream.outcome.startswith(END_UNSEEN)


def check_let_out(stream: Stream, allowed: bool) -> None:
    """Check that a stream is not one that its site keeps back, unless it is `allowed` to let it out again.

    Raises:
        RefusedError: if it is.
    """
    if stream.state is State.REFUSED and not allowed:
        raise RefusedError(stream.reason)


def reopened(stream: Stream, allowed: bool) -> Loss:
    """The note that a closed stream is opened again.

    Raises:
        RefusedError: if that is not allowed.
    """
    if not may_go_on(stream, allowed):
        raise RefusedError(f"{stream.key} was closed: only the site's parent process may go on with it")
    return Loss(stream.end, 0, f"closed at {local_time(stream.closed)}, then the site went on with it")
