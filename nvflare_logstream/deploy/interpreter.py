"""Which Python a site's start script runs, and in which environment.

A process that runs tells it best. Else the script is read, never run: what it finds depends on the shell
from which it is started, and the doctor is taken to be started from the same.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from nvflare_logstream.deploy.kits import Place
from nvflare_logstream.deploy.reading import read_file

_STARTED = re.compile(r"(\S*python[\d.]*)\s(?:.*\s)?-m\s+nvflare\.private\.fed\.app")
_LONGEST_LINE = 2000  # characters; the runtime's own has 150, and a pattern takes its time on a long one
_ACTIVATED = re.compile(r"^\s*(?:source|\.)\s+[\"']?([^\s\"'$]+)/bin/activate", re.MULTILINE)
_PREPARED = re.compile(r"^\s*(?:(?:conda|mamba|module)\s|(?:source|\.)\s)", re.MULTILINE)
_PYTHONPATH = re.compile(r"^\s*export PYTHONPATH=[\"']?([^\s\"'$]+)", re.MULTILINE)
_PLAIN = re.compile(r"python[\d.]*")
_PARENT = re.compile(r"nvflare\.private\.fed\.app\.(client\.client_train|server\.server_train)")
_SCRIPT_BYTES = 1 << 16


@dataclass(frozen=True)
class Interpreter:
    """The Python of a place.

    Attributes:
        named: as the start script names it.
        path: what that is on this machine; empty if there is none.
        environment: the variables it is run with.
        process: the place's process, if it runs and may be looked at.
        sure: False where the script prepares an environment in a way that only a shell can follow.
    """

    named: str
    path: str
    environment: dict[str, str]
    process: psutil.Process | None = None
    sure: bool = True


def find_interpreter(place: Place) -> Interpreter:
    """Find the Python that runs a place, or that would run it if it were started from here."""
    script = script_of(place)
    named = found[1].strip("'\"") if (found := _STARTED.search(script)) else "python3"
    if not _PLAIN.fullmatch(Path(named).name):
        named = "python3"
    if process := _process_of(place):
        try:
            environment, named = process.environ(), process.cmdline()[0]
            return Interpreter(named, _which(named, environment), environment, process)
        except (psutil.Error, OSError, IndexError):
            pass  # another user's, or it has just ended: as if it were not there
    environment = dict(os.environ)
    if activated := _ACTIVATED.search(script):
        environment["PATH"] = f"{activated[1]}/bin{os.pathsep}{environment.get('PATH', '')}"
    if added := _PYTHONPATH.search(script):
        environment["PYTHONPATH"] = added[1].rstrip(":") + ":" + environment.get("PYTHONPATH", "")
    sure = bool(activated) or not _PREPARED.search(script)
    return Interpreter(named, _which(named, environment), environment, None, sure)


def script_of(place: Place) -> str:
    """The text of the start script, without lines that are too long; empty where it cannot be read."""
    try:
        text = read_file(place.start_script, _SCRIPT_BYTES).decode(errors="replace")
    except OSError:
        return ""  # a kit for containers, say
    return "\n".join(line for line in text.splitlines() if len(line) <= _LONGEST_LINE)


def _which(named: str, environment: dict[str, str]) -> str:
    return shutil.which(named, path=environment.get("PATH", os.defpath)) or ""


def _process_of(place: Place) -> psutil.Process | None:
    """The process that runs in this place, however it was started; None if there is none."""
    root = os.path.realpath(place.root)
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        is_parent = any(_PARENT.fullmatch(word) for word in words)
        # Older start scripts name it as <root>/startup/..
        if is_parent and any(word.startswith("/") and os.path.realpath(word) == root for word in words):
            return process
    return None
