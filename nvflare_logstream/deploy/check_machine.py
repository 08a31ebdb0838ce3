"""Checks of the machine that a place runs on: its disk, its store, its open files."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from nvflare_logstream.deploy.components import is_number
from nvflare_logstream.deploy.findings import Report
from nvflare_logstream.deploy.interpreter import Interpreter
from nvflare_logstream.deploy.kits import Place, Role
from nvflare_logstream.deploy.resources_read import Resources

_GIB = 1 << 30
_FREE_PERCENT = 5.0  # the receiver's default for min_free_percent
_FREE_SITE = _GIB  # bytes; a site's logs wait there while the server is away
_OPEN_FILES = {Role.SERVER: 1024, Role.CLIENT: 512}  # a connection each, and the files that are followed


def store_of(place: Place, resources: Resources) -> Path:
    """The directory of the server's store."""
    for entry in resources.ours("JobLogReceiver"):
        if isinstance(given := entry.args.get("dest_dir"), str) and given:
            return place.root / given
    return place.root / "logstream"


def _nearest(path: Path) -> Path:
    """The directory itself or, where that is not there or may not be seen, the nearest above it that is."""
    return next(above for above in (path, *path.parents) if os.path.exists(above))


def check_store(place: Place, resources: Resources) -> Report:
    """Whether the server can write its store."""
    report = Report(place.name, "store")
    store = store_of(place, resources)
    there = _nearest(store)
    index = store / "index.sqlite"
    if not there.is_dir():
        text = f"the store {store} cannot be made: {there} is not a directory"
        report.error(text, "choose another dest_dir")
    elif not os.access(there, os.W_OK | os.X_OK) or (os.path.exists(index) and not os.access(index, os.W_OK)):
        who = psutil.Process().username()
        report.error(
            f"the store {store} cannot be written by {who}",
            "give the user who runs the server the right to write there, or run the doctor as that user",
        )
    else:
        report.ok(f"the store is {store}")
    return report


def check_disk(place: Place, resources: Resources) -> Report:
    """Whether there is room for logs."""
    report = Report(place.name, "disk")
    where = store_of(place, resources) if place.role is Role.SERVER else place.root
    try:
        disk = shutil.disk_usage(_nearest(where))
    except OSError as error:
        report.error(
            f"the disk with {where} cannot be looked at: {error.strerror}", "run the doctor as that user"
        )
        return report
    share = 100 * disk.free / disk.total if disk.total else 100.0
    free = f"{disk.free / _GIB:.1f} GiB ({share:.0f}%) of the disk with {where} are free"
    if place.role is Role.CLIENT:
        if disk.free < _FREE_SITE:
            report.warning(f"{free}: logs that cannot be written are lost", "make room")
        return report
    given = [entry.args.get("min_free_percent") for entry in resources.ours("JobLogReceiver")]
    wanted = next((value for value in given if is_number(value)), _FREE_PERCENT)
    if share <= wanted:
        text = f"{free}, and {wanted:g}% have to stay free: the sites wait"
        report.error(text, "make room, or lower min_free_percent")
    return report


def check_open_files(place: Place, interpreter: Interpreter) -> Report:
    """Whether the process may open enough files."""
    report = Report(place.name, "open_files")
    most, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[0], "this shell"
    if interpreter.process is not None:
        with suppress(OSError, psutil.Error):  # another user's, or it has just ended
            most, whose = interpreter.process.rlimit(psutil.RLIMIT_NOFILE)[0], f"the running {place.role}"
    wanted = _OPEN_FILES[place.role]
    if 0 <= most < wanted:  # -1 is no limit
        report.warning(
            f"{whose} may open {most} files; a {place.role} may need {wanted}",
            f"`ulimit -n {wanted}` (or LimitNOFILE of its service) before the start script",
        )
    return report
