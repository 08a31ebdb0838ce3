"""Which jobs have which logs: a question that is about no single job, and its answer.

The answer is bounded, in jobs and in sites of all jobs together, and says where it was cut.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nvflare_logstream.lines import in_one_line
from nvflare_logstream.names import fits
from nvflare_logstream.streams import Stream, Verdict
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import MAX_OFFSET
from nvflare_logstream.wire.query_reply import ErrorReply, open_reply
from nvflare_logstream.wire.query_values import check_version, message

MAX_JOBS = 1000
MAX_SITES = 20_000  # of all jobs in one answer
DEFAULT_JOBS = 50
_MAX_PATTERNS = 100
_MAX_PATTERN = 256  # characters


class JobQuestion(NamedTuple):
    """Which jobs are asked for.

    Attributes:
        sites: names or patterns; only jobs that have one, and of these only the sites that fit; empty: all.
        verdicts: only jobs with one of these verdicts on a log, and likewise; empty: all.
        since: only jobs that were submitted or heard of then or later, in seconds since the epoch.
        limit: at most so many jobs, the newest.
    """

    sites: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    since: float = 0.0
    limit: int = DEFAULT_JOBS

    def fits(self, stream: Stream) -> bool:
        """Whether a log's site and the verdict on it were asked for."""
        is_site = not self.sites or any(fits(stream.site, entry) for entry in self.sites)
        return is_site and (not self.verdicts or stream.verdict in self.verdicts)


class SiteVerdict(NamedTuple):
    """The logs of a site in a job: the worst verdict on one, and how many bytes are stored of all."""

    site: str
    verdict: Verdict
    size: int


class ListedJob(NamedTuple):
    """A job in the list.

    Attributes:
        job_id, name: its id, and the name that its author gave it.
        status: in the runtime's words; empty if it is not known.
        submitted, last_seen: seconds since the epoch; 0 where it is not known, and before it was heard of.
        sites: the server's first.
    """

    job_id: str
    name: str = ""
    status: str = ""
    submitted: float = 0.0
    last_seen: float = 0.0
    sites: tuple[SiteVerdict, ...] = ()


class JobList(NamedTuple):
    """The jobs, newest first, at `now` (seconds since the epoch).

    `more`: there may be more that fit, older ones; the answer was bounded.
    """

    jobs: tuple[ListedJob, ...]
    more: bool = False
    now: float = 0.0


def encode_question(question: JobQuestion) -> dict[str, Any]:
    """The question as it travels."""
    values = question._asdict()
    return message(
        **{name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    )


def decode_question(value: object) -> JobQuestion:
    """The question as it came to the server.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    row = Fields(value)
    check_version(row)
    sites = row.rows("sites", _MAX_PATTERNS)
    if not all(isinstance(site, str) and 0 < len(site) <= _MAX_PATTERN for site in sites):
        raise row.bad("sites", sites, f"names or patterns of at most {_MAX_PATTERN} characters")
    verdicts = row.rows("verdicts", len(Verdict))
    if not all(verdict in list(Verdict) for verdict in verdicts):
        raise row.bad("verdicts", verdicts, f"some of {', '.join(Verdict)}")
    since = row.time("since", default=0.0)
    limit = row.number("limit", MAX_JOBS, 1, default=DEFAULT_JOBS)
    return JobQuestion(tuple(sites), tuple(map(Verdict, verdicts)), since, limit)


def encode_jobs(jobs: JobList) -> dict[str, Any]:
    """The answer as it travels."""
    rows = [{**job._asdict(), "sites": [site._asdict() for site in job.sites]} for job in jobs.jobs]
    return message(jobs=rows, more=jobs.more, now=jobs.now)


def decode_jobs(value: object) -> JobList | ErrorReply:
    """The answer as it came to the reader; every text in it can be shown on a terminal, in one line.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    row = open_reply(value)
    if isinstance(row, ErrorReply):
        return row
    return JobList(tuple(map(_job, row.maps("jobs", MAX_JOBS))), row.flag("more"), row.time("now"))


def _job(row: Fields) -> ListedJob:
    sites = tuple(
        SiteVerdict(site.site("site"), site.word("verdict", Verdict), site.number("size", MAX_OFFSET))
        for site in row.maps("sites", MAX_SITES)
    )
    name, status = in_one_line(row.text("name", default="")), in_one_line(row.text("status", default=""))
    submitted, last_seen = row.time("submitted", default=0.0), row.time("last_seen", default=0.0)
    return ListedJob(row.name("job_id"), name, status, submitted, last_seen, sites)
