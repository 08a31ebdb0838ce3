"""One request under way: what of the followed logs goes into it, and how much."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import StreamId
from nvflare_logstream.wire.upload import MAX_FRAME, Close, Frame, RequestWriter

_MOST_SENT = (
    768 << 10
)  # bytes of a batch as it travels; with the one prepared meanwhile, this is the memory a job lends us
_MOST_READ = 6 << 20  # bytes of log in a batch
MOST_ASKED = 256  # jobs, streams to open and refusals in a batch, each


class FollowedStream:
    """A followed log: its tailer and how far it is with the receiver."""

    def __init__(self, stream: StreamId, directory: Path):
        self.id, self.directory = stream, directory
        self.tailer = Tailer(directory, stream.file)
        self.opened = False  # the receiver has told where it stands
        self.outcome: str | None = None  # set: close when everything was sent
        self.not_before = 0.0
        self.unreadable = False  # said so already: the line may itself go into the log that is followed


class FinishingJob:
    """Streams of one job that are to be finished."""

    def __init__(self, job_id: str, directory: Path, files: Iterable[str], outcome: str, only_unclosed: bool):
        self.job_id, self.directory, self.files = job_id, directory, tuple(files)
        self.outcome, self.only_unclosed = outcome, only_unclosed


class Batch:
    """A request, with what its answer has to be read against.

    Args:
        clock: the site's clock in seconds since the epoch.
        jobs: the jobs whose known streams it asks for.
    """

    def __init__(self, clock: float, jobs: list[FinishingJob]):
        self.writer = RequestWriter(clock, time.localtime().tm_gmtoff)
        self.jobs = jobs
        self.closing: set[StreamId] = set()
        self.ends: dict[StreamId, int] = {}  # where the receiver stands once it has taken the batch
        self.payload = b""
        self._opens = 0
        for job in jobs:
            self.writer.known(job.job_id)

    def open(self, stream: FollowedStream) -> None:
        """Ask where the receiver stands, now or, if the batch asks much already, in a later one."""
        if self._opens < MOST_ASKED:
            self._opens += 1
            self.writer.open(stream.id)

    def take(self, stream: FollowedStream, streams_left: int) -> None:
        """Add what follows in one stream, up to its share of the room; at its end also its close.

        Raises:
            OSError: if the log cannot be read now; what was read before it is in the batch.
        """
        self.ends[stream.id] = stream.tailer.offset
        writer, tailer = self.writer, stream.tailer
        end = writer.raw_size + max((_MOST_READ - writer.raw_size) // streams_left, MAX_FRAME)
        while True:
            left = min(MAX_FRAME, end - writer.raw_size)
            if left <= 0 or writer.size >= _MOST_SENT or writer.raw_size >= _MOST_READ:
                writer.full = True
                return
            chunk = tailer.read(left)
            if chunk is None:
                break
            writer.frame(Frame(stream.id, chunk.offset, chunk.data, chunk.cursor, chunk.losses))
            self.ends[stream.id] = tailer.offset
        if stream.outcome is not None:
            digest, begins = tailer.digest()
            writer.close(Close(stream.id, tailer.offset, digest, begins, stream.outcome))
            self.closing.add(stream.id)
