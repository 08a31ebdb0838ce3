"""What a later life of a client's parent process has to know of a job that it cannot see in the job's config.

That is: this process follows the job's logs itself, or the job runs where this process cannot see them. It
stands in a small file in the job's directory. The job's own code can write there, so the file is believed no
more than that code itself: it names files and an outcome, and lets nothing out that would not go out anyway.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from nvflare_logstream.flare.launchers import Launcher
from nvflare_logstream.names import is_name
from nvflare_logstream.site.endings import Doubt

_FILE = "logstream.json"
_LONGEST = 64 << 10  # bytes
_MOST_FILES = 1000
_LONGEST_TEXT = 500  # characters
_FAR = 1e11  # seconds since the epoch


class Launched(NamedTuple):
    """A job that was launched.

    Attributes:
        log_files: names of the files that the site streams of it.
        outcome: how its process ended; empty while it runs.
        ended: when that was, in seconds since the epoch; 0 while it runs.
    """

    log_files: tuple[str, ...]
    outcome: str = ""
    ended: float = 0.0

    def write(self, directory: Path) -> None:
        """Keep it in the job's directory, atomically.

        Raises:
            OSError: if the disk does not take it.
        """
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{_FILE}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._asdict(), file)
            os.replace(temporary, directory / _FILE)
        except OSError:
            with suppress(OSError):
                os.remove(temporary)
            raise


def read_launched(directory: Path) -> Launched | None:
    """What was kept in a job's directory; None if there is nothing, or nothing that can be used."""
    try:
        with os.fdopen(os.open(directory / _FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            fields = json.loads(file.read(_LONGEST))
        files, outcome, ended = fields["log_files"], fields["outcome"], fields["ended"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(files, list) and len(files) <= _MOST_FILES and all(map(is_name, files))):
        return None
    if not (isinstance(outcome, str) and isinstance(ended, int | float) and 0 <= ended < _FAR):
        return None
    return Launched(tuple(files), outcome[:_LONGEST_TEXT], float(ended))


def launched_out_of_sight(launcher: Launcher, directory: Path) -> Launched | None:
    """What was kept of a job whose end only an earlier life of this process has seen, in its directory.

    Where this process sees a job's files, it keeps no end: what stands there then is the job's own word.
    """
    return None if launcher.sees_files else read_launched(directory)


def why_not_injected(launcher: Launcher, has_package: bool | None, declared: bool) -> str:
    """Why a job's process gets no streamer of ours, because it may be unable to import it; empty if it can.

    Args:
        launcher: runs the job.
        has_package: what the site says of the job's Python; None: decide by the launcher.
        declared: the job's own config names our streamer, so that it needs the package anyway.
    """
    if declared or (launcher.has_package if has_package is None else has_package):
        return ""
    if has_package is False:
        return "job_has_package is false in the args of SiteLogStreamer"
    return (
        f"it runs in {launcher.place}, whose Python may lack nvflare_logstream: where it has it, set "
        "job_has_package to true in the args of SiteLogStreamer"
    )


def doubt_of(launcher: Launcher, directory: Path, launched: Launched) -> Doubt | None:
    """Why nobody knows all of the logs of a job that is over; None where its site sees all of them.

    Args:
        launcher: ran the job.
        directory: the job's log directory at the site.
        launched: the job.
    """
    if launcher.sees_files:
        return None
    copies = (path for file in launched.log_files for path in directory.glob(file))  # some are patterns
    if any(path.is_file() for path in copies):
        what = (
            f"the job ran in {launcher.place}: what it wrote after a copy of its logs was made stayed there"
        )
    else:
        what = f"the job ran in {launcher.place}, and no copy of its logs came back: {launched.outcome}"
    return Doubt(launched.ended or time.time(), what)
