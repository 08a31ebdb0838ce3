"""`nvflare-logstream export`: all logs of a job on the reader's disk, with a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvflare_logstream.cli.options import (
    Access,
    AnswerFormatOption,
    JobArgument,
    KitIdOption,
    KitOption,
    SchemaOption,
    StudyOption,
    TimeoutOption,
    say_job,
)
from nvflare_logstream.cli.output import AnswerFormat, notice, print_envelope, say
from nvflare_logstream.streams import Stream, Verdict

if TYPE_CHECKING:
    from nvflare_logstream.client.exporter import Progress
    from nvflare_logstream.client.manifest import Manifest

MUTATING = True  # on the reader's disk
IDEMPOTENT = False  # a finished export is not replaced without --force
EXAMPLES = (
    "nvflare-logstream export @latest -o logs-of-last-night",
    "nvflare-logstream export 8f3c -o ./8f3c --format json | jq '.data.streams[] | {site, file, verdict}'",
)


def export(
    job: JobArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="A directory that is new, empty, or an unfinished export of the job.",
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier export in DIR; other files there stay.")
    ] = False,
    form: AnswerFormatOption = AnswerFormat.TEXT,
    study: StudyOption = "default",
    kit_id: KitIdOption = None,
    startup_kit: KitOption = None,
    connect_timeout: TimeoutOption = 5.0,
    schema: SchemaOption = False,
) -> None:
    """Copy all logs of a job into a directory, byte for byte, with a manifest of their digests and verdicts.

    An export that was interrupted goes on where it was when it is run again. Of a running job it is what the
    server has now.
    """
    with Access(study, kit_id, startup_kit, connect_timeout).client() as client:
        job_id = client.find_job(job)
        say_job(job_id, job)
        with _progress(form) as on_progress:
            manifest = client.export(job_id, output, force, on_progress)
    if form is AnswerFormat.JSON:
        print_envelope({"job_id": job_id, "path": str(output.absolute()), **manifest.as_json()})
    else:
        _say(manifest, output)


@contextmanager
def _progress(form: AnswerFormat) -> Iterator[Progress | None]:
    """A progress bar on stderr, where somebody looks at it."""
    if form is not AnswerFormat.TEXT:
        yield None
        return
    from rich import progress

    from nvflare_logstream.cli.screen import Screen

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Screen(error=True)
    with progress.Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task("export", total=None)

        def on_progress(done: int, total: int, stream: Stream) -> None:
            bar.update(task, completed=done, total=total, description=f"{stream.site}/{stream.file}")

        yield on_progress


def _say(manifest: Manifest, output: Path) -> None:
    sizes = [entry.stream.end for entry in manifest.streams if entry.path]
    say(f"exported {len(sizes)} logs of job {manifest.job_id}, {sum(sizes):,} bytes, to {output}")
    for entry in manifest.streams:
        stream = entry.stream
        if stream.verdict is not Verdict.COMPLETE:
            notice(f"{stream.site}/{stream.file}: {stream.standing}")
