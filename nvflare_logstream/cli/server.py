"""`nvflare-logstream server`: how the server's receiver of job logs is doing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvflare_logstream.cli.options import (
    Access,
    FormatOption,
    IntervalOption,
    KitIdOption,
    KitOption,
    SchemaOption,
    TimeoutOption,
    need_refreshable,
)
from nvflare_logstream.cli.output import Format, print_envelope, print_json

if TYPE_CHECKING:
    from nvflare_logstream.client.client import LogClient
    from nvflare_logstream.wire.server_status import ServerStatus

EXAMPLES = (
    "nvflare-logstream server",
    "nvflare-logstream server --watch",
    "nvflare-logstream server --format json | jq '.data.quotas[] | select(.used > 0.9 * .most)'",
)


def server(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh in place until interrupted.")] = False,
    interval: IntervalOption = 2.0,
    form: FormatOption = Format.TEXT,
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Show how the server's receiver of job logs is doing: what is wrong, what comes in, how full it is.

    Whoever may view the server's status sees the totals. Names of sites, jobs and directories, and the last
    errors, are for project admins only. Rates are those of the last 10 to 20 seconds.
    """
    need_refreshable(watch, form)
    with Access("default", kit_id, startup_kit, connect_timeout).client() as client:
        looks = _looks(client, interval if watch else None)
        if form is Format.TEXT:
            from nvflare_logstream.cli.screen import show
            from nvflare_logstream.cli.server_view import view

            show(map(view, looks), watch)
        elif form is Format.JSON:
            print_envelope(_data(next(looks)))
        else:
            for status in looks:
                print_json({"event": "server", "terminal": not watch, "data": _data(status)})


def _looks(client: LogClient, interval: float | None) -> Iterator[ServerStatus]:
    """The status: once, or every `interval` seconds."""
    while True:
        yield client.server_status()
        if interval is None:
            return
        time.sleep(interval)


def _data(status: ServerStatus) -> dict[str, Any]:
    data = status.as_json()
    for name in ("up", "request_rate", "byte_rate"):
        data[name] = round(data[name], 3)
    return data
