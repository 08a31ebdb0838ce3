"""The verdict on a stream: what a reader may believe about the stored copy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nvflare_logstream.names import StreamKey

if TYPE_CHECKING:  # readers need the verdicts' names, not the wire
    from nvflare_logstream.wire.frames import Loss

STREAMING = "streaming"
COMPLETE = "complete"
PARTIAL = "partial"
REFUSED = "refused"
LOST = "lost"
NEVER_SEEN = "never seen"


def in_words(verdict: str, reason: str) -> str:
    """A verdict's name, with its reason if it has one."""
    return f"{verdict} ({reason})" if reason else verdict


@dataclass(frozen=True)
class Verdict:
    """A verdict's name and, unless it is plainly good, the reason in plain words."""

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return in_words(self.name, self.reason)


@dataclass
class StreamInfo:
    """What the store knows of one stream; times in seconds since the epoch.

    Attributes:
        end: bytes stored; cursor: the sender's place at `end`; lines: newlines among them.
        state: "expected" (nothing came yet), "open", "closed", "stopped" (the server gave up) or "refused" (by the site);
        reason: why, where it needs one.
        total, digest, digest_from: what the site said at its close; agreed: whether the stored copy is the same.
        outcome: how the site's job process ended.
        utc_offset: the site's offset from UTC in seconds; skew: its clock minus the server's, in seconds.
    """

    key: StreamKey
    end: int = 0
    cursor: bytes = b""
    lines: int = 0
    state: str = "open"
    reason: str = ""
    total: int = -1
    digest: str = ""
    digest_from: int = 0
    agreed: bool = False
    outcome: str = ""
    opened: float = 0.0
    last_seen: float = 0.0
    last_data: float = 0.0
    closed: float = 0.0
    utc_offset: int = 0
    skew: float = 0.0
    losses: list[Loss] = field(default_factory=list)

    def verdict(self, now: float, idle_timeout: float) -> Verdict:
        """Judge the stream as it stands at `now`; a site silent for `idle_timeout` seconds (0: never) is no longer streaming."""
        if self.state == "expected":
            return Verdict(NEVER_SEEN, self.reason)
        if self.state == "refused":
            return Verdict(REFUSED, self.reason)
        if self.state == "stopped":
            return Verdict(PARTIAL, self.reason)
        if self.losses:
            missing = "; ".join(describe_loss(loss) for loss in self.losses[:3])
            more = f"; and {len(self.losses) - 3} more" if len(self.losses) > 3 else ""
            return Verdict(LOST, missing + more)
        if self.state == "closed":
            return Verdict(COMPLETE) if self.agreed else Verdict(PARTIAL, self.reason)
        if idle_timeout and now - self.last_seen > idle_timeout:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.last_seen))
            return Verdict(PARTIAL, f"site silent since {since}")
        return Verdict(STREAMING)


def describe_loss(loss: Loss) -> str:
    """A loss in words, with its byte range where it is known."""
    if loss.length is None:
        return f"from byte {loss.offset}, length unknown: {loss.reason}"
    return f"bytes {loss.offset}-{loss.offset + loss.length} of the source: {loss.reason}"
