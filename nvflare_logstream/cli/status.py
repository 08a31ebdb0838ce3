"""`nvflare-logstream status`: which logs of a job are on the server, how complete, and how fresh."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvflare_logstream.cli.job_list import (
    STYLES,
    JobsSinceOption,
    LimitOption,
    ListFormat,
    ListFormatOption,
    SitesOption,
    VerdictOption,
    print_csv,
    show_jobs,
    since_when,
    verdicts,
)
from nvflare_logstream.cli.options import (
    Access,
    AnyJobArgument,
    IntervalOption,
    KitIdOption,
    KitOption,
    SchemaOption,
    StudyOption,
    TimeoutOption,
    names,
    need,
    need_refreshable,
    say_job,
)
from nvflare_logstream.cli.output import print_envelope, print_json
from nvflare_logstream.cli.screen import amount, show
from nvflare_logstream.client.freshness import lag, rate
from nvflare_logstream.client.model import JobStreams
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.streams import Stream
from nvflare_logstream.wire.job_list import DEFAULT_JOBS, JobQuestion

if TYPE_CHECKING:
    from rich.console import Group

    from nvflare_logstream.client.client import LogClient

EXAMPLES = (
    "nvflare-logstream status",
    "nvflare-logstream status --since 2d --verdict partial,lost",
    "nvflare-logstream status @latest",
    "nvflare-logstream status 8f3c --watch",
    "nvflare-logstream status 8f3c --format json | jq '.data.streams[] | select(.verdict != \"complete\")'",
)
_COLUMNS = ("site", "file", "verdict", "bytes", "lines", "rate", "lag", "seen")
_NUMBERS = ("bytes", "lines", "rate", "lag")
_CSV = ("site", "file", "verdict", "reason", "bytes", "lines", "opened", "last_seen", "last_data", "outcome")

Refresh = tuple[JobStreams, JobStreams | None]  # the streams as they are, and as they were a refresh before


def status(
    job: AnyJobArgument = None,
    site: SitesOption = None,
    verdict: VerdictOption = None,
    since: JobsSinceOption = None,
    limit: LimitOption = DEFAULT_JOBS,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh in place until the job and its logs are over.")
    ] = False,
    interval: IntervalOption = 2.0,
    form: ListFormatOption = ListFormat.TEXT,
    study: StudyOption = "default",
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Show each log of a job: what the server has of it, and whether that is all. Without a job: all jobs.

    The list of jobs has a line for each, the newest first, with the worst verdict on each site's logs.

    Lag is the time since the site last sent something or said that there is nothing new. Rate is that of the
    last refresh with --watch, otherwise the average while the log was written.
    """
    need_refreshable(watch, form)
    access = Access(study, kit_id, startup_kit, connect_timeout)
    wanted = JobQuestion(names(site), verdicts(verdict), since_when(since), limit)
    if job is None:
        with access.client() as client:
            show_jobs(client, wanted, form, interval if watch else None)
        return
    need(since is None, "--since is about the list of jobs: leave out the job's id")
    with access.client() as client:
        job_id = client.find_job(job)
        say_job(job_id, job)
        refreshes = _refreshes(client, job_id, interval if watch else None, wanted)
        if form is ListFormat.TEXT:
            show((_view(job, before) for job, before in refreshes), watch)
        elif form is ListFormat.JSON:
            print_envelope(_data(*next(refreshes)))
        elif form is ListFormat.CSV:
            entries = _data(*next(refreshes))["streams"]
            print_csv(_CSV, ([entry[name] for name in _CSV] for entry in entries))
        else:
            for present, before in refreshes:
                end = _finished(present) or not watch
                print_json({"event": "status", "terminal": end, "data": _data(present, before)})


def _refreshes(
    client: LogClient, job_id: str, interval: float | None, wanted: JobQuestion
) -> Iterator[Refresh]:
    """The job's streams: once, or every `interval` seconds until the job and its logs are over."""
    before: JobStreams | None = None
    while True:
        job = client.job(job_id)
        job = job._replace(streams=tuple(stream for stream in job.streams if wanted.fits(stream)))
        yield job, before
        if interval is None or _finished(job):
            return
        before = job
        time.sleep(interval)


def _finished(job: JobStreams) -> bool:
    return job.over and not any(stream.live for stream in job.streams)


def _data(job: JobStreams, before: JobStreams | None) -> dict[str, Any]:
    entries = [_entry(stream, job, before) for stream in job.streams]
    return {"job_id": job.job_id, "job_status": job.status, "streams": entries}


def _entry(stream: Stream, job: JobStreams, before: JobStreams | None) -> dict[str, Any]:
    seconds_behind = lag(stream, job)
    losses = [{"offset": loss.offset, "length": loss.length, "reason": loss.reason} for loss in stream.losses]
    return {
        "site": stream.site,
        "file": stream.file,
        "bytes": stream.end,
        "lines": stream.lines,
        "verdict": str(stream.verdict),
        "reason": stream.verdict_reason,
        "state": str(stream.state),
        "live": stream.live,
        "outcome": stream.outcome,
        "digest": stream.digest,
        "digest_from": stream.digest_from,
        "opened": stream.opened,
        "last_seen": stream.last_seen,
        "last_data": stream.last_data,
        "utc_offset": stream.utc_offset,
        "skew": stream.skew,
        "losses": losses,
        "rate": round(rate(stream, job, before), 1),
        "lag": None if seconds_behind is None else round(seconds_behind, 3),
    }


def _view(job: JobStreams, before: JobStreams | None) -> Group:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = f"job {job.job_id}: {job.status or 'not known'}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    notes: dict[str, None] = {}  # in order, each once
    site = ""
    for stream in sorted(job.streams, key=_server_first):
        name, site = (stream.site if stream.site != site else ""), stream.site
        verdict = Text(stream.verdict, style=STYLES[stream.verdict])
        figures = _figures(stream, job, before) if stream.available else ()
        table.add_row(Text(name, style="bold"), stream.file, verdict, *figures)
        if stream.verdict_reason:
            notes[f"{site}: {stream.verdict}: {stream.verdict_reason}"] = None
    return Group(table, *map(Text, notes))


def _server_first(stream: Stream) -> tuple[bool, str, str]:
    return stream.site != SERVER_SITE, stream.site, stream.file


def _figures(stream: Stream, job: JobStreams, before: JobStreams | None) -> tuple[str, ...]:
    seconds_behind = lag(stream, job)
    return (
        f"{stream.end:,}",
        f"{stream.lines:,}",
        f"{amount(rate(stream, job, before))}/s",
        "" if seconds_behind is None else f"{seconds_behind:.1f} s",
        time.strftime("%H:%M:%S", time.localtime(stream.last_seen)),
    )
