"""`nvflare-logstream status`: which logs of a job are on the server, how complete, and how fresh."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.job_list import (
    DEFAULT_JOBS,
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
    NoPagerOption,
    SchemaOption,
    StudyOption,
    TimeoutOption,
    need,
    need_refreshable,
    say_job,
    site_names,
)
from nvflare_logstream.cli.output import notice, print_envelope, print_json
from nvflare_logstream.errors import ErrorCode, RetrievalError

if TYPE_CHECKING:
    from nvflare_logstream.client.client import LogClient
    from nvflare_logstream.client.model import JobStreams
    from nvflare_logstream.streams import Stream
    from nvflare_logstream.wire.job_list import JobQuestion

EXAMPLES = (
    "nvflare-logstream status",
    "nvflare-logstream status --since 2d --verdict partial,lost",
    "nvflare-logstream status @latest",
    "nvflare-logstream status 8f3c --watch",
    "nvflare-logstream status 8f3c --format json | jq '.data.streams[] | select(.verdict != \"complete\")'",
)
_CSV = ("site", "file", "verdict", "reason", "bytes", "lines", "opened", "last_seen", "last_data", "outcome")

Refresh = tuple[
    "JobStreams", "JobStreams | None"
]  # the streams as they are, and as they were a refresh before


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
    no_pager: NoPagerOption = False,
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
    from nvflare_logstream.wire.job_list import JobQuestion

    wanted = JobQuestion(site_names(site), verdicts(verdict), since_when(since), limit)
    if job is None:
        with access.client() as client, terminal.paged(form is ListFormat.TEXT and not (watch or no_pager)):
            show_jobs(client, wanted, form, interval if watch else None)
        return
    need(since is None, "--since is about the list of jobs: leave out the job's id")
    with access.client() as client:
        job_id = client.find_job(job)
        say_job(job_id, job)
        refreshes = _refreshes(client, job_id, interval if watch else None, wanted)
        if form is ListFormat.TEXT:
            from nvflare_logstream.cli.screen import show
            from nvflare_logstream.cli.status_view import view

            with terminal.paged(not (watch or no_pager)):
                show((view(*refresh) for refresh in refreshes), watch)
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
        if before is None and wanted.sites and job.streams:
            _check_sites(job, wanted.sites)
        job = job._replace(streams=tuple(stream for stream in job.streams if wanted.fits(stream)))
        yield job, before
        if interval is None or _finished(job):
            return
        before = job
        time.sleep(interval)


def _finished(job: JobStreams) -> bool:
    return job.over and not any(stream.live for stream in job.streams)


def _check_sites(job: JobStreams, sites: tuple[str, ...]) -> None:
    """Tell of names that are of no site of the job; raises RetrievalError where all are such."""
    from nvflare_logstream.client.query import LogQuery

    unmatched = LogQuery(sites).unmatched(job.streams)
    if len(unmatched) == len(sites):
        text = "; ".join(f"{name}: {reason}" for name, reason in unmatched.items())
        raise RetrievalError(ErrorCode.LOG_NOT_FOUND, text)
    for name, reason in unmatched.items():
        notice(f"{name}: {reason}")


def _data(job: JobStreams, before: JobStreams | None) -> dict[str, Any]:
    entries = [_entry(stream, job, before) for stream in job.streams]
    return {"job_id": job.job_id, "job_status": job.status, "streams": entries}


def _entry(stream: Stream, job: JobStreams, before: JobStreams | None) -> dict[str, Any]:
    from nvflare_logstream.client.freshness import lag, rate

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
