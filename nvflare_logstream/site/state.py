"""What a sender knows and decides: which request comes next, and what an answer means.

Used by one thread; it never waits. Time is passed in; requests and ended streams come out. Thread, link and
watcher belong to `Sender`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from nvflare_logstream.names import is_pattern
from nvflare_logstream.site.appearing import Appearing
from nvflare_logstream.site.batch import Batch
from nvflare_logstream.site.exchange import Exchange, Step
from nvflare_logstream.site.followed import Ended, FollowedStream
from nvflare_logstream.site.orders import FinishJob, FollowLog, KeepBack, RefuseLogs
from nvflare_logstream.site.progress import RETRY_WAITS, SETBACK_WAITS
from nvflare_logstream.site.questions import Questions
from nvflare_logstream.site.returned import ReturnedCopy
from nvflare_logstream.site.source import SourceFactory
from nvflare_logstream.site.watch import Changes
from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply

_logger = logging.getLogger(__name__)


class SenderState:
    """The streams of one process and their exchange with the receiver; times are monotonic seconds.

    Args:
        source: makes the source of a log.
        watch: has a stream's files watched; says whether anything is watched that was not before.
        reports: says whether every change of them is sure to be reported.
        liveness_interval: seconds of silence after which a sign of life is sent.
        now: the time at which the sender begins.
        runtime: the version of the runtime, for the receiver.

    Attributes:
        streams: what is followed, in the order in which the next batch takes from it.
        appearing: finds logs that are named by patterns.
        questions: what else the receiver is asked.
        exchange: the requests without an answer.
        liveness: seconds of silence after which a sign of life is sent.
        runtime: the version of the runtime.
        look_at_once: there may be something to send; otherwise a change of the files will say so.
        is_quiet: the last look has found nothing to send.
        quiet_looks: how many looks at all streams have found that.
    """

    def __init__(
        self,
        source: SourceFactory,
        watch: Callable[[FollowedStream], bool],
        liveness_interval: float,
        now: float,
        runtime: str = "",
        reports: Callable[[FollowedStream], bool] = lambda stream: False,
    ):
        self._source, self._watch, self._reports, self.runtime = source, watch, reports, runtime
        self.streams: dict[StreamId, FollowedStream] = {}
        self.appearing = Appearing()
        self.questions = Questions()
        self.exchange = Exchange(now)
        self.look_at_once, self.is_quiet = True, False
        self.quiet_looks, self.liveness = 0, liveness_interval

    def obey(self, order: FollowLog | FinishJob | KeepBack | RefuseLogs) -> None:
        """Take up what a caller wants."""
        self.look_at_once = True
        if not isinstance(order, FollowLog):
            self.questions.add(order)
        elif is_pattern(order.stream.file):
            self.appearing.add(order)
        elif order.stream not in self.streams:
            self._follow(order.stream, order.directory, self._source)

    def follow_new(self, now: float, at_once: bool) -> None:
        """Follow logs that have appeared, see `Appearing.look`."""
        for order in self.appearing.look(now, self.streams, at_once):
            self.obey(order)

    def _follow(self, stream: StreamId, directory: Path, source: SourceFactory) -> FollowedStream:
        followed = FollowedStream(stream, directory, source(directory, stream.file), self.liveness)
        self.streams[stream] = followed
        followed.open()
        return followed

    @property
    def all_ended(self) -> bool:
        """Whether no stream is followed, no job is to be finished and no refusal to be taken."""
        return not (self.streams or self.questions.any_left)

    @property
    def hurried(self) -> bool:
        """Whether a job is over: it is archived within a second, and a few requests are all that is left."""
        return self.questions.hurried or any(stream.hurried for stream in self.streams.values())

    # -- the next request ------------------------------------------------------------------------------------

    def next_batch(self, now: float, wall_time: float, changed: Changes = None) -> Batch | None:
        """Begin a request with all there is to say now; None if that is nothing.

        Args:
            now: monotonic time in seconds.
            wall_time: the site's clock in seconds since the epoch.
            changed: the streams and directories with reported changes; None to look at all streams.
        """
        self.look_at_once = False
        jobs, refusals = self.questions.due(now)
        batch = Batch(wall_time, jobs, self.runtime, refusals)
        still = 0
        for stream, streams_left in self._ready(now):
            if changed is not None and stream.is_still(now, changed):
                still += 1
            elif stream.placed:
                self._add(stream, batch, streams_left, now)
            else:
                stream.open()
                batch.open(stream, now)
        self._rotate_turns(batch)
        batch.may_be_told = self.exchange.may_tell(batch, now)
        if not (jobs or batch.may_be_told):
            self._confirm(batch, now)
        held_back = self.questions.held_back(now) or any(s.is_held_back(now) for s in self.streams.values())
        batch.to_the_end = not (batch.writer.full or jobs or refusals or held_back or still)
        self.is_quiet = batch.writer.empty
        if self.is_quiet:
            self.quiet_looks += batch.to_the_end
            if not self.streams or now - self.exchange.last_answer < self.liveness:
                return None
        else:
            for stream in filter(lambda stream: stream.is_quiet(now), self.streams.values()):
                batch.open(stream, now)  # an empty request would be a sign of life of all
        batch.payload = batch.writer.encode()
        self.exchange.begin(batch)
        return batch

    def _confirm(self, batch: Batch, now: float) -> None:
        """Ask whether the receiver took what it was told of a log of which no bytes follow now."""
        for stream, _ in self._ready(now):
            if stream.unconfirmed and stream.placed and stream.id not in batch.sent:
                batch.open(stream, now)

    def prepare_batch(self, now: float, wall_time: float) -> None:
        """Prepare the next request, with the bytes that follow; all else waits for the other's answer."""
        if (under_way := self.exchange.under_way) is None:
            return
        self.look_at_once = False
        batch = Batch(wall_time, [], self.runtime)
        for stream, streams_left in self._ready(now):
            if stream.placed and stream.id not in under_way.closing | under_way.given_up:
                self._add(stream, batch, streams_left, now)
        self._rotate_turns(batch)
        if batch.writer.empty:
            self.look_at_once = True
            return
        batch.payload = batch.writer.encode()
        self.exchange.prepare(batch)

    def _ready(self, now: float) -> Iterator[tuple[FollowedStream, int]]:
        """The streams that are not held back, each with how many streams share the rest of the batch."""
        streams = list(self.streams.values())
        for number, stream in enumerate(streams):
            if stream.held_until <= now:
                yield stream, len(streams) - number

    def _add(self, stream: FollowedStream, batch: Batch, streams_left: int, now: float) -> None:
        try:
            batch.add(stream, streams_left)
            if stream.id in batch.sent:
                stream.last_said = now
            # What came between the last read and the first watch would otherwise go unnoticed.
            self.look_at_once |= (look_again := self._watch(stream) or batch.writer.full)
            is_quiet = stream.source.settled and not (look_again or stream.id in batch.sent)
            stream.could_read(now, is_quiet and self._reports(stream))
        except Exception as error:  # whatever one source does, the other logs go on
            self._hold_unreadable(stream, error, now)
        batch.tell(stream, now)

    def _rotate_turns(self, batch: Batch) -> None:
        """After a full batch begin with another stream: one that grows without end must not block others."""
        if batch.writer.full:
            first = next(iter(self.streams))
            self.streams[first] = self.streams.pop(first)

    def _hold_unreadable(self, stream: FollowedStream, error: Exception, now: float) -> None:
        if stream.cannot_read(error, now):  # told once: warnings may go into this very log
            _logger.warning("cannot read %s now: %s", stream.directory / stream.id.file, error)

    # -- the answer ------------------------------------------------------------------------------------------

    def drop_requests(self) -> None:
        """Nobody knows what the receiver took of them: ask where every stream stands."""
        self.exchange.drop()
        self.look_at_once = True
        for stream in self.streams.values():
            stream.forget_place()

    def told(self, batch: Batch, now: float, cost: float) -> None:
        """A request was sent to which no answer comes; it took `cost` seconds of CPU."""
        self.exchange.told(now, cost)
        for stream in filter(None, map(self.streams.get, batch.sent)):
            stream.unconfirmed = True

    def take_error(self, batch: Batch, now: float) -> None:
        """The receiver refused a whole request: ask where every stream of it stands, ever more rarely."""
        self.drop_requests()
        for stream in filter(None, map(self.streams.get, batch.ends)):
            stream.sent_in_vain(0, RETRY_WAITS, now)

    def take_answer(self, batch: Batch, reply: Reply, now: float, cost: float = 0.0) -> list[Ended]:
        """Take the answer to a request that took `cost` seconds of CPU; return the streams that it ends."""
        self.exchange.answered(now, reply.not_before, cost)
        ended: list[Ended] = []
        for row in reply.streams:
            if row.stream in self.questions.refusals:
                self.questions.take_refusal(row, now)
            stream = self.streams.get(row.stream)
            if stream is not None and not self._take_row(stream, row, batch, now, ended):
                self.drop_requests()
                return ended
        again = {row.stream for row in reply.streams if row.status is not Status.OK}
        for stream in filter(None, map(self.streams.get, batch.given_up - again)):
            ended.append(self.end(stream, Verdict.PARTIAL, stream.why_given_up))
        for job in batch.jobs:
            if job.job_id not in reply.jobs_later:
                self._take_known(job, reply, now)
            else:
                self.questions.job_later(job, now)
        unconfirmed = any(stream.unconfirmed for stream in self.streams.values())
        self.exchange.caught_up += batch.is_taken(reply) and not unconfirmed
        return ended

    def _take_row(
        self, stream: FollowedStream, row: StreamReply, batch: Batch, now: float, ended: list[Ended]
    ) -> bool:
        """Take what the receiver says of one stream; False if the prepared request does not fit it."""
        expected, stream.unconfirmed = batch.ends.get(row.stream, stream.source.offset), False
        if row.status is Status.REFUSED:
            ended.append(self.end(stream, Verdict.REFUSED, row.reason))
        elif row.status is Status.LATER:
            self.look_at_once = True
            stream.was_put_off(now)
            if row.stream in batch.ends:  # else it was only asked for, which costs nothing
                stream.sent_in_vain(0, RETRY_WAITS, now)
        elif row.status is Status.OK and row.stream in batch.closing:
            ended.append(self.end(stream, row.verdict or Verdict.PARTIAL, ""))
        elif row.status is Status.GAP or row.end != expected or not stream.placed:
            stream.progress.reached(row.end)
            if row.stream in batch.ends and row.end < expected:
                stream.sent_in_vain(expected - row.end, SETBACK_WAITS, now)
            if self.exchange.step is not Step.IDLE:
                return False
            self.look_at_once = True
            self._go_to(stream, row, now)
        else:
            stream.progress.reached(row.end)
        return True

    def _go_to(self, stream: FollowedStream, row: StreamReply, now: float) -> None:
        try:
            stream.go_to(row.end, row.cursor)
        except Exception as error:  # a cursor comes back from the receiver and may be anything
            stream.forget_place()
            self._hold_unreadable(stream, error, now)

    def _take_known(self, job: FinishJob | KeepBack, reply: Reply, now: float) -> None:
        """The receiver said where the job's streams stand: follow those that are ours to their ends.

        It may name others too, but which files are read is the site's to say.
        """
        self.look_at_once = True
        self.questions.answered(job)
        rows = {row.stream.file: row for row in reply.streams if row.stream.job_id == job.job_id}
        if isinstance(job, KeepBack):
            self.questions.add(job.refusals(rows))
            return
        for file in self.appearing.last_look(job, self.streams, rows, self.questions.add):
            stream_id, row = StreamId(job.job_id, file), rows.get(file)
            if job.only_unclosed and row and row.verdict:
                continue
            stream = self.streams.get(stream_id)
            if stream is None:
                stream = self._follow(stream_id, job.directory, ReturnedCopy if job.doubt else self._source)
                if row and row.status is Status.OK and row.end:  # what is only expected is opened first
                    self._go_to(stream, row, now)
            stream.job_is_over(job.outcome, now, job.doubt)

    def end(self, stream: FollowedStream, verdict: Verdict, reason: str) -> Ended:
        """Let go of a stream."""
        del self.streams[stream.id]
        stream.end()
        return Ended(stream, verdict, reason)
