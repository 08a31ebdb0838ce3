"""`nvflare-logstream status` without a job: the jobs with their sites' verdicts, newest first."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvflare_logstream import typed_time
from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.options import completed
from nvflare_logstream.cli.output import notice, print_envelope, print_json
from nvflare_logstream.streams import Verdict
from nvflare_logstream.words import Word

if TYPE_CHECKING:
    from nvflare_logstream.client.client import LogClient
    from nvflare_logstream.wire.job_list import JobList, JobQuestion, ListedJob

MAX_JOBS, DEFAULT_JOBS = 1000, 50  # as the server has it; what says so takes long to load
_COLUMNS = ("job_id", "name", "job_status", "submitted", "last_seen", "site", "verdict", "bytes")


class ListFormat(Word):
    """How `status` answers."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


SitesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        metavar="NAME",
        autocompletion=completed("sites"),
        help="Only these sites: names or patterns, with commas between.",
    ),
]
VerdictOption = Annotated[
    list[str] | None,
    typer.Option(
        "--verdict",
        metavar="VERDICT",
        autocompletion=lambda: [verdict.replace(" ", "-") for verdict in Verdict],
        help=f"Only logs with such a verdict: {', '.join(v.replace(' ', '-') for v in Verdict)}.",
    ),
]
JobsSinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only jobs submitted or heard of since, by your own clock."),
]
LimitOption = Annotated[
    int,
    typer.Option("--limit", metavar="N", min=1, max=MAX_JOBS, help="At most so many jobs, the newest."),
]
ListFormatOption = Annotated[
    ListFormat, typer.Option("--format", help="text for people, json, jsonl or csv for programs.")
]


def verdicts(typed: Sequence[str] | None) -> tuple[Verdict, ...]:
    """Read the values of --verdict, each one verdict or several with commas between.

    Raises:
        typer.BadParameter: naming what is none.
    """
    words = [word.strip().lower() for words in typed or () for word in words.split(",")]
    found = []
    for word in words:
        try:
            found.append(Verdict(word.replace("-", " ").replace("_", " ")))
        except ValueError:
            allowed = ", ".join(verdict.replace(" ", "-") for verdict in Verdict)
            raise typer.BadParameter(f"--verdict: {word!r} is not allowed; some of {allowed}") from None
    return tuple(found)


def since_when(typed: str | None) -> float:
    """Read the value of --since for jobs, by the reader's own clock; in seconds since the epoch.

    Raises:
        ArgumentError: if it is no time.
    """
    if typed is None:
        return 0.0
    here = datetime.datetime.now().astimezone().utcoffset() or datetime.timedelta()
    by_the_clock = typed_time.parse_since("since", typed, utc_offset=int(here.total_seconds()))
    return max(0.0, (by_the_clock - here).replace(tzinfo=datetime.timezone.utc).timestamp())


def show_jobs(client: LogClient, question: JobQuestion, form: ListFormat, interval: float | None) -> None:
    """Print the list once, or with an `interval` (seconds) again and again until interrupted."""
    looks = _looks(client, question, interval)
    if form is ListFormat.TEXT:
        from nvflare_logstream.cli.job_list_view import JobTable
        from nvflare_logstream.cli.screen import show

        show(map(JobTable, looks), interval is not None)
        return
    for jobs in looks:
        if form is ListFormat.CSV:
            print_csv(_COLUMNS, (row for job in jobs.jobs for row in _rows(job)))
        elif form is ListFormat.JSON:
            print_envelope({"jobs": [_data(job) for job in jobs.jobs], "more": jobs.more})
        else:
            for job in jobs.jobs:
                print_json({"event": "job", "terminal": False, "data": _data(job)})
            end = {"event": "jobs", "terminal": interval is None}
            print_json({**end, "data": {"count": len(jobs.jobs), "more": jobs.more}})


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table as CSV, with its columns' names first."""
    import csv

    writer = csv.writer(terminal.out(), lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    terminal.out().flush()


def _looks(client: LogClient, question: JobQuestion, interval: float | None) -> Iterator[JobList]:
    while True:
        jobs = client.jobs(question)
        yield jobs
        if interval is None:
            if jobs.more:
                notice(f"(the newest {len(jobs.jobs)} jobs; --limit N shows more)")
            return
        time.sleep(interval)


def _data(job: ListedJob) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "name": job.name,
        "job_status": job.status,
        "submitted": job.submitted,
        "last_seen": job.last_seen,
        "sites": [{"site": s.site, "verdict": str(s.verdict), "bytes": s.size} for s in job.sites],
    }


def _rows(job: ListedJob) -> Iterator[Sequence[Any]]:
    of_job = (job.job_id, job.name, job.status, job.submitted, job.last_seen)
    if not job.sites:
        yield (*of_job, "", "", "")
    for site in job.sites:
        yield (*of_job, site.site, str(site.verdict), site.size)
