"""What a sender reads: one log as one endless byte sequence, with cursors that lead back to any place in it.

The tailer is a source. Another source may wrap it and let out other bytes than it reads; what it has to
remember between two reads goes into its cursors. The same log has to give the same bytes however it is cut by
reads and wherever reading begins again: the receiver keeps only an offset and a cursor, and compares the
digest at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from nvflare_logstream.streams import Loss


class Chunk(NamedTuple):
    """Bytes that follow in a source.

    Attributes:
        offset: place of the first byte in the stream.
        data: the bytes; may be empty if there are losses. The receiver keeps no cursor that comes without
            bytes or losses.
        cursor: the place after them.
        losses: what is missing at or after `offset`, not told before.
    """

    offset: int
    data: bytes
    cursor: bytes
    losses: tuple[Loss, ...] = ()


class Source(Protocol):
    """Reads one log; owned by the sender's thread, so it need not be thread-safe."""

    @property
    def offset(self) -> int:
        """Place in the stream, in bytes, of the next byte to read."""

    @property
    def descriptor(self) -> int | None:
        """The open file whose changes bring new bytes, for a watcher; None while there is none."""

    @property
    def settled(self) -> bool:
        """Whether the last read came to the end, and new bytes come only with a change that a watcher sees.

        That is a change of the open file, or of which files stand in the log's directory.
        """

    def open(self) -> None:
        """Open what is to be read next, if it is there: it is called while the receiver is away.

        What is removed meanwhile can then still be read, or is known to be missing.

        Raises:
            OSError: if the log cannot be read now.
        """

    def read(self, limit: int) -> Chunk | None:
        """Return up to `limit` bytes that follow, or None if there is nothing new now.

        Raises:
            OSError: if the log cannot be read now; the place stays the same.
        """

    def seek(self, offset: int, cursor: bytes) -> None:
        """Go to the place `offset`, which a chunk's `cursor` describes (empty: the start).

        The cursor comes back from the receiver and may be anything. Where it leads nowhere, the next chunk
        tells the loss.

        Raises:
            OSError: if the log cannot be read now.
        """

    def stands_at(self, offset: int, cursor: bytes) -> bool:
        """Whether this is the place after the last chunk or seek."""

    def digest(self) -> tuple[str, int]:
        """Hash what was read so far, again from the log.

        Returns:
            The sha256 in hex, and the place in the stream it begins at: above 0 where older bytes are gone.

        Raises:
            OSError: if the log cannot be read now.
        """

    def close(self) -> None:
        """Close what is open; `open`, `seek` or `read` may open it again."""


SourceFactory = Callable[[Path, str], Source]  # (the log's directory, its file name)
