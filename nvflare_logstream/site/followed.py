"""A followed log: how far it is with the receiver.

A stream is in one phase at a time, and `_NEXT` says what moves it to another:

* While the job runs: from ASKING to FOLLOWING once the receiver's place is known, and back when it is not.
* When the job is over: from ASKING to ASKING_LAST, from FOLLOWING to CLOSING; between these two as before.
* It has ENDED when the receiver took its close, or wants nothing more of it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from enum import Enum
from math import inf
from pathlib import Path
from typing import NamedTuple

from nvflare_logstream.site.endings import Doubt
from nvflare_logstream.site.progress import Progress, PutOff, Waits
from nvflare_logstream.site.source import Source
from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.wire.upload import Unreadable

_logger = logging.getLogger(__name__)

_RETRY_SOON, _RETRY_LATER = 1.0, 5.0  # seconds until a log that cannot be read is tried again
_STILL = 0.5  # seconds between two looks at a log without changes, while other logs have some
_PATIENCE = 60.0  # seconds after the job's end for which that is tried


class Ended(NamedTuple):
    """A stream that is no longer followed, with its verdict."""

    stream: FollowedStream
    verdict: Verdict
    reason: str


class Phase(Enum):
    """What there is to do for a stream."""

    ASKING = "ask where the receiver stands"
    FOLLOWING = "send what is written"
    ASKING_LAST = "ask where the receiver stands, to send the rest"
    CLOSING = "send the rest, then close"
    ENDED = "nothing"


class Event(Enum):
    """What happens to a stream."""

    PLACE_KNOWN = "the receiver said where it stands, and the source is there"
    PLACE_UNKNOWN = "an answer did not fit, or there was none"
    JOB_OVER = "no process writes to the log any more"
    ENDED = "the receiver takes no more"


_NEXT: dict[Phase, dict[Event, Phase]] = {
    Phase.ASKING: {
        Event.PLACE_KNOWN: Phase.FOLLOWING,
        Event.PLACE_UNKNOWN: Phase.ASKING,
        Event.JOB_OVER: Phase.ASKING_LAST,
        Event.ENDED: Phase.ENDED,
    },
    Phase.FOLLOWING: {
        Event.PLACE_KNOWN: Phase.FOLLOWING,
        Event.PLACE_UNKNOWN: Phase.ASKING,
        Event.JOB_OVER: Phase.CLOSING,
        Event.ENDED: Phase.ENDED,
    },
    Phase.ASKING_LAST: {
        Event.PLACE_KNOWN: Phase.CLOSING,
        Event.PLACE_UNKNOWN: Phase.ASKING_LAST,
        Event.JOB_OVER: Phase.ASKING_LAST,
        Event.ENDED: Phase.ENDED,
    },
    Phase.CLOSING: {
        Event.PLACE_KNOWN: Phase.CLOSING,
        Event.PLACE_UNKNOWN: Phase.ASKING_LAST,
        Event.JOB_OVER: Phase.CLOSING,
        Event.ENDED: Phase.ENDED,
    },
}


class FollowedStream:
    """A followed log.

    Args:
        stream: which log.
        directory: where it lies.
        source: reads it.
        liveness: seconds after which the receiver is told of what lasts.

    Attributes:
        phase: what there is to do for it.
        outcome: how the job's process ended, once it has; the close carries it.
        doubt: why the log may be more than what is read of it; None if it is all.
        held_until: monotonic time in seconds before which nothing is tried for it.
        trouble: why the log cannot be read; empty if it could be the last time.
        told: the receiver knows of the trouble.
        unconfirmed: bytes were sent to which no answer was wanted, and no other answer has come since.
        last_said: monotonic time in seconds at which the receiver was last told anything of it.
        progress: whether the receiver gets on with it.
    """

    def __init__(self, stream: StreamId, directory: Path, source: Source, liveness: float = 10.0):
        self.id, self.directory, self.source, self._liveness = stream, directory, source, liveness
        self.phase = Phase.ASKING
        self.outcome = ""
        self.doubt: Doubt | None = None
        self.held_until = 0.0
        self._put_off = PutOff()
        self.trouble = ""
        self.told = self.unconfirmed = False
        self.last_said = 0.0
        self._still_until = 0.0  # up to then only a reported change brings anything new
        self._since = self._over_since = 0.0  # when the trouble began; when the job was over
        self.progress = Progress()

    @property
    def placed(self) -> bool:
        """Whether the source is where the receiver stands, so that what follows can be sent."""
        return self.phase in (Phase.FOLLOWING, Phase.CLOSING)

    @property
    def last(self) -> bool:
        """Whether the job is over, and a few requests are all that is left."""
        return self.phase in (Phase.ASKING_LAST, Phase.CLOSING)

    @property
    def hurried(self) -> bool:
        """Whether nothing stands between it and its last requests."""
        return self.last and not self.trouble and self._put_off.since == inf

    def open(self) -> None:
        """Open what is to be read next: rotation may remove it while the receiver is away."""
        with suppress(Exception):  # whatever one source does; if it lasts, reading it will tell
            self.source.open()

    def go_to(self, end: int, cursor: bytes) -> None:
        """Put the source where the receiver stands.

        Raises:
            OSError: if the log cannot be read now.
        """
        if end and not cursor:  # an offset alone is no place in the source: ask for the cursor
            self.forget_place()
            return
        if not self.source.stands_at(end, cursor):
            self.source.seek(end, cursor)
        self._put_off = PutOff()
        self._happen(Event.PLACE_KNOWN)

    def forget_place(self) -> None:
        """Ask the receiver where it stands before anything else is sent."""
        self._happen(Event.PLACE_UNKNOWN)

    def was_put_off(self, now: float) -> None:
        """The receiver says "later": ask it again where it stands, the more rarely the longer that lasts."""
        self.forget_place()
        self._put_off.again(now)
        self.held_until = self._put_off.until

    def sent_in_vain(self, count: int, waits: Waits, now: float) -> None:
        """So many of its bytes were sent in vain: the next go later if that happens again and again."""
        wait = self.progress.fell_back(count, waits)
        self.held_until = max(self.held_until, now + wait)
        if wait and self.progress.first_wait:
            _logger.warning(
                "the log receiver takes nothing new of %s; it is sent more and more rarely", self.id.file
            )

    def cannot_read(self, error: Exception, now: float) -> bool:
        """Note that the log could not be read, and try again later; returns whether that is new.

        A site's paths are not told to the server.
        """
        is_new = not self.trouble
        if is_new:
            self._since = now
        self.trouble = type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            name = Path(str(error.filename)).name
            rotated = f"{name!a}: " if name.startswith(f"{self.id.file}.") else ""
            self.trouble = rotated + error.strerror
        self.held_until = now + (_RETRY_SOON if now - self._since < _RETRY_LATER else _RETRY_LATER)
        return is_new

    @property
    def why_given_up(self) -> str:
        """Why the stream ends without a close."""
        return self.doubt.reason if self.doubt else f"cannot be read: {self.trouble}"

    def could_read(self, now: float, is_still: bool) -> None:
        """Note that the log can be read.

        Args:
            now: monotonic time in seconds.
            is_still: there was nothing new, and every change from now on is sure to be reported.
        """
        self.trouble, self._still_until = "", now + _STILL if is_still else 0.0

    def news(self, now: float, wall_time: float, asked: bool) -> Unreadable | None:
        """What to tell the receiver of trouble: that it lasts, is over, or that the rest is given up.

        Args:
            now: monotonic time in seconds.
            wall_time: the site's clock in seconds since the epoch.
            asked: the receiver is asked where it stands, and takes that for a sign that there is no trouble.
        """
        lasts = bool(self.trouble) and now - self._since >= self._liveness
        given_up = lasts and self.last and now - max(self._since, self._over_since) >= _PATIENCE
        was_told, self.told = self.told, lasts
        if not (lasts and asked) and was_told is lasts and not given_up:
            return None
        since, outcome = wall_time - (now - self._since), self.outcome if given_up else None
        return Unreadable(self.id, since, self.trouble, outcome)

    def is_held_back(self, now: float) -> bool:
        """Whether nothing of it can be sent now, though there may be something."""
        return self.held_until > now or not self.placed

    def is_still(self, now: float, changed: Collection[object]) -> bool:
        """Whether it need not be looked at, as there was nothing new and no change was reported since.

        Args:
            now: monotonic time in seconds.
            changed: the streams and directories of which a change was reported.
        """
        if self._still_until and (self in changed or self.directory in changed):
            self._still_until = 0.0
        return self._still_until > now

    def is_quiet(self, now: float) -> bool:
        """Whether the receiver was told nothing of it for so long that it would count as silent."""
        return self.placed and now - self.last_said >= self._liveness

    def job_is_over(self, outcome: str, now: float, doubt: Doubt | None = None) -> None:
        """Send the rest and close with `outcome`, or end with `doubt`."""
        self.outcome, self._over_since, self.doubt = outcome, now, doubt
        self._happen(Event.JOB_OVER)

    def end(self) -> None:
        """Close the source; nothing more is sent."""
        self.source.close()
        self._happen(Event.ENDED)

    def _happen(self, event: Event) -> None:
        self._still_until = 0.0
        self.phase = _NEXT[self.phase][event]
