"""How every command answers: text for people, one JSON envelope for programs, and the exit codes.

They are those of the runtime's own commands. Its output helpers are not used: they rewrite whatever looks
like a secret, also inside a log's lines, and loading the runtime takes half a second.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from nvflare_logstream.cli import terminal
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.lines import visible
from nvflare_logstream.words import Word

SCHEMA_VERSION = "1"

OK, REFUSED, CONNECTION, TIMEOUT, ARGUMENTS, INTERNAL = range(6)
INTERRUPTED = 130

_EXIT_CODES = {
    ErrorCode.CONNECTION_FAILED: CONNECTION,
    ErrorCode.AUTH_FAILED: CONNECTION,
    ErrorCode.STARTUP_KIT_MISSING: CONNECTION,
    ErrorCode.TIMEOUT: TIMEOUT,
    ErrorCode.INVALID_ARGS: ARGUMENTS,
    ErrorCode.INTERNAL_ERROR: INTERNAL,
}


class Format(Word):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class AnswerFormat(Word):
    """How a command answers that has one answer and no events."""

    TEXT = "text"
    JSON = "json"


def exit_code_of(error: RetrievalError) -> int:
    """The exit code for an error's code: 1 where the server or the disk said no."""
    return _EXIT_CODES.get(error.code, REFUSED)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON document on a line of its own."""
    terminal.out().write(json.dumps({"schema_version": SCHEMA_VERSION, **value}) + "\n")
    terminal.out().flush()


def print_envelope(data: dict[str, Any], exit_code: int = OK) -> None:
    """Print the answer of a command in JSON mode."""
    print_json({"status": "ok", "exit_code": exit_code, "data": data})


def print_error(error: RetrievalError, form: Format, usage: str = "") -> int:
    """Say why a command failed, to a person with how it is used, and return its exit code."""
    code = exit_code_of(error)
    if form is Format.TEXT:
        notice(str(error))
        if usage:
            notice(usage)
        if error.hint:
            notice(f"Hint: {error.hint}")
        notice(f"Code: {error.code} (exit {code})")
        return code
    answer = {
        "status": "error",
        "exit_code": code,
        "error_code": error.code,
        "message": str(error),
        "hint": error.hint,
    }
    end = {"event": "terminal", "terminal": True} if form is Format.JSONL else {}
    print_json(answer | end)
    return code


def say(text: str) -> None:
    """Print a line of the answer for a person."""
    terminal.out().write(visible(text) + "\n")  # it may hold words of a server, a site or a manifest


def notice(text: str) -> None:
    """Print a line for the person at the terminal, never part of the answer."""
    terminal.err().write(visible(text) + "\n")
    terminal.err().flush()


def asked(question: str) -> bool:
    """Ask the person at the terminal; whatever is not plainly yes is no."""
    terminal.out().flush()  # what it is about stands above it
    terminal.err().write(f"{visible(question)} [y/N] ")
    terminal.err().flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
