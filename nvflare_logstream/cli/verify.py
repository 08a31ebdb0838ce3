"""`nvflare-logstream verify`: are the logs what the sites wrote, and is an export still what was exported?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nvflare_logstream import lines
from nvflare_logstream.cli.options import (
    Access,
    FormatOption,
    KitIdOption,
    KitOption,
    SchemaOption,
    StudyOption,
    TimeoutOption,
    need,
    say_job,
)
from nvflare_logstream.cli.output import OK, REFUSED, Format, notice, print_envelope
from nvflare_logstream.client.checks import Finding, Result, verify_export

EXAMPLES = (
    "nvflare-logstream verify @latest",
    "nvflare-logstream verify ./logs-of-last-night",
)


def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="JOB_ID|DIR",
            help="A job (id, its beginning, or @latest), or an exported directory; "
            "./3f32 is a directory, 3f32 a job.",
        ),
    ],
    form: FormatOption = Format.TEXT,
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
    need(form is not Format.JSONL, "--format jsonl: a check is one answer; use text or json")
    if _means_a_directory(target):
        subject, findings = {"path": str(Path(target).absolute())}, verify_export(Path(target))
    else:
        with Access(study, kit_id, startup_kit, connect_timeout).client() as client:
            job_id = client.find_job(target)
            say_job(job_id, target)
            subject, findings = {"job_id": job_id}, client.verify(job_id)
    bad = [finding for finding in findings if not finding.good]
    code = REFUSED if bad or not findings else OK
    if form is Format.JSON:
        rows = [{**asdict(finding), "good": finding.good} for finding in findings]
        print_envelope({**subject, "good": not code, "findings": rows}, code)
    else:
        _show(findings, bad, "job_id" in subject)
    raise typer.Exit(code)


def _means_a_directory(target: str) -> bool:
    """Whether a directory is meant, and not the job that a word alone may name, as in every other command."""
    from nvflare_logstream.client.client import may_name_a_job

    try:
        is_there = Path(target).is_dir()
    except OSError:  # a name that no file can have
        return False
    if is_there and may_name_a_job(target):
        other = f"`nvflare-logstream verify ./{target}` checks the directory of that name"
        notice(f"{target} is taken as a job's id; {other}")
        return False
    return is_there


def _show(findings: list[Finding], bad: list[Finding], of_server: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        mark = Text("✓", style="green") if finding.good else Text("✗", style="bold red")
        # File names and a manifest's texts are others': shown, and never sent to the terminal raw.
        name = (lines.in_one_line(finding.name), "bold")
        console.print(Text.assemble(mark, " ", name, " ", lines.in_one_line(_in_words(finding, of_server))))
    if not findings:
        owner = "the server has no log of this job" if of_server else "the manifest names no log"
        console.print(f"there is nothing to check: {owner}", style="red")
    elif bad:
        what = "logs" if of_server else "files"
        console.print(f"{len(bad)} of {len(findings)} {what} are not as they should be", style="red")
    else:
        are = "are as they should be" if of_server else "match their manifest"
        console.print(f"all {len(findings)} logs {are}", style="green")


def _in_words(finding: Finding, of_server: bool) -> str:
    if finding.result is not Result.EQUAL:
        return f"{finding.result}: {finding.detail}"
    # Of equal copies the digest adds nothing.
    return str(finding.result) if of_server else f"matches its manifest: {finding.standing}"
