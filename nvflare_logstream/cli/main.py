"""The `nvflare-logstream` command: finds the subcommand, and answers wrong arguments and errors."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import getdoc
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import typer

from nvflare_logstream import __version__
from nvflare_logstream.cli import COMPLETING, PROGRAM, terminal
from nvflare_logstream.cli.help import WIDTH, Command, Group
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
    "setup",
    "doctor",
    "templates",
    "demo",
    "completion",
)  # each a function in the module of its name
# What a write to an open file fails with, naming none: it is full, broken, only read from, or does not wait.
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EAGAIN, errno.EBADF)
_SETTINGS = {"max_content_width": WIDTH}
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


def _application(command: str) -> Any:
    """The command line of one command; if `command` is none, one that only knows what there is.

    On the way through a group, typer loads pydantic, which takes as long as all the rest.
    """
    app = typer.Typer(
        name=PROGRAM,
        help="Job logs of an NVIDIA FLARE federation, live on the server and byte for byte.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )
    if command:
        module = import_module(f"nvflare_logstream.cli.{command}")
        examples = "\n".join(module.EXAMPLES)
        app.command(cls=Command, epilog=examples, context_settings=_SETTINGS)(getattr(module, command))
        return typer.main.get_command(app)
    app.callback(cls=Group)(_main)
    group: Any = typer.main.get_command(app)
    for name in _COMMANDS:
        function = getattr(import_module(f"nvflare_logstream.cli.{name}"), name)
        group.add_command(Command(name, help=getdoc(function)))
    return group


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; errors are answered in the format that was asked for."""
    if COMPLETING in os.environ:
        from nvflare_logstream.cli.complete import answer

        return answer(_COMMANDS)
    arguments = arguments or ["--help"]
    form = _format_of(arguments)
    command = arguments[0] if arguments[0] in _COMMANDS else ""
    prog_name = f"{PROGRAM} {command}".rstrip()
    try:
        if not command and not arguments[0].startswith("-"):
            raise typer.TyperException(f"No such command: {arguments[0]}. {_meant(arguments)}")
        words = [*arguments[bool(command) :]]
        return int(_application(command).main(words, prog_name=prog_name, standalone_mode=False) or OK)
    except (typer.TyperException, ArgumentError) as error:
        if command and "--schema" in arguments and hasattr(error, "possibilities"):  # of no such option
            print_json(schema_of(command))
            return OK
        context = typer.Context(_application(command), info_name=prog_name)
        return _wrong_arguments(error, arguments, context, form)
    except RetrievalError as error:
        return print_error(error, form)
    except (BrokenPipeError, SystemExit):
        # The reader of our output, such as `head`, has had enough; rich turns that into an exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), terminal.out().fileno())
        return OK
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # the last resort: a traceback is no answer
        if isinstance(error, OSError) and error.errno in _OF_WRITING and error.filename is None:
            text, hint = f"cannot write the output: {error.strerror}", "Is there room where the output goes?"
            return print_error(RetrievalError(ErrorCode.OUTPUT_NOT_WRITABLE, text, hint), form)
        if os.environ.get("NVFLARE_LOGSTREAM_DEBUG"):
            raise
        text, hint = f"{type(error).__name__}: {error}", _BUG
        return print_error(RetrievalError(ErrorCode.INTERNAL_ERROR, text, hint), form)
    finally:
        terminal.give_back()


def _meant(arguments: Sequence[str]) -> str:
    """Which command to type: one like the first word, or one that follows, as in `get logs`, or any."""
    likely = get_close_matches(arguments[0], _COMMANDS, n=1)
    likely = likely or [word for word in arguments if word in _COMMANDS]
    return f"Did you mean {likely[0]}?" if likely else f"The commands are {', '.join(_COMMANDS)}."


def _format_of(arguments: Sequence[str]) -> Format:
    """The format that was asked for, also where other arguments are wrong."""
    pairs = zip(("", *arguments), arguments, strict=False)
    values = [word for before, word in pairs if before == "--format" or word.startswith("--format=")]
    value = values[-1].removeprefix("--format=") if values else ""
    return Format(value) if value in ("json", "jsonl") else Format.TEXT


def _wrong_arguments(
    error: typer.TyperException | ArgumentError,
    arguments: Sequence[str],
    context: typer.Context,
    form: Format,
) -> int:
    """Answer wrong arguments in a few lines: what is wrong first, and at the end how to go on."""
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    text = text.replace("Value error, ", "", 1)  # pydantic's
    if hasattr(error, "possibilities"):  # it is no such option; what was meant is judged by the whole word
        option = getattr(error, "option_name", "")
        text = f"No such option: {option}{_nearest(option, arguments, context)}"
    text += _missed(text, context)
    hint = f"`{context.command_path} --help` says what is allowed."
    wrong = RetrievalError(ErrorCode.INVALID_ARGS, text, hint)
    return print_error(wrong, form, usage=context.get_usage())


def _missed(text: str, context: typer.Context) -> str:
    """What to type instead, where an argument is missing, or a site is named as to other programs."""
    if text.startswith("Missing argument") and "JOB_ID" in text:
        return " `nvflare-logstream status` lists the jobs."
    extra = re.search(r"unexpected extra argument\S* \(([^-]\S*).*\)$", text)
    options = [name for parameter in context.command.get_params(context) for name in parameter.opts]
    return f"; did you mean --site {extra[1]}?" if extra and "--site" in options else ""


def _nearest(option: str, arguments: Sequence[str], context: typer.Context) -> str:
    """A question for the option that was meant, if there is one like it; `option` may be -t of -tail."""
    typed = next((word for word in arguments if word.startswith(option)), option)
    names = [name for parameter in context.command.get_params(context) for name in parameter.opts]
    known = [name[2:] for name in names if name.startswith("--")]
    likely = get_close_matches(typed.lstrip("-").split("=")[0], known, n=1)
    return f". Did you mean --{likely[0]}?" if likely else ""


def main() -> None:
    """The console script."""
    # They are None where whoever started us closed them, and nobody wants what would be written there.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")
    sys.stderr = sys.stderr or Path(os.devnull).open("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what it cannot encode is shown as \\u2713
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = OK
    except OSError as error:
        if os.environ.get("NVFLARE_LOGSTREAM_DEBUG"):
            raise
        notice(f"cannot write the output: {error.strerror}")
        code = REFUSED
    # The runtime's threads would keep the process for a tenth of a second, and nothing is left to be done.
    os._exit(code)


if __name__ == "__main__":
    main()
