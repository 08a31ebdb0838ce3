"""Completes what is typed in a shell: commands and options, and jobs, sites and files from the server.

The shell waits for the answer, so it must come soon, and nothing but the answer may be printed. The server
is asked by a process of its own, whose output goes nowhere: it writes what it was told into a file, from
which we read. If it takes long, we answer without it; it goes on, and the next try finds the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Any

import typer

from nvflare_logstream.cli import COMPLETING, PROGRAM
from nvflare_logstream.names import is_name

FRESH = 15.0  # seconds for which an answer of the server is kept
PATIENCE = 3.0  # seconds that a shell waits
_ACCESS = ("study", "kit_id", "startup_kit")  # the parameters that decide what there is to see
_FILES = ("log.txt", "log.json", "error_log.txt")


def answer(commands: Sequence[str]) -> int:
    """Answer a shell that asks what may come next, as `COMPLETING` says; returns the exit code."""
    from typer.completion import completion_init, shell_complete  # type: ignore[attr-defined]

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # an error has no place on a line that is being typed
    try:
        instruction = os.environ.pop(COMPLETING)  # the process that asks the server is no completion
        words = _words(os.environ)
        app = typer.Typer(add_completion=False)
        app.callback()(lambda: None)
        for name in [word for word in words if word in commands][:1] or commands:
            app.command()(getattr(import_module(f"nvflare_logstream.cli.{name}"), name))
        completion_init()
        return int(
            shell_complete(typer.main.get_command(app), {"obj": words}, PROGRAM, COMPLETING, instruction)
        )
    except SystemExit as end:  # fish asks by an exit code
        return int(end.code or 0)
    except Exception:
        return 1


def _words(environment: MutableMapping[str, str]) -> list[str]:
    """The words typed so far; those of bash, to which @latest and --site=x are several, put together."""
    if "COMP_WORDS" not in environment:
        return environment.get("_TYPER_COMPLETE_ARGS", "").split()
    words, number = environment["COMP_WORDS"].split("\n"), int(environment["COMP_CWORD"])
    mended: list[str] = []
    for word in words[:number]:
        if mended and mended[-1] == "@":
            mended[-1] += word
        elif word != "=":
            mended.append(word)
    last = "".join(words[number : number + 1])
    environment["COMP_WORDS"] = "\n".join([*mended, "" if last == "=" else last])
    environment["COMP_CWORD"] = str(len(mended))
    return mended


# -- what may come next --------------------------------------------------------------------------------------


def jobs(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Ids of jobs, the newest first."""
    found = [] if incomplete.startswith("@") else _known(ctx, "")["jobs"]
    yield from _that_fit(incomplete, [*found, ("@latest", "the job that was submitted last")])


def sites(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of the job's sites, the last of several with commas between."""
    before, comma, last = incomplete.rpartition(",")
    names = [*_known(ctx, _job(ctx))["sites"], ("all", "every site and the server")]
    for name, help_text in _that_fit(last, names):
        yield f"{before}{comma}{name}", help_text


def files(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of the job's logs."""
    found = _known(ctx, _job(ctx))["files"]
    yield from _that_fit(incomplete, found or [(name, "") for name in _FILES])


def _that_fit(incomplete: str, values: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    return ((name, help_text) for name, help_text in values if name.startswith(incomplete))


def _job(ctx: typer.Context) -> str:
    """The job that was typed; where an option lacks its value, its command has not got so far as to tell."""
    params = ctx.params
    if not params.get("job") and ctx.obj:
        options = [number for number, word in enumerate(ctx.obj) if word.startswith("-")]
        before = ctx.obj[2 : options[-1] if options else None]
        params = ctx.command.make_context(ctx.info_name, before, resilient_parsing=True).params
    return str(params.get("job") or "")


# -- what the server knows -----------------------------------------------------------------------------------


def _known(ctx: typer.Context, job: str) -> dict[str, list[tuple[str, str]]]:
    """What the server knows of a job, or of all; as it was told a moment ago, or asked for it now."""
    nothing: dict[str, list[tuple[str, str]]] = {"jobs": [], "sites": [], "files": []}
    asked = {name: ctx.params.get(name) for name in _ACCESS} | {"job": job}
    with suppress(Exception):
        path = cache_file(asked)
        if (found := _read(path)) is None:
            asking = Popen(
                [sys.executable, "-m", "nvflare_logstream.cli.ask_server", json.dumps(asked)],
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                start_new_session=True,  # it outlives us if we have to answer without it
            )
            with suppress(TimeoutExpired):
                asking.wait(PATIENCE)
            found = _read(path)
        return nothing | (found or {})
    return nothing


def cache_file(asked: dict[str, Any]) -> Path:
    """Where the answer is kept: by what was asked, and with which start-up kit."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / PROGRAM
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    question = json.dumps([asked, os.environ.get("NVFLARE_STARTUP_KIT_DIR"), str(Path.cwd())], sort_keys=True)
    return home / f"{hashlib.sha256(question.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> dict[str, list[tuple[str, str]]] | None:
    try:
        if not 0 <= time.time() - path.stat().st_mtime <= FRESH:
            return None
        found = json.loads(path.read_text("utf-8"))
        # Shells take completions apart again: only plain names go through all of them as they are.
        return {
            name: [(value, _plain(text)) for value, text in found[name] if is_name(value)]
            for name in ("jobs", "sites", "files")
        }
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9 .:_-]", "", str(text))[:60]
