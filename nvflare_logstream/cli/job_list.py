"""`nvflare-logstream status` without a job: the jobs with their sites' verdicts, newest first."""

from __future__ import annotations

import csv
import datetime
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvflare_logstream import typed_time
from nvflare_logstream.cli.options import completed
from nvflare_logstream.cli.output import notice, print_envelope, print_json
from nvflare_logstream.streams import Verdict, local_time
from nvflare_logstream.wire.job_list import MAX_JOBS, JobList, JobQuestion, ListedJob, SiteVerdict
from nvflare_logstream.words import Word

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from nvflare_logstream.client.client import LogClient

STYLES = {
    Verdict.COMPLETE: "green",
    Verdict.STREAMING: "cyan",
    Verdict.REFUSED: "yellow",
    Verdict.NEVER_SEEN: "yellow",
    Verdict.PARTIAL: "red",
    Verdict.LOST: "red",
}
_COLUMNS = ("job_id", "name", "job_status", "submitted", "last_seen", "site", "verdict", "bytes")
_SHORT = 8  # characters of an id that are shown at least
_LEAST = ("name", "submitted", "status")  # the columns to leave out where there is no room, in this order
_LOGS = 32  # characters that the verdicts have at least
_NAMED = 3  # sites with one verdict that are named; of more, their number is


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
        from nvflare_logstream.cli.screen import show

        show(map(_View, looks), interval is not None)
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
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    sys.stdout.flush()


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
    for site in job.sites or (SiteVerdict("", Verdict.NEVER_SEEN, 0),):
        yield (*of_job, site.site, str(site.verdict) if site.site else "", site.size if site.site else "")


class _View:
    """The list as a table; on a narrow terminal without the columns that matter least."""

    def __init__(self, jobs: JobList):
        length = _telling([job.job_id for job in jobs.jobs])
        self._jobs = jobs.jobs
        self._columns = {
            "job": [job.job_id[:length] for job in jobs.jobs],
            "submitted": [local_time(job.submitted)[:16] if job.submitted else "" for job in jobs.jobs],
            "status": [job.status.removeprefix("FINISHED:") for job in jobs.jobs],
            "name": [job.name for job in jobs.jobs],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        if not self._jobs:
            yield "no jobs"
            return
        columns = dict(self._columns)
        widths = {name: max(map(cell_len, (name, *cells))) for name, cells in columns.items()}
        for name in _LEAST:
            if sum(widths[name] + 2 for name in columns) + _LOGS > options.max_width:
                del columns[name]
        table = Table(box=box.SIMPLE_HEAD)
        table.pad_edge, table.padding = False, (0, 1, 0, 0)
        for name in columns:
            table.add_column(name, no_wrap=True)
        table.add_column("logs", overflow="fold")
        for job, *cells in zip(self._jobs, *columns.values(), strict=True):
            logs = Text(", ").join(_groups(job.sites)) if job.sites else Text("no logs", style="dim")
            table.add_row(*map(Text, cells), logs)
        yield table


def _telling(job_ids: Sequence[str]) -> int:
    """How many characters tell these ids apart."""
    longest = max(map(len, job_ids), default=0)
    return next(
        (length for length in range(_SHORT, longest) if len({i[:length] for i in job_ids}) == len(job_ids)),
        longest,
    )


def _groups(sites: Sequence[SiteVerdict]) -> Iterator[Any]:
    """Each verdict with its sites, the bad ones first."""
    from rich.text import Text

    for verdict in reversed(STYLES):
        names = [site.site for site in sites if site.verdict is verdict]
        if names:
            whose = f"{len(names)} sites" if len(names) > _NAMED else " ".join(names)
            yield Text(f"{verdict}: ", style=STYLES[verdict]) + Text(whose, style="default")
