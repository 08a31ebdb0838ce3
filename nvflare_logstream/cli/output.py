"""What every command says, and how it ends: text for people, one JSON envelope for machines, and the exit codes.

As the runtime's own commands do. Its output helpers are not used: they rewrite whatever looks like a secret, also inside a log's
lines, and loading the runtime would make a wrong option cost half a second.
"""

from __future__ import annotations

import json
import sys
from enum import Enum
from typing import Any

from nvflare_logstream.errors import RetrievalError

SCHEMA_VERSION = "1"

OK, REFUSED, CONNECTION, TIMEOUT, ARGUMENTS, INTERNAL = range(6)
INTERRUPTED = 130

_EXIT_CODES = {
    "CONNECTION_FAILED": CONNECTION,
    "AUTH_FAILED": CONNECTION,
    "STARTUP_KIT_MISSING": CONNECTION,
    "TIMEOUT": TIMEOUT,
    "INVALID_ARGS": ARGUMENTS,
    "INTERNAL_ERROR": INTERNAL,
}


class Format(str, Enum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


def exit_code_of(error: RetrievalError) -> int:
    """The exit code for an error's code: 1 where the server or the disk said no."""
    return _EXIT_CODES.get(error.code, REFUSED)


def print_json(value: dict[str, Any]) -> None:
    """One JSON document on a line of its own."""
    sys.stdout.write(json.dumps({"schema_version": SCHEMA_VERSION, **value}) + "\n")
    sys.stdout.flush()


def print_envelope(data: dict[str, Any], exit_code: int = OK) -> None:
    """The answer of a command in JSON mode."""
    print_json({"status": "ok", "exit_code": exit_code, "data": data})


def print_error(error: RetrievalError, form: Format) -> int:
    """Say why a command failed, and return its exit code."""
    code = exit_code_of(error)
    if form is Format.TEXT:
        notice(str(error))
        if error.hint:
            notice(f"Hint: {error.hint}")
        notice(f"Code: {error.code} (exit {code})")
        return code
    end = {"event": "terminal", "terminal": True} if form is Format.JSONL else {}
    print_json(
        {
            "status": "error",
            "exit_code": code,
            "error_code": error.code,
            "message": str(error),
            "hint": error.hint,
            **end,
        }
    )
    return code


def notice(text: str) -> None:
    """A line for the person at the terminal, never part of the answer."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
