"""The `nvflare-logstream` command: finds the subcommand, and answers wrong arguments and errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from nvflare_logstream import __version__
from nvflare_logstream.cli.output import INTERRUPTED, OK, REFUSED, Format, notice, print_error, print_json
from nvflare_logstream.cli.schema import schema_of
from nvflare_logstream.errors import ArgumentError, ErrorCode, RetrievalError

_COMMANDS = (
    "logs",
    "status",
    "export",
    "verify",
    "repair",
    "server",
    "demo",
    "completion",
)  # each a function in the module of its name
_COMPLETING = "_NVFLARE_LOGSTREAM_COMPLETE"  # set by a shell that asks what may be typed next
_BUG = (
    "This is likely a bug; please report it, with the output of the same command and "
    "NVFLARE_LOGSTREAM_DEBUG=1."
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def _command_line(command: str) -> Callable[..., Any]:
    """The command line with one subcommand, or with all if `command` is none: each takes time to load."""
    app = typer.Typer(
        name="nvflare-logstream",
        help="Job logs of an NVIDIA FLARE federation, live on the server and byte for byte.",
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_main)
    for name in [command] if command in _COMMANDS else _COMMANDS:
        module = import_module(f"nvflare_logstream.cli.{name}")
        examples = "\n\n".join(f"`{example}`" for example in module.EXAMPLES)
        app.command(epilog=f"**Examples**\n\n{examples}")(getattr(module, name))
    return partial(typer.main.get_command(app).main, prog_name="nvflare-logstream", standalone_mode=False)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; errors are answered in the format that was asked for."""
    if _COMPLETING in os.environ:
        from nvflare_logstream.cli.complete import answer

        return answer(_COMMANDS)
    arguments = arguments or ["--help"]
    form = _format_of(arguments)
    command = next((word for word in arguments if not word.startswith("-")), "")
    try:
        if "--schema" in arguments and command in _COMMANDS:
            print_json(schema_of(command))
            return OK
        return int(_command_line(command)(list(arguments)) or OK)
    except (typer.TyperException, ArgumentError) as error:
        return _wrong_arguments(error, command, form)
    except RetrievalError as error:
        return print_error(error, form)
    except (BrokenPipeError, SystemExit):
        # The reader of our output, such as `head`, has had enough; rich turns that into an exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except OSError as error:
        text = f"cannot write the output: {error.strerror or error}"
        hint = "Is there room where the output goes?"
        return print_error(RetrievalError(ErrorCode.OUTPUT_NOT_WRITABLE, text, hint), form)
    except Exception as error:  # the last resort: a traceback is no answer
        if os.environ.get("NVFLARE_LOGSTREAM_DEBUG"):
            raise
        text, hint = f"{type(error).__name__}: {error}", _BUG
        return print_error(RetrievalError(ErrorCode.INTERNAL_ERROR, text, hint), form)


def _format_of(arguments: Sequence[str]) -> Format:
    """The format that was asked for, also where other arguments are wrong."""
    words = " ".join(arguments).replace("--format=", "--format ").split()
    value = words[words.index("--format") + 1] if "--format" in words[:-1] else ""
    return Format(value) if value in ("json", "jsonl") else Format.TEXT


def _wrong_arguments(error: typer.TyperException | ArgumentError, command: str, form: Format) -> int:
    """Answer wrong arguments: a person gets help first, then what is wrong; a program only the error."""
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    known = [command] if command in _COMMANDS else []
    if form is Format.TEXT:
        with redirect_stdout(sys.stderr):
            _command_line(command)([*known, "--help"])
        notice("")
    hint = f"`{' '.join(['nvflare-logstream', *known, '--help'])}` says what is allowed."
    return print_error(RetrievalError(ErrorCode.INVALID_ARGS, text, hint), form)


def main() -> None:
    """The console script."""
    # They are None where whoever started us closed them, and nobody wants what would be written there.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")
    sys.stderr = sys.stderr or Path(os.devnull).open("w")
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = OK
    except OSError as error:
        notice(f"cannot write the output: {error.strerror}")
        code = REFUSED
    # The runtime's threads would keep the process for a tenth of a second, and nothing is left to be done.
    os._exit(code)


if __name__ == "__main__":
    main()
