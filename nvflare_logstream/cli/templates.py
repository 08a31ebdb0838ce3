"""`nvflare-logstream templates`: the job templates and examples that come with the package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

import nvflare_logstream
from nvflare_logstream.cli.options import AnswerFormatOption, SchemaOption
from nvflare_logstream.cli.output import AnswerFormat, print_envelope, say
from nvflare_logstream.errors import ArgumentError, ErrorCode, RetrievalError

MUTATING, IDEMPOTENT = True, False  # with --to it makes a directory, once
EXAMPLES = (
    "nvflare-logstream templates",
    "nvflare-logstream templates log_streaming --to ./log_streaming",
    "nvflare job create -j my_job -w ./log_streaming",
)
_PACKAGE = Path(nvflare_logstream.__file__).parent
_PLACES = (_PACKAGE / "job_templates", _PACKAGE.parent / "job_templates")  # installed; in a source tree
_INFO = "info.md"


def templates(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One of them. Default: all.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Copy it to this directory, which is made.")
    ] = None,
    form: AnswerFormatOption = AnswerFormat.TEXT,
    schema: SchemaOption = False,
) -> None:
    """List the job templates and examples that come with the package, or copy one.

    Each has an info.md that says what it is for and what to type. `nvflare job create -w` takes the path of a
    template, the listed one or that of a copy; log_streaming_recipe is an example to run and to read.
    """
    found = {path.parent.name: path.parent for path in sorted(_directory().glob(f"*/{_INFO}"))}
    if name is not None and name not in found:
        raise ArgumentError("NAME", name, f"one of {', '.join(found)}")
    if to is None:
        _list([found[name]] if name else list(found.values()), form)
    elif name is None:
        raise ArgumentError("--to", str(to), "with the NAME of what is to be copied")
    else:
        _copy(found[name], to, form)


def _directory() -> Path:
    for place in _PLACES:
        if place.is_dir():
            return place
    error = f"the package at {_PACKAGE} has no job templates"
    raise RetrievalError(ErrorCode.INTERNAL_ERROR, error, "Install nvflare-logstream again.")


def _list(paths: list[Path], form: AnswerFormat) -> None:
    rows = [{"name": path.name, "description": _description(path), "path": str(path)} for path in paths]
    if form is AnswerFormat.JSON:
        print_envelope({"templates": rows})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        say(f"{row['name']:{width}}  {row['description']}")
        say(f"{'':{width}}  {row['path']}")


def _description(path: Path) -> str:
    """What follows the name in the heading of its info.md."""
    with (path / _INFO).open(encoding="utf-8") as info:
        return info.readline().partition(": ")[2].strip()


def _copy(source: Path, to: Path, form: AnswerFormat) -> None:
    try:
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
    except FileExistsError as error:
        hint = "Name a directory that does not exist: nothing is overwritten."
        raise RetrievalError(ErrorCode.OUTPUT_DIR_EXISTS, f"{to} exists", hint) from error
    except OSError as error:
        hint = "Name another directory; remove what was copied so far."
        text = f"cannot copy to {to}: {error.strerror or error}"
        raise RetrievalError(ErrorCode.OUTPUT_DIR_NOT_WRITABLE, text, hint) from error
    if form is AnswerFormat.JSON:
        print_envelope({"name": source.name, "path": str(to)})
    else:
        say(f"copied {source.name} to {to}; {to / _INFO} says what to type")
