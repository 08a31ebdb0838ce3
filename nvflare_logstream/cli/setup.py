"""`nvflare-logstream setup`: set up sites and servers from their start-up kits."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvflare_logstream.cli.options import (
    AnswerFormatOption,
    SchemaOption,
    named_directory,
    names,
    need,
    whole_number,
)
from nvflare_logstream.cli.output import OK, REFUSED, AnswerFormat, asked, notice, print_envelope, say
from nvflare_logstream.errors import ErrorCode, KitError, RetrievalError

if TYPE_CHECKING:
    from nvflare_logstream.deploy.setup import Plan

_RESTART = "Restart what is running there."
MUTATING = True
EXAMPLES = (
    "nvflare-logstream setup /srv/nvflare/site-1",
    "nvflare-logstream setup workspace/example_project/prod_00 --yes",
    "nvflare-logstream setup /srv/nvflare/site-1 --files log.txt,error_log.txt,log.json",
    "nvflare-logstream setup /srv/nvflare/server --keep-days 30",
    "nvflare-logstream setup /srv/nvflare/site-1 --remove --dry-run",
)


DirectoriesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="DIR",
        parser=named_directory,
        help="A start-up kit, the workspace of a site or the server, or a provisioned prod_NN or a POC "
        "workspace with all of them.",
    ),
]
FilesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--files", metavar="NAME,…", help="The logs that leave the sites. Default: log.txt,error_log.txt."
    ),
]
OptOutOption = Annotated[
    bool, typer.Option("--opt-out", help="Let no log leave the sites; the server shows them as refused.")
]
DaysOption = Annotated[
    int | None,
    typer.Option(
        "--keep-days",
        metavar="N",
        parser=whole_number,
        help="For how many days the server keeps a job's logs. Default: 90.",
    ),
]


def setup(
    directories: DirectoriesArgument,
    files: FilesOption = None,
    opt_out: OptOutOption = False,
    keep_days: DaysOption = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Undo a set-up: the runtime's own components come back.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be changed, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    form: AnswerFormatOption = AnswerFormat.TEXT,
    schema: SchemaOption = False,
) -> None:
    """Set up sites and servers: put log streaming into `local/resources.json`, shown first, then asked.

    Puts SiteLogStreamer (sites) or JobLogReceiver (server) in the place of the runtime's own log components,
    and this package into class_allow_list where the file has one. All else stays as it is, character by
    character. Where there is only a resources.json.default, a resources.json is made from it. What was there
    before is kept beside it. A site whose allow_log_streaming is not true keeps that.
    """
    from nvflare_logstream.deploy.kits import find_places
    from nvflare_logstream.deploy.resources import Choices
    from nvflare_logstream.deploy.setup import Status, carry_out, plan

    chosen = bool(files or opt_out or keep_days is not None)
    need(not (remove and chosen), "--remove takes all back: leave out --files, --opt-out and --keep-days")
    choices = Choices(names(files) if files else None, opt_out, keep_days)
    try:
        places = {place.root.resolve(): place for path in directories for place in find_places(path)}
        plans = plan(tuple(places.values()), None if remove else choices)
    except KitError as error:
        raise RetrievalError(ErrorCode.STARTUP_KIT_MISSING, str(error)) from error
    if form is AnswerFormat.TEXT:
        _show(plans)
    if not dry_run and any(planned.status is Status.TO_DO for planned in plans):
        if not yes and not _agreed(form):
            notice("nothing was changed")
            raise typer.Exit(REFUSED)
        plans = [_told(planned, form) for planned in carry_out(plans)]
        if form is AnswerFormat.TEXT and any(planned.status is Status.DONE for planned in plans):
            say(_RESTART if remove else f"{_RESTART} --remove undoes this.")
    code = REFUSED if any(planned.status is Status.FAILED for planned in plans) else OK
    if form is AnswerFormat.JSON:
        print_envelope({"dry_run": dry_run, "places": [_data(planned) for planned in plans]}, code)
    raise typer.Exit(code)


def _agreed(form: AnswerFormat) -> bool:
    """Ask whether to go on.

    Raises:
        RetrievalError: if there is nobody to ask.
    """
    if form is AnswerFormat.JSON or not sys.stdin.isatty():
        text = "nothing was changed: there is nobody to ask"
        hint = "--dry-run shows what would be changed, --yes does it without asking."
        raise RetrievalError(ErrorCode.INVALID_ARGS, text, hint)
    return asked("Do this?")


def _show(plans: list[Plan]) -> None:
    """Show what would be changed at each place, and where nothing can be."""
    from rich.text import Text

    from nvflare_logstream.cli.screen import Screen
    from nvflare_logstream.deploy.setup import Status

    screen = Screen()
    styles = {"+": "green", "-": "red", "@": "cyan"}
    titles = Counter(planned.place.title for planned in plans)
    for planned in plans:
        title = planned.place.title
        if titles[title] > 1:
            title += f" in {planned.place.root}"
        if planned.status is Status.UNCHANGED:
            screen.print(Text(f"✓ {title}: nothing to do"), soft_wrap=True)
        elif planned.status is Status.FAILED:
            screen.print(Text(f"✗ {title}: {planned.problem}", style="red"), soft_wrap=True)
            if planned.paste:
                say(planned.paste)
        else:
            screen.print(Text(f"{title}:", style="bold"), soft_wrap=True)
            for line in planned.diff():
                screen.print(Text(line, style=styles.get(line[:1], "")), soft_wrap=True)
        for note in planned.notes:
            screen.print(Text(f"! {title}: {note}", style="yellow"), soft_wrap=True)


def _told(planned: Plan, form: AnswerFormat) -> Plan:
    """Say at once how it went at one place, so that it is known even if the next one is interrupted."""
    from nvflare_logstream.deploy.setup import Status

    if form is AnswerFormat.TEXT and planned.status is Status.DONE:
        kept = f"; what was before is kept as {planned.kept.name}" if planned.kept else ""
        what = "removed" if planned.after is None else "written"
        say(f"✓ {planned.place.title}: {planned.place.own_resources} {what}{kept}")
    elif form is AnswerFormat.TEXT and planned.status is Status.FAILED:
        say(f"✗ {planned.place.title}: not done: {planned.problem}")
    return planned


def _data(planned: Plan) -> dict[str, Any]:
    place = planned.place
    return {
        "name": place.name,
        "role": place.role,
        "directory": str(place.root),
        "status": planned.status,
        "file": str(place.own_resources),
        "kept": str(planned.kept) if planned.kept else None,
        "notes": list(planned.notes),
        "problem": planned.problem,
        "paste": planned.paste,
        "diff": planned.diff(),
    }
