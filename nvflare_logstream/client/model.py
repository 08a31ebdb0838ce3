"""What readers ask for and get: plain values, without the runtime."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from typing import Any

from nvflare_logstream import lines
from nvflare_logstream.errors import ArgumentError, ErrorCode, RetrievalError
from nvflare_logstream.filters import FILTER_NAMES, Filters
from nvflare_logstream.names import SERVER_SITE, check_name
from nvflare_logstream.streams import Verdict, in_words

COMMAND = "logstream"  # the admin command that carries the requests
MAX_PART = 1 << 20  # characters of text, or bytes, in one reply
MAX_WAIT = 10.0  # seconds of a long poll
ALL_SITES = "all"
COMPLETED = "FINISHED:COMPLETED"  # status of a job that ended well, in the runtime's words
UNKNOWN = "UNKNOWN"  # status of a job of which the server does not know whether and how it ended
_TEXT_LOG, _JSON_LOG = "log.txt", "log.json"
_MAX_PATTERN = 256  # characters


@dataclass(frozen=True)
class LogQuery:
    """What to read of a job's logs.

    Attributes:
        sites: site names or patterns such as "site-*"; "all" means every site and the server.
        file: the log's name; where a site has no log.txt but a log.json, that is read instead.
        since, until: times or durations as `nvflare_logstream.lines.parse_since` reads them.
        level, grep, ignore_case, invert, before, after, tail, max_bytes: as in `nvflare_logstream.filters.Filters`.

    Raises:
        ArgumentError: naming the field, the value and what is allowed.
    """

    sites: tuple[str, ...] = (SERVER_SITE,)
    file: str = _TEXT_LOG
    since: str | None = None
    until: str | None = None
    level: str | None = None
    grep: str | None = None
    ignore_case: bool = False
    invert: bool = False
    before: int = 0
    after: int = 0
    tail: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sites, (list, tuple)) or not self.sites:
            raise ArgumentError(
                "sites", self.sites, 'a tuple of at least one name or pattern, such as ("all",)'
            )
        for site in self.sites:
            if not isinstance(site, str) or not 0 < len(site) <= _MAX_PATTERN:
                raise ArgumentError(
                    "site", site, 'a site\'s name, a pattern such as "site-*", "server" or "all"'
                )
        check_name("file", self.file)
        times = {
            name: lines.parse_since(name, value)
            for name in ("since", "until")
            if (value := getattr(self, name)) is not None
        }
        Filters(**{**self.filters(), **times})

    def fixed(self, now: float) -> LogQuery:
        """The same query with durations counted back from `now` (seconds since the epoch), however long reading takes."""
        since, until = (
            value and lines.fixed_time(name, value, now)
            for name, value in (("since", self.since), ("until", self.until))
        )
        return replace(self, since=since, until=until)

    def filters(self) -> dict[str, Any]:
        """The filters as they travel."""
        values = {name: getattr(self, name) for name in FILTER_NAMES}
        return {
            name: value for name, value in values.items() if value is not None and value is not False
        }  # 0 is a bound

    def choose(self, streams: tuple[Stream, ...]) -> list[Stream]:
        """The streams that the query is about, one a site, the server's first; what is asked for and not there says why."""
        by_site: dict[str, dict[str, Stream]] = {}
        for stream in streams:
            by_site.setdefault(stream.site, {})[stream.file] = stream
        chosen = [
            self._of_site(site, files)
            for site, files in by_site.items()
            if any(_fits(site, p) for p in self.sites)
        ]
        for pattern in self.sites:
            if pattern != ALL_SITES and not any(_fits(site, pattern) for site in by_site):
                known = (
                    f"the job has {', '.join(sorted(by_site))}"
                    if by_site
                    else "nothing is known of this job's sites yet"
                )
                chosen.append(Stream.missing(pattern, self.file, f"no such site in this job; {known}"))
        return sorted(chosen, key=lambda stream: (stream.site != SERVER_SITE, stream.site))

    def _of_site(self, site: str, files: dict[str, Stream]) -> Stream:
        stream = files.get(self.file)
        instead = files.get(_JSON_LOG)
        if self.file == _TEXT_LOG and instead and instead.available and not (stream and stream.available):
            return instead
        sent = sorted(name for name, found in files.items() if found.available)
        reason = f"not sent by this site; it sends {', '.join(sent)}" if sent else "not sent by this site"
        return stream or Stream.missing(site, self.file, reason)


def _fits(site: str, pattern: str) -> bool:
    return pattern == ALL_SITES or fnmatch.fnmatchcase(site, pattern)


@dataclass(frozen=True)
class Stream:
    """One log of one site, as the server knows it; times in seconds since the epoch.

    Attributes:
        live: the site is sending, and was heard of lately.
        losses: what could not be delivered: offset, length in bytes (None where nobody can know) and reason.
    """

    site: str
    file: str
    bytes: int
    lines: int
    verdict: str
    reason: str
    state: str
    live: bool
    outcome: str
    digest: str
    digest_from: int
    opened: float
    last_seen: float
    last_data: float
    utc_offset: int
    skew: float
    losses: tuple[tuple[int, int | None, str], ...] = ()

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Stream:
        """Read a row of the server's reply.

        Raises:
            RetrievalError: INVALID_REPLY, if a name in it is none: names become paths here.
        """
        try:
            check_name("site", row["site"])
            check_name("file", row["file"])
        except ArgumentError as error:
            raise RetrievalError(
                ErrorCode.INVALID_REPLY, f"the server gave a name that is none: {error}"
            ) from error
        values = {name: row[name] for name in cls.__dataclass_fields__ if name != "losses"}
        # What a site says of itself is shown to people, on their terminals.
        values |= {name: lines.visible(row[name]) for name in ("reason", "outcome")}
        return cls(
            **values,
            losses=tuple((at, length, lines.visible(reason)) for at, length, reason in row["losses"]),
        )

    @classmethod
    def missing(cls, site: str, file: str, reason: str) -> Stream:
        """A log that was asked for and that the server knows nothing of."""
        return cls(site, file, 0, 0, Verdict.NEVER_SEEN, reason, "", False, "", "", 0, 0.0, 0.0, 0.0, 0, 0.0)

    @property
    def available(self) -> bool:
        """Whether there is a copy to read; an empty log is one."""
        return self.bytes > 0 or self.state in ("open", "closed", "stopped")

    @property
    def closed(self) -> bool:
        """Whether the site has said that this is all."""
        return self.state in ("closed", "stopped")

    @property
    def standing(self) -> str:
        """The verdict, with its reason if it has one."""
        return in_words(self.verdict, self.reason)


@dataclass(frozen=True)
class Part:
    """The next piece of a log: whole lines, except where `max_bytes` cut the first or the log itself ends in the middle of one.

    Attributes:
        text: the piece; done: it is the last.
        reading: where to go on.
        since_applied, truncated: as in `nvflare_logstream.filters.FilterResult`, for all of the log.
    """

    text: str
    done: bool
    reading: dict[str, Any]
    since_applied: bool
    truncated: bool


@dataclass(frozen=True)
class SiteLog:
    """What a query found of one stream."""

    stream: Stream
    text: str = ""
    since_applied: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Event:
    """Something that happened while following: text of a site, or a notice about it.

    Attributes:
        kind: "text" (whole lines), or a notice: "joined", "silent", "reconnected", "refused", "lost", "ended", "missing",
            "lost contact", "back"; "caught up" when all text that was there has been given out; and at last "over".
        site: the site; empty for "lost contact", "back", "caught up" and "over".
        text: the log's text, or the notice in words; for "over" the job's status in the runtime's words.
        stream: the stream, where there is a site.
    """

    kind: str
    site: str
    text: str
    stream: Stream | None = None


@dataclass(frozen=True)
class JobStreams:
    """A job's status in the runtime's words, and its streams; `now` is the server's clock."""

    status: str
    streams: tuple[Stream, ...]
    now: float = 0.0

    @classmethod
    def from_reply(cls, reply: dict[str, Any]) -> JobStreams:
        """Read the server's reply."""
        return cls(reply["job_status"], tuple(Stream.from_row(row) for row in reply["streams"]), reply["now"])

    @property
    def over(self) -> bool:
        """Whether the job has ended, as far as the server will ever know."""
        return self.status.startswith("FINISHED") or self.status == UNKNOWN
