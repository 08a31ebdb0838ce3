"""The store's index: one SQLite file (WAL) with a row per stream, per loss and per job that was removed.

It holds only what was committed: a row's `end` and `cursor` belong together, and the data up to `end` were on
disk before the row was written.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nvflare_logstream.errors import DamagedError, StoreError
from nvflare_logstream.lines import visible
from nvflare_logstream.store.ledger import MAX_LOSSES
from nvflare_logstream.store.lock import StoreLock
from nvflare_logstream.store.migrations import migrate
from nvflare_logstream.store.rows import (
    SAVE_EXPECTED,
    SAVE_LOSS,
    SAVE_STREAM,
    SELECT_LOSSES,
    SELECT_STREAMS,
    loss_rows,
    read_streams,
    stream_row,
)
from nvflare_logstream.streams import State, Stream, StreamKey

INDEX_FILE = "index.sqlite"


class StoredJob(NamedTuple):
    """What the index knows of a job."""

    job_id: str
    size: int  # stored bytes
    last_seen: float  # the last sign of life, in seconds since the epoch
    is_open: bool  # whether a stream of it is open


class Heard(NamedTuple):
    """When a job was heard of last, by two clocks."""

    last_seen: float  # seconds since the epoch
    uptime: float  # seconds of the server's uptime, all its lives together; at most a minute too late


class StoredPart(NamedTuple):
    """How many bytes of a site are stored in a job."""

    job_id: str
    site: str
    size: int


@contextmanager
def _errors(what: str, store_dir: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        said = visible(" ".join(str(error).split()))  # it may quote what is damaged
        # What else can happen has a class of its own; but for text that is none.
        if type(error) is sqlite3.DatabaseError or "decode" in said:
            how = f"stop the server and run `nvflare-logstream repair {store_dir}`"
            raise DamagedError(f"{what}: {said}; {how}") from error
        raise StoreError(f"{what}: {said}") from error


class Index:
    """Thread-safe; every method is one transaction, and raises StoreError if the file cannot be used.

    Args:
        path: the SQLite file, made if it is not there, and migrated if an earlier release wrote it.

    Raises:
        DamagedError: if the file is damaged.
        StoreError: if the file is no index of a log store or one of a later release, or is being repaired.
    """

    def __init__(self, path: Path):
        self._lock, self._path = threading.Lock(), path
        self._in_use = StoreLock(path.parent)
        try:
            with _errors(f"cannot open the store's index {path}", str(path.parent)):
                self._db = sqlite3.connect(path, check_same_thread=False, timeout=30.0)
                try:
                    self._set_up()
                except BaseException:
                    self._db.close()
                    raise
        except BaseException:
            self._in_use.close()
            raise

    def _set_up(self) -> None:
        migrate(self._db, self._path)
        for (found,) in self._db.execute("PRAGMA quick_check(1)"):
            if found != "ok":  # what of it would be read, and what be overwritten, nobody knows
                raise sqlite3.DatabaseError(str(found).replace("\n", " "))
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # what was committed is on disk, not only in order

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _errors("the store's index", "STORE_DIR"), self._lock, self._db:
            yield self._db

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
            self._in_use.close()

    def save(self, streams: Iterable[Stream]) -> None:
        """Write streams, with the losses they carry."""
        rows, losses = [], []
        for stream in streams:
            rows.append(stream_row(stream))
            losses += loss_rows(stream, MAX_LOSSES)
        with self._transaction() as db:
            db.executemany(SAVE_STREAM, rows)
            db.executemany(SAVE_LOSS, losses)

    def add(self, stream: Stream) -> None:
        """Write a stream that is new; its site is no longer expected in its job."""
        key = stream.key
        with self._transaction() as db:
            db.execute(
                "DELETE FROM streams WHERE job = ? AND site = ? AND state = ?",
                (key.job_id, key.site, State.EXPECTED.value),
            )
            db.execute(SAVE_STREAM, stream_row(stream))
            db.executemany(SAVE_LOSS, loss_rows(stream, MAX_LOSSES))

    def expect(self, streams: Iterable[Stream]) -> None:
        """Write those of whose site nothing is known in its job, unless the job was removed."""
        rows = [(*stream_row(s), s.key.job_id, s.site, s.key.job_id) for s in streams]
        with self._transaction() as db:
            db.executemany(SAVE_EXPECTED, rows)

    def load(self, key: StreamKey) -> Stream | None:
        """One stream, or None."""
        streams = self.find(key.job_id, key.site, key.file)
        return streams[0] if streams else None

    def find(
        self, job_id: str | None = None, site: str | None = None, file: str | None = None
    ) -> list[Stream]:
        """All streams that match, ordered by job, site and file."""
        wanted = {"job": job_id, "site": site, "file": file}
        columns = [column for column, value in wanted.items() if value is not None]
        where = " WHERE " + " AND ".join(f"{column} = ?" for column in columns) if columns else ""
        values = [wanted[column] for column in columns]
        with self._transaction() as db:
            rows = db.execute(f"{SELECT_STREAMS}{where} ORDER BY job, site, file", values).fetchall()
            losses = db.execute(f"{SELECT_LOSSES}{where} ORDER BY offset", values).fetchall()
        return read_streams(rows, losses)

    def jobs(self) -> list[StoredJob]:
        """Every job."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT job, SUM(\"end\"), MAX(last_seen), MAX(state = 'open') FROM streams GROUP BY job"
            ).fetchall()
        return [
            StoredJob(job_id, size, last_seen, bool(is_open)) for job_id, size, last_seen, is_open in rows
        ]

    def parts(self) -> list[StoredPart]:
        """What every site has stored in every job."""
        with self._transaction() as db:
            rows = db.execute('SELECT job, site, SUM("end") FROM streams GROUP BY job, site').fetchall()
        return [StoredPart(*row) for row in rows]

    def count_files(self, job_id: str, site: str) -> int:
        """How many streams a site has in a job; one that is only expected is none."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT COUNT(*) FROM streams WHERE job = ? AND site = ? AND state <> ?",
                (job_id, site, State.EXPECTED.value),
            ).fetchone()
        return int(row[0])

    def heard(self) -> tuple[float, dict[str, Heard]]:
        """The server's uptime as it was last saved, in seconds, and when each job was heard of last."""
        with self._transaction() as db:
            ((uptime,),) = db.execute("SELECT seconds FROM uptime").fetchall()
            rows = db.execute("SELECT job, last_seen, uptime FROM heard").fetchall()
        return uptime, {job_id: Heard(*row) for job_id, *row in rows}

    def save_heard(self, uptime: float, heard: Mapping[str, Heard]) -> None:
        """Write the server's uptime, and what has changed of the jobs."""
        with self._transaction() as db:
            db.execute("UPDATE uptime SET seconds = ?", (uptime,))
            db.executemany(
                "INSERT OR REPLACE INTO heard (job, last_seen, uptime) VALUES (?, ?, ?)",
                [(job_id, *row) for job_id, row in heard.items()],
            )

    def delete_job(self, job_id: str, reason: str, now: float) -> None:
        """Forget all of a job but that it was removed, and why."""
        with self._transaction() as db:
            for table in ("streams", "losses", "heard"):
                db.execute(f"DELETE FROM {table} WHERE job = ?", (job_id,))
            db.execute(
                "INSERT OR REPLACE INTO forgotten (job, reason, removed) VALUES (?, ?, ?)",
                (job_id, reason, now),
            )

    def forget(self, jobs: Iterable[tuple[str, str, float]]) -> None:
        """Note that jobs were removed: the id of each, why, and when."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO forgotten (job, reason, removed) VALUES (?, ?, ?)", jobs)

    def all_forgotten(self) -> set[str]:
        """The ids of the jobs that were removed."""
        with self._transaction() as db:
            return {job_id for (job_id,) in db.execute("SELECT job FROM forgotten")}

    def forgotten(self, job_id: str) -> str:
        """Why a job was removed; empty if it was not."""
        with self._transaction() as db:
            rows = db.execute("SELECT reason FROM forgotten WHERE job = ?", (job_id,)).fetchall()
        return str(rows[0][0]) if rows else ""
