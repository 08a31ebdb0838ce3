"""Stored files of which the index knows nothing: they are kept, and their sites go on with them.

How a file came and what its stream had lost is not known any more. So a stream that is rebuilt from its file
is complete only after a close whose digest covers all of its bytes.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from nvflare_logstream.hashing import HASH_STEP
from nvflare_logstream.names import is_name, is_site
from nvflare_logstream.store.index import Index, StoredPart
from nvflare_logstream.streams import Loss, State, Stream, StreamKey

REBUILT = "the server's index was rebuilt; its site has not gone on with this log since"
_NOTE = "the server's index was rebuilt; what was noted of this log before is not known"
# No cursor of a site: it goes on behind as many bytes of its files as are stored.
_BY_LENGTH = b"rebuilt"
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


def stored_files(root: Path, *, only_ours: bool = False) -> Iterator[StreamKey]:
    """The keys of all stored files; what cannot be looked at is passed over.

    Args:
        root: the store's directory.
        only_ours: pass over what the store cannot have made, by its owner and mode.
    """
    for job_id in filter(is_name, _names(root, stat.S_ISDIR, only_ours)):
        for site in filter(is_site, _names(root / job_id, stat.S_ISDIR, only_ours)):
            for file in filter(is_name, _names(root / job_id / site, stat.S_ISREG, only_ours)):
                yield StreamKey(job_id, site, file)


def rebuild(root: Path, index: Index) -> list[StoredPart]:
    """Write a row for each stored file into an index that knows nothing, and return what it knows then.

    Raises:
        StoreError: if the index does not take them.
    """
    streams: list[Stream] = []
    for key in stored_files(root, only_ours=True):
        with suppress(OSError):  # it is taken up when its site comes
            stream = None if index.forgotten(key.job_id) else from_file(key, root.joinpath(*key))
            streams += [stream] if stream else []
    index.save(streams)
    if streams:
        text = "the index of the log store %s was gone, and is made anew from the %d logs that are stored"
        _logger.warning(f"{text}; each is partial until its site goes on with it", root, len(streams))
    return index.parts()


def _names(directory: Path, is_kind: Callable[[int], bool], only_ours: bool) -> Iterator[str]:
    """The names of a kind in a directory; a link is of no kind."""
    with suppress(OSError):
        for name in sorted(os.listdir(directory)):
            status = (directory / name).lstat()
            # Whatever else stands in the store's directory is not ours to show, or to remove one day.
            is_ours = status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
            if is_kind(status.st_mode) and (is_ours or not only_ours):
                yield name
