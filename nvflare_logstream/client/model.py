"""What readers get: plain values."""

from __future__ import annotations

from dataclasses import dataclass

from nvflare_logstream.streams import Stream
from nvflare_logstream.words import Word

COMPLETED = "FINISHED:COMPLETED"  # status of a job that ended well, in the runtime's words
UNKNOWN = "UNKNOWN"  # status of a job of which the server does not know whether and how it ended


@dataclass(frozen=True)
class JobStreams:
    """A job and its streams.

    Attributes:
        job_id: the job's id.
        status: the job's status in the runtime's words.
        streams: all that the server knows of.
        now: the server's clock, in seconds since the epoch.
    """

    job_id: str
    status: str
    streams: tuple[Stream, ...]
    now: float = 0.0

    @property
    def over(self) -> bool:
        """Whether the job has ended, as far as the server will ever know."""
        return self.status.startswith("FINISHED") or self.status == UNKNOWN


@dataclass(frozen=True)
class SiteLog:
    """What a query found at one site.

    Attributes:
        stream: the log; None if no site of the job has the name that the query gives.
        text: the filtered text.
        since_applied, truncated: as in `nvflare_logstream.filters.FilterResult`.
        reason: why there is no stream.
    """

    stream: Stream | None
    text: str = ""
    since_applied: bool = False
    truncated: bool = False
    reason: str = ""


class EventKind(Word):
    """What happened while following."""

    TEXT = "text"  # whole lines
    JOINED = "joined"
    SILENT = "silent"
    RECONNECTED = "reconnected"
    REFUSED = "refused"
    LOST = "lost"
    ENDED = "ended"
    MISSING = "missing"
    LOST_CONTACT = "lost contact"  # with the server
    BACK = "back"  # in contact with the server
    CAUGHT_UP = "caught up"  # all text that was there has been given out
    OVER = "over"  # always the last


@dataclass(frozen=True)
class Event:
    """Something that happened while following: text of a site, or a notice about it.

    Attributes:
        kind: what happened.
        site: the site, or the query's name for one that matched none; empty for LOST_CONTACT, BACK,
            CAUGHT_UP and OVER.
        text: the log's text, or the notice in words; for OVER the job's status in the runtime's words.
        stream: the stream, where there is one.
    """

    kind: EventKind
    site: str
    text: str
    stream: Stream | None = None
