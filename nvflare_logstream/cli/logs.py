"""`nvflare-logstream logs`: read, search and follow the logs of a job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nvflare_logstream.cli.log_task import DEFAULT_TAIL, LogTask
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
    whole_number,
)
from nvflare_logstream.cli.output import Format
from nvflare_logstream.cli.printers import Collector, Colour, EventPrinter, FilePrinter, Printer, TerminalPrinter
from nvflare_logstream.retrieval.model import ALL_SITES, LogQuery

_LEVELS = "DEBUG, INFO, WARNING, ERROR or CRITICAL"
_WHICH, _WHAT, _HOW = "Which logs", "Which lines", "How they are shown"
EXAMPLES = (
    "nvflare-logstream logs @latest --site all --follow",
    "nvflare-logstream logs 8f3c --site 'site-*' --level WARNING --since 1h",
    "nvflare-logstream logs 8f3c --site site-1 --file error_log.txt --tail 50",
    "nvflare-logstream logs 8f3c --site all --merge --grep 'CUDA|out of memory' --context 2",
    "nvflare-logstream logs 8f3c --site all --format json | jq .data.sites",
)


def logs(
    job: JobArgument,
    site: Annotated[
        list[str] | None,
        typer.Option(
            "--site",
            "--sites",
            metavar="NAME",
            help="A site, a pattern, server, or all; repeatable. Default: server.",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    file: Annotated[
        str,
        typer.Option(
            "--file", metavar="NAME", help="log.txt, error_log.txt or another log that the site streams.", rich_help_panel=_WHICH
        ),
    ] = "log.txt",
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="From this time on: 2026-04-28T10:00:00 by the log's own clock, with Z or +02:00 by that zone; or 1h30m ago.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Up to this time.", rich_help_panel=_WHAT)] = None,
    level: Annotated[
        str | None, typer.Option("--level", metavar="LEVEL", help=f"At least this level: {_LEVELS}.", rich_help_panel=_WHAT)
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option("--grep", "-g", metavar="PATTERN", help="Lines that match, in RE2 syntax.", rich_help_panel=_WHAT),
    ] = None,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", "-i", help="Match capitals and small letters alike.", rich_help_panel=_WHAT)
    ] = False,
    invert: Annotated[bool, typer.Option("--invert", help="Lines that do not match.", rich_help_panel=_WHAT)] = False,
    before: Annotated[
        int,
        typer.Option(
            "--before", "-B", metavar="N", parser=whole_number, help="N more lines before each match.", rich_help_panel=_WHAT
        ),
    ] = 0,
    after: Annotated[
        int,
        typer.Option(
            "--after", "-A", metavar="N", parser=whole_number, help="N more lines after each match.", rich_help_panel=_WHAT
        ),
    ] = 0,
    context: Annotated[
        int,
        typer.Option(
            "--context", "-C", metavar="N", parser=whole_number, help="N more lines around each match.", rich_help_panel=_WHAT
        ),
    ] = 0,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            "-n",
            metavar="N",
            parser=whole_number,
            help=f"The last N lines of each site. Default: {DEFAULT_TAIL}, unless another bound is given or with --follow.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-bytes", metavar="N", parser=whole_number, help="The last N bytes of each site.", rich_help_panel=_WHAT
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as the logs grow, until the job and its logs end.", rich_help_panel=_HOW)
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="All sites in one stream, ordered by corrected time.", rich_help_panel=_HOW)
    ] = False,
    prefix: Annotated[
        bool | None,
        typer.Option("--prefix/--no-prefix", help="The site's name before each line.", show_default=False, rich_help_panel=_HOW),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", file_okay=False, help="Write one file a site instead.", rich_help_panel=_HOW
        ),
    ] = None,
    color: Annotated[Colour, typer.Option("--color", help="Colours.", rich_help_panel=_HOW)] = Colour.AUTO,
    form: FormatOption = Format.TEXT,
    study: StudyOption = "default",
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Read, search and follow the logs of a job, while it runs and after it.

    The server sends what the options ask for and no more: --tail 10 of a huge log is as quick as of a small one. The bounds
    apply in this order: since and until, level, grep, tail, max-bytes.

    With --follow the exit code is 0 only if the job ended well.
    """
    access = Access(study, kit_id, startup_kit, connect_timeout)
    need(
        not (follow and form is Format.JSON), "--follow with --format json: it has no end that one envelope could hold; use jsonl"
    )
    need(not (merge and output), "--merge makes one stream, --output one file a site; use one of them")
    need(not (merge and form is Format.JSON), "--merge with --format json: the envelope has each site's text; use text or jsonl")
    need(not (output and form is Format.JSONL), "--output with --format jsonl: it writes files; use text or json")
    how = ignore_case or invert or before or after or context
    need(
        grep is not None or not how, "--ignore-case, --invert, --before, --after and --context say how --grep matches; add --grep"
    )
    bounded = any(bound is not None for bound in (tail, since, max_bytes))
    default_tail = not (bounded or until or follow)
    query = LogQuery(
        sites=tuple(site or ("server",)), file=file, since=since, until=until, level=level.upper() if level else None,
        grep=grep, ignore_case=ignore_case, invert=invert, before=max(before, context), after=max(after, context),
        tail=DEFAULT_TAIL if default_tail else tail, max_bytes=max_bytes,
    )  # fmt: skip
    many = len(query.sites) > 1 or any(character in query.sites[0] for character in "*?[") or query.sites[0] == ALL_SITES
    printer: Printer
    if output:
        printer = FilePrinter(output)
    elif form is Format.TEXT:
        named = prefix if prefix is not None else many and (follow or merge)
        headers = many and not (named or merge or follow)
        printer = TerminalPrinter(prefix=named, merged=merge and follow, headers=headers, colour=color.wanted(sys.stdout))
    else:
        printer = Collector() if form is Format.JSON else EventPrinter()
    with access.client() as client:
        job_id = client.find_job(job)
        say_job(job_id, job)
        task = LogTask(client, job_id, query, printer, form, default_tail)
        raise typer.Exit(task.follow() if follow else task.read(merge))
