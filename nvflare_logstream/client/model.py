"""What readers get: plain values."""

from __future__ import annotations

from dataclasses import dataclass

from nvflare_logstream.streams import Stream
from nvflare_logstream.wire.job_streams import COMPLETED, UNKNOWN, JobStreams
from nvflare_logstream.words import Word

__all__ = ["COMPLETED", "UNKNOWN", "Event", "EventKind", "JobStreams", "SiteLog"]


@dataclass(frozen=True)
class SiteLog:
    """What a query found at one site.

    Attributes:
        stream: the log; None if no site of the job has the name that the query gives.
        text: the filtered text.
        since_applied, truncated: as in `nvflare_logstream.filters.FilterResult`.
        reason: why there is no stream.
        until_applied: `until` was asked for and could be applied.
    """

    stream: Stream | None
    text: str = ""
    since_applied: bool = False
    truncated: bool = False
    reason: str = ""
    until_applied: bool = False


class EventKind(Word):
    """What happened while following."""

    TEXT = "text"  # whole lines
    GROWING = "growing"  # a line that has not ended overwrites itself: how it reads now, instead of before
    WAITING = "waiting"  # the job has not begun
    JOINED = "joined"
    SILENT = "silent"
    RECONNECTED = "reconnected"
    REFUSED = "refused"
    LOST = "lost"
    BEGUN_ANEW = "begun anew"  # what was given of this site was replaced: nothing of it counts any more
    NOT_APPLIED = "not applied"  # a bound of time, to text that was given out: no line so far has a time
    ENDED = "ended"
    MISSING = "missing"
    AWAITED = "awaited"  # names of no site, as far as the sites are known
    LOST_CONTACT = "lost contact"  # with the server
    BACK = "back"  # in contact with the server
    CAUGHT_UP = "caught up"  # all text that was there has been given out
    PAST = "past"  # the last: the time that the query ends with has passed
    OVER = "over"  # the last otherwise


@dataclass(frozen=True)
class Event:
    """Something that happened while following: text of a site, or a notice about it.

    Attributes:
        kind: what happened.
        site: the site, or the query's name for one that matched none; empty for WAITING,
            LOST_CONTACT, BACK, CAUGHT_UP, PAST and OVER.
        text: the log's text, or the notice in words; for NOT_APPLIED the bound's name, "since" or "until";
            for WAITING, PAST and OVER the job's status in the runtime's words.
        stream: the stream, where there is one.
        breaks: characters of the text with which lines begin that do not follow the line before; only where
            lines around matches are asked for.
        records: the text is records in JSON form, of which people read the text.
    """

    kind: EventKind
    site: str
    text: str
    stream: Stream | None = None
    breaks: tuple[int, ...] = ()
    records: bool = False
