"""Following a job's logs: what was there, then what comes, until the job is over and every stream is closed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nvflare_logstream.client.model import MAX_WAIT, Event, JobStreams, LogQuery, Stream
from nvflare_logstream.errors import RetrievalError

if TYPE_CHECKING:
    from nvflare_logstream.client.client import LogClient

_BUSY_PAUSE = 0.5  # seconds, when the server has as many waiting followers as it takes
_LEAST_SECONDS = (
    0.1  # between two requests: nobody reads faster, and a busy log would cost the server a message a line
)
_RECONNECT_SECONDS = 300.0
_RECONNECT_PAUSE = 1.0
_BACK_SECONDS = 30.0  # in which a site finds its way back to a server that was restarted
_LATE_SECONDS = 5.0  # a site whose job died at once is heard of a moment after the job's end


class Follow:
    """One follow under way: where it stands at every site.

    Args:
        client: asks the server.
        job: the job's id.
        query: what to read; what bounds the beginning (`tail`, `max_bytes`) is applied when a site's log is first read.
        lost: the exceptions that mean that the server cannot be reached now.
    """

    def __init__(self, client: LogClient, job: str, query: LogQuery, lost: tuple[type[Exception], ...]):
        self._client, self._job, self._query, self._lost = client, job, query, lost
        self._beginnings: dict[str, Any] = {}  # by site, where its first reading stands
        self._readings: dict[str, Any] = {}  # the same once that is done, and from then on
        self._files: dict[str, str] = {}
        self._known: dict[str, Stream] = {}
        self._heard: dict[str, bool] = {}  # whether a site was live when it was last heard of
        self._ended: set[str] = set()
        self._told: object = (
            None  # what the server last said of the streams: it answers at once when that changes
        )
        self._over_since: float | None = None
        self._came_back = False

    def events(self) -> Iterator[Event]:
        """See `LogClient.follow`."""
        while True:
            try:
                yield from self._until_over()
                return
            except self._lost as error:
                yield Event("lost contact", "", str(error))
            self._come_back()
            self._came_back, self._over_since = True, None
            yield Event("back", "", "")

    def _until_over(self) -> Iterator[Event]:
        job = self._client.job(self._job)
        self._query = self._query.fixed(job.now)
        behind = bool(self._readings)  # what came while there was no contact is still to be asked for
        while True:
            chosen = self._chosen(job)
            yield from self._came(chosen)
            yield from self._begin(chosen)
            yield from self._went(chosen)
            self._known = {stream.site: stream for stream in chosen}
            yield Event("caught up", "", "")
            if self._finished(job, chosen) and not behind:
                yield from self._missing(chosen)
                yield Event("over", "", job.status)
                return
            asked = time.monotonic()
            reply = self._client.ask(self._job, self._request())
            self._told = reply["verdicts"]
            job = JobStreams.from_reply(reply)
            streams = {(stream.site, stream.file): stream for stream in job.streams}
            for part in reply["parts"]:
                self._readings[part["site"]] = part["reading"]
                if part["text"]:
                    yield Event("text", part["site"], part["text"], streams[part["site"], part["file"]])
            behind = bool(reply["parts"])
            pause = _BUSY_PAUSE if reply["busy"] else _LEAST_SECONDS - (time.monotonic() - asked)
            time.sleep(max(0.0, pause))

    def _chosen(self, job: JobStreams) -> list[Stream]:
        """What the query is about; a site whose log.json is being read stays with it when a log.txt comes later."""
        streams = {(stream.site, stream.file): stream for stream in job.streams}
        chosen = self._query.choose(job.streams)
        return [
            streams.get((stream.site, self._files.get(stream.site, stream.file)), stream) for stream in chosen
        ]

    def _request(self) -> dict[str, Any]:
        filters = {
            name: value for name, value in self._query.filters().items() if name not in ("tail", "max_bytes")
        }
        places = [
            {"site": site, "file": self._files[site], "reading": reading}
            for site, reading in self._readings.items()
        ]
        wait = MAX_WAIT if self._over_since is None else _LATE_SECONDS / 5
        return {"op": "follow", "places": places, "wait": wait, "verdicts": self._told, "filters": filters}

    def _begin(self, chosen: list[Stream]) -> Iterator[Event]:
        """Read the present content of logs that have joined."""
        for stream in chosen:
            if stream.site in self._readings or not stream.available:
                continue
            try:
                yield from self._first_reading(stream)
            except RetrievalError as error:
                if error.code != "LOG_CHANGED":
                    raise
                # A restarted server has less than it gave out; the site sends it again, and the next round goes on.

    def _first_reading(self, stream: Stream) -> Iterator[Event]:
        begun = self._beginnings.get(stream.site)
        for part in self._client.parts(self._job, stream, self._query, whole_lines=True, reading=begun):
            # Taken down before the text is given out: a connection lost between two parts must not repeat the first.
            self._files[stream.site], self._beginnings[stream.site] = stream.file, part.reading
            if part.done:
                self._readings[stream.site] = part.reading
            if part.text:
                yield Event("text", stream.site, part.text, stream)

    def _came(self, chosen: list[Stream]) -> Iterator[Event]:
        for stream in chosen:
            if stream.state in ("", "expected"):
                continue
            was_live = self._heard.get(stream.site)
            # Taken down at once: a connection lost before the turn is over must not tell it again.
            self._heard[stream.site] = stream.live
            if stream.live and not was_live:
                yield Event("joined" if was_live is None else "reconnected", stream.site, "", stream)

    def _went(self, chosen: list[Stream]) -> Iterator[Event]:
        for stream in chosen:
            before = self._known.get(stream.site)
            if len(stream.losses) > len(before.losses if before else ()):
                yield Event("lost", stream.site, stream.reason, stream)
            if stream.closed and stream.site not in self._ended and self._read_to_end(stream):
                self._ended.add(stream.site)
                yield Event(
                    "ended", stream.site, "; ".join(filter(None, (stream.standing, stream.outcome))), stream
                )
            elif stream.state == "refused" and not (before and before.state == "refused"):
                yield Event("refused", stream.site, stream.reason, stream)
            elif (
                stream.state == "open"
                and not stream.live
                and not (before and before.state == "open" and not before.live)
            ):
                yield Event("silent", stream.site, stream.reason, stream)

    def _missing(self, chosen: list[Stream]) -> Iterator[Event]:
        for stream in chosen:
            if stream.state in ("", "expected") and stream.site not in self._readings:
                yield Event("missing", stream.site, stream.standing, stream)

    def _read_to_end(self, stream: Stream) -> bool:
        reading = self._readings.get(stream.site)
        return reading is not None and bool(reading["at"] >= stream.bytes)

    def _finished(self, job: JobStreams, chosen: list[Stream]) -> bool:
        """Nothing more will come: every stream is closed, kept back or given up, and what there is has been read."""
        if not job.over:
            return False
        self._over_since = self._over_since or time.monotonic()
        passed = time.monotonic() - self._over_since
        for stream in chosen:
            waiting = stream.live or (stream.state in ("", "expected") and passed < _LATE_SECONDS)
            # To a restarted server every site is silent at first.
            waiting = waiting or (stream.state == "open" and self._came_back and passed < _BACK_SECONDS)
            if waiting or (stream.closed and not self._read_to_end(stream)):
                return False
        return True

    def _come_back(self) -> None:
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while True:
            try:
                self._client.come_back()
                self._client.job(self._job)
                return
            except self._lost:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RECONNECT_PAUSE)
