"""A followed log: how far it is with the receiver.

A stream is in one phase at a time, and `_NEXT` says what moves it to another:

* While the job runs: from ASKING to FOLLOWING once the receiver's place is known, and back when it is not.
* When the job is over: from ASKING to ASKING_LAST, from FOLLOWING to CLOSING; between these two as before.
* It has ENDED when the receiver took its close, or wants nothing more of it.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from pathlib import Path

from nvflare_logstream.site.progress import Progress, PutOff
from nvflare_logstream.site.source import Source
from nvflare_logstream.streams import StreamId


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

    Attributes:
        phase: what there is to do for it.
        outcome: how the job's process ended, once it has; the close carries it.
        held_until: monotonic time in seconds before which nothing is tried for it.
        unreadable: a warning was given. The next one waits until it could be read: warnings may go into this
            very log.
        progress: whether the receiver gets on with it.
    """

    def __init__(self, stream: StreamId, directory: Path, source: Source):
        self.id, self.directory, self.source = stream, directory, source
        self.phase = Phase.ASKING
        self.outcome = ""
        self.held_until = 0.0
        self._put_off = PutOff()
        self.unreadable = False
        self.progress = Progress()

    @property
    def placed(self) -> bool:
        """Whether the source is where the receiver stands, so that what follows can be sent."""
        return self.phase in (Phase.FOLLOWING, Phase.CLOSING)

    @property
    def last(self) -> bool:
        """Whether the job is over, and a few requests are all that is left."""
        return self.phase in (Phase.ASKING_LAST, Phase.CLOSING)

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

    def job_is_over(self, outcome: str) -> None:
        """Send the rest and close, with `outcome`."""
        self.outcome = outcome
        self._happen(Event.JOB_OVER)

    def end(self) -> None:
        """Close the source; nothing more is sent."""
        self.source.close()
        self._happen(Event.ENDED)

    def _happen(self, event: Event) -> None:
        self.phase = _NEXT[self.phase][event]
