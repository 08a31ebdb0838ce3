"""`nvflare-logstream verify`: are the logs what the sites wrote, and is an export still what was exported?"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvflare_logstream import lines
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
    need,
    say_job,
)
from nvflare_logstream.cli.output import OK, REFUSED, AnswerFormat, notice, print_envelope

if TYPE_CHECKING:
    from nvflare_logstream.client.checks import Finding
    from nvflare_logstream.client.signature import Signature

EXAMPLES = (
    "nvflare-logstream verify @latest",
    "nvflare-logstream verify ./logs-of-last-night",
    "nvflare-logstream verify ./logs-of-last-night --against 8f3c",
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
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="JOB_ID", help="Compare the directory with what the server has of this job."
        ),
    ] = None,
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

    Of a job, the server hashes its copies again and compares them with what the sites said at the end. A log
    that a site keeps back is as it should be.

    Of a directory, the files are compared with its manifest and with the sites' digests in it, and the
    manifest with its signature; that needs no server. A log of which the export has not all, and a file that
    the manifest does not name, are errors.
    With --against, the files are compared with the server's copies too.
    """
    access = Access(study, kit_id, startup_kit, connect_timeout)
    if against is not None:
        need(_is_directory(target), f"--against: {target!r} is not a directory; name one that was exported")
    need(os.sep not in target or _is_directory(target), f"{target} is no directory and no job's id")
    if against is not None or _means_a_directory(target):
        report = _check_directory(Path(target), against, access)
    else:
        with access.client() as client:
            job_id = client.find_job(target)
            say_job(job_id, target)
            report = _Report({"job_id": job_id}, client.verify(job_id))
    if form is AnswerFormat.JSON:
        print_envelope(report.as_json(), report.code)
    else:
        with terminal.paged(not no_pager):
            _show(report)
    raise typer.Exit(report.code)


@dataclass(frozen=True)
class _Report:
    """What a check found.

    Attributes:
        subject: what was checked, for the JSON answer.
        signature: of a directory's manifest.
        good: what a good copy is, and what all are, in words; None for a job's.
    """

    subject: dict[str, str]
    findings: list[Finding]
    signature: Signature | None = None
    good: tuple[str, str] | None = None

    @property
    def bad(self) -> list[Finding]:
        """What is not as it should be."""
        return [finding for finding in self.findings if not finding.good]

    @property
    def code(self) -> int:
        """The exit code."""
        is_forged = self.signature is not None and not self.signature.good
        return REFUSED if self.bad or is_forged or not self.findings else OK

    def as_json(self) -> dict[str, Any]:
        """The answer for programs."""
        rows = [{**asdict(finding), "good": finding.good} for finding in self.findings]
        signature = {"signature": asdict(self.signature)} if self.signature else {}
        return {**self.subject, "good": not self.code, "findings": rows, **signature}


def _check_directory(dest: Path, against: str | None, access: Access) -> _Report:
    from nvflare_logstream.client.checks import verify_export
    from nvflare_logstream.client.manifest import Manifest
    from nvflare_logstream.client.signature import check_signature

    manifest, data = Manifest.read(dest)
    if against is None:
        findings, good = verify_export(dest, manifest), ("matches its manifest", "match their manifest")
    else:
        with access.client() as client:
            job_id = client.find_job(against)
            say_job(job_id, against)
            findings = client.verify_export(job_id, dest, manifest)
        good = ("is what the server has", "are what the server has")
    signature = check_signature(dest, data, manifest.exported, access.federation_root)
    subject = {"path": str(dest.absolute()), "job_id": manifest.job_id, "exported": manifest.exported}
    return _Report(subject, findings, signature, good)


def _means_a_directory(target: str) -> bool:
    """Whether a directory is meant, and not the job that a word alone may name, as in every other command."""
    from nvflare_logstream.client.client import may_name_a_job

    is_directory = _is_directory(target)
    if is_directory and may_name_a_job(target):
        other = f"`nvflare-logstream verify ./{target}` checks the directory of that name"
        notice(f"{target} is taken as a job's id; {other}")
        return False
    return is_directory


def _is_directory(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # a name that no file can have
        return False


def _show(report: _Report) -> None:
    """Print it for people; names and texts are others', and shown, never sent to the terminal raw."""
    from rich.text import Text

    from nvflare_logstream.cli.screen import Screen
    from nvflare_logstream.client.manifest import MANIFEST

    console = Screen(soft_wrap=True)

    def line(mark: Text, name: str, text: str) -> None:
        console.print(
            Text.assemble(mark, " ", (lines.in_one_line(name), "bold"), " ", lines.in_one_line(text))
        )

    if report.signature:  # a genuine export of another job, or an old one, must not pass for this one
        job_id, exported = (lines.in_one_line(report.subject[name]) for name in ("job_id", "exported"))
        console.print(f"export of job {job_id}, as of {exported}")
    good, bad = Text("✓", style="green"), Text("✗", style="bold red")
    for finding in report.findings:
        line(good if finding.good else bad, finding.name, _in_words(finding, report))
    if report.signature:
        trusted = good if report.signature.trust == "signed" else Text("-")
        line(trusted if report.signature.good else bad, MANIFEST, report.signature.detail)
    text, is_good = _in_short(report)
    console.print(text, style="green" if is_good else "red")


def _in_words(finding: Finding, report: _Report) -> str:
    from nvflare_logstream.client.checks import Result

    if finding.result is not Result.EQUAL:
        return f"{finding.result}: {finding.detail}"
    # Of equal copies the digest adds nothing.
    return f"{report.good[0]}: {finding.standing}" if report.good else str(finding.result)


def _in_short(report: _Report) -> tuple[str, bool]:
    """The last line, and whether all is as it should be."""
    from nvflare_logstream.client.checks import Result

    count = len(report.findings)
    if not count:
        owner = "the manifest names no log" if report.good else "the server has no log of this job"
        return f"there is nothing to check: {owner}", False
    if report.bad:
        # A log that the job lacks is in the same words as when the job is checked.
        lacking = all(finding.result in (Result.INCOMPLETE, Result.NOT_CLOSED) for finding in report.bad)
        what = "logs" if lacking or not report.good else "files"
        return f"{len(report.bad)} of {count} {what} are not as they should be", False
    if report.code:
        return "the manifest's signature is not as it should be", False
    return f"all {count} logs {report.good[1] if report.good else 'are as they should be'}", True
