"""How the receiver is doing, as the server tells an admin: a question that is about no job, and its answer.

Totals are for whoever may see the server's status. What names a site, a job or a directory is for those who
may see all jobs; `without_names` leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from nvflare_logstream.lines import in_one_line
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import MAX_OFFSET
from nvflare_logstream.wire.query_reply import ErrorReply, open_reply
from nvflare_logstream.wire.query_values import check_version, message
from nvflare_logstream.wire.standing import MAX_STANDINGS, Standing, decode_standing
from nvflare_logstream.words import Word

MAX_SHOWN = 20  # sites, senders and errors in one answer, each
MAX_WORDS = 300  # characters of an error
_MAX_ROWS = 1000
_MAX_RATE = 1e15
_COUNTS = ("open", "silent", "closed", "stopped", "refused")


class Kind(Word):
    """Why a message, or a stream's part of one, was not taken."""

    UNREADABLE = "unreadable"
    BAD_NAME = "bad name"
    TOO_MUCH = "too much at a time"
    NOT_ADMITTED = "not admitted"
    OVER_QUOTA = "over a quota"
    ENDED = "removed or closed"
    NOT_STORED = "not stored"
    NOT_KEPT = "store not kept"  # no message: the server's own work on the store failed


class StreamCounts(NamedTuple):
    """How many streams there are.

    Attributes:
        open: that are being written; `silent` of them were not heard of for a while.
        closed: that their site has closed.
        stopped: that take no more, though they are not whole.
        refused: that their site keeps back.
        unchecked: that the runtime's own streamer has sent: they may be whole, and nobody knows.
    """

    open: int = 0
    silent: int = 0
    closed: int = 0
    stopped: int = 0
    refused: int = 0
    unchecked: int = 0


class Disk(NamedTuple):
    """The disk with the store, in bytes.

    Attributes:
        size, free: of the whole disk; 0 where it does not say.
        kept: what stays free: while less is free, the sites wait.
        stored: by the store.
        directory: the store's; empty without names.
    """

    size: int = 0
    free: int = 0
    kept: int = 0
    stored: int = 0
    directory: str = ""


class QuotaUse(NamedTuple):
    """How far a quota is used by whoever has used most of it.

    Attributes:
        argument: the receiver's argument that sets it.
        used, most: bytes, or files for `max_site_files`.
        whose: the site, job or stream; empty for the whole store, and without names.
    """

    argument: str
    used: int
    most: int
    whose: str = ""

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.used / self.most if self.most else 1.0


class SiteUse(NamedTuple):
    """What a site has stored (bytes), sends (bytes a second) and has asked since the receiver started."""

    site: str
    stored: int
    rate: float
    requests: int


class Refused(NamedTuple):
    """Messages of one kind that were not taken; the last at `last`, in seconds since the epoch.

    `site` is empty for senders without a proper name or beyond those that are counted, and without names.
    """

    kind: str
    messages: int
    last: float
    site: str = ""


class Problem(NamedTuple):
    """One of the last errors: when (seconds since the epoch), whose message, of which kind, in words."""

    at: float
    site: str
    kind: str
    text: str


class ServerStatus(NamedTuple):
    """The receiver, as it is at `now`.

    Attributes:
        package, runtime: their versions; upload_protocol, query_protocol: those of the messages.
        now: the server's clock in seconds since the epoch; up: seconds since the receiver started.
        requests: since then; request_rate, byte_rate: a second, over the last ten seconds or more.
        named: whether sites and jobs are named below.
        refused: by kind; senders: by kind and site, errors: the newest first, sites: the heaviest first.
        standings: how each site stands, the worst first; none from a server that is too old to tell.
    """

    package: str
    runtime: str
    upload_protocol: int
    query_protocol: int
    now: float
    up: float
    streams: StreamCounts
    requests: int
    request_rate: float
    byte_rate: float
    disk: Disk
    quotas: tuple[QuotaUse, ...] = ()
    refused: tuple[Refused, ...] = ()
    named: bool = True
    senders: tuple[Refused, ...] = ()
    errors: tuple[Problem, ...] = ()
    sites: tuple[SiteUse, ...] = ()
    standings: tuple[Standing, ...] = ()

    def without_names(self) -> ServerStatus:
        """The totals alone."""
        quotas = tuple(quota._replace(whose="") for quota in self.quotas)
        disk = self.disk._replace(directory="")
        totals = self._replace(quotas=quotas, disk=disk, named=False, senders=(), errors=(), sites=())
        return totals._replace(standings=())

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        values = self._asdict()
        for name in ("streams", "disk"):
            values[name] = values[name]._asdict()
        for name in ("quotas", "refused", "senders", "errors", "sites", "standings"):
            values[name] = [row._asdict() for row in values[name]]
        return values


def encode_question() -> dict[str, Any]:
    """The question as it travels."""
    return message()


def check_question(value: object) -> None:
    """Check a question as it came to the server.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    check_version(Fields(value))


def encode_status(status: ServerStatus) -> dict[str, Any]:
    """The answer as it travels."""
    return message(**status.as_json())


def decode_status(value: object) -> ServerStatus | ErrorReply:
    """The answer as it came to the reader; every text in it can be shown on a terminal, in one line.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    row = open_reply(value)
    if isinstance(row, ErrorReply):
        return row
    upload_protocol, query_protocol = row.numbers(("upload_protocol", "query_protocol"), 1 << 31)
    return ServerStatus(
        package=_words(row, "package"),
        runtime=_words(row, "runtime"),
        upload_protocol=upload_protocol,
        query_protocol=query_protocol,
        now=row.time("now"),
        up=row.time("up"),
        streams=_counts(row.map("streams")),
        requests=row.number("requests", MAX_OFFSET),
        request_rate=row.real("request_rate", 0, _MAX_RATE),
        byte_rate=row.real("byte_rate", 0, _MAX_RATE),
        disk=_disk(row.map("disk")),
        quotas=tuple(map(_quota, row.maps("quotas", _MAX_ROWS))),
        refused=_refused(row.maps("refused", _MAX_ROWS)),
        named=row.flag("named"),
        senders=_refused(row.maps("senders", _MAX_ROWS)),
        errors=tuple(map(_problem, row.maps("errors", _MAX_ROWS))),
        sites=tuple(map(_site, row.maps("sites", _MAX_ROWS))),
        standings=tuple(map(decode_standing, row.maps("standings", MAX_STANDINGS))),
    )


def _counts(row: Fields) -> StreamCounts:
    unchecked = row.number("unchecked", MAX_OFFSET, default=0)  # servers up to 0.2.0 count them as stopped
    return StreamCounts(*row.numbers(_COUNTS, MAX_OFFSET))._replace(unchecked=unchecked)


def _words(row: Fields, name: str) -> str:
    return in_one_line(row.text(name))


def _disk(row: Fields) -> Disk:
    size, free, kept, stored = row.numbers(("size", "free", "kept", "stored"), MAX_OFFSET)
    return Disk(size, free, kept, stored, _words(row, "directory"))


def _quota(row: Fields) -> QuotaUse:
    used, most = row.numbers(("used", "most"), MAX_OFFSET)
    return QuotaUse(_words(row, "argument"), used, most, in_one_line(row.text("whose", 1000)))


def _refused(rows: Iterable[Fields]) -> tuple[Refused, ...]:
    return tuple(
        Refused(
            _words(row, "kind"), row.number("messages", MAX_OFFSET), row.time("last"), _words(row, "site")
        )
        for row in rows
    )


def _problem(row: Fields) -> Problem:
    return Problem(row.time("at"), _words(row, "site"), _words(row, "kind"), _words(row, "text"))


def _site(row: Fields) -> SiteUse:
    stored, requests = row.numbers(("stored", "requests"), MAX_OFFSET)
    return SiteUse(_words(row, "site"), stored, row.real("rate", 0, _MAX_RATE), requests)
