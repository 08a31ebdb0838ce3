"""The rotation chain: a log and its rotated files, as they lie in the directory.

The job's code may put anything there. So only regular files of known owners are looked into: no symbolic link
is followed, no named pipe or device is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from nvflare_logstream.site.cursor import Segment, fingerprint

MOST_FILES = 200  # rotated files of one log that are looked into; the runtime keeps 10
_MOST_NAMES = 200_000  # names of a directory that are looked at
_MOST_LOOKS = 3  # looks until two agree: a rotation of a few files is over before
_DATE = 100_000  # a number from here on is a date, such as 20261121
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst")
# Without O_NONBLOCK, opening a named pipe that took the file's place waits for a writer.
_PLAINLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class ChainFile(NamedTuple):
    """A file of the rotation chain as a directory scan saw it."""

    path: Path
    inode: int
    size: int
    written: int = 0  # time of the last write, in ns


def owners(directory: Path) -> set[int]:
    """The users whose files are read: our own, root, and the owner of the log's directory."""
    users = {os.geteuid(), 0}
    with suppress(FileNotFoundError):
        users.add(os.stat(directory).st_uid)
    return users


def obstacle(status: os.stat_result, users: Collection[int]) -> str:
    """Why a file is not read, in words that follow "it is"; empty if it may be read.

    Args:
        status: of the file itself, no link followed.
        users: whose files are read, see `owners`.
    """
    if stat.S_ISLNK(status.st_mode):
        return "a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "no regular file"
    return "" if status.st_uid in users else f"a file of user {status.st_uid}"


def open_plainly(path: Path) -> int | None:
    """Open a file for reading; None if there is none, or none that may be read (see `obstacle`).

    Raises:
        OSError: if the file is there and cannot be read.
    """
    try:
        descriptor = os.open(path, _PLAINLY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # gone, a link, a socket or device
            return None
        raise
    try:
        if not obstacle(os.fstat(descriptor), owners(path.parent)):
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def scan(
    log: Path, known: Collection[Segment] = (), copies: Collection[tuple[int, int]] = ()
) -> list[ChainFile]:
    """The rotation chain, oldest first. A rotation renames file by file: look until two looks agree.

    Args:
        log: the log's path.
        known: what was read; the files that hold it belong to the chain whatever they are called by now.
        copies: inodes and sizes of files that do not belong to it.

    Raises:
        OSError: if the directory is there and cannot be read.
    """
    chain = _scan_once(log, known, copies)
    for _ in range(_MOST_LOOKS):
        last, chain = chain, _scan_once(log, known, copies)
        if [(f.path, f.inode) for f in last] == [(f.path, f.inode) for f in chain]:
            break
    return chain


def _scan_once(log: Path, known: Collection[Segment], copies: Collection[tuple[int, int]]) -> list[ChainFile]:
    try:
        suffixes = _suffixes(log, known)
        users = owners(log.parent)
    except FileNotFoundError:
        return []
    rotated = []
    for suffix in suffixes:
        found = _look(log.with_name(f"{log.name}.{suffix}"), users)
        # An inode may be used again, by a file that is none of the log.
        if found is None or (found.inode, found.size) in copies:
            continue
        if _is_number_or_date(suffix) or was_read(found, known):
            rotated.append((suffix, found))
    # The log comes last: a rotation gives it away first.
    current = _look(log, users)
    chain = _in_order(rotated, known)
    if current:
        chain = [file for file in chain if file.inode != current.inode] + [current]
    return chain


def _in_order(rotated: list[tuple[str, ChainFile]], known: Collection[Segment]) -> list[ChainFile]:
    """Put rotated files in order, oldest first, from (suffix, file).

    Some loggers give the newest backup the lowest number, some the highest: the times of the last writes
    tell. Backups named otherwise are in the order of those times.
    """
    numbered = sorted((row for row in rotated if row[0].isdecimal()), key=lambda row: -int(row[0]))
    times = [file.written for _, file in numbered if file.size]
    falling = sum((after > before) - (after < before) for before, after in pairwise(times))
    # What was read comes before what was not: that says more than times, which a late line turns round.
    read = [int(row[0]) for row in numbered if was_read(row[1], known)]
    rest = [int(row[0]) for row in numbered if row[1].size and not was_read(row[1], known)]
    if falling < 0 and read and rest and min(read) > max(rest):
        falling = 1
    if falling < 0 or (not falling and numbered and int(numbered[0][0]) >= _DATE):
        numbered.reverse()
    others = sorted((row for row in rotated if not row[0].isdecimal()), key=lambda row: row[1].written)
    return [file for _, file in numbered + others]


def _suffixes(log: Path, known: Collection[Segment]) -> list[str]:
    """What follows `<log>.` in the names of the rotated files; of too many those with the outermost numbers.

    The newest are among these, whichever way the numbers run.
    """
    prefix, read, others = log.name + ".", [], []
    inodes = {segment.inode for segment in known}
    with os.scandir(log.parent) as entries:
        for entry in islice(entries, _MOST_NAMES):
            suffix = entry.name[len(prefix) :]
            # A compressed backup no longer holds the bytes that were written.
            if not suffix or not entry.name.startswith(prefix) or suffix.endswith(_COMPRESSED):
                continue
            if entry.inode() in inodes:
                read.append(suffix)
            elif _is_number_or_date(suffix):
                others.append(suffix)
    if len(others) > MOST_FILES:
        others.sort(key=lambda suffix: (len(suffix), suffix))
        half = MOST_FILES // 2
        others = others[: half + 1] + others[-half:]  # one more than the most, so that it shows
    return read + others


def _is_number_or_date(suffix: str) -> bool:
    """Whether a rotation may have given this name; an operator's `log.txt.bak` is no file of the log."""
    return any(map(str.isdigit, suffix)) and all(letter.isdigit() or letter in "-_.:T" for letter in suffix)


def _look(path: Path, users: Collection[int]) -> ChainFile | None:
    """A file as it is now; None if it is gone or may not be read.

    Raises:
        OSError: if nobody can say; to pass it over might lose it.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if obstacle(status, users):
        return None
    return ChainFile(path, status.st_ino, status.st_size, status.st_mtime_ns)


def inode_of(path: Path) -> int:
    """The inode that a path names; 0 if there is nothing."""
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return 0


def check_plain(path: Path) -> None:
    """Check that a file may be read; nothing is wrong if there is none.

    Raises:
        OSError: if it may not (see `obstacle`).
    """
    with suppress(FileNotFoundError):
        if what := obstacle(os.lstat(path), owners(path.parent)):
            raise OSError(errno.EPERM, f"it is {what}, and only regular files of the job are read")


def skip_empty(files: list[ChainFile]) -> list[ChainFile]:
    """Files without the empty ones before the first that has data, if any has.

    A file may get its last line until its successor has data: so the empty ones are looked at again.
    """
    first = next((number for number, file in enumerate(files) if file.size), 0)
    for number, file in enumerate(files[:first]):
        with suppress(FileNotFoundError):
            status = os.lstat(file.path)
            if status.st_size or status.st_ino != file.inode:
                return files[number:]
    return files[first:]


def head_of(path: Path, length: int, start: int = 0) -> str:
    """Fingerprint of the first `length` bytes, or of those from `start` on; empty without a file."""
    descriptor = open_plainly(path)
    if descriptor is None:
        return ""
    try:
        return fingerprint(os.pread(descriptor, length, start))
    finally:
        os.close(descriptor)


def unread(chain: list[ChainFile], segments: Iterable[Segment]) -> list[ChainFile]:
    """The files of the chain that follow the last one from which something was read."""
    read = [number for number, file in enumerate(chain) if was_read(file, segments)]
    return chain[read[-1] + 1 :] if read else chain


def was_read(file: ChainFile, segments: Iterable[Segment]) -> bool:
    """Whether a file, whatever it is called by now, is one of which a segment was read."""
    return any(
        segment.inode == file.inode
        and segment.head_length > 0
        and head_of(file.path, segment.head_length) == segment.head
        for segment in segments
    )


def holder(chain: list[ChainFile], segment: Segment) -> ChainFile | None:
    """The file that holds a segment: of the same inode and head, or else the longest of the same head.

    Raises:
        OSError: if the file of the same inode cannot be read.
    """
    for file in sorted(chain, key=lambda f: (f.inode == segment.inode, f.size), reverse=True):
        same = file.inode == segment.inode
        if file.size < segment.head_length or not (same or segment.head_length):
            continue
        try:
            if head_of(file.path, segment.head_length) == segment.head:
                return file
        except PermissionError:
            if same:
                raise  # another file that may not be read is none of ours
    return None
