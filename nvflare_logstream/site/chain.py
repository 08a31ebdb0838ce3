"""The rotation chain: a log and its rotated files, as they lie in the directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nvflare_logstream.site.cursor import Segment, fingerprint

_COMPRESSED = (".gz", ".xz", ".bz2", ".zst")


class ChainFile(NamedTuple):
    """A file of the rotation chain as a directory scan saw it."""

    path: Path
    inode: int
    size: int


def scan(log: Path) -> list[ChainFile]:
    """The rotation chain, oldest first. A rotation renames file by file: scan until two scans agree."""
    last: list[ChainFile] | None = None
    while True:
        chain = _scan_once(log)
        if last is not None and [(f.path, f.inode) for f in last] == [(f.path, f.inode) for f in chain]:
            return chain
        last = chain


def _scan_once(log: Path) -> list[ChainFile]:
    prefix = log.name + "."
    rotated: list[tuple[tuple[int, int], ChainFile]] = []
    current: list[ChainFile] = []
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
        file = ChainFile(Path(entry.path), status.st_ino, status.st_size)
        if entry.name == log.name:
            current.append(file)
            continue
        suffix = entry.name[len(prefix) :]
        if suffix.endswith(_COMPRESSED):
            continue  # a compressed backup no longer holds the bytes that were written
        # Numbered backups are oldest at the highest number; backups named otherwise are in the order of their
        # last write.
        rank = (0, -int(suffix)) if suffix.isdecimal() else (1, status.st_mtime_ns)
        rotated.append((rank, file))
    return [file for _, file in sorted(rotated, key=lambda item: item[0])] + current


def head_of(path: Path, length: int) -> str:
    """Fingerprint of the first `length` bytes; empty if there is no such file."""
    try:
        with path.open("rb") as file:
            return fingerprint(file.read(length))
    except FileNotFoundError:
        return ""


def unread(chain: list[ChainFile], segments: Iterable[Segment]) -> list[ChainFile]:
    """The files of the chain that follow the last one from which something was read."""
    read = [number for number, file in enumerate(chain) if _was_read(file, segments)]
    return chain[read[-1] + 1 :] if read else chain


def _was_read(file: ChainFile, segments: Iterable[Segment]) -> bool:
    return any(
        segment.inode == file.inode
        and segment.head_length > 0
        and head_of(file.path, segment.head_length) == segment.head
        for segment in segments
    )


def holder(chain: list[ChainFile], segment: Segment) -> ChainFile | None:
    """The file that holds a segment: of the same inode and head, or else of the same head alone."""
    for file in sorted(chain, key=lambda f: f.inode != segment.inode):
        if file.inode != segment.inode and segment.head_length == 0:
            continue
        if file.size >= segment.head_length and head_of(file.path, segment.head_length) == segment.head:
            return file
    return None
