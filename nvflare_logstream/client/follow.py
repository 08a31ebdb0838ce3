"""Following a job's logs: what is there, then what comes, until the job is over and every stream closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nvflare_logstream.client import merge
from nvflare_logstream.client.anew import Anew
from nvflare_logstream.client.model import Event, EventKind, JobStreams
from nvflare_logstream.client.notices import Notices, missing, seconds_until
from nvflare_logstream.client.parts import PATIENCE, ask_streams, read_parts
from nvflare_logstream.client.port import Port, PushPort
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import ErrorCode, LostContactError, NoReconnectError, RetrievalError
from nvflare_logstream.streams import State, Stream
from nvflare_logstream.wire.queries import MAX_WAIT, FollowedPart, FollowReply, FollowRequest, Place, Pushed

_Text = tuple[str, tuple[int, ...]]  # some text, and where in it a group of lines begins

_BUSY_PAUSE = 0.5  # seconds, when the server has as many waiting followers as it takes
# Seconds between two requests: nobody reads faster, and a busy log would cost the server a message a line.
_LEAST_SECONDS = 0.1
# Seconds between two messages with new text, of a server that sends such: few lines wait, many come together.
_PACE = 0.05
_MERGING_PACE = 0.1  # lines of several sites have to meet to be put into order
_RECONNECT_SECONDS = 300.0
_RECONNECT_PAUSE = 1.0  # seconds
_BACK_SECONDS = 30.0  # in which a site finds its way back to a server that was restarted
_REST_SECONDS = 60.0  # in which a server gives some more of what a job that is over has left
_LATE_SECONDS = 5.0  # a site whose job died at once is heard of a moment after the job's end


class Follow:
    """One follow under way: where it stands at every site.

    Args:
        port: asks the server.
        job_id: the job's id.
        query: what to read; `tail` and `max_bytes` are applied when a site's log is first read.
        clock: gives seconds that only grow.
        sleep: waits some seconds.
        merged: give the lines of all sites in the order of their corrected time, as far as they are there.
        growing: tell of lines too that have not ended and overwrite themselves.
        as_text: as in `LogClient.parts`.
    """

    def __init__(
        self,
        port: Port,
        job_id: str,
        query: LogQuery,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        merged: bool = False,
        growing: bool = False,
        as_text: bool = False,
    ):
        self._port, self._job_id, self._query = port, job_id, query
        self._clock, self._sleep, self._merged = clock, sleep, merged
        # Of an unfinished line nobody knows yet whether the filters keep it.
        self._growing = growing and query.grep is None and query.level is None and not query.exclude
        self._as_text = as_text and not query.by_record
        self._clocks: dict[str, merge.Clock] = {}  # by site, for merging
        self._filters = query.filters().unbounded()  # of what comes after the first text
        self._places: dict[str, Place] = {}  # by site, since its log was begun
        self._begun: set[str] = set()  # sites of which all that was there at first has been read
        self._anew = Anew(clock, by_end=query.tail is not None or query.max_bytes is not None)
        self._notices = Notices(self._read_to_end)
        self._mark = ""  # what the server last told: it answers at once when that changes
        self._over_since: float | None = None
        self._back_since = -1.0  # when contact was found again, for the first time since the server answered
        # When the server last answered, and when it last gave more of a log.
        self._heard = self._moved = clock()

    def events(self) -> Iterator[Event]:
        """See `LogClient.follow`."""
        while True:
            try:
                yield from self._until_over()
                return
            except LostContactError as error:
                dropped = self._back_since > self._heard  # it took us back, and did not answer
                if dropped and self._clock() - self._back_since > _RECONNECT_SECONDS:
                    raise
                yield Event(EventKind.LOST_CONTACT, "", str(error))
            if dropped:
                self._sleep(_RECONNECT_PAUSE)
            self._come_back()
            self._over_since = None
            if self._back_since <= self._heard:
                self._back_since = self._clock()
            yield Event(EventKind.BACK, "", "")

    def _until_over(self) -> Iterator[Event]:
        job = ask_streams(self._port, self._job_id)
        self._query = self._query.fixed(job.now)
        self._filters = self._query.filters().unbounded()
        behind = more = bool(self._begun)  # what came while there was no contact is still to be asked for
        while True:
            chosen = self._chosen(job)
            yield from self._notices.unknown(self._query, job)
            yield from self._notices.waiting(job)
            yield from self._notices.arrivals(chosen)
            yield from self._begun_anew(chosen)
            yield from self._first_texts(chosen)
            yield from self._notices.departures(chosen)
            yield Event(EventKind.CAUGHT_UP, "", "")
            if self._finished(job, chosen) and not behind:
                yield from missing(self._query, job, [one for one in chosen if one.site not in self._begun])
                yield Event(EventKind.OVER, "", job.status)
                return
            left = seconds_until(self._query, job.now, chosen)
            if left is not None and left <= 0 and not more:
                yield Event(EventKind.PAST, "", job.status)
                return
            asked = self._clock()
            request, busy, more = self._request(left), False, False
            for reply in self._replies(request):
                self._heard = self._clock()
                if isinstance(reply, FollowReply):
                    job, self._mark, busy = reply.job, reply.mark, reply.busy
                    behind = bool(reply.parts or reply.pushed)
                more = more or any(part.text for part in reply.parts)
                yield from self._new_texts(reply.parts, job)
                if isinstance(reply, Pushed):
                    yield from self._grown(reply, job)
                yield Event(EventKind.CAUGHT_UP, "", "")
            pause = _BUSY_PAUSE if busy else _LEAST_SECONDS - (self._clock() - asked)
            self._sleep(max(0.0, pause))

    def _replies(self, request: FollowRequest) -> Iterator[Pushed | FollowReply]:
        seconds = request.wait + PATIENCE
        if isinstance(self._port, PushPort):
            yield from self._port.follow(self._job_id, request, seconds)
        else:
            yield self._port.ask(self._job_id, request, seconds)

    def _chosen(self, job: JobStreams) -> list[Stream]:
        """What the query is about; a site whose log.json was begun stays with it if a log.txt comes later."""
        streams = job.by_name
        chosen = self._query.choose(job.streams)
        begun = {site: streams.get((site, place.file)) for site, place in self._places.items()}
        return [begun.get(stream.site) or stream for stream in chosen]

    def _request(self, left: float | None) -> FollowRequest:
        places = tuple(place for site, place in self._places.items() if site in self._begun)
        wait = MAX_WAIT if self._over_since is None and not self._anew else _LATE_SECONDS / 5
        wait = wait if left is None else max(0.0, min(wait, left))
        pace = _MERGING_PACE if self._merged else _PACE
        request = FollowRequest(places, self._filters, wait, self._mark, pace=pace)
        return replace(request, growing=self._growing, as_text=self._as_text)

    def _first_texts(self, chosen: list[Stream]) -> Iterator[Event]:
        """What is there of logs that have joined."""
        joined = [stream for stream in chosen if stream.site not in self._begun and stream.available]
        joined = [stream for stream in joined if not self._anew.is_coming(stream)]
        yield from self._texts(joined, self._first_text)

    def _begun_anew(self, chosen: list[Stream]) -> Iterator[Event]:
        """Leave the places in copies that are no longer stored."""
        for stream in chosen:
            place = self._places.get(stream.site)
            if place and not place.reading.is_of(stream.copy):
                self._places[stream.site] = self._anew.begin(place, stream)
                self._begun.discard(stream.site)
                self._clocks.pop(stream.site, None)
                yield from self._notices.begun_anew(stream)

    def _texts(
        self, streams: Sequence[Stream], texts: Callable[[Stream], Iterator[_Text]]
    ) -> Iterator[Event]:
        """The text of some logs, and to which of them the query's times could not be applied."""
        for event in self._in_order(streams, texts):
            yield event
            if event.stream:
                timed = self._places[event.site].reading.timed
                yield from self._notices.not_applied(self._query, event.stream, timed)

    def _in_order(
        self, streams: Sequence[Stream], texts: Callable[[Stream], Iterator[_Text]]
    ) -> Iterator[Event]:
        """The text of some logs, one log after the other or all merged."""
        if not self._merged:
            for stream in streams:
                for text, breaks in texts(stream):
                    if text:
                        records = self._records(stream.site)
                        yield Event(EventKind.TEXT, stream.site, text, stream, breaks, records)
            return
        failed: list[RetrievalError] = []

        def until_failure(stream: Stream) -> Iterator[str]:
            """What was asked for is noted as given out: it still has to be, when the next request fails."""
            pieces = texts(stream)
            while not failed:
                try:
                    yield next(pieces)[0]
                except StopIteration:
                    return
                except RetrievalError as error:
                    failed.append(error)

        by_site = {stream.site: stream for stream in streams}
        in_order = merge.in_order(streams, until_failure, self._clocks, self._records)
        for site, text in merge.runs(in_order):
            yield Event(EventKind.TEXT, site, text, by_site[site], (), self._records(site))
        if failed:
            raise failed[0]

    def _records(self, site: str) -> bool:
        """Whether what comes of a site is records in JSON form."""
        return self._places[site].reading.records

    def _first_text(self, stream: Stream) -> Iterator[_Text]:
        """The pieces of what was there of a log when it was first read."""
        place = self._places.get(stream.site)
        reading = place.reading if place and not self._anew.is_new(stream.site) else None
        try:
            for part in read_parts(
                self._port, self._job_id, stream, self._query, True, reading, self._as_text
            ):
                # Noted before the text is given out: a connection lost between two parts must repeat neither.
                self._places[stream.site] = Place(stream.site, stream.file, part.reading)
                self._heard = self._moved = self._clock()
                self._anew.end(stream.site)
                if part.done:
                    self._begun.add(stream.site)
                yield part.text, part.reading.breaks
        except RetrievalError as error:
            if error.code is not ErrorCode.LOG_CHANGED:
                raise
            # A restarted server has less than it gave out; the site sends it again by a later round.

    def _new_texts(self, parts: Sequence[FollowedPart], job: JobStreams) -> Iterator[Event]:
        streams = job.by_name
        texts: dict[Stream, _Text] = {}
        for part in parts:
            site, file = part.place.site, part.place.file
            stream, place = streams.get((site, file)), self._places.get(site)
            if stream is None or place is None or place.file != file:
                problem = f"lines came of {site}/{file}, which was not asked for"
                raise RetrievalError(ErrorCode.INVALID_REPLY, problem)
            is_further = part.place.reading.offset > place.reading.offset
            if not (is_further and place.reading.is_of(part.place.reading.copy)):
                problem = f"lines came of {site}/{file} that do not follow those before"
                raise RetrievalError(ErrorCode.INVALID_REPLY, problem)
            self._places[site], self._moved = part.place, self._clock()
            texts[stream] = part.text, part.place.reading.breaks
        yield from self._texts(list(texts), lambda stream: iter([texts[stream]]))

    def _grown(self, pushed: Pushed, job: JobStreams) -> Iterator[Event]:
        streams = job.by_name
        for line in pushed.growing:
            place = self._places.get(line.site)
            if place and place.file == line.file:
                yield Event(EventKind.GROWING, line.site, line.text, streams.get((line.site, line.file)))

    def _read_to_end(self, stream: Stream) -> bool:
        return stream.site in self._begun and self._places[stream.site].reading.offset >= stream.end

    def _finished(self, job: JobStreams, chosen: list[Stream]) -> bool:
        """Nothing more will come: no stream is open, and what there is has been read."""
        if not job.over:
            return False
        if self._over_since is None:
            self._over_since = self._clock()
        passed = self._clock() - self._over_since
        if passed < _LATE_SECONDS and self._query.unmatched(job.streams):
            return False
        awaited = [stream for stream in chosen if self._is_awaited(stream, passed)]
        unread = next((stream for stream in awaited if stream.ended), None)
        if unread and self._clock() - max(self._moved, self._over_since) > _REST_SECONDS:
            problem = f"the job is over, and the server does not give the rest of {unread.site}/{unread.file}"
            raise RetrievalError(ErrorCode.LOG_CHANGED, problem)
        return not awaited

    def _is_awaited(self, stream: Stream, passed: float) -> bool:
        """Whether something may come of a stream, `passed` seconds after the job was over."""
        if stream.ended:
            return not self._read_to_end(stream)
        if stream.state is State.EXPECTED:
            return passed < _LATE_SECONDS
        # To a restarted server every site is silent at first.
        return stream.live or (stream.silent and self._back_since >= 0 and passed < _BACK_SECONDS)

    def _come_back(self) -> None:
        deadline = self._clock() + _RECONNECT_SECONDS
        while True:
            try:
                self._port.reconnect()
                ask_streams(self._port, self._job_id)
                return
            except NoReconnectError:
                raise
            except LostContactError:
                if self._clock() > deadline:
                    raise
                self._sleep(_RECONNECT_PAUSE)
