"""The list of jobs for a person: a line each, with what is bad first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from nvflare_logstream.cli.status_view import STYLES
from nvflare_logstream.streams import local_time
from nvflare_logstream.wire.job_list import JobList, SiteVerdict

_SHORT = 8  # characters of an id that are shown at least
_LEAST = ("name", "submitted", "status")  # the columns to leave out where there is no room, in this order
_LOGS = 32  # characters that the verdicts have at least
_NAMED = 3  # sites with one verdict that are named; of more, their number is


class JobTable:
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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
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


def _groups(sites: Sequence[SiteVerdict]) -> Iterator[Text]:
    """Each verdict with its sites, the bad ones first."""
    for verdict in reversed(STYLES):
        names = [site.site for site in sites if site.verdict is verdict]
        if names:
            whose = f"{len(names)} sites" if len(names) > _NAMED else " ".join(names)
            yield Text(f"{verdict}: ", style=STYLES[verdict]) + Text(whose, style="default")
