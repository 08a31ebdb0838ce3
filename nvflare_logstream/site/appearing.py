"""Logs that a site names by patterns, such as "*.log": they are found when they appear.

Not every file that matches is a log:

* A rotated or compressed backup (`train.log.1`, `train.log-20261121.gz`) belongs to the stream of its log. If
  that is followed by nobody, because no pattern means it or it is a directory, it is no backup but a log.
* The runtime's own records of a job are no logs, and the site's audit log least of all: a pattern never finds
  them or their backups, whoever wants one names it.
* A file that is still being made (`x.tmp`, `x.part`) is found only by a pattern with the same ending.
* Links, pipes, directories and files of strangers are passed over, as are names that no stream may have.

The job's code makes these files, so their number is bounded. The server has its own bound and refuses what is
over it; what is over ours is refused by the site, so that both are seen in a verdict.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from nvflare_logstream.names import is_name, is_pattern
from nvflare_logstream.site.chain import COMPRESSED, MOST_NAMES, is_number_or_date
from nvflare_logstream.site.orders import FinishJob, FollowLog, RefuseLogs
from nvflare_logstream.site.plain import look, owners
from nvflare_logstream.streams import StreamId
from nvflare_logstream.wire.upload import Refusal

MOST_FOUND = 256  # logs of one job that are found by patterns
_LOOK_INTERVAL = 1.0  # seconds between two looks at a directory
_REST = 50  # times what a look took: a directory of many thousand files costs 2 % of a core
_NO_LOGS = {
    "_process_rc.txt",
    "audit.log",
    "fl_app.txt",
    "meta.json",
    "stats_pool_records.csv",
    "stats_pool_summary.json",
}
_IN_THE_MAKING = (".tmp", ".temp", ".part", ".lock", ".pid")
_DATE = 8  # digits
_TOO_MANY = f"more than {MOST_FOUND} files match the site's patterns; this one and later ones stay there"

_logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """What a look has found.

    Attributes:
        names: of logs not found before.
        refused: the first one that is too many, empty if there is none.
    """

    names: tuple[str, ...] = ()
    refused: str = ""


def matches(name: str, patterns: Iterable[str], logs: Collection[str]) -> bool:
    """Whether a file of this name is a log that the patterns mean.

    Args:
        name: the file's name.
        patterns: as `names.is_pattern` allows them.
        logs: names of the logs in the same directory, whose backups are no logs.
    """
    return _is_meant(name, patterns) and not _is_backup(name, logs)


def _is_meant(name: str, patterns: Iterable[str]) -> bool:
    if not is_name(name) or name in _NO_LOGS or _is_backup(name, _NO_LOGS):
        return False
    ending = next((ending for ending in _IN_THE_MAKING if name.endswith(ending)), "")
    return any(fnmatch.fnmatchcase(name, pattern) and pattern.endswith(ending) for pattern in patterns)


def _is_backup(name: str, logs: Collection[str]) -> bool:
    """Whether a name is that of a log with what a rotation or compression adds."""
    for ending in COMPRESSED:
        if name.endswith(ending):
            name = name.removesuffix(ending)
            if name in logs:
                return True
    for place, letter in enumerate(name):
        suffix = name[place + 1 :]
        is_added = letter == "." and is_number_or_date(suffix)
        is_added |= letter == "-" and len(suffix) >= _DATE and is_number_or_date(suffix)
        if is_added and name[:place] in logs:
            return True
    return False


class Directory:
    """The log directory of one job, with the patterns of its logs.

    Args:
        path: the directory; it may not be there yet.

    Attributes:
        patterns: as `names.is_pattern` allows them.
    """

    def __init__(self, path: Path):
        self.path = path
        self.patterns: set[str] = set()
        self._known: set[str] = set()  # what was found
        self._is_full = False
        self._next = float("-inf")  # when to look again, in monotonic seconds
        self._is_unreadable = False

    def look(self, now: float, followed: Collection[str], *, at_once: bool = False) -> Found:
        """Look for logs that have appeared.

        Args:
            now: monotonic time in seconds.
            followed: names of logs that are followed, whoever named them.
            at_once: look however short ago the last look was.
        """
        if self._is_full or (now < self._next and not at_once):
            return Found()
        began = time.perf_counter()
        new = self._meant(followed)
        logs = {*new, *followed, *self._known}
        names = [name for name in new if not _is_backup(name, logs)]
        self._next = now + max(_LOOK_INTERVAL, _REST * (time.perf_counter() - began))
        return self._take(names)

    def last_look(self, followed: Collection[str], stored: Collection[str]) -> Found:
        """Look at the job's end, also for logs that the server has `stored`: their files may be gone."""
        new = self._meant(followed)
        logs = {*new, *followed, *stored, *self._known}
        earlier = self._take([name for name in stored if matches(name, self.patterns, logs)], is_stored=True)
        names, refused = self._take([name for name in new if not _is_backup(name, logs)])
        return Found((*earlier.names, *names), refused)

    def _names(self) -> set[str]:
        """What is in the directory now; nothing if that cannot be seen."""
        try:
            with os.scandir(self.path) as entries:
                names = {entry.name for entry in islice(entries, MOST_NAMES)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            if not self._is_unreadable:  # told once: the line may go into one of these logs
                _logger.warning("cannot look for logs in %s: %s", self.path, error.strerror)
            self._is_unreadable = True
            return set()
        self._is_unreadable = False
        return names

    def _meant(self, followed: Collection[str]) -> list[str]:
        """Plain files there that the patterns mean and that were not found before; some may be backups."""
        users = owners(self.path)
        names = self._names().difference(followed, self._known)
        return [name for name in names if _is_meant(name, self.patterns) and self._is_plain(name, users)]

    def _is_plain(self, name: str, users: Collection[int]) -> bool:
        try:
            return look(self.path / name, users) is not None
        except OSError:  # to read it will tell
            return True

    def _take(self, names: Collection[str], *, is_stored: bool = False) -> Found:
        new = sorted(set(names) - self._known)
        room = len(new) if is_stored else max(0, MOST_FOUND - len(self._known))
        self._known.update(new[:room])
        over = new[room:]
        self._is_full = self._is_full or bool(over)
        return Found(tuple(new[:room]), over[0] if over else "")


class Appearing:
    """The logs of all jobs that are named by patterns; times are monotonic seconds.

    Attributes:
        directories: where they are looked for, by job id.
    """

    def __init__(self) -> None:
        self.directories: dict[str, Directory] = {}

    def add(self, order: FollowLog) -> None:
        """Look for what matches a pattern, which stands for the file's name, until the job is over."""
        directory = self.directories.setdefault(order.stream.job_id, Directory(order.directory))
        directory.patterns.add(order.stream.file)

    def look(self, now: float, followed: Collection[StreamId], at_once: bool) -> list[FollowLog | RefuseLogs]:
        """What to do for logs that have appeared since the last look, see `Directory.look`."""
        orders: list[FollowLog | RefuseLogs] = []
        for job_id, directory in self.directories.items():
            found = directory.look(now, _files_of(job_id, followed), at_once=at_once)
            orders += [FollowLog(StreamId(job_id, name), directory.path) for name in found.names]
            orders += _refusals(job_id, found)
        return orders

    def last_look(
        self,
        job: FinishJob,
        followed: Collection[StreamId],
        stored: Collection[str],
        refuse: Callable[[RefuseLogs], None],
    ) -> list[str]:
        """All logs of a job that is over: those given, those followed, and what patterns find now.

        Args:
            job: the job; its patterns are forgotten.
            followed: the streams of all jobs.
            stored: names of the job's logs that the server has.
            refuse: called with what is too much.
        """
        directory = self.directories.pop(job.job_id, None) or Directory(job.directory)
        directory.patterns.update(filter(is_pattern, job.files))
        files = [file for file in job.files if not is_pattern(file)] + _files_of(job.job_id, followed)
        found = directory.last_look(files, stored)
        for refusal in _refusals(job.job_id, found):
            refuse(refusal)
        return list(dict.fromkeys((*files, *found.names)))


def _files_of(job_id: str, streams: Iterable[StreamId]) -> list[str]:
    return [stream.file for stream in streams if stream.job_id == job_id]


def _refusals(job_id: str, found: Found) -> list[RefuseLogs]:
    return [RefuseLogs((Refusal(StreamId(job_id, found.refused), _TOO_MANY),))] if found.refused else []
