"""The server's status for a person: what is wrong first, with what to do, then the figures."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nvflare_logstream.cli.screen import binary_amount, duration
from nvflare_logstream.cli.standing_view import standings
from nvflare_logstream.wire.server_status import Kind, QuotaUse, Refused, ServerStatus

_NEAR = 0.9  # of a quota; from there on a person should know
_RECENT = 3600.0  # seconds for which something that was not taken is called wrong
_SHOWN_PROBLEMS, _SHOWN_ERRORS, _SHOWN_SITES = 8, 5, 10
_BAR = 10  # columns
_FILES = "max_site_files"
_JOB_ID = re.compile(r"^([0-9a-f]{8})-[0-9a-f-]{27}")
_WHOSE = {  # in an answer without names
    "max_store_gib": "all sites",
    "max_site_gib": "the fullest site",
    "max_job_gib": "the largest job",
    "max_stream_gib": "the largest log",
    _FILES: "a site in one job",
}
_ADVICE: dict[str, str] = {
    Kind.UNREADABLE: "is another version of nvflare_logstream installed there? If not, distrust the site.",
    Kind.BAD_NAME: "such a name cannot be stored: the site needs another one.",
    Kind.TOO_MUCH: "it comes again by itself; if it never ends, something is wrong at that site.",
    Kind.NOT_ADMITTED: "it sends logs of jobs that it takes no part in, or that are gone.",
    Kind.OVER_QUOTA: "delete jobs that nobody needs, or raise the limit in the server's resources.json.",
    Kind.ENDED: "it sends logs that were removed or closed here; nothing is to be done.",
    Kind.NOT_STORED: "the disk did not take it; the site comes again. Is there room?",
    Kind.NOT_KEPT: "the store's disk or index fails: look at the server's log.",
}


def view(status: ServerStatus) -> RenderableType:
    """What is shown of the server's status."""
    protocols = f"upload protocol {status.upload_protocol}, query protocol {status.query_protocol}"
    title = Text.assemble(
        ("log receiver", "bold"), f" {status.package} on nvflare {status.runtime}, up {duration(status.up)}"
    )
    problems = [Text(f"✗ {problem}", style="red") for problem in islice(_problems(status), _SHOWN_PROBLEMS)]
    parts: list[RenderableType] = [title, *(problems or [Text("✓ nothing is wrong", style="green")]), Text()]
    parts += [_facts(status, protocols), Text(), _quotas(status)]
    for rows, table in (
        (status.standings, standings),
        (status.sites, _sites),
        (_of_messages(status.senders), _senders),
        (status.errors, _errors),
    ):
        if rows:
            parts += [Text(), table(status)]
    if not status.named:
        parts += [Text(), Text("Sites, jobs and errors are shown to project admins only.")]
    return Group(*parts)


def _problems(status: ServerStatus) -> Iterator[str]:
    disk = status.disk
    if disk.size and disk.free <= disk.kept:
        yield (
            f"The sites wait: {binary_amount(disk.free)} of the disk are free, and "
            f"{binary_amount(disk.kept)} have to stay free. Make room{_in(disk.directory)} or lower "
            "min_free_percent."
        )
    for quota in status.quotas:
        if quota.share >= _NEAR:
            yield (
                f"{quota.share:.0%} of {quota.argument} are used by {_whose(quota)}: delete jobs that nobody "
                "needs, or raise it in the server's resources.json."
            )
    if stopped := status.streams.stopped:
        logs = "1 log was stopped and is" if stopped == 1 else f"{stopped:,} logs were stopped and are"
        yield f"{logs} not whole, for a limit as a rule: `nvflare-logstream status` of the job says why."
    for row in status.senders or status.refused:
        ago = max(0.0, status.now - row.last)
        if ago < _RECENT:
            what = f"{_messages(row.messages)}{_from(status, row)} refused ({row.kind})"
            if row.kind == Kind.NOT_KEPT:
                what = f"The work on the store failed ({row.messages:,} times)"
            yield f"{what}, the last {duration(ago)} ago: {_ADVICE.get(row.kind, '')}"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _from(status: ServerStatus, row: Refused) -> str:
    return f" of {_site(row.site)}" if status.named else ""


def _facts(status: ServerStatus, protocols: str) -> Table:
    streams, disk = status.streams, status.disk
    silent = f" ({streams.silent:,} silent)" if streams.silent else ""
    logs = f"{streams.open:,} open{silent}, {streams.closed:,} closed"
    logs += f", {streams.refused:,} kept back by their sites" if streams.refused else ""
    logs += f", {streams.stopped:,} stopped" if streams.stopped else ""
    logs += f", {streams.unchecked:,} by the runtime's own streamer, not checked" if streams.unchecked else ""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("logs", logs)
    table.add_row(
        "incoming",
        f"{binary_amount(status.byte_rate)}/s in {status.request_rate:.1f} requests/s; "
        f"{status.requests:,} requests since the start",
    )
    table.add_row("refused", _refused(status))
    stored = f"{binary_amount(disk.stored)} of logs{_in(disk.directory)}"
    room = f"; {binary_amount(disk.free)} of {binary_amount(disk.size)} free" if disk.size else ""
    table.add_row("disk", stored + room + (f", {binary_amount(disk.kept)} stay free" if disk.kept else ""))
    table.add_row("speaks", protocols)
    return table


def _refused(status: ServerStatus) -> str:
    rows = _of_messages(status.refused)
    kinds = ", ".join(f"{row.messages:,} {row.kind}" for row in rows)
    return _messages(sum(row.messages for row in rows)) + (f": {kinds}" if kinds else "")


def _of_messages(rows: Iterable[Refused]) -> list[Refused]:
    """Without what failed at the server itself."""
    return [row for row in rows if row.kind != Kind.NOT_KEPT]


def _table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """A table whose last column takes the room that is left."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=name != columns[-1])
    return table


def _last(text: str) -> Text:
    """What stands in the last column: in one line, cut where the room ends."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _quotas(status: ServerStatus) -> Table:
    table = _table("limit", "used", "of", "", "by", numbers=("used", "of"))
    for quota in status.quotas:
        sizes = (quota.used, quota.most)
        used, most = (f"{size:,}" if quota.argument == _FILES else binary_amount(size) for size in sizes)
        bar = Text(
            "█" * min(_BAR, round(_BAR * quota.share)), style="red" if quota.share >= _NEAR else "green"
        )
        share = Text.assemble(f"{quota.share:4.0%} ", bar)
        table.add_row(quota.argument, used, most, share, _last(_whose(quota)))
    return table


def _whose(quota: QuotaUse) -> str:
    """Who has used most of it; of a job's id the beginning, which every command takes."""
    return _JOB_ID.sub(r"\1", quota.whose) or _WHOSE.get(quota.argument, "")


def _sites(status: ServerStatus) -> Table:
    table = _table("site", "stored", "incoming", "requests", numbers=("stored", "incoming", "requests"))
    for site in status.sites[:_SHOWN_SITES]:
        incoming = f"{binary_amount(site.rate)}/s" if site.requests else ""
        table.add_row(_site(site.site), binary_amount(site.stored), incoming, f"{site.requests:,}")
    return table


def _senders(status: ServerStatus) -> Table:
    table = _table("refused", "messages", "last", "of", numbers=("messages",))
    for row in _of_messages(status.senders)[:_SHOWN_SITES]:
        table.add_row(row.kind, f"{row.messages:,}", _clock(row.last), _site(row.site))
    return table


def _errors(status: ServerStatus) -> Table:
    table = _table("last errors", "of", "kind", "why")
    for problem in status.errors[:_SHOWN_ERRORS]:
        table.add_row(_clock(problem.at), _site(problem.site), problem.kind, _last(problem.text))
    return table


def _site(site: str) -> str:
    return site or "(others)"


def _in(directory: str) -> str:
    return f" in {directory}" if directory else ""


def _clock(at: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at))
