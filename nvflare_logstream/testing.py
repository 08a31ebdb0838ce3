"""Fakes for tests of code that uses this package: a clock that stands still, a watcher on it, a link that fails on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path

from nvflare_logstream.errors import LinkError
from nvflare_logstream.site.link import Link
from nvflare_logstream.site.watch import Watcher


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
        changed: set it to tell that a file has changed.
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
        deliver: takes a request and gives the reply, such as a `Receiver`'s `handle` for one peer; may be replaced at any time.
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
