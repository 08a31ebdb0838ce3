"""The rotation chain: a log and its rotated files, as they lie in the directory, in order."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path

from nvflare_logstream.site.cursor import Segment
from nvflare_logstream.site.plain import ChainFile, head_of, look, owners

MOST_FILES = 200  # rotated files of one log that are looked into; the runtime keeps 10
MOST_NAMES = 200_000  # names of a directory that are looked at
_MOST_LOOKS = 3  # looks until two agree: a rotation of a few files is over before
FIRST_DATE = 100_000  # a number from here on is a date, such as 20261121
COMPRESSED = (".gz", ".xz", ".bz2", ".zst")


def scan(
    log: Path, known: Sequence[Segment] = (), copies: Collection[tuple[int, int]] = ()
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


def _scan_once(log: Path, known: Sequence[Segment], copies: Collection[tuple[int, int]]) -> list[ChainFile]:
    try:
        suffixes = _suffixes(log, known)
        users = owners(log.parent)
    except FileNotFoundError:
        return []
    rotated = []
    for suffix in suffixes:
        file = look(log.with_name(f"{log.name}.{suffix}"), users)
        # An inode may be used again, by a file that is none of the log.
        if file is None or (file.inode, file.size) in copies:
            continue
        if is_number_or_date(suffix) or was_read(file, known):
            rotated.append(file)
    # The log comes last: a rotation gives it away first.
    current = look(log, users)
    chain = _in_order(rotated, known)
    if current:
        chain = [file for file in chain if file.inode != current.inode] + [current]
    return chain


def _in_order(rotated: list[ChainFile], known: Sequence[Segment]) -> list[ChainFile]:
    """Put rotated files in order, oldest first.

    Some loggers give the newest backup the lowest number, some the highest. Backups named otherwise are in
    the order of their last writes.
    """
    numbered = sorted((file for file in rotated if _number(file) >= 0), key=_number)
    others = sorted((file for file in rotated if _number(file) < 0), key=lambda file: file.written)
    return (numbered if _newest_is_highest(numbered, known) else numbered[::-1]) + others


def _number(file: ChainFile) -> int:
    suffix = file.path.name.rpartition(".")[2]
    return int(suffix) if suffix.isdecimal() else -1


def _newest_is_highest(numbered: list[ChainFile], known: Sequence[Segment]) -> bool:
    """Whether the newest of some files, in the order of their numbers, is the last one."""
    if numbered and _number(numbered[-1]) >= FIRST_DATE:
        return True
    # What was read says more than times, which a late line turns round: it was read in order, and comes
    # before what was not read.
    read = [_number(file) for segment in known for file in numbered if was_read(file, [segment])]
    if read and read[0] != read[-1]:
        return read[0] < read[-1]
    rest = [_number(file) for file in numbered if file.size and _number(file) not in read]
    if read and rest and min(read) > max(rest):
        return False
    written, changed = _rising(numbered)
    if (not written or written * changed < 0) and read and rest and max(read) < min(rest):
        return True
    return (written if abs(written) > abs(changed) + 1 else changed) > 0


def _rising(files: list[ChainFile]) -> tuple[int, int]:
    """How far the times of the last writes rise from file to file, and those of the last changes."""
    filled = [file for file in files if file.size]
    pairs = list(pairwise(filled if len(filled) > 1 else files))
    written = sum((b.written > a.written) - (b.written < a.written) for a, b in pairs)
    return written, sum((b.changed > a.changed) - (b.changed < a.changed) for a, b in pairs)


def is_order_doubtful(files: list[ChainFile]) -> bool:
    """Whether the times of rotated files, of which nothing was read, tell two orders.

    A rotation renames its files from the oldest to the newest, and mostly at one time. So a file that was
    written to last, and not renamed last, got a line too late, or no rotation changed the files.
    """
    numbered = sorted((file for file in files if file.size and 0 <= _number(file) < FIRST_DATE), key=_number)
    written, changed = _rising(numbered)
    return written * changed < 0 or written > 0 == changed


def _suffixes(log: Path, known: Sequence[Segment]) -> list[str]:
    """What follows `<log>.` in the names of the rotated files; of too many those with the outermost numbers.

    The newest are among these, whichever way the numbers run.
    """
    prefix, read, others = log.name + ".", [], []
    inodes = {segment.inode for segment in known}
    with os.scandir(log.parent) as entries:
        for entry in islice(entries, MOST_NAMES):
            suffix = entry.name[len(prefix) :]
            # A compressed backup no longer holds the bytes that were written.
            if not suffix or not entry.name.startswith(prefix) or suffix.endswith(COMPRESSED):
                continue
            if entry.inode() in inodes:
                read.append(suffix)
            elif is_number_or_date(suffix):
                others.append(suffix)
    if len(others) > MOST_FILES:
        others.sort(key=lambda suffix: (len(suffix), suffix))
        half = MOST_FILES // 2
        others = others[: half + 1] + others[-half:]  # one more than the most, so that it shows
    return read + others


def is_number_or_date(suffix: str) -> bool:
    """Whether a rotation may have given this name; an operator's `log.txt.bak` is no file of the log."""
    return any(map(str.isdigit, suffix)) and all(letter.isdigit() or letter in "-_.:T" for letter in suffix)


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
