"""`nvflare-logstream logs`: read, search and follow the logs of a job."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from nvflare_logstream.cli.log_options import (
    DEFAULT_TAIL,
    AfterOption,
    BeforeOption,
    ColorOption,
    ContextOption,
    FileOption,
    FollowOption,
    GrepOption,
    IgnoreCaseOption,
    InvertOption,
    LevelOption,
    MaxBytesOption,
    MergeOption,
    OutputOption,
    PrefixOption,
    SinceOption,
    SiteOption,
    TailOption,
    UntilOption,
)
from nvflare_logstream.cli.log_task import LogTask
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
)
from nvflare_logstream.cli.output import Format
from nvflare_logstream.cli.printers import (
    Collector,
    Colour,
    EventPrinter,
    FilePrinter,
    Printer,
    TerminalPrinter,
)
from nvflare_logstream.client.query import ALL_SITES, LogQuery
from nvflare_logstream.names import SERVER_SITE

EXAMPLES = (
    "nvflare-logstream logs @latest --site all --follow",
    "nvflare-logstream logs 8f3c --site 'site-*' --level WARNING --since 1h",
    "nvflare-logstream logs 8f3c --site site-1 --file error_log.txt --tail 50",
    "nvflare-logstream logs 8f3c --site all --merge --grep 'CUDA|out of memory' --context 2",
    "nvflare-logstream logs 8f3c --site all --format json | jq .data.sites",
)


def logs(
    job: JobArgument,
    site: SiteOption = None,
    file: FileOption = "log.txt",
    since: SinceOption = None,
    until: UntilOption = None,
    level: LevelOption = None,
    grep: GrepOption = None,
    ignore_case: IgnoreCaseOption = False,
    invert: InvertOption = False,
    before: BeforeOption = 0,
    after: AfterOption = 0,
    context: ContextOption = 0,
    tail: TailOption = None,
    max_bytes: MaxBytesOption = None,
    follow: FollowOption = False,
    merge: MergeOption = False,
    prefix: PrefixOption = None,
    output: OutputOption = None,
    color: ColorOption = Colour.AUTO,
    form: FormatOption = Format.TEXT,
    study: StudyOption = "default",
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Read, search and follow the logs of a job, while it runs and after it.

    The server sends what the options ask for and no more: --tail 10 of a huge log is as quick as of a small
    one. The bounds apply in this order: since and until, level, grep, tail, max-bytes.

    With --follow the exit code is 0 only if the job ended well.
    """
    access = Access(study, kit_id, startup_kit, connect_timeout)
    _check_form(form, follow, merge, output)
    with_grep = ignore_case or invert or before or after or context
    need(
        grep is not None or not with_grep,
        "--ignore-case, --invert, --before, --after and --context: add --grep",
    )
    default_tail = not follow and all(bound is None for bound in (tail, since, until, max_bytes))
    query = LogQuery(
        sites=tuple(site or (SERVER_SITE,)),
        file=file,
        since=since,
        until=until,
        level=level.upper() if level else None,
        grep=grep,
        ignore_case=ignore_case,
        invert=invert,
        before=max(before, context),
        after=max(after, context),
        tail=DEFAULT_TAIL if default_tail else tail,
        max_bytes=max_bytes,
    )
    if output:
        printer: Printer = FilePrinter(output)
    elif form is Format.TEXT:
        printer = _terminal(query, prefix, follow, merge, color.wanted(sys.stdout))
    else:
        printer = Collector() if form is Format.JSON else EventPrinter()
    with access.client() as client:
        job_id = client.find_job(job)
        say_job(job_id, job)
        task = LogTask(client, job_id, query, printer, form, default_tail)
        raise typer.Exit(task.follow(merge) if follow else task.read(merge))


def _check_form(form: Format, follow: bool, merge: bool, output: Path | None) -> None:
    """Refuse what no form of output could hold."""
    need(
        not (follow and form is Format.JSON),
        "--follow with --format json: no envelope could hold what has no end; use jsonl",
    )
    need(not (merge and output), "--merge makes one stream, --output one file a site; use one of them")
    need(
        not (merge and form is Format.JSON),
        "--merge with --format json: the envelope has each site's text; use text or jsonl",
    )
    need(
        not (output and form is Format.JSONL),
        "--output with --format jsonl: it writes files; use text or json",
    )


def _terminal(
    query: LogQuery, prefix: bool | None, follow: bool, merge: bool, colour: bool
) -> TerminalPrinter:
    """A printer that says whose the text is where there may be several sites.

    Each line says it where the sites' lines are mixed; where one site comes after the other, a header does.
    """
    first = query.sites[0]
    several = len(query.sites) > 1 or first == ALL_SITES or any(character in first for character in "*?[")
    prefixed = prefix if prefix is not None else several and (follow or merge)
    return TerminalPrinter(
        prefix=prefixed,
        headers=several and not (prefixed or merge or follow),
        colour=colour,
        last_states=follow,
    )
