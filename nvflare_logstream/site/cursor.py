"""Where a tailer stands in its log: the opaque cursor that the receiver keeps beside the data."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

VERSION = 1  # of the cursor's JSON; release 0.1.0 wrote the same form without a version
MAX_SEGMENTS = 16  # the runtime keeps 10 rotated files
_LONGEST = 16 << 10  # bytes of a cursor; one with all its segments has under 2,000
_FAR = 1 << 62  # bytes; the system takes no position far above
_LONGEST_HEAD = 1 << 16  # bytes of a head: it is read again at once
_encode = json.JSONEncoder(separators=(",", ":")).encode


def fingerprint(head: bytes) -> str:
    """Short digest of a file's first bytes."""
    return hashlib.sha256(head).hexdigest()[:16]


class Segment(NamedTuple):
    """A run of the stream that stands in one file.

    Attributes:
        inode: the file's inode.
        start: position in the file at which the run begins, in bytes.
        length: bytes of the run.
        head: fingerprint of the file's first `head_length` bytes.
    """

    inode: int
    start: int
    length: int
    head: str
    head_length: int

    @property
    def end(self) -> int:
        """Position in the file after this segment."""
        return self.start + self.length


def merge_gone(segments: list[Segment]) -> None:
    """Make one of the last two segments if both stood in the file that was now truncated.

    Neither can be read again. A log that is truncated often must not push other files out of the cursor: they
    would be taken for unread.
    """
    if len(segments) > 1 and segments[-2].inode == segments[-1].inode:
        last = segments.pop()
        segments[-1] = Segment(last.inode, 0, segments[-1].length + last.length, "", 0)


class Cursor(NamedTuple):
    """A place in the log.

    Attributes:
        base: place in the stream at which `segments` begin; what lies before can no longer be read again.
        anchor: the last bytes before the place, to find out whether the file is still the same there.
        segments: the files read since `base`, oldest first; the place is the end of the last one.
        losses: how many were told on the way. Without it, who was refused a loss would not see that.
    """

    base: int
    anchor: bytes
    segments: tuple[Segment, ...]
    losses: int = 0

    def encode(self) -> bytes:
        """The cursor as bytes: compact JSON, because people look at it when things go wrong."""
        rows = [[s.inode, s.start, s.length, s.head, s.head_length] for s in self.segments]
        anchor = base64.b64encode(self.anchor).decode()
        fields = {"v": VERSION, "base": self.base, "anchor": anchor, "files": rows}
        if self.losses:
            fields["losses"] = self.losses
        return _encode(fields).encode()

    @property
    def offset(self) -> int:
        """The cursor's place in the stream."""
        return self.base + sum(segment.length for segment in self.segments)

    @classmethod
    def decode(cls, data: bytes) -> Cursor | None:
        """Read back what `encode` gave; None for another version or anything else: it comes from outside."""
        if len(data) > _LONGEST:
            return None
        try:
            fields = json.loads(data)
            if "v" in fields and fields["v"] != VERSION:
                return None
            segments = tuple(Segment(*row) for row in fields["files"])
            anchor = base64.b64decode(fields["anchor"], validate=True)
            cursor = cls(fields["base"], anchor, segments, fields.get("losses", 0))
            return cursor if cursor._is_sound() else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def _is_sound(self) -> bool:
        """Whether every field has the type and the range that `encode` gives it."""
        places = [self.base, self.losses, *(place for s in self.segments for place in (s.start, s.length))]
        return (
            all(type(place) is int and 0 <= place < _FAR for place in places)
            and all(type(s.inode) is int and isinstance(s.head, str) for s in self.segments)
            and all(type(s.head_length) is int and 0 <= s.head_length <= _LONGEST_HEAD for s in self.segments)
            and len(self.anchor) <= (self.segments[-1].end if self.segments else 0)
        )


class Ahead:
    """What was read beyond a place to which the receiver then went back: it has to be found again."""

    def __init__(self) -> None:
        self._segments: list[tuple[int, Segment]] = []  # with their places in the stream

    def go_back(self, base: int, segments: Iterable[Segment], offset: int) -> None:
        """The reader goes to `offset`; it has read `segments`, which begin at `base`."""
        known = {}
        for segment in segments:
            known[base] = segment
            base += segment.length
        known.update(self._segments)
        self._segments = [(at, known[at]) for at in sorted(known) if at + known[at].length > offset]

    def peek(self, offset: int) -> Segment | None:
        """What `take` would give."""
        return next((segment for at, segment in self._segments if at + segment.length > offset), None)

    def take(self, offset: int) -> Segment | None:
        """What was read at `offset` or beyond, for the last time; None if nothing was."""
        while self._segments:
            at, segment = self._segments.pop(0)
            if at + segment.length > offset:
                return segment
        return None
