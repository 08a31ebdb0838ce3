"""The rotation chain: a log and its rotated files, as they lie in the directory."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from nvflare_logstream.site.cursor import fingerprint


@dataclass(frozen=True)
class Found:
    """A file of the rotation chain as a directory scan saw it."""

    path: Path
    inode: int
    size: int


def scan(log: Path) -> list[Found]:
    """The rotation chain, oldest first; looked at until two looks agree, since a rotation renames file by file."""
    last: list[Found] | None = None
    while True:
        chain = _scan_once(log)
        if last is not None and [(f.path, f.inode) for f in last] == [(f.path, f.inode) for f in chain]:
            return chain
        last = chain


def _scan_once(log: Path) -> list[Found]:
    prefix = log.name + "."
    rotated: list[tuple[tuple[int, int], Found]] = []
    current: list[Found] = []
    try:
        entries = list(os.scandir(log.parent))
    except FileNotFoundError:
        return []
    for entry in entries:
        if entry.name != log.name and not entry.name.startswith(prefix):
            continue
        try:
            status = os.stat(entry.path)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue  # opening a named pipe would block
        found = Found(Path(entry.path), status.st_ino, status.st_size)
        if entry.name == log.name:
            current.append(found)
            continue
        suffix = entry.name[len(prefix) :]
        if suffix.endswith((".gz", ".xz", ".bz2", ".zst")):
            continue  # a compressed backup is no longer the file that was written
        # Numbered backups are oldest at the highest number; any other naming is ordered by last write.
        rank = (0, -int(suffix)) if suffix.isdecimal() else (1, status.st_mtime_ns)
        rotated.append((rank, found))
    return [found for _, found in sorted(rotated, key=lambda item: item[0])] + current


def head_of(path: Path, length: int) -> str:
    """Fingerprint of the first `length` bytes; empty if there is no such file."""
    try:
        with path.open("rb") as file:
            return fingerprint(file.read(length))
    except FileNotFoundError:
        return ""
