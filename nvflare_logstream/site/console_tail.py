"""Reads the log of what a job prints: a log like any other, whose old bytes may be gone (see `holes`).

What was given back before it was read is a loss, with its place and its length. What was read before it went
is none; only the digest at the close begins behind it.
"""

from __future__ import annotations

import os
from pathlib import Path

from nvflare_logstream.names import CONSOLE_FILE
from nvflare_logstream.site.cursor import Segment
from nvflare_logstream.site.holes import STEP, end_of_hole
from nvflare_logstream.site.openfile import OpenFile
from nvflare_logstream.site.source import Source
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import Loss

_TOO_MUCH = "the job printed more than is kept of it, faster than it was sent"


class ConsoleTailer(Tailer):
    """A tailer that never takes a hole for data."""

    def _read_file(self, file: OpenFile, limit: int) -> bytes:
        while True:
            if self._pass_hole(file):
                return b""  # the loss comes first, at its place
            start, head, anchor = file.position, file.head, file.anchor
            # The file's beginning stays.
            data = super()._read_file(file, min(limit, STEP - start) if start < STEP else limit)
            if not data or self._file is not file:
                return data
            if os.pread(file.descriptor, len(head), 0) != head:  # begun again, with the same lines
                file.go_to(start, anchor)
                super()._after_truncation(file)
                return b""
            if start < STEP or end_of_hole(file.descriptor) <= start:
                return data
            file.go_to(start, b"")  # the hole has grown since the look at it: these may be its zeros

    def _pass_hole(self, file: OpenFile) -> bool:
        """Forget what lies in the hole; True if some of it was not read."""
        end, position, last = end_of_hole(file.descriptor), file.position, self._segments[-1]
        if position < STEP or end <= last.start:
            return False
        unread = max(0, end - position)
        if unread:
            self._losses.append(Loss(self.offset, unread, _TOO_MUCH))
        if unread or position - len(file.anchor) < end:  # nothing there to compare with any more
            file.go_to(position + unread, b"")
        self._base = self.offset - (file.position - end)
        self._segments = [file.segment(Segment(file.inode, end, 0, last.head, last.head_length))]
        return bool(unread)

    def _after_truncation(self, file: OpenFile) -> OpenFile:
        if 0 < file.position - len(file.anchor) < end_of_hole(file.descriptor):
            file.go_to(file.position, b"")  # not truncated: the hole has grown over what was compared
            return file
        return super()._after_truncation(file)

    def digest(self) -> tuple[str, int]:
        """Hash again what was read so far and is still there, see `Tailer.digest`."""
        while True:
            file = self._file
            if file is not None:
                self._pass_hole(file)
            digest = super().digest()
            if file is None or file.position < STEP:
                return digest
            if end_of_hole(file.descriptor) <= self._segments[-1].start:
                return digest  # else the hole has grown while it was hashed


def source_of(directory: Path, name: str) -> Source:
    """What reads a log."""
    return (ConsoleTailer if name == CONSOLE_FILE else Tailer)(directory, name)
