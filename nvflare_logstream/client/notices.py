"""What a follower is told of the sites beside their text, each change once."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence

from nvflare_logstream import typed_time
from nvflare_logstream.client.model import Event, EventKind, JobStreams
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.names import SERVER_SITE, server_first
from nvflare_logstream.streams import State, Stream, Verdict, in_words
from nvflare_logstream.wire.job_streams import RUNNING

_WAY_SECONDS = 2.0  # that a line needs at most to the server, where nothing is wrong


class Notices:
    """Tells what has changed since the last look.

    Args:
        read_to_end: whether all that is stored of a stream has been given out.
    """

    def __init__(self, read_to_end: Callable[[Stream], bool]):
        self._read_to_end = read_to_end
        self._status = ""  # of the job, as it was last told
        self._known: dict[str, Stream] = {}  # by site, as it was the last time
        self._was_live: dict[str, bool] = {}  # by site, since it was first heard of
        self._ended: set[str] = set()
        self._told: tuple[str, ...] = ()  # names of no known site
        self._given: set[str] = set()  # sites of which there was text

    def waiting(self, job: JobStreams) -> Iterator[Event]:
        """The status of a job that has not begun: nothing else may come for long."""
        if not (job.streams or job.over) and job.status not in (self._status, RUNNING):
            self._status = job.status
            yield Event(EventKind.WAITING, "", job.status)

    def arrivals(self, chosen: Sequence[Stream]) -> Iterator[Event]:
        """Who has joined or come back."""
        for stream in chosen:
            if stream.state is State.EXPECTED:
                continue
            was_live = self._was_live.get(stream.site)
            # Noted at once: a connection lost before the turn is over must not tell it again.
            self._was_live[stream.site] = stream.live
            if stream.live and not was_live:
                kind = EventKind.JOINED if was_live is None else EventKind.RECONNECTED
                yield Event(kind, stream.site, "", stream)

    def begun_anew(self, stream: Stream) -> Iterator[Event]:
        """That text which was given out of a stream stands in a copy that is no longer stored."""
        self._ended.discard(stream.site)
        if stream.site in self._given:
            self._given.discard(stream.site)
            text = (
                f"the server's copy of {stream.file} was replaced; what was shown of it so far does not count"
            )
            yield Event(EventKind.BEGUN_ANEW, stream.site, text, stream)

    def departures(self, chosen: Sequence[Stream]) -> Iterator[Event]:
        """Who has ended, refused or fallen silent, and what was lost."""
        for stream in chosen:
            before = self._known.get(stream.site)
            if len(stream.lost) > len(before.lost if before else ()):
                yield Event(EventKind.LOST, stream.site, stream.verdict_reason, stream)
            if stream.ended and stream.site not in self._ended and self._read_to_end(stream):
                self._ended.add(stream.site)
                text = "; ".join(filter(None, (stream.standing, stream.outcome)))
                yield Event(EventKind.ENDED, stream.site, text, stream)
            elif stream.state is State.REFUSED and not (before and before.state is State.REFUSED):
                yield Event(EventKind.REFUSED, stream.site, stream.verdict_reason, stream)
            elif stream.silent and not (before and before.silent):
                yield Event(EventKind.SILENT, stream.site, stream.verdict_reason, stream)
        self._known = {stream.site: stream for stream in chosen}

    def not_applied(self, query: LogQuery, stream: Stream, timed: bool) -> Iterator[Event]:
        """Which bounds of time let all of a site's first text through, since no line of it has a time."""
        if stream.site in self._given:
            return
        self._given.add(stream.site)
        for bound in ("since", "until"):
            if getattr(query, bound) is not None and not timed:
                yield Event(EventKind.NOT_APPLIED, stream.site, bound, stream)

    def unknown(self, query: LogQuery, job: JobStreams) -> Iterator[Event]:
        """Names of no site, while the job's sites are not known yet; told once.

        Raises:
            RetrievalError: LOG_NOT_FOUND, once they are known: a job that runs has told them all.
        """
        unmatched = query.unmatched(job.streams)
        if not unmatched or job.over:
            return
        sites_known = any(stream.site != SERVER_SITE for stream in job.streams)
        if job.status == RUNNING and sites_known:
            problem = "; ".join(f"{name}: {reason}" for name, reason in unmatched.items())
            hint = f"`nvflare-logstream status {job.job_id}` shows the job's sites."
            raise RetrievalError(ErrorCode.LOG_NOT_FOUND, problem, hint)
        if self._told != tuple(unmatched):
            self._told = tuple(unmatched)
            yield Event(EventKind.AWAITED, ", ".join(unmatched), "the job has not told its sites yet")


def missing(query: LogQuery, job: JobStreams, chosen: Sequence[Stream]) -> Iterator[Event]:
    """What never came of the logs in `chosen` and of names that no site has; the server's first."""
    notices = [
        Event(EventKind.MISSING, stream.site, stream.standing, stream)
        for stream in chosen
        if stream.state is State.EXPECTED
    ]
    for name, reason in query.unmatched(job.streams).items():
        notices.append(Event(EventKind.MISSING, name, in_words(Verdict.NEVER_SEEN, reason)))
    yield from sorted(notices, key=lambda event: server_first(event.site))


def seconds_until(query: LogQuery, now: float, chosen: Sequence[Stream]) -> float | None:
    """Seconds until no line that `until` lets through can come any more; None if that is not known.

    Args:
        query: with fixed times.
        now: the server's clock, in seconds since the epoch.
        chosen: the logs that are followed.
    """
    if query.until is None:
        return None
    present = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).replace(tzinfo=None)
    left = []
    for stream in chosen:
        if stream.available:  # of other sites not even the time zone is known
            offset, skew = stream.utc_offset, stream.skew
            until = typed_time.parse_since("until", query.until, utc_offset=offset, skew=skew)
            ahead = until - present - datetime.timedelta(seconds=offset + skew)
            left.append(ahead.total_seconds() + _WAY_SECONDS)
    return max(left, default=None)
