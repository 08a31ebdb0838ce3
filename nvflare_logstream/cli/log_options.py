"""The options of `nvflare-logstream logs`: which logs, which lines of them, and how they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nvflare_logstream.cli.options import completed, level, tail_lines, whole_number
from nvflare_logstream.cli.terminal import Colour

DEFAULT_TAIL = 500  # lines, where no bound is given, as the runtime's command has it
_LEVELS = "DEBUG, INFO, WARNING, ERROR or CRITICAL"
_WHICH, _WHAT, _HOW = "Which logs", "Which lines", "How they are shown"

SiteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        "--sites",
        metavar="NAME",
        autocompletion=completed("sites"),
        help="A site, a pattern, server, or all; several with commas between. Default: server.",
        rich_help_panel=_WHICH,
    ),
]
ExcludeSiteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-site",
        metavar="NAME",
        autocompletion=completed("sites"),
        help="Not this site; takes what --site takes. Without --site: all others.",
        rich_help_panel=_WHICH,
    ),
]
FileOption = Annotated[
    str | None,
    typer.Option(
        "--file",
        metavar="NAME",
        autocompletion=completed("files"),
        help="log.txt, error_log.txt or another log that the site streams. Default: log.txt; with "
        "--format json log.json, where there is one.",
        rich_help_panel=_WHICH,
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="From this time on: 2026-04-28T10:00:00, 10:00, today or yesterday by the log's own clock; with "
        "Z or +02:00 by that zone; seconds since 1970; or 1h30m, 1.5h, 2w ago.",
        rich_help_panel=_WHAT,
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Up to this time.", rich_help_panel=_WHAT)
]
LevelOption = Annotated[
    str | None,
    typer.Option(
        "--level",
        metavar="LEVEL",
        parser=level,
        autocompletion=lambda: _LEVELS.replace(",", "").replace(" or", "").split(),
        help=f"At least this level: {_LEVELS}; warn will do.",
        rich_help_panel=_WHAT,
    ),
]
GrepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--grep",
        "-g",
        "-e",
        metavar="PATTERN",
        help="Lines that match, in RE2 syntax; of several patterns, any.",
        rich_help_panel=_WHAT,
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Not the lines that match; of several patterns, any.",
        rich_help_panel=_WHAT,
    ),
]
IgnoreCaseOption = Annotated[
    bool,
    typer.Option(
        "--ignore-case", "-i", help="Match capitals and small letters alike.", rich_help_panel=_WHAT
    ),
]
InvertOption = Annotated[
    bool,
    typer.Option(
        "--invert", "--invert-match", "-v", help="Lines that do not match --grep.", rich_help_panel=_WHAT
    ),
]
BeforeOption = Annotated[
    int,
    typer.Option(
        "--before",
        "-B",
        metavar="N",
        parser=whole_number,
        help="N more lines before each match.",
        rich_help_panel=_WHAT,
    ),
]
AfterOption = Annotated[
    int,
    typer.Option(
        "--after",
        "-A",
        metavar="N",
        parser=whole_number,
        help="N more lines after each match.",
        rich_help_panel=_WHAT,
    ),
]
ContextOption = Annotated[
    int,
    typer.Option(
        "--context",
        "-C",
        metavar="N",
        parser=whole_number,
        help="N more lines around each match.",
        rich_help_panel=_WHAT,
    ),
]
HeadOption = Annotated[
    int | None,
    typer.Option(
        "--head",
        metavar="N",
        parser=whole_number,
        help="The first N lines of each site.",
        rich_help_panel=_WHAT,
    ),
]
TailOption = Annotated[
    int | None,
    typer.Option(
        "--tail",
        "-n",
        metavar="N",
        parser=tail_lines,
        help=f"The last N lines of each site, or all. Default: {DEFAULT_TAIL}, unless another bound is given "
        "or with --follow.",
        rich_help_panel=_WHAT,
    ),
]
MaxBytesOption = Annotated[
    int | None,
    typer.Option(
        "--max-bytes",
        metavar="N",
        parser=whole_number,
        help="The last N bytes of each site.",
        rich_help_panel=_WHAT,
    ),
]
FollowOption = Annotated[
    bool,
    typer.Option(
        "--follow", "-f", help="Go on as the logs grow, until the job and its logs end.", rich_help_panel=_HOW
    ),
]
MergeOption = Annotated[
    bool,
    typer.Option("--merge", help="All sites in one stream, ordered by corrected time.", rich_help_panel=_HOW),
]
PrefixOption = Annotated[
    bool | None,
    typer.Option(
        "--prefix/--no-prefix",
        help="The site's name before each line.",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        file_okay=False,
        help="Write one file a site instead.",
        rich_help_panel=_HOW,
    ),
]
ColorOption = Annotated[Colour, typer.Option("--color", help="Colours.", rich_help_panel=_HOW)]
