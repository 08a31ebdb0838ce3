"""The `nvflare-logstream` command: its subcommands, and what becomes of wrong arguments and errors."""

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
from nvflare_logstream.cli.output import (
    INTERNAL,
    INTERRUPTED,
    OK,
    REFUSED,
    Format,
    notice,
    print_error,
    print_json,
)
from nvflare_logstream.cli.schema import schema_of
from nvflare_logstream.errors import ArgumentError, ErrorCode, RetrievalError

_COMMANDS = ("logs", "status", "export", "verify", "demo")  # each a function in the module of the same name


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
    """The command line with one subcommand, or with all where none is named: nobody waits for what is not used."""
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
    """Run the command line and return its exit code; whatever happens is said as a person or a program wants to hear it."""
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
    except (
        BrokenPipeError,
        SystemExit,
    ):  # whoever reads our output, `head` say, has had enough; rich makes an exit of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except OSError as error:
        hint = "Is there room where the output goes?"
        return print_error(
            RetrievalError(
                ErrorCode.OUTPUT_NOT_WRITABLE, f"cannot write the output: {error.strerror or error}", hint
            ),
            form,
        )
    except Exception as error:  # the last resort: a traceback is no answer
        hint = "This is likely a bug; please report it, with the output of the same command and NVFLARE_LOGSTREAM_DEBUG=1."
        if os.environ.get("NVFLARE_LOGSTREAM_DEBUG"):
            raise
        code = print_error(
            RetrievalError(ErrorCode.INTERNAL_ERROR, f"{type(error).__name__}: {error}", hint), form
        )
        assert code == INTERNAL
        return code


def _format_of(arguments: Sequence[str]) -> Format:
    """The wanted format, also of arguments that are wrong otherwise."""
    words = " ".join(arguments).replace("--format=", "--format ").split()
    value = words[words.index("--format") + 1] if "--format" in words[:-1] else ""
    return Format(value) if value in ("json", "jsonl") else Format.TEXT


def _wrong_arguments(error: typer.TyperException | ArgumentError, command: str, form: Format) -> int:
    """For a person help comes first, then what is wrong; for a program only the error."""
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    if form is Format.TEXT:
        with redirect_stdout(sys.stderr):
            _command_line(command)([*([command] if command in _COMMANDS else []), "--help"])
        notice("")
    hint = f"`nvflare-logstream {f'{command} ' if command in _COMMANDS else ''}--help` says what is allowed."
    return print_error(RetrievalError(ErrorCode.INVALID_ARGS, text, hint), form)


def main() -> None:
    """The console script."""
    # Closed by whoever started us: what would be written there is not wanted.
    sys.stdout, sys.stderr = (
        sys.stdout or Path(os.devnull).open("w"),
        sys.stderr or Path(os.devnull).open("w"),
    )
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = OK
    except OSError as error:
        notice(f"cannot write the output: {error.strerror}")
        code = REFUSED
    # The runtime's threads would keep the process for a tenth of a second; there is nothing left that could be lost.
    os._exit(code)


if __name__ == "__main__":
    main()
