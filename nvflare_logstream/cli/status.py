"""`nvflare-logstream status`: which logs of a job are on the server, how complete, and how fresh."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvflare_logstream.cli.options import (
    Access,
    FormatOption,
    JobArgument,
    KitIdOption,
    KitOption,
    SchemaOption,
    StudyOption,
    TimeoutOption,
    need,
    say_job,
    seconds,
)
from nvflare_logstream.cli.output import Format, print_envelope, print_json
from nvflare_logstream.client.model import JobStreams, Stream
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.streams import Verdict

if TYPE_CHECKING:
    from rich.console import Group

    from nvflare_logstream.client.client import LogClient

EXAMPLES = (
    "nvflare-logstream status @latest",
    "nvflare-logstream status 8f3c --watch",
    "nvflare-logstream status 8f3c --format json | jq '.data.streams[] | select(.verdict != \"complete\")'",
)
_WIDE = 160  # columns
_STYLES = {
    Verdict.COMPLETE: "green",
    Verdict.STREAMING: "cyan",
    Verdict.REFUSED: "yellow",
    Verdict.NEVER_SEEN: "yellow",
    Verdict.PARTIAL: "red",
    Verdict.LOST: "red",
}


def status(
    job: JobArgument,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh in place until the job and its logs are over.")
    ] = False,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", parser=seconds, help="How often --watch refreshes."),
    ] = 2.0,
    form: FormatOption = Format.TEXT,
    study: StudyOption = "default",
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Show each log of a job: what the server has of it, and whether that is all.

    Lag is the time since the site last sent something or said that there is nothing new. Rate is that of the last refresh with
    --watch, otherwise the average while the log was written.
    """
    need(
        not (watch and form is Format.JSON),
        "--watch with --format json: one envelope cannot be refreshed; use jsonl",
    )
    with Access(study, kit_id, startup_kit, connect_timeout).client() as client:
        job_id = client.find_job(job)
        say_job(job_id, job)
        if form is Format.TEXT:
            _show(client, job_id, interval if watch else None)
        elif form is Format.JSON:
            print_envelope(_data(job_id, *next(_looks(client, job_id, None))))
        else:
            for found, rates in _looks(client, job_id, interval if watch else None):
                end = _finished(found) or not watch
                print_json({"event": "status", "terminal": end, "data": _data(job_id, found, rates)})


def _looks(
    client: LogClient, job: str, interval: float | None
) -> Iterator[tuple[JobStreams, dict[tuple[str, str], float]]]:
    """The job's streams, with their rates in bytes a second; again and again if there is an interval, until all is over."""
    before: JobStreams | None = None
    while True:
        found = client.job(job)
        yield found, {(stream.site, stream.file): _rate(stream, found, before) for stream in found.streams}
        if interval is None or _finished(found):
            return
        before = found
        time.sleep(interval)


def _rate(stream: Stream, now: JobStreams, before: JobStreams | None) -> float:
    start, size = stream.opened, 0
    end = stream.last_data
    for earlier in before.streams if before else ():
        if (earlier.site, earlier.file) == (stream.site, stream.file):
            start, size, end = before.now if before else 0.0, earlier.bytes, now.now
    return max(0, stream.bytes - size) / max(1.0, end - start)  # what came in one go has no rate


def _finished(job: JobStreams) -> bool:
    return job.over and not any(stream.live for stream in job.streams)


def _lag(stream: Stream, found: JobStreams) -> float | None:
    """Seconds since the site last sent something or said that there is nothing; None for a stream that has ended."""
    heard = max(other.last_seen for other in found.streams if other.site == stream.site)
    return max(0.0, found.now - heard) if stream.state == "open" else None


def _data(job: str, found: JobStreams, rates: dict[tuple[str, str], float]) -> dict[str, Any]:
    streams = []
    for stream in found.streams:
        lag = _lag(stream, found)
        entry = {
            **asdict(stream),
            "rate": round(rates[stream.site, stream.file], 1),
            "lag": None if lag is None else round(lag, 3),
        }
        entry["losses"] = [
            {"offset": at, "length": length, "reason": reason} for at, length, reason in stream.losses
        ]
        streams.append(entry)
    return {"job_id": job, "job_status": found.status, "streams": streams}


def _show(client: LogClient, job: str, interval: float | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE  # a file has room for everything
    if interval is None or not console.is_terminal:
        for found, rates in _looks(client, job, interval):
            console.print(_view(job, found, rates))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for found, rates in _looks(client, job, interval):
            live.update(_view(job, found, rates), refresh=True)


def _view(job: str, found: JobStreams, rates: dict[tuple[str, str], float]) -> Group:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"job {job}: {found.status or 'not known'}", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    for name in ("site", "file", "verdict", "bytes", "lines", "rate", "lag", "seen"):
        table.add_column(
            name, justify="right" if name in ("bytes", "lines", "rate", "lag") else "left", no_wrap=True
        )
    notes: dict[str, None] = {}
    site = ""
    for stream in sorted(
        found.streams, key=lambda stream: (stream.site != SERVER_SITE, stream.site, stream.file)
    ):
        verdict = Text(stream.verdict, style=_STYLES.get(Verdict(stream.verdict), ""))
        name, site = (stream.site if stream.site != site else ""), stream.site
        table.add_row(
            Text(name, style="bold"), stream.file, verdict, *_figures(stream, found, rates[site, stream.file])
        )
        if stream.reason:
            notes[f"{site}: {stream.verdict}: {stream.reason}"] = None
    return Group(table, *(Text(note) for note in notes))


def _figures(stream: Stream, found: JobStreams, rate: float) -> tuple[str, ...]:
    if not stream.available:
        return ()
    lag = _lag(stream, found)
    seen = time.strftime("%H:%M:%S", time.localtime(stream.last_seen))
    return (
        f"{stream.bytes:,}",
        f"{stream.lines:,}",
        f"{_amount(rate)}/s",
        "" if lag is None else f"{lag:.1f} s",
        seen,
    )


def _amount(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
