"""`nvflare-logstream doctor`: what is wrong with a set-up, and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvflare_logstream.cli.options import (
    Access,
    AnswerFormatOption,
    KitIdOption,
    KitOption,
    SchemaOption,
    TimeoutOption,
)
from nvflare_logstream.cli.output import OK, REFUSED, AnswerFormat, print_envelope
from nvflare_logstream.errors import ErrorCode, KitError, LostContactError, RetrievalError

if TYPE_CHECKING:
    from nvflare_logstream.deploy.findings import Finding
    from nvflare_logstream.deploy.kits import Place

EXAMPLES = (
    "nvflare-logstream doctor /opt/nvflare/site-1",
    "nvflare-logstream doctor ./workspace/example_project/prod_00",
    "nvflare-logstream doctor --startup-kit ./admin@nvidia.com",
    "nvflare-logstream doctor . --format json | jq '.data.findings[] | select(.severity != \"ok\")'",
)


def doctor(
    directory: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR]",
            help="Start-up kits, workspaces of sites, a POC workspace or a provisioned prod_00. "
            "Default: ask the server alone.",
        ),
    ] = None,
    form: AnswerFormatOption = AnswerFormat.TEXT,
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Look a set-up over, and say what to do about all that is wrong.

    Of each site and server: its Python and what is installed there, its resources.json, its disk, its keys.
    With an admin's start-up kit, named by an option or found in a DIR, it asks the server which sites have
    streamed, under which versions, and which are silent. Run it on the machine, as the user and in the
    environment in which the site runs; nothing is changed. Exit code 1 says that there is an error; warnings
    leave it at 0.
    """
    from nvflare_logstream.deploy.doctor import diagnose
    from nvflare_logstream.deploy.findings import Severity, count

    places = _places(directory or ())
    findings = diagnose(places)
    named, kits = kit_id or startup_kit, _admins(places)
    if not places:
        with _explained(bool(named)):
            findings += _ask_server([Access("default", kit_id, startup_kit, connect_timeout)])
    elif named or kits:
        roots = [startup_kit] if named else [str(kit.root) for kit in kits]
        accesses = [Access("default", kit_id, root, connect_timeout) for root in roots]
        try:
            findings += _ask_server(accesses)
        except RetrievalError as error:  # what was found in the directories is shown all the same
            who = Path(named).name if named else kits[0].name
            wanted = bool(named) or len(kits) == len(places)
            findings.append(_not_asked(who, error, wanted))
    errors, warnings = (count(findings, severity) for severity in (Severity.ERROR, Severity.WARNING))
    code = REFUSED if errors else OK
    if form is AnswerFormat.JSON:
        rows = [finding._asdict() for finding in findings]
        print_envelope({"findings": rows, "errors": errors, "warnings": warnings}, code)
    else:
        from nvflare_logstream.cli.doctor_view import view
        from nvflare_logstream.cli.screen import show

        show(iter([view(findings)]), watch=False)
    raise typer.Exit(code)


@contextmanager
def _explained(named: bool) -> Iterator[None]:
    """Say, where nothing was named and no kit is active, what may be named."""
    try:
        yield
    except RetrievalError as error:
        if named or error.code is not ErrorCode.STARTUP_KIT_MISSING:
            raise
        hint = "Name a start-up kit's or workspace's directory to look at; --startup-kit to ask the server."
        raise RetrievalError(
            error.code, "there is nothing to look at: no DIR, and no active kit", hint
        ) from error


def _places(directories: Sequence[Path]) -> list[Place]:
    from nvflare_logstream.deploy.kits import find_places

    try:
        found = [place for directory in directories for place in find_places(directory)]
    except KitError as error:
        raise RetrievalError(ErrorCode.STARTUP_KIT_MISSING, str(error)) from error
    return list({place.root.resolve(): place for place in found}.values())


def _admins(places: Sequence[Place]) -> list[Place]:
    from nvflare_logstream.deploy.kits import Role

    return [place for place in places if place.role is Role.ADMIN]


def _ask_server(accesses: Sequence[Access]) -> list[Finding]:
    """Ask with one kit after another, until the server names its sites: it does to project admins only."""
    from nvflare_logstream.deploy.check_server import check_server

    reports, failed = [], None
    for access in accesses:
        try:
            with access.client() as client:
                asked = time.time()
                status = client.server_status()
                reports = check_server("server", status, asked, time.time())
        except LostContactError:
            raise  # the others would ask the same server
        except RetrievalError as error:
            failed = failed or error
            continue
        if status.named:
            break
    if not reports and failed:
        raise failed
    return [finding for report in reports for finding in report.findings]


def _not_asked(admin: str, error: RetrievalError, wanted: bool) -> Finding:
    """That the server could not be asked: no error unless `wanted`, it may not run yet."""
    from nvflare_logstream.deploy.findings import Finding, Severity

    severity = Severity.ERROR if wanted else Severity.WARNING
    return Finding(admin, "server", severity, f"the server could not be asked: {error}", error.hint)
