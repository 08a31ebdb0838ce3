"""`nvflare-logstream verify`: are the logs what the sites wrote, and is an export still what was exported?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.options import (
    Access,
    AnswerFormatOption,
    KitIdOption,
    KitOption,
    NoPagerOption,
    SchemaOption,
    StudyOption,
    TimeoutOption,
    say_job,
)
from nvflare_logstream.cli.output import OK, REFUSED, AnswerFormat, print_envelope
from nvflare_logstream.lines import in_one_line

if TYPE_CHECKING:
    from nvflare_logstream.client.checks import Finding

EXAMPLES = (
    "nvflare-logstream verify @latest",
    "nvflare-logstream verify ./logs-of-last-night",
)


def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="JOB_ID|DIR", help="A job (id, its beginning, or @latest), or an exported directory."
        ),
    ],
    no_pager: NoPagerOption = False,
    form: AnswerFormatOption = AnswerFormat.TEXT,
    study: StudyOption = "default",
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Check every log of a job, or every file of an export; the exit code is 1 if anything is not as it
    should be.

    Of a job, the server hashes its copies again and compares them with what the sites said at the end. Of a
    directory, the files are compared with its manifest; that needs no server. A log that a site keeps back is
    as it should be.
    """
    from nvflare_logstream.client.checks import verify_export

    if Path(target).is_dir():
        subject, findings = {"path": str(Path(target).absolute())}, verify_export(Path(target))
    else:
        with Access(study, kit_id, startup_kit, connect_timeout).client() as client:
            job_id = client.find_job(target)
            say_job(job_id, target)
            subject, findings = {"job_id": job_id}, client.verify(job_id)
    bad = [finding for finding in findings if not finding.good]
    code = REFUSED if bad or not findings else OK
    if form is AnswerFormat.JSON:
        rows = [{**asdict(finding), "good": finding.good} for finding in findings]
        print_envelope({**subject, "good": not code, "findings": rows}, code)
    else:
        with terminal.paged(not no_pager):
            _show(findings, bad)
    raise typer.Exit(code)


def _show(findings: list[Finding], bad: list[Finding]) -> None:
    from rich.text import Text

    from nvflare_logstream.cli.screen import Screen
    from nvflare_logstream.client.checks import Result

    console = Screen(soft_wrap=True)
    for finding in findings:
        mark = Text("✓", style="green") if finding.good else Text("✗", style="bold red")
        name = (in_one_line(f"{finding.site}/{finding.file}"), "bold")
        # Of equal copies the digest adds nothing.
        detail = "" if finding.result is Result.EQUAL else f": {in_one_line(finding.detail)}"
        console.print(Text.assemble(mark, " ", name, f" {finding.result}{detail}"))
    if not findings:
        console.print("there is nothing to check: the server has no log of this job", style="red")
    elif bad:
        console.print(f"{len(bad)} of {len(findings)} logs are not as they should be", style="red")
    else:
        console.print(f"all {len(findings)} logs are as they should be", style="green")
