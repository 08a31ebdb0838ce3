"""`nvflare-logstream completion`: the script with which a shell completes our commands."""

from __future__ import annotations

from typing import Annotated

import typer

from nvflare_logstream.cli import COMPLETING, PROGRAM, terminal
from nvflare_logstream.cli.options import SchemaOption
from nvflare_logstream.words import Word

EXAMPLES = (
    "source <(nvflare-logstream completion bash)",
    "source <(nvflare-logstream completion zsh)",
    "nvflare-logstream completion fish | source",
)


class Shell(Word):
    """The shells that can complete our commands."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
    schema: SchemaOption = False,
) -> None:
    """Print the script with which a shell completes our commands, options, and what the server knows.

    Put the line for your shell, as below, into its start-up file. Jobs, sites and files are asked of the
    server, with the active start-up kit or the one that is typed; what it says is kept for some seconds.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETING, shell=shell.value)
    terminal.out().write(f"{script}\n")
