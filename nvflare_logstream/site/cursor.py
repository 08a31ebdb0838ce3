"""Where a tailer stands in its source: the opaque cursor that the receiver keeps beside the data."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import ClassVar


def fingerprint(head: bytes) -> str:
    """Short digest of a file's first bytes."""
    return hashlib.sha256(head).hexdigest()[:16]


@dataclass(frozen=True)
class Segment:
    """A run of the logical sequence that stands in one file: `length` bytes from byte `start` of that file."""

    inode: int
    start: int
    length: int
    head: str
    head_length: int

    @property
    def end(self) -> int:
        """Position in the file after this segment."""
        return self.start + self.length


@dataclass(frozen=True)
class Cursor:
    """A place in the source.

    Attributes:
        base: logical offset at which `segments` begin; what lies before can no longer be read again.
        anchor: the last bytes before the place, to find out whether the file is still the same there.
        segments: the files read since `base`, oldest first; the place is the end of the last one.
    """

    MAX_SEGMENTS: ClassVar[int] = 16  # the runtime keeps 10 rotated files

    base: int
    anchor: bytes
    segments: tuple[Segment, ...]

    def encode(self) -> bytes:
        """The cursor as bytes (compact JSON: it is looked at when things go wrong)."""
        rows = [[s.inode, s.start, s.length, s.head, s.head_length] for s in self.segments]
        anchor = base64.b64encode(self.anchor).decode()
        return json.dumps(
            {"base": self.base, "anchor": anchor, "files": rows}, separators=(",", ":")
        ).encode()

    @property
    def offset(self) -> int:
        """The place's logical offset."""
        return self.base + sum(segment.length for segment in self.segments)

    @classmethod
    def decode(cls, data: bytes) -> Cursor | None:
        """Read back what `encode` gave; None for anything else, since it comes from another process."""
        try:
            fields = json.loads(data)
            rows = [Segment(int(i), int(s), int(n), str(h), int(k)) for i, s, n, h, k in fields["files"]]
            place = cls(int(fields["base"]), base64.b64decode(fields["anchor"], validate=True), tuple(rows))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        sound = all(0 <= n < 1 << 62 for s in rows for n in (s.start, s.length)) and place.base >= 0
        sound = sound and all(0 <= s.head_length <= 1 << 16 for s in rows)
        return place if sound and len(place.anchor) <= (rows[-1].end if rows else 0) else None
