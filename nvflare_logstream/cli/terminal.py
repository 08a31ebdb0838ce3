"""The two streams that a command writes to; nothing else in the process writes to them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from nvflare_logstream.words import Word


class Colour(Word):
    """When to use colours."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"

    def wanted(self, stream: TextIO) -> bool:
        """Whether to colour what is written to `stream`; NO_COLOR (https://no-color.org) is respected."""
        if self is not Colour.AUTO:
            return self is Colour.ALWAYS
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _Paged(TextIOWrapper):
    """What a pager shows on the terminal."""

    def isatty(self) -> bool:
        return True


_ours: dict[str, TextIO] = {}  # the streams of the process by their names in `sys`, while others do without
_pages: dict[str, TextIO] = {}  # the pager's, in the place of the terminal
_undo = ExitStack()


def out() -> TextIO:
    """Where answers go."""
    return _stream("stdout")


def err() -> TextIO:
    """Where everything else for the person at the terminal goes."""
    return _stream("stderr")


def _stream(name: str) -> TextIO:
    stream: TextIO = _pages.get(name) or _ours.get(name) or getattr(sys, name)
    return stream


def take_over() -> None:
    """From here on, only what is written to `out` and `err` reaches the terminal.

    The runtime, its libraries and Python itself print greetings, warnings and tracebacks of threads, also by
    way of the file descriptors. That is for developers: with NVFLARE_LOGSTREAM_DEBUG it is let through.
    """
    if _ours or os.environ.get("NVFLARE_LOGSTREAM_DEBUG"):
        return
    import logging

    nobody = _undo.enter_context(Path(os.devnull).open("w", encoding="utf-8", errors="replace"))
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: TextIO = getattr(sys, name)
        stream.flush()
        _undo.callback(setattr, sys, name, stream)
        _ours[name] = _moved(stream, number, nobody)
        setattr(sys, name, nobody)
    _undo.callback(setattr, logging, "lastResort", logging.lastResort)
    # Not None: Python would print that no handler could be found.
    logging.lastResort = logging.NullHandler()


def _moved(stream: TextIO, number: int, nobody: TextIO) -> TextIO:
    """The same stream on a file descriptor of its own, if it is that of the process."""
    try:
        if stream.fileno() != number:
            return stream
    except OSError:  # a test's, which has none
        return stream
    ours = os.fdopen(os.dup(number), "w", encoding=stream.encoding, errors=stream.errors)
    _undo.callback(ours.close)
    _undo.callback(os.dup2, ours.fileno(), number)
    os.dup2(nobody.fileno(), number)
    return ours


def give_back() -> None:
    """Undo `take_over`.

    Raises:
        OSError: if what was written does not get to where it goes; all is undone nevertheless.
    """
    try:
        for stream in _ours.values():
            stream.flush()
    finally:
        _ours.clear()
        _undo.close()


def columns() -> int | None:
    """How wide the terminal is; None where there is none."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size((_ours.get("stdout") or sys.stdout).fileno()).columns
    return None


@contextmanager
def paged(wanted: bool) -> Iterator[None]:
    """Show what is written meanwhile in a pager, as git does: if `wanted`, and on a terminal.

    The pager is that of $PAGER, `less` without it, and gets LESS=FRX unless that is set: text that has room
    on the screen is simply printed. With PAGER=cat or an empty one there is no pager.
    """
    command = _pager() if wanted and out().isatty() else []
    if not command:
        yield
        return
    screens = {"stdout": out(), **({"stderr": err()} if err().isatty() else {})}
    screens["stdout"].flush()
    settings = {"LESS": "FRX", "LV": "-c", **os.environ}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=screens["stdout"], stderr=err(), env=settings
    )
    assert process.stdin is not None
    page = _Paged(process.stdin, encoding=screens["stdout"].encoding, errors="backslashreplace")
    _pages.update(dict.fromkeys(screens, page))
    try:
        yield
    finally:
        _pages.clear()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pager, which has the screen
        with suppress(BrokenPipeError):
            page.close()
        process.wait()
        signal.signal(signal.SIGINT, before)


def _pager() -> list[str]:
    """The command line of the pager; empty if there is none."""
    if os.environ.get("TERM", "dumb") == "dumb":
        return []
    try:
        command = shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:  # a quote without its other half
        return []
    return command if command and command != ["cat"] and shutil.which(command[0]) else []
