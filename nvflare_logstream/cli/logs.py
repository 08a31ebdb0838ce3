"""`nvflare-logstream logs`: read, search and follow the logs of a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.log_options import (
    DEFAULT_TAIL,
    AfterOption,
    BeforeOption,
    ColorOption,
    ContextOption,
    ExcludeOption,
    ExcludeSiteOption,
    FileOption,
    FollowOption,
    GrepOption,
    HeadOption,
    HighlightOption,
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
from nvflare_logstream.cli.options import (
    ALL_LINES,
    Access,
    FormatOption,
    JobArgument,
    KitIdOption,
    KitOption,
    NoPagerOption,
    SchemaOption,
    StudyOption,
    TimeoutOption,
    need,
    say_job,
    site_names,
)
from nvflare_logstream.cli.output import Format
from nvflare_logstream.cli.terminal import Colour
from nvflare_logstream.names import ALL_SITES, SERVER_SITE

if TYPE_CHECKING:  # for the work itself; --help and wrong options do without
    from nvflare_logstream.cli.matches import Highlight
    from nvflare_logstream.cli.printers import Printer, TerminalPrinter
    from nvflare_logstream.client.query import LogQuery

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
    exclude_site: ExcludeSiteOption = None,
    file: FileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    level: LevelOption = None,
    grep: GrepOption = None,
    exclude: ExcludeOption = None,
    ignore_case: IgnoreCaseOption = False,
    invert: InvertOption = False,
    before: BeforeOption = 0,
    after: AfterOption = 0,
    context: ContextOption = 0,
    head: HeadOption = None,
    tail: TailOption = None,
    max_bytes: MaxBytesOption = None,
    follow: FollowOption = False,
    merge: MergeOption = False,
    prefix: PrefixOption = None,
    highlight: HighlightOption = None,
    output: OutputOption = None,
    color: ColorOption = Colour.AUTO,
    no_pager: NoPagerOption = False,
    form: FormatOption = Format.TEXT,
    study: StudyOption = "default",
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Read, search and follow the logs of a job, while it runs and after it.

    The server sends what the options ask for and no more: --tail 10 of a huge log is as quick as of a small
    one. The bounds apply in this order: since and until, level, exclude, grep, head or tail, max-bytes.

    With --follow the exit code is 0 only if the job ended well.
    """
    from nvflare_logstream.cli.log_task import LogTask
    from nvflare_logstream.cli.matches import Highlight
    from nvflare_logstream.client.query import TEXT_LOG, LogQuery

    access = Access(study, kit_id, startup_kit, connect_timeout)
    _check_form(form, follow, merge, output)
    patterns = [*(grep or ()), *(exclude or ()), *(highlight or ())]
    need(bool(patterns) or not ignore_case, "--ignore-case: add --grep, --exclude or --highlight")
    _check_lines(grep, head, tail, follow, bool(invert or before or after or context))
    marked = Highlight(() if invert else tuple(grep or ()), tuple(highlight or ()), ignore_case)
    default_tail = not follow and all(bound is None for bound in (head, tail, since, until, max_bytes))
    query = LogQuery(
        sites=site_names(site) or ((ALL_SITES,) if exclude_site else (SERVER_SITE,)),
        exclude_sites=site_names(exclude_site),
        file=file or TEXT_LOG,
        prefer_json=file is None and form is Format.JSON and output is None,
        since=since,
        until=until,
        level=level,
        grep=grep[0] if grep and len(grep) == 1 else tuple(grep or ()) or None,
        exclude=tuple(exclude or ()),
        ignore_case=ignore_case,
        invert=invert,
        before=max(before, context),
        after=max(after, context),
        head=head,
        tail=DEFAULT_TAIL if default_tail else None if tail == ALL_LINES else tail,
        max_bytes=max_bytes,
    )
    if form is Format.TEXT and not output:
        colour = color.wanted(terminal.out())
        printer: Printer = _terminal(query, prefix, follow, merge, colour, marked)
    else:
        printer = _for_programs(output, form)
    with access.client() as client:
        job_id = client.find_job(job)
        say_job(job_id, job)
        task = LogTask(client, job_id, query, printer, form, default_tail)
        with terminal.paged(form is Format.TEXT and not (follow or output or no_pager)):
            code = task.run(follow, merge)
        raise typer.Exit(code)


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


def _check_lines(
    grep: list[str] | None,
    head: int | None,
    tail: int | None,
    follow: bool,
    with_grep: bool,
) -> None:
    """Refuse options about lines that say nothing, or not one thing, together."""
    need(bool(grep) or not with_grep, "--invert, --before, --after and --context: add --grep")
    need(head is None or tail in (None, ALL_LINES), "--head and --tail: use one of them")
    need(head is None or not follow, "--head with --follow: the first lines are there already; use one")


def _for_programs(output: Path | None, form: Format) -> Printer:
    from nvflare_logstream.cli import printers

    if output:
        return printers.FilePrinter(output)
    return printers.Collector() if form is Format.JSON else printers.EventPrinter()


def _terminal(
    query: LogQuery, prefix: bool | None, follow: bool, merge: bool, colour: bool, highlight: Highlight
) -> TerminalPrinter:
    """A printer that says whose the text is where there may be several sites.

    Each line says it where the sites' lines are mixed; where one site comes after the other, a header does.
    """
    from nvflare_logstream.cli.printers import TerminalPrinter

    first = query.sites[0]
    several = len(query.sites) > 1 or first == ALL_SITES or any(character in first for character in "*?[")
    prefixed = prefix if prefix is not None else several and (follow or merge)
    return TerminalPrinter(
        prefix=prefixed,
        headers=several and not (prefixed or merge or follow),
        colour=colour,
        highlight=highlight,
        last_states=follow,
    )
