"""What a stream is: its key, its losses, its state and verdict, and the one record of it.

The store writes this record, the wire carries it to readers, the client, the manifest and the printers show
it. A verdict is derived from the record alone, and here alone, so that nobody can come to another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from nvflare_logstream.names import check_name, check_site
from nvflare_logstream.words import Word

END_UNSEEN = "not known: "  # how the outcome begins of a close by one who did not see the job's end
UNREADABLE = "unreadable at the site since "  # how the reason begins of a stream that is
# How the reason begins of a copy that has no cursor of its site's sender and no digest to compare it with.
UNCHECKED = "sent by the runtime's own streamer: not checked"
UNCHECKED_CURSOR = b"unchecked"  # how the cursor of such a copy begins, see `Stream.place`
_SHOWN_LOSSES = 3  # losses that a verdict's reason spells out
LEDGER_FULL = "the ledger is full, no further losses are listed"  # the reason of a full ledger's last entry


class State(Word):
    """What the store holds of a stream."""

    EXPECTED = "expected"  # the site is in the job; nothing came yet
    OPEN = "open"
    CLOSED = "closed"  # the site said that this is all
    STOPPED = "stopped"  # the server gave up, the site could not read the rest, or nobody can check the copy
    REFUSED = "refused"  # the site keeps the log back


class Verdict(Word):
    """What a reader may believe of the server's copy."""

    STREAMING = "streaming"
    COMPLETE = "complete"
    PARTIAL = "partial"
    REFUSED = "refused"
    LOST = "lost"
    NEVER_SEEN = "never seen"


def is_unchecked(cursor: bytes) -> bool:
    """Whether a stream with this cursor is a copy as `Stream.unchecked` says: the one rule."""
    return cursor.startswith(UNCHECKED_CURSOR)


def local_time(seconds: float) -> str:
    """A time in seconds since the epoch, as verdicts and notes show it: by the local clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def in_words(verdict: str, reason: str) -> str:
    """A verdict, with its reason in brackets if it has one."""
    return f"{verdict} ({reason})" if reason else str(verdict)


class _Key(NamedTuple):
    job_id: str
    site: str
    file: str


class StreamKey(_Key):
    """Which log: one file of one job at one site.

    Raises:
        ArgumentError: for a part whose name is not allowed.
    """

    __slots__ = ()

    def __new__(cls, job_id: str, site: str, file: str) -> StreamKey:
        """Check the parts, which become parts of a path."""
        check_name("job_id", job_id)
        check_site("site", site)
        check_name("file", file)
        return super().__new__(cls, job_id, site, file)

    @classmethod
    def _make(cls, parts: Iterable[str]) -> StreamKey:  # type: ignore[override]
        return cls(*parts)  # `_replace` makes keys with this method: they are checked too

    def __str__(self) -> str:
        return "/".join(self)


class StreamId(NamedTuple):
    """A stream as its site names it; the server knows the site from the connection."""

    job_id: str
    file: str


class Loss(NamedTuple):
    """An entry of a stream's ledger: bytes of the source that could not be delivered, or a note.

    Attributes:
        offset: the place in the stream, in bytes, at which they are missing, or that the note is about.
        length: how many bytes; None where nobody can know; 0 for a note: nothing is missing.
        reason: what happened, in plain words.
    """

    offset: int
    length: int | None
    reason: str

    @property
    def is_note(self) -> bool:
        """Whether this tells what happened to the stream, and nothing is missing."""
        return self.length == 0

    def __str__(self) -> str:
        if self.length is None:
            return f"from byte {self.offset}, length unknown: {self.reason}"
        if self.is_note:
            return f"at byte {self.offset}: {self.reason}"
        return f"bytes {self.offset}-{self.offset + self.length} of the source: {self.reason}"


class Stream(NamedTuple):
    """All that is known of one stream; times are in seconds since the epoch, by the server's clock.

    Attributes:
        key: which log.
        end: stored bytes.
        cursor: where the sender stands in its source at `end`; only the sender understands it.
        lines: newlines among the stored bytes.
        state: what the store holds of it.
        reason: why the stream is in this state, where that needs a reason.
        total: bytes of the whole stream as the site said at its close; -1 before.
        digest: sha256 (hex) that the site gave at its close, of its bytes from `digest_from` to `total`;
            empty before.
        digest_from: offset in bytes at which `digest` begins; above 0 where rotation had removed older files.
        agreed: the stored copy had the same digest.
        outcome: how the site's job process ended, such as "exit code 0".
        opened: when the first request for it came; last_seen: the last sign of life; last_data: the last
            bytes; closed: the close.
        utc_offset: the site's offset from UTC in seconds.
        skew: the site's clock minus the server's, in seconds.
        came: the sha256 (hex) of what came in each life of the server, as "<end>:<sha256>", a space between;
            empty where nobody knows.
        copy: which stored copy of the log this is: 1, and one more each time the store began it again; 0 if
            the server does not say.
        losses: the ledger: what could not be delivered, and notes, in order of offsets.
        silent: nothing was heard of it for longer than the receiver's `idle_timeout`, see `as_of`; never
            stored.
    """

    key: StreamKey
    end: int = 0
    cursor: bytes = b""
    lines: int = 0
    state: State = State.OPEN
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
    came: str = ""
    copy: int = 1
    losses: tuple[Loss, ...] = ()
    silent: bool = False

    def as_of(self, now: float, idle_timeout: float) -> Stream:
        """The same stream, judged at `now`: an open one not heard of for `idle_timeout` seconds (0: never) is
        silent.
        """
        silent = self.state is State.OPEN and 0 < idle_timeout < now - self.last_seen
        return self if silent is self.silent else self._replace(silent=silent)

    @property
    def site(self) -> str:
        """The site's name."""
        return self.key.site

    @property
    def file(self) -> str:
        """The log file's name."""
        return self.key.file

    @property
    def unchecked(self) -> bool:
        """Whether the runtime's own streamer sent it, and the site's own sender not all of it too."""
        return is_unchecked(self.cursor)

    @property
    def is_stock(self) -> bool:
        """Whether it is an unchecked copy of which the site's own sender has sent nothing yet."""
        return self.cursor == UNCHECKED_CURSOR

    @property
    def place(self) -> tuple[int, bytes]:
        """Where its site's sender goes on, as an offset and a cursor.

        That is in an unchecked copy behind the bytes that this sender has sent too.
        """
        if not self.unchecked:
            return self.end, self.cursor
        offset, _, cursor = self._compared
        return offset, cursor

    @property
    def lines_compared(self) -> int:
        """Newlines before the `place` of an unchecked copy."""
        return self._compared[1]

    @property
    def _compared(self) -> tuple[int, int, bytes]:
        """How far an unchecked copy is compared: offset, newlines before it and its sender's cursor there."""
        _, *compared = self.cursor.split(b" ", 3)
        return (int(compared[0]), int(compared[1]), compared[2]) if compared else (0, 0, b"")

    def compared(self, offset: int, lines: int, cursor: bytes) -> Stream:
        """An unchecked copy whose site's sender has sent it too up to `offset`, where it has `cursor`.

        `lines` newlines come before: nobody has to read the copy to count them.
        """
        return self._replace(cursor=b"%s %d %d %s" % (UNCHECKED_CURSOR, offset, lines, cursor))

    @property
    def live(self) -> bool:
        """Whether the site is sending, and was heard of lately."""
        return self.state is State.OPEN and not self.silent

    @property
    def ended(self) -> bool:
        """Whether no more bytes will come: the site closed it, or one of both gave up."""
        return self.state in (State.CLOSED, State.STOPPED)

    @property
    def over(self) -> bool:
        """Whether its site's own sender has ended it: it closed the stream, or gave up the rest."""
        return self.state is State.CLOSED or (self.state is State.STOPPED and bool(self.outcome))

    @property
    def available(self) -> bool:
        """Whether there is a copy to read; an empty log is one."""
        return self.end > 0 or self.state is State.OPEN or self.ended

    @property
    def lost(self) -> tuple[Loss, ...]:
        """The entries of the ledger that are about missing bytes."""
        return tuple(loss for loss in self.losses if not loss.is_note)

    @property
    def verdict(self) -> Verdict:
        """What a reader may believe of the stored copy."""
        return self._judgement[0]

    @property
    def verdict_reason(self) -> str:
        """Why the verdict is what it is, in plain words; empty where it speaks for itself."""
        return self._judgement[1]

    @property
    def standing(self) -> str:
        """The verdict, with its reason in brackets if it has one."""
        return in_words(*self._judgement)

    @property
    def _judgement(self) -> tuple[Verdict, str]:
        if self.state is State.EXPECTED:
            return Verdict.NEVER_SEEN, self.reason
        if self.state is State.REFUSED:
            return Verdict.REFUSED, self.reason
        if self.state is State.STOPPED:
            return Verdict.PARTIAL, self.reason
        if lost := self.lost:
            missing = "; ".join(map(str, lost[:_SHOWN_LOSSES]))
            more = len(lost) - _SHOWN_LOSSES
            is_full = any(loss.reason == LEDGER_FULL for loss in lost)
            count = f"at least {more}" if is_full else str(more)
            return Verdict.LOST, missing + (f"; and {count} more" if more > 0 else "")
        if self.state is State.CLOSED:
            return (Verdict.COMPLETE, "") if self.agreed else (Verdict.PARTIAL, self.reason)
        if self.silent:
            return Verdict.PARTIAL, f"site silent since {local_time(self.last_seen)}"
        return (Verdict.PARTIAL, self.reason) if self.reason else (Verdict.STREAMING, "")
