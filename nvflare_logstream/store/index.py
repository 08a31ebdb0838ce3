"""The store's index: one SQLite file (WAL) with a row per stream and a row per loss.

It holds only what was committed: a row's `end` and `cursor` belong together, and the data up to `end` were on disk before
the row was written.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from nvflare_logstream.errors import StoreError
from nvflare_logstream.streams import Loss, State, Stream, StreamKey

SCHEMA_VERSION = 1
MAX_LOSSES = 1000  # ledger rows a stream may have; a site that loses more has said enough

_COLUMNS = tuple(f.name for f in fields(Stream) if f.name not in ("key", "losses", "silent"))
_QUOTED = ", ".join(f'"{name}"' for name in _COLUMNS)  # "end" is a word of SQL
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS streams (
    job TEXT, site TEXT, file TEXT, {_QUOTED},
    PRIMARY KEY (job, site, file)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS losses (
    job TEXT, site TEXT, file TEXT, offset INTEGER, length INTEGER, reason TEXT,
    PRIMARY KEY (job, site, file, offset, reason)
) WITHOUT ROWID;
"""
_SELECT = f"SELECT job, site, file, {_QUOTED} FROM streams"
_REPLACE = f"INSERT OR REPLACE INTO streams VALUES ({', '.join('?' * (3 + len(_COLUMNS)))})"


class Index:
    """Thread-safe; every method is one transaction, and raises StoreError if the file does not take or give it.

    Args:
        path: the SQLite file, made if it is not there.

    Raises:
        sqlite3.DatabaseError: if the file is not an index of ours.
    """

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, timeout=30.0)
        with self._lock, self._db:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, SCHEMA_VERSION):
                raise sqlite3.DatabaseError(
                    f"{path} has schema version {found}; this version reads {SCHEMA_VERSION}"
                )
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock, self._db:
                yield self._db
        except sqlite3.Error as error:
            raise StoreError(f"the store's index: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def save(self, streams: Iterable[Stream]) -> None:
        """Write rows, with the losses they carry."""
        rows, losses = [], []
        for info in streams:
            key = (info.key.job_id, info.key.site, info.key.file)
            rows.append((*key, *(getattr(info, name) for name in _COLUMNS)))
            losses += [(*key, loss.offset, loss.length, loss.reason) for loss in info.losses[:MAX_LOSSES]]
        with self._transaction() as db:
            db.executemany(_REPLACE, rows)
            db.executemany("INSERT OR IGNORE INTO losses VALUES (?, ?, ?, ?, ?, ?)", losses)

    def load(self, key: StreamKey) -> Stream | None:
        """The row of one stream, or None."""
        found = self.find(key.job_id, key.site, key.file)
        return found[0] if found else None

    def find(self, job: str | None = None, site: str | None = None, file: str | None = None) -> list[Stream]:
        """All rows that match, ordered by job, site and file."""
        given = {"job": job, "site": site, "file": file}
        names = [name for name, value in given.items() if value is not None]
        where = " WHERE " + " AND ".join(f"{name} = ?" for name in names) if names else ""
        values = [given[name] for name in names]
        with self._transaction() as db:
            rows = db.execute(_SELECT + where + " ORDER BY job, site, file", values).fetchall()
            lost = db.execute(
                "SELECT job, site, file, offset, length, reason FROM losses" + where + " ORDER BY offset",
                values,
            ).fetchall()
        ledger: dict[tuple[str, str, str], list[Loss]] = {}
        for row in lost:
            ledger.setdefault(row[:3], []).append(Loss(*row[3:]))
        found = []
        for row in rows:
            columns = dict(zip(_COLUMNS, row[3:], strict=True))
            columns |= {"state": State(columns["state"]), "agreed": bool(columns["agreed"])}
            found.append(Stream(StreamKey(*row[:3]), **columns, losses=tuple(ledger.get(row[:3], ()))))
        return found

    def jobs(self) -> list[tuple[str, int, float, bool]]:
        """Every job with its stored bytes, the time of its last sign of life and whether a stream of it is open."""
        with self._transaction() as db:
            return [
                (job, size, seen, bool(is_open))
                for job, size, seen, is_open in db.execute(
                    "SELECT job, SUM(\"end\"), MAX(last_seen), MAX(state = 'open') FROM streams GROUP BY job"
                )
            ]

    def delete_job(self, job: str) -> None:
        """Forget a job."""
        with self._transaction() as db:
            db.execute("DELETE FROM streams WHERE job = ?", (job,))
            db.execute("DELETE FROM losses WHERE job = ?", (job,))
