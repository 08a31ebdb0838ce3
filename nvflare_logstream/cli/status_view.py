"""The streams of a job for a person: a table that has what matters most on the narrowest screen."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from nvflare_logstream.cli.screen import amount
from nvflare_logstream.client.freshness import lag, rate
from nvflare_logstream.client.model import JobStreams
from nvflare_logstream.lines import in_one_line
from nvflare_logstream.names import server_first
from nvflare_logstream.streams import Stream, Verdict

_COLUMNS = ("site", "file", "verdict", "bytes", "lines", "rate", "lag", "seen")
_NUMBERS = ("bytes", "lines", "rate", "lag")
_LEFT_OUT = ("rate", "seen", "lines", "lag", "bytes")  # where there is no room for all, in this order
_NAMES = ("site", "file")  # these fold where even that is not enough
STYLES = {
    Verdict.COMPLETE: "green",
    Verdict.STREAMING: "cyan",
    Verdict.REFUSED: "yellow",
    Verdict.NEVER_SEEN: "yellow",
    Verdict.PARTIAL: "red",
    Verdict.LOST: "red",
}


def view(job: JobStreams, before: JobStreams | None) -> Group:
    """What is shown of a job's streams; `before` is how they were a refresh earlier."""
    notes: dict[str, None] = {}  # in order, each once
    rows, site = [], ""
    for stream in sorted(job.streams, key=lambda stream: (server_first(stream.site), stream.file)):
        name, site = (stream.site if stream.site != site else ""), stream.site
        figures = _figures(stream, job, before) if stream.available else {}
        cells = {"site": Text(in_one_line(name), style="bold"), "file": Text(in_one_line(stream.file))}
        verdict = Text(stream.verdict, style=STYLES[stream.verdict])
        rows.append({**cells, "verdict": verdict, **figures})
        if stream.verdict_reason:
            notes[in_one_line(f"{site}: {stream.verdict}: {stream.verdict_reason}")] = None
    title = Text(in_one_line(f"job {job.job_id}: {job.status or 'not known'}"), style="italic")
    return Group(title, _Fitting(rows) if rows else Text("no log to show"), *map(Text, notes))


@dataclass(frozen=True)
class _Fitting:
    """A table without the columns that the screen has no room for."""

    rows: list[dict[str, Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        endless = options.update(width=100_000)
        columns: tuple[str, ...] = _COLUMNS
        for name in _LEFT_OUT:
            if console.measure(self._table(columns), options=endless).maximum <= options.max_width:
                break
            columns = tuple(column for column in columns if column != name)
        yield self._table(columns)

    def _table(self, columns: tuple[str, ...]) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        table.pad_edge, table.padding = False, (0, 1, 0, 0)
        for name in columns:
            side = "right" if name in _NUMBERS else "left"
            table.add_column(name, justify=side, no_wrap=name not in _NAMES, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*(row.get(name, "") for name in columns))
        return table


def _figures(stream: Stream, job: JobStreams, before: JobStreams | None) -> dict[str, Text]:
    seconds_behind = lag(stream, job)
    figures = {
        "bytes": f"{stream.end:,}",
        "lines": f"{stream.lines:,}",
        "rate": f"{amount(rate(stream, job, before))}/s",
        "lag": "" if seconds_behind is None else f"{seconds_behind:.1f} s",
        "seen": time.strftime("%H:%M:%S", time.localtime(stream.last_seen)),
    }
    return {name: Text(figure) for name, figure in figures.items()}
