"""Takes what the runtime's own streamers send into the store: from sites that have not changed over yet.

Such a streamer sends a log in parts, each after the answer to the last. It has no offset, so the place of a
part is what came before it; after an answer that is not OK it gives up the log, unless that was its first.
Pure of the runtime: parts and peers come in decoded, and an outcome goes out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from nvflare_logstream.errors import ArgumentError, BusyError, RefusedError, StoreError, WireError
from nvflare_logstream.lines import in_one_line
from nvflare_logstream.server.admission import Admit
from nvflare_logstream.server.counters import Counters
from nvflare_logstream.server.failures import Failures
from nvflare_logstream.server.limits import Limits, SiteLimits
from nvflare_logstream.server.replies import kind_of
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.store.unchecked import DifferentError, TakenError
from nvflare_logstream.streams import State, StreamKey
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload_reply import Status

# A streamer gives up at the first "no", so a busy site's requests wait for each other instead.
_LIMITS = Limits(requests=32)
_MOST_UPLOADS = 256  # of a site at a time
_MOST_PART = 1 << 20  # bytes; the runtime's own streamer sends 64 KiB at most
_LONGEST_ID = 64  # characters
_IDLE_SECONDS = 30.0  # without a part or a sign of life; the runtime's own receiver waits as long
_REST_SECONDS = 12.0  # the same when the job is over; a streamer gives a sign of life every 10 s
_RESTARTED = "broken off: the server was restarted"
_logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """One message of a streamer.

    Attributes:
        upload_id: the streamer's own id of what it is sending.
        number: of the part, from 0.
        job_id, file: which log; only the first part says so.
        data: the bytes; none in a sign of life.
        is_last: the streamer has sent all that it wants to send.
    """

    upload_id: str
    number: int
    job_id: str = ""
    file: str = ""
    data: bytes = b""
    is_last: bool = False


class Outcome(Enum):
    """What the streamer is answered."""

    TAKEN = "taken"
    LATER = "later"  # it sends its first part again, a few times
    REFUSED = "refused"  # it gives up


class _Upload:
    """What one streamer sends of one log, from its beginning."""

    def __init__(self, key: StreamKey, peer: Peer, now: float):
        self.key, self.peer, self.heard = key, peer, now
        self.lock = threading.RLock()
        self.number = self.end = 0  # the next part's number, and the place where its bytes belong
        self.is_admitted = False
        self.is_wanted = True  # False: the log is there already, or another copy of it
        self.is_job_over = False


class UncheckedReceiver:
    """Takes their parts; called from many threads at once.

    Args:
        store: where the copies are kept.
        admit: who may write what.
        on_open: called with the key of every stream that a streamer begins.
        on_close: called with the key of every stream that is over.
        counters: where it is counted what comes, and what is not taken.
        clock: gives the time in seconds, from any beginning.
    """

    def __init__(
        self,
        store: LogStore,
        admit: Admit,
        on_open: Callable[[StreamKey], None] = lambda key: None,
        on_close: Callable[[StreamKey], None] = lambda key: None,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store, self._admit, self._clock = store, admit, clock
        self._on_open, self._on_close = on_open, on_close
        self._counters = counters or Counters()
        self._limits = SiteLimits(_LIMITS)
        self._failures = Failures(clock)
        self._lock = threading.Lock()
        self._uploads: dict[tuple[str, str], _Upload] = {}  # by site and the streamer's id

    def take(self, part: Part, peer: Peer) -> Outcome:
        """Take one part; never raises for it."""
        try:
            self._limits.enter(peer.site)
            try:
                with self._limits.work(peer.site):
                    outcome = self._take(part, peer)
            finally:
                self._limits.leave(peer.site)
        except (StoreError, ArgumentError, WireError, BusyError) as error:
            self._counters.took(peer.site, 0)
            self._counters.refused(peer.site, kind_of(error), str(error))
            return Outcome.REFUSED
        except Exception as error:  # a defect, or a runtime of another kind: nothing gets into the runtime
            self._counters.took(peer.site, 0)
            said = self._failures.log(peer.site, error)
            self.give_up(part.upload_id, peer, f"broken off: {said}")
            return Outcome.REFUSED
        self._counters.took(peer.site, len(part.data))
        return outcome

    def knows(self, upload_id: str, peer: Peer) -> bool:
        """Whether parts of this come from this peer."""
        upload = self._uploads.get((peer.site, upload_id))
        return upload is not None and upload.peer == peer

    def give_up(self, upload_id: str, peer: Peer, why: str = "broken off: the site gave it up") -> None:
        """The streamer sends no more, after its last part or without one; never raises for it."""
        upload = self._uploads.get((peer.site, upload_id))
        if upload is not None and upload.peer == peer:
            self._end((peer.site, upload_id), upload, why)

    def job_over(self, job_id: str) -> None:
        """The server's process of a job has ended; the sites' own may still send their rest."""
        with self._lock:
            for upload in self._uploads.values():
                upload.is_job_over |= upload.peer.job_id == job_id

    def turn(self) -> None:
        """End what nothing was heard of for long."""
        now = self._clock()
        self._end_all(
            lambda upload: upload.is_job_over and upload.heard < now - _REST_SECONDS,
            "broken off: the job's process ended",
        )
        self._end_all(
            lambda upload: upload.heard < now - _IDLE_SECONDS,
            f"broken off: nothing came for {_IDLE_SECONDS:g} s",
        )

    def end_earlier(self) -> None:
        """End what an earlier life of this process left open: its streamers have given up."""
        for stream in self._store.streams(brief=True):
            if stream.is_stock and stream.state is State.OPEN:
                self._store.unchecked.stop(stream.key, _RESTARTED)

    # -- one part --------------------------------------------------------------------------------------------

    def _take(self, part: Part, peer: Peer) -> Outcome:
        if len(part.data) > _MOST_PART:
            raise WireError(f"a part of a log has {len(part.data)} bytes; at most {_MOST_PART} are allowed")
        if not 0 < len(part.upload_id) <= _LONGEST_ID:
            raise WireError(
                f"an upload's id has {len(part.upload_id)} characters; 1 to {_LONGEST_ID} are allowed"
            )
        place = (peer.site, part.upload_id)
        upload = self._upload(place, part, peer)
        with upload.lock:
            if part.number < upload.number:
                return Outcome.TAKEN  # it came twice
            is_under_way = self._uploads.get(place) is upload and upload.peer == peer
            if not is_under_way or part.number > upload.number:
                raise WireError(f"{upload.key}: part {upload.number} is wanted, not {part.number}")
            upload.number, upload.heard = part.number + 1, self._clock()
            try:
                if not self._is_admitted(upload):
                    return Outcome.LATER
                self._store_part(upload, part.data)
            except (StoreError, ArgumentError) as error:
                self._end(place, upload, f"broken off: {error}")
                raise
        if part.is_last:
            self._end(place, upload)
        return Outcome.TAKEN

    def _upload(self, place: tuple[str, str], part: Part, peer: Peer) -> _Upload:
        with self._lock:
            if place in self._uploads:
                return self._uploads[place]
            if part.number:
                raise WireError(f"part {part.number} of a log came, and no part before it")
            if peer.job_id and peer.job_id != part.job_id:
                raise RefusedError(
                    f"a process of job {peer.job_id} may not write logs of job {part.job_id[:_LONGEST_ID]}"
                )
            if sum(site == peer.site for site, _ in self._uploads) >= _MOST_UPLOADS:
                raise BusyError(f"{_MOST_UPLOADS} logs of {peer.site} are being sent, as many as may be")
            upload = _Upload(StreamKey(part.job_id, peer.site, part.file), peer, self._clock())
            self._uploads[place] = upload
            return upload

    def _is_admitted(self, upload: _Upload) -> bool:
        """Whether the site may write into the job; False if it is not known yet.

        Raises:
            RefusedError: if it may not.
        """
        admission = self._admit(upload.key.site, upload.key.job_id)
        if admission.status is Status.REFUSED:
            raise RefusedError(admission.reason)
        if admission.status is Status.OK and not upload.is_admitted:
            upload.is_admitted = True
            known = self._store.info(upload.key)
            if known is None or known.state is State.EXPECTED:  # once a log, however often it is begun
                _logger.info(
                    "%s is sent by the runtime's own streamer: it is kept, and not checked", upload.key
                )
        return upload.is_admitted

    def _store_part(self, upload: _Upload, data: bytes) -> None:
        if not upload.is_wanted:
            return
        began = upload.end == 0
        try:
            is_new = self._store.unchecked.append(upload.key, upload.end, data)
        except TakenError:  # all of it comes by a better way
            upload.is_wanted = False
            return
        except DifferentError as error:
            upload.is_wanted = False
            self._store.unchecked.note(upload.key, in_one_line(str(error)))
            return
        upload.end += len(data)
        if began:
            self._on_open(upload.key)
        if is_new:
            self._store.wake_readers(upload.key.job_id)

    # -- the end ---------------------------------------------------------------------------------------------

    def _end_all(self, is_over: Callable[[_Upload], bool], why: str) -> None:
        with self._lock:
            over = [(place, upload) for place, upload in self._uploads.items() if is_over(upload)]
        for place, upload in over:
            self._end(place, upload, why)

    def _end(self, place: tuple[str, str], upload: _Upload, why: str = "") -> None:
        """Nothing more comes of an upload; its stream is over unless another upload goes on with it."""
        with upload.lock, self._lock:
            if self._uploads.pop(place, None) is None:
                return
            if any(other.key == upload.key for other in self._uploads.values()):
                return
        try:
            if self._store.unchecked.stop(upload.key, why):
                self._on_close(upload.key)
                self._store.wake_readers(upload.key.job_id)
        except StoreError as error:  # its job's logs were removed, say
            _logger.debug("%s: %s", upload.key, error)
        except Exception as error:
            self._failures.log(upload.key.site, error)
