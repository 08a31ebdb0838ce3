"""Stored files of which the index knows nothing: they are kept, and their sites go on with them.

How a file came and what its stream had lost is not known any more. So a stream that is rebuilt from its file
is complete only after a close whose digest covers all of its bytes.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from nvflare_logstream.hashing import HASH_STEP
from nvflare_logstream.names import is_name, is_site
from nvflare_logstream.store.file import sync_directory
from nvflare_logstream.store.index import INDEX_FILE, Index
from nvflare_logstream.store.lock import LOCK_FILE
from nvflare_logstream.streams import Loss, State, Stream, StreamKey

SCRATCH = ".archive-"  # how the names of directories begin that last no longer than the server
REBUILT = "the server's index was rebuilt; its site has not gone on with this log since"
_NOTE = "the server's index was rebuilt; what was noted of this log before is not known"
# No cursor of a site: it goes on behind as many bytes of its files as are stored.
_BY_LENGTH = b"rebuilt"
_LOSS_FILE = ".index-lost"
_logger = logging.getLogger(__name__)


def is_rebuilt(stream: Stream) -> bool:
    """Whether the index has lost what it knew of this stream."""
    return any(loss.reason == _NOTE for loss in stream.losses)


def rebuilt(stream: Stream) -> Stream:
    """The same stream, with the note that not all is known of it."""
    return (
        stream if is_rebuilt(stream) else stream._replace(losses=(*stream.losses, Loss(stream.end, 0, _NOTE)))
    )


def from_file(key: StreamKey, path: Path) -> Stream | None:
    """A stream as far as its file tells; None without a plain file. All of it is read, to count its lines.

    Raises:
        OSError: if the file cannot be read.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    lines = end = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(HASH_STEP):
            end, lines = end + len(data), lines + data.count(b"\n")
    written = status.st_mtime
    stream = Stream(
        key,
        end=end,
        cursor=_BY_LENGTH if end else b"",
        lines=lines,
        state=State.STOPPED,
        reason=REBUILT,
        opened=written,
        last_seen=written,
        last_data=written,
    )
    return rebuilt(stream)


class StoredFiles:
    """The keys of all stored files.

    Args:
        root: the store's directory.
        only_ours: pass over what the store cannot have made, by its owner and mode.

    Attributes:
        failures: what could not be looked at, and why.
    """

    def __init__(self, root: Path, *, only_ours: bool = False):
        self._root, self._only_ours = root, only_ours
        self.failures: list[OSError] = []

    def __iter__(self) -> Iterator[StreamKey]:
        for job_id in filter(is_name, self._names(self._root, stat.S_ISDIR)):
            for site in filter(is_site, self._names(self._root / job_id, stat.S_ISDIR)):
                for file in filter(is_name, self._names(self._root / job_id / site, stat.S_ISREG)):
                    yield StreamKey(job_id, site, file)

    def _names(self, directory: Path, is_kind: Callable[[int], bool]) -> list[str]:
        """The names of a kind in a directory; a link is of no kind."""
        try:
            entries = {name: (directory / name).lstat() for name in sorted(os.listdir(directory))}
        except OSError as error:
            self.failures.append(error)
            return []
        return [
            name
            for name, status in entries.items()
            if is_kind(status.st_mode) and (not self._only_ours or _is_ours(status))
        ]


def _is_ours(status: os.stat_result) -> bool:
    # Whatever else stands in the store's directory is not ours to show, or to remove one day.
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def open_index(root: Path) -> Index:
    """Open a store's index; make the store's directory and the index where they are not there.

    Raises:
        StoreError: if the index cannot be opened, or is one of a later release.
        OSError: if the directory cannot be made.
    """
    made = [path for path in (root, *root.parents) if not path.exists()]
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in made:
        sync_directory(path.parent)
    is_lost = note_loss(root)
    (root / INDEX_FILE).touch(mode=0o600)  # the files SQLite makes beside it get the same mode
    index = Index(root / INDEX_FILE)
    sync_directory(root)
    if is_lost:
        rebuild(root, index)
    return index


def clear_scratch(root: Path) -> None:
    """Remove the directories that an earlier life of the server was still writing."""
    for entry in root.glob(SCRATCH + "*"):
        shutil.rmtree(entry, ignore_errors=True)


def note_loss(root: Path) -> bool:
    """Whether a store's index is gone; this is noted on disk until `rebuild` has made it anew.

    Raises:
        OSError: if the disk does not take the note.
    """
    index, note = root / INDEX_FILE, root / _LOSS_FILE
    is_gone = not index.exists() or not index.stat().st_size
    if is_gone and (root / LOCK_FILE).exists():
        note.touch(mode=0o600)
    return note.exists()


def rebuild(root: Path, index: Index) -> None:
    """Write a row for each stored file of which an index knows nothing.

    Raises:
        StoreError: if the index does not take them.
        OSError: if the note of the loss cannot be removed.
    """
    known, streams = {part.job_id for part in index.parts()} | index.all_forgotten(), []
    files = StoredFiles(root, only_ours=True)
    for key in files:
        try:
            stream = None if key.job_id in known else from_file(key, root.joinpath(*key))
            streams += [stream] if stream else []
        except OSError as error:
            files.failures.append(error)
    index.save(streams)
    text = "the index of the log store %s was gone, and is made anew from the %d logs that are stored"
    _logger.warning(f"{text}; each is partial until its site goes on with it", root, len(streams))
    if files.failures:  # their sites may come, and the next start looks again
        _logger.error("the log store %s: cannot look at %s", root, "; ".join(map(str, files.failures)))
    else:
        (root / _LOSS_FILE).unlink(missing_ok=True)
