"""What readers ask for and get: plain values, without the runtime."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any

from nvflare_logstream.errors import LogStreamError
from nvflare_logstream.filters import FILTER_NAMES
from nvflare_logstream.names import SERVER_SITE


class RetrievalError(LogStreamError):
    """The server said no; `code` is the error code of the command line's JSON output."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class LogQuery:
    """What to read of a job's logs.

    Attributes:
        sites: site names or patterns such as "site-*"; "all" means every site and the server.
        file: the log's name.
        since, until: times or durations as `nvflare_logstream.lines.parse_since` reads them.
        level, grep, ignore_case, invert, before, after, tail, max_bytes: as in `nvflare_logstream.filters.Filters`.
    """

    sites: tuple[str, ...] = (SERVER_SITE,)
    file: str = "log.txt"
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

    def filters(self) -> dict[str, Any]:
        """The filters as they travel."""
        return {name: value for name in FILTER_NAMES if (value := getattr(self, name)) not in (None, False)}

    def wants(self, site: str) -> bool:
        """Whether the query is about `site`."""
        return any(pattern == "all" or fnmatch.fnmatchcase(site, pattern) for pattern in self.sites)


@dataclass(frozen=True)
class Stream:
    """One log of one site, as the server knows it; times in seconds since the epoch."""

    site: str
    file: str
    bytes: int
    lines: int
    verdict: str
    reason: str
    state: str
    outcome: str
    digest: str
    digest_from: int
    last_seen: float
    last_data: float
    utc_offset: int
    skew: float
    losses: tuple[tuple[int, int | None, str], ...] = ()

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Stream:
        """Read a row of the server's reply."""
        values = {name: row[name] for name in cls.__dataclass_fields__ if name != "losses"}
        return cls(**values, losses=tuple((at, length, reason) for at, length, reason in row["losses"]))

    @property
    def available(self) -> bool:
        """Whether there is a copy to read; an empty log is one."""
        return self.bytes > 0 or self.state in ("open", "closed", "stopped")

    @property
    def closed(self) -> bool:
        """Whether the site has said that this is all."""
        return self.state in ("closed", "stopped")


@dataclass
class SiteLog:
    """What a query found of one stream; `done` once all of it was read, `reading` is where to go on."""

    stream: Stream
    text: str = ""
    since_applied: bool = False
    truncated: bool = False
    done: bool = False
    reading: dict[str, Any] | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened while following: text of a site, or a notice about it.

    Attributes:
        kind: "text", or "joined", "silent", "reconnected", "refused", "ended", "lost contact", "back", or at last "over".
        site: the site; empty for "lost contact", "back" and "over".
        text: the log's text, or the notice in words.
    """

    kind: str
    site: str
    text: str


@dataclass(frozen=True)
class JobStreams:
    """A job's status in the runtime's words, and its streams."""

    status: str
    streams: tuple[Stream, ...]

    @classmethod
    def from_reply(cls, reply: dict[str, Any]) -> JobStreams:
        """Read the server's reply."""
        return cls(reply["job_status"], tuple(Stream.from_row(row) for row in reply["streams"]))

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.status.startswith("FINISHED") or self.status in ("ABANDONED", "FAILED_TO_RUN")
