"""How each site stands, for a person: a table with the silent sites first."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nvflare_logstream.cli.screen import duration
from nvflare_logstream.wire.server_status import ServerStatus
from nvflare_logstream.wire.standing import Standing

_SHOWN = 20
_COLUMNS = ("site", "last heard", "logstream", "protocol", "nvflare", "logs")


def standings(status: ServerStatus) -> RenderableType:
    """When each site was heard of last, what it runs, and what is the matter with it."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name != "logs")
    for row in status.standings[:_SHOWN]:
        heard = f"{duration(max(0.0, status.now - row.heard))} ago" if row.heard else "never"
        versions = (row.package, str(row.protocol or ""), row.runtime)
        table.add_row(row.site, heard, *(text or "?" for text in versions), _logs(row))
    notes = []
    if more := status.standings[_SHOWN:]:
        notes.append(Text(f"and {len(more):,} more sites"))
    if any(row.heard and not (row.package or row.stock) for row in status.standings):
        why = f"not told since the receiver started {duration(status.up)} ago, or a release up to 0.1.0"
        notes.append(Text(f"?: {why}"))
    return Group(table, *notes)


def _logs(row: Standing) -> Text:
    stock = ", by the runtime's own streamer" if row.stock else ""
    if row.silent:
        return Text(f"{row.silent:,} of {row.open:,} open are silent{stock}", style="red")
    away = stock + ("" if row.connected else ", not connected")
    if row.open:
        return Text(f"{row.open:,} open{away}", style="yellow" if away else "green")
    if not row.heard:
        return Text("never sent any", style="yellow")
    return Text(f"none open{away}", style="yellow" if stock else "")
