"""Fakes for tests of code that uses this package.

A clock that stands still, a watcher on that clock, a link that fails on request, and a source in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from pathlib import Path

from nvflare_logstream.errors import LinkError
from nvflare_logstream.site.link import Link
from nvflare_logstream.site.source import Chunk
from nvflare_logstream.site.watch import Watcher
from nvflare_logstream.streams import Loss


class Clock:
    """Seconds that pass only when somebody waits for them.

    Args:
        now: the time to begin with.
    """

    def __init__(self, now: float = 1_800_000_000.0):
        self.now = now

    def __call__(self) -> float:
        """The time now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class ClockWatcher(Watcher):
    """A watcher that waits on a `Clock`: a `Sender` driven by `turn()` then never sleeps.

    Args:
        clock: the clock that waiting moves forward.

    Attributes:
        waits: how many seconds were waited, each time.
        changed: set it to say that a file has changed.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self.waits: list[float] = []
        self.changed = False

    def close(self) -> None:
        """Nothing is open."""

    def watch(self, directory: Path, descriptor: int | None, owner: object) -> bool:
        """Nothing is watched: whoever writes calls `turn()`."""
        return False

    def reports(self, directory: Path, descriptor: int | None, owner: object) -> bool:
        """Nothing is watched."""
        return False

    def forget(self, owner: object) -> None:
        """Nothing is watched."""

    def wake(self) -> None:
        """Nobody sleeps."""

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass, unless `changed` was set since the last wait."""
        if not self.changed:
            self.pause(seconds)
        self.changed = False

    def pause(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.waits.append(seconds)
        self._clock.advance(seconds)


class Fault(Enum):
    """What a `FaultyLink` does to a request."""

    NONE = "none"
    LOSE_REQUEST = "lose request"
    LOSE_REPLY = "lose reply"
    REPEAT = "repeat"
    REPLAY = "replay an old request first"
    DAMAGE_REPLY = "damage reply"


class FaultyLink(Link):
    """A link in memory; after the given faults it works.

    Args:
        deliver: takes a request and gives the reply, such as a `Receiver`'s `handle` for one peer; it may be
            replaced.
        faults: what to do to each request, in turn.

    Attributes:
        requests: every request that was sent.
    """

    def __init__(self, deliver: Callable[[bytes], bytes], faults: Iterable[Fault] = ()):
        self.deliver = deliver
        self.faults = list(faults)
        self.requests: list[bytes] = []

    def send(self, payload: bytes) -> bytes:
        """Send a request.

        Raises:
            LinkError: if the request or its reply is lost.
        """
        fault = self.faults.pop(0) if self.faults else Fault.NONE
        self.requests.append(payload)
        if fault is Fault.LOSE_REQUEST:
            raise LinkError("the request was lost")
        if fault is Fault.REPLAY:
            self.deliver(self.requests[len(self.requests) // 2])
        reply = self.deliver(payload)
        if fault is Fault.LOSE_REPLY:
            raise LinkError("the reply was lost")
        if fault is Fault.REPEAT:
            reply = self.deliver(payload)
        return reply[:-1] if fault is Fault.DAMAGE_REPLY else reply

    def tell(self, payload: bytes) -> None:
        """Send a request to which no answer is wanted: nobody learns of a fault."""
        with suppress(LinkError):
            self.send(payload)


class MemorySource:
    """A source that reads bytes in memory, for a `Sender` without any file.

    Its cursor is the position in the log, in decimal digits. A position that the log does not reach is
    reported as a loss.

    Args:
        log: what it reads; the test may append to it at any time. A sender started anew is given the same log
            again.

    Examples:
        >>> log = bytearray(b"first line")
        >>> source = MemorySource(log)
        >>> source.read(5)
        Chunk(offset=0, data=b'first', cursor=b'5', losses=())
        >>> again = MemorySource(log)
        >>> again.seek(5, b"5")
        >>> again.read(100).data
        b' line'
    """

    def __init__(self, log: bytearray):
        self._log = log
        self._position = 0  # in the log
        self._base = 0  # place in the stream at which the log begins; above 0 after a loss
        self._cursor = b""
        self._losses: tuple[Loss, ...] = ()

    @property
    def offset(self) -> int:
        """Place in the stream, in bytes, of the next byte to read."""
        return self._base + self._position

    @property
    def descriptor(self) -> None:
        """There is no file to watch."""

    @property
    def settled(self) -> bool:
        """New bytes come unseen."""
        return False

    def open(self) -> None:
        """Nothing is to be opened."""

    def read(self, limit: int) -> Chunk | None:
        """Return up to `limit` bytes that follow, or None if there is nothing new."""
        data, start = bytes(self._log[self._position : self._position + limit]), self.offset
        if not data and not self._losses:
            return None
        self._position += len(data)
        self._cursor = b"%d" % self._position
        losses, self._losses = self._losses, ()
        return Chunk(start, data, self._cursor, losses)

    def seek(self, offset: int, cursor: bytes) -> None:
        """Go to a place that a chunk's cursor describes (empty: the start)."""
        position = int(cursor) if cursor.isdigit() and len(cursor) < 20 else 0 if not offset else -1
        self._cursor, self._losses = cursor, ()
        if not 0 <= position <= min(offset, len(self._log)):
            position = 0
            self._losses = (Loss(offset, None, "the log in memory does not reach this place"),)
        self._position, self._base = position, offset - position

    def stands_at(self, offset: int, cursor: bytes) -> bool:
        """Whether this is the place after the last chunk or seek."""
        return (offset, cursor) == (self.offset, self._cursor)

    def digest(self) -> tuple[str, int]:
        """The sha256 (hex) of what was read, and the place in the stream it begins at."""
        return hashlib.sha256(self._log[: self._position]).hexdigest(), self._base

    def close(self) -> None:
        """Nothing is open."""
