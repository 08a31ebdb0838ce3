"""The `nvflare-logstream` command."""

from __future__ import annotations

import typer

from nvflare_logstream import __version__
from nvflare_logstream.cli.demo import demo

app = typer.Typer(
    name="nvflare-logstream",
    help="Job logs of an NVIDIA FLARE federation, live on the server and byte for byte.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
) -> None:
    pass


app.command()(demo)
