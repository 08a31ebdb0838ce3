"""A job and the records of its streams, as replies carry them."""

from __future__ import annotations

from typing import Any, NamedTuple

from nvflare_logstream.lines import visible
from nvflare_logstream.streams import Loss, State, Stream, StreamKey
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import MAX_OFFSET

COMPLETED = "FINISHED:COMPLETED"  # status of a job that ended well, in the runtime's words
RUNNING = "RUNNING"  # status of a job whose sites are known and at work
UNKNOWN = "UNKNOWN"  # status of a job of which the server does not know whether and how it ended
MAX_ROWS = 1 << 20  # entries of a list in a reply
_MAX_WORDS = 1 << 16  # characters of what a server says of a stream
_SECONDS = 1e12  # above every difference of two clocks
_OFFSETS = ("end", "lines", "digest_from")
_TIMES = ("opened", "last_seen", "last_data", "closed")
_FLAGS = ("agreed", "silent")
# What readers are told of a stream beside its site, file and losses; a field that is not named stays here.
_TOLD = (
    *_OFFSETS, "state", "reason", "total", "digest", "outcome", *_TIMES,
    "utc_offset", "skew", *_FLAGS, "copy",
)  # fmt: skip


class JobStreams(NamedTuple):
    """A job and its streams.

    Attributes:
        job_id: the job's id.
        status: the job's status in the runtime's words; empty if it is not known.
        streams: all that the server knows of, as judged at `now`.
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

    @property
    def by_name(self) -> dict[tuple[str, str], Stream]:
        """The streams by (site, file)."""
        return {(stream.site, stream.file): stream for stream in self.streams}


def encode_job(job: JobStreams) -> dict[str, Any]:
    """The fields of a reply that are about the job; its id is known to who asks."""
    streams = [encode_stream(stream) for stream in job.streams]
    return {"job_status": job.status, "streams": streams, "now": job.now}


def decode_job(job_id: str, row: Fields) -> JobStreams:
    """The job and its streams in a reply; raises WireError."""
    streams = tuple(decode_stream(job_id, stream) for stream in row.maps("streams", MAX_ROWS))
    return JobStreams(job_id, row.text("job_status"), streams, row.time("now"))


def encode_stream(stream: Stream) -> dict[str, Any]:
    """The record of a stream as it travels, without the job's id and the cursor."""
    record = {name: getattr(stream, name) for name in _TOLD}
    losses = [loss._asdict() for loss in stream.losses]
    return {"site": stream.site, "file": stream.file, **record, "losses": losses}


def decode_stream(job_id: str, row: Fields) -> Stream:
    """The record of a stream of `job_id`, with plain names; what a site said of itself is fit for a terminal.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    end, lines, digest_from = row.numbers(_OFFSETS, MAX_OFFSET)
    opened, last_seen, last_data, closed = row.times(_TIMES)
    agreed, silent = row.flags(_FLAGS)
    return Stream(
        StreamKey(job_id, row.site("site"), row.name("file")),
        end=end,
        lines=lines,
        state=row.word("state", State),
        reason=_words(row, "reason"),
        total=row.number("total", MAX_OFFSET, -1),
        digest=row.text("digest", 64),
        digest_from=digest_from,
        agreed=agreed,
        outcome=_words(row, "outcome"),
        opened=opened,
        last_seen=last_seen,
        last_data=last_data,
        closed=closed,
        utc_offset=row.number("utc_offset", 86400, -86400),
        skew=row.real("skew", -_SECONDS, _SECONDS),
        copy=row.number("copy", MAX_OFFSET, default=0),  # earlier servers do not count copies
        losses=tuple([_loss(loss) for loss in row.maps("losses", MAX_ROWS)]),
        silent=silent,
    )


def _loss(row: Fields) -> Loss:
    length = row.number("length", MAX_OFFSET, default=None)
    return Loss(row.number("offset", MAX_OFFSET), length, _words(row, "reason"))


def _words(row: Fields, name: str) -> str:
    """What a site may have said of itself; it is shown to people, on their terminals."""
    return visible(row.text(name, _MAX_WORDS))
