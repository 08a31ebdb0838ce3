"""Makes a store's index anew: from what can still be read of it, and from the stored files."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from nvflare_logstream.errors import DamagedError, LogStreamError, StoreError
from nvflare_logstream.lines import visible
from nvflare_logstream.store.file import digest_of, sync_directory
from nvflare_logstream.store.index import INDEX_FILE, Heard, Index
from nvflare_logstream.store.lock import LOCK_FILE, StoreLock
from nvflare_logstream.store.rebuild import StoredFiles, from_file, rebuilt
from nvflare_logstream.store.rows import SELECT_LOSSES, SELECT_STREAMS, Row, read_streams
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.words import Word

_ONE = " WHERE job = ? AND site = ? AND file = ?"
_UNPROVEN = "the server's index was damaged: whether nothing was lost of this log is not known"
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"  # stands for bytes that are no text
_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside an index


class Origin(Word):
    """Where a stream's new row is from."""

    INDEX = "index"  # its row is as it was
    UNPROVEN = "unproven"  # its row says that it is complete, and that cannot be proven
    FILE = "file"  # nothing but its file was left


class Repair(NamedTuple):
    """What a repair has found and done.

    Attributes:
        damage: what was wrong with the index; empty if it was sound.
        kept_as: where the old index is now; None where it stays in use, or was gone.
        rows: each stream of the new index, and where its row is from.
        failures: why some stored files could not be looked at; what the index said of them, it still says.
    """

    damage: str
    kept_as: Path | None
    rows: tuple[tuple[Stream, Origin], ...]
    failures: tuple[str, ...]


class _Old(NamedTuple):
    """What can be read of the old index."""

    streams: dict[StreamKey, Stream]
    has_whole_ledger: bool
    uptime: float
    heard: dict[str, Heard]
    forgotten: list[tuple[str, str, float]]


def repair(root: Path) -> Repair:
    """Repair a store that nobody uses; an index that is sound gets the rows that it lacks.

    Args:
        root: the store's directory.

    Raises:
        StoreError: if it is no store, one of a later release or in use; nothing is changed then.
        OSError: if the disk does not take it; the old index is then where it was.
    """
    if not (root / INDEX_FILE).exists() and not (root / LOCK_FILE).exists():
        raise StoreError(f"{root} is not the directory of a log store: there is no {INDEX_FILE} in it")
    lock = StoreLock(root, alone=True)
    try:
        with TemporaryDirectory(prefix=".repair-", dir=root) as scratch:
            return _repair(root, Path(scratch))
    finally:
        lock.close()


def _repair(root: Path, scratch: Path) -> Repair:
    copy, new = scratch / "old" / INDEX_FILE, scratch / "new" / INDEX_FILE
    copy.parent.mkdir()
    new.parent.mkdir()
    for suffix in ("", *_BESIDE):
        with suppress(FileNotFoundError):
            shutil.copyfile(root / f"{INDEX_FILE}{suffix}", f"{copy}{suffix}")
    damage = _damage(copy)
    with closing(sqlite3.connect(copy)) as db:
        db.text_factory = partial(str, encoding="utf-8", errors="replace")
        old = _read(db)
        rows, failures = _rows_of_files(root, db, old, bool(damage))
    found = {stream.key for stream, _ in rows}
    rows += [_claim(stream, bool(damage)) for key, stream in old.streams.items() if key not in found]
    if damage:  # a note of what came that was wrong would make a good copy a damaged one
        rows = [(stream._replace(came=""), origin) for stream, origin in rows]
    rows.sort()
    problems = tuple(map(str, failures))
    if not damage and all(source is Origin.INDEX for _, source in rows):
        return Repair("", None, tuple(rows), problems)
    new.touch(mode=0o600)
    with closing(Index(new)) as index:
        index.save(stream for stream, _ in rows)
        index.save_heard(old.uptime, old.heard)
        index.forget(old.forgotten)
    kept_as = _replace(root, new)
    return Repair(damage, kept_as if kept_as.exists() else None, tuple(rows), problems)


def _damage(copy: Path) -> str:
    """What is wrong with the index; empty if it is sound. It gets the schema of this release.

    Raises:
        StoreError: if it is no index of a store, or one of a later release.
    """
    if not copy.exists():
        return "it is gone"
    try:
        with closing(Index(copy)) as index:
            try:
                index.find()
            except StoreError as error:  # a row that no release wrote
                return _in_one_line(error.__cause__ or error)
    except DamagedError as error:
        return _in_one_line(error.__cause__ or error)
    return ""


def _in_one_line(error: BaseException) -> str:
    return visible(" ".join(str(error).split()))


def _replace(root: Path, new: Path) -> Path:
    """Put the new index in the place of the old one, and return the name that is for that one."""
    kept_as = next(path for n in count(1) if not (path := root / f"{INDEX_FILE}.damaged-{n}").exists())
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            os.rename(root / f"{INDEX_FILE}{suffix}", f"{kept_as}{suffix}")
    with suppress(FileNotFoundError):
        os.rename(root / INDEX_FILE, kept_as)
    os.rename(new, root / INDEX_FILE)
    sync_directory(root)
    return kept_as


# -- what can be read ----------------------------------------------------------------------------------------


def _read(db: sqlite3.Connection) -> _Old:
    losses, has_whole_ledger = _rows(db, SELECT_LOSSES.format(""))
    ledgers: dict[Row, list[Row]] = {}
    for loss in losses:
        ledgers.setdefault(loss[:3], []).append(loss)
    found = [_stream(row, ledgers.pop(row[:3], [])) for row in _rows(db, SELECT_STREAMS)[0]]
    streams = {stream.key: stream for stream in found if stream}
    has_whole_ledger &= not ledgers  # entries of no stream: a key was damaged
    uptimes = [row for row in _rows(db, "SELECT seconds FROM uptime")[0] if isinstance(row[0], float)]
    heard = [
        row
        for row in _rows(db, "SELECT job, last_seen, uptime FROM heard")[0]
        if _fits(row, str, float, float)
    ]
    forgotten = [
        row
        for row in _rows(db, "SELECT job, reason, removed FROM forgotten")[0]
        if _fits(row, str, str, float)
    ]
    return _Old(
        streams,
        has_whole_ledger,
        uptimes[0][0] if uptimes else 0.0,
        {job_id: Heard(*times) for job_id, *times in heard},
        forgotten,
    )


def _find(db: sqlite3.Connection, key: StreamKey) -> Stream | None:
    """A stream's row, also behind a part of the index that cannot be read."""
    for row in _rows(db, SELECT_STREAMS + _ONE, *key)[0]:
        return _stream(row, _rows(db, SELECT_LOSSES.format(_ONE), *key)[0])
    return None


def _rows(db: sqlite3.Connection, query: str, *values: str) -> tuple[list[Row], bool]:
    """What a query finds until the index cannot be read any further; and whether that was all."""
    rows: list[Row] = []
    try:
        for row in db.execute(query, values):
            rows.append(row)
    except (sqlite3.Error, UnicodeDecodeError):
        return rows, False
    return rows, True


def _stream(row: Row, ledger: list[Row]) -> Stream | None:
    """The stream of a row; None if no release wrote it so."""
    if any(isinstance(value, str) and _NO_TEXT in value for value in row):
        return None
    try:
        (stream,) = read_streams([row], ledger)
    except (LogStreamError, TypeError):
        return None
    kinds = {name: type(default) for name, default in Stream._field_defaults.items()}
    fits = all(_fits((getattr(stream, name),), kind) for name, kind in kinds.items())
    fits &= all(_fits((loss.offset, loss.length or 0, loss.reason), int, int, str) for loss in stream.losses)
    return stream if fits and stream.end >= 0 else None


def _fits(values: Iterable[Any], *kinds: type) -> bool:
    return all(
        isinstance(value, (int, float) if kind is float else kind)
        for value, kind in zip(values, kinds, strict=True)
    )


# -- what becomes of it --------------------------------------------------------------------------------------


def _rows_of_files(
    root: Path, db: sqlite3.Connection, old: _Old, is_damaged: bool
) -> tuple[list[tuple[Stream, Origin]], list[OSError]]:
    """The new rows of all stored files, and why some could not be looked at."""
    files, rows = StoredFiles(root), []
    removed = {job_id for job_id, *_ in old.forgotten}  # a crash may have left some of their files
    for key in files:
        if key.job_id not in removed:
            try:
                rows.append(_row(root, key, old, _find(db, key), is_damaged))
            except OSError as error:
                files.failures.append(error)
    return rows, files.failures


def _row(
    root: Path, key: StreamKey, old: _Old, row: Stream | None, is_damaged: bool
) -> tuple[Stream, Origin]:
    """The new row of a stored file."""
    path = root.joinpath(*key)
    stream = old.streams.get(key) or row
    if stream is None or stream.end > path.stat().st_size:
        stored = from_file(key, path)
        if stored is None:
            raise FileNotFoundError(errno.ENOENT, "the file was removed meanwhile", str(path))
        return stored, Origin.FILE
    is_sure = not is_damaged or (old.has_whole_ledger and _is_proven(stream, path))
    return _claim(stream, not is_sure)


def _claim(stream: Stream, is_unsure: bool) -> tuple[Stream, Origin]:
    """A row of the old index, without its claim to be complete if that is unsure."""
    if not is_unsure or stream.state is not State.CLOSED or not stream.agreed:
        return stream, Origin.INDEX
    return rebuilt(stream._replace(agreed=False, reason=_UNPROVEN)), Origin.UNPROVEN


def _is_proven(stream: Stream, path: Path) -> bool:
    """Whether the file is all that the site said at the close; or the row does not claim that it is."""
    if stream.state is not State.CLOSED or not stream.agreed:
        return True
    is_whole = stream.digest_from == 0 and stream.end == stream.total
    return is_whole and digest_of(path, 0, stream.end) == stream.digest
