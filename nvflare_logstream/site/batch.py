"""What one request carries of the followed logs, and how much."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

from nvflare_logstream.site.endings import Doubt
from nvflare_logstream.site.followed import FollowedStream, Phase
from nvflare_logstream.site.orders import FinishJob, KeepBack
from nvflare_logstream.streams import StreamId
from nvflare_logstream.wire.upload import MAX_FRAME, Close, Frame, Refusal, RequestWriter, Unreadable
from nvflare_logstream.wire.upload_reply import Reply, Status

# Bytes of a batch as it travels. With the one prepared meanwhile, this bounds the memory taken from the job.
_MOST_SENT = 768 << 10
_MOST_READ = 6 << 20  # bytes of log in a batch
MOST_ASKED = 256  # jobs, streams to open and refusals in a batch, each
_SAME_OFFSET = 900  # seconds; where clocks are put forward or back, that happens at a quarter of an hour


@lru_cache(maxsize=1)
def _utc_offset(quarters: float) -> int:
    """The site's offset from UTC in seconds, so many quarters of an hour after the epoch."""
    return time.localtime(quarters * _SAME_OFFSET).tm_gmtoff


class Batch:
    """A request, with what its answer has to be compared with.

    Args:
        wall_time: the site's clock in seconds since the epoch.
        jobs: the jobs whose known streams it asks for.
        runtime: the version of the runtime.
        refusals: what the site keeps back.

    Attributes:
        closing: streams whose close is in it.
        given_up: streams that cannot be read, and are not tried again.
        sent: streams of which it brings bytes or the close.
        in_doubt: the receiver did not take all of one of them the last time: only an answer says why.
        only_refuses: it lets nothing of any log out.
        may_be_told: its bytes need no answer, see `Exchange.may_tell`.
        to_the_end: it brings all that the logs held when they were looked at for it.
        ends: where the receiver stands in each stream once it has taken the batch.
        payload: the encoded request, once it is complete.
    """

    def __init__(
        self,
        wall_time: float,
        jobs: Sequence[FinishJob | KeepBack],
        runtime: str = "",
        refusals: Sequence[Refusal] = (),
    ):
        self.writer = RequestWriter(wall_time, _utc_offset(wall_time // _SAME_OFFSET), runtime)
        self._wall_time, self.jobs = wall_time, jobs
        self.closing: set[StreamId] = set()
        self.given_up: set[StreamId] = set()
        self.sent: set[StreamId] = set()
        self.in_doubt = self.may_be_told = self.to_the_end = self.only_refuses = False
        self.ends: dict[StreamId, int] = {}
        self.payload = b""
        self._opens = 0
        for job in jobs:
            self.writer.known(job.job_id)
        for refusal in refusals:
            self.writer.refuse(refusal)

    def open(self, stream: FollowedStream, now: float) -> None:
        """Ask where the receiver stands; not now if this batch asks for many streams already."""
        if self._opens < MOST_ASKED:
            self._opens += 1
            self.writer.open(stream.id)
            stream.last_said = now
            self.tell(stream, now, asked=True)

    def tell(self, stream: FollowedStream, now: float, asked: bool = False) -> None:
        """Say what there is to say of a log that cannot be read, or can again; see `FollowedStream.news`."""
        if log := stream.news(now, self._wall_time, asked):
            self.writer.unreadable(log)
            if log.outcome is not None:
                self.given_up.add(log.stream)

    def _give_up(self, stream: FollowedStream, doubt: Doubt) -> None:
        """Say that there may be more which nobody can read; a receiver without what is sent takes no such."""
        self.writer.unreadable(Unreadable(stream.id, doubt.since, doubt.reason, stream.outcome))
        self.given_up.add(stream.id)
        self.sent.add(stream.id)

    def add(self, stream: FollowedStream, streams_left: int) -> None:
        """Add what follows in one stream, up to its share of the room; at its end also its close.

        Args:
            stream: one whose source is where the receiver will stand.
            streams_left: how many streams share the room that is left, this one included.

        Raises:
            OSError: if the log cannot be read now; what was read before it is in the batch.
        """
        writer, source = self.writer, stream.source
        self.ends[stream.id] = source.offset
        end = writer.raw_size + max((_MOST_READ - writer.raw_size) // streams_left, MAX_FRAME)
        is_all = False
        while True:
            room = min(MAX_FRAME, end - writer.raw_size)
            if room <= 0 or writer.size >= _MOST_SENT or writer.raw_size >= _MOST_READ:
                writer.full = True
                return
            if is_all:
                return
            chunk = source.read(room)
            if chunk is None and stream.phase is Phase.CLOSING and stream.doubt:
                self._give_up(stream, stream.doubt)
            elif chunk is None and stream.phase is Phase.CLOSING:
                digest, begins = source.digest()
                chunk = source.read(room)  # what the digest found missing, or a last line
                if chunk is None:
                    writer.close(Close(stream.id, source.offset, digest, begins, stream.outcome))
                    self.closing.add(stream.id)
                    self.sent.add(stream.id)
            if chunk is None:
                return
            writer.frame(Frame(stream.id, chunk.offset, chunk.data, chunk.cursor, chunk.losses))
            self.ends[stream.id] = source.offset
            self.sent.add(stream.id)
            self.in_doubt |= not stream.progress.steady
            # What is written meanwhile comes with the next batch: to look again costs as much as this look.
            is_all = source.settled and len(chunk.data) < room and stream.phase is not Phase.CLOSING

    def is_taken(self, reply: Reply) -> bool:
        """Whether it brought all that the logs held when they were looked at, and the receiver took that.

        They may have grown since: at level DEBUG each request makes the runtime write of it into the log.
        """
        ends = {row.stream: row.end for row in reply.streams if row.status is Status.OK}
        taken = all(ends.get(stream) == self.ends[stream] for stream in self.sent)
        return self.to_the_end and bool(self.sent) and taken
