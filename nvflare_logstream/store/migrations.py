"""The schema of the store's index, as the steps that lead to it.

A new index takes all steps, an index of an earlier release those that it lacks, in one transaction: a crash
leaves the old version or the new one, nothing between. So every index has the same tables, whichever release
made it. A released step never changes; to change the schema, add a step, and the column to `rows.py`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from nvflare_logstream.errors import StoreError

# Each step is a tuple of SQL statements; the first leads to version 1. "end" is quoted: it is a word of SQL.
STEPS: tuple[tuple[str, ...], ...] = (
    (  # 1: release 0.1.0
        """
        CREATE TABLE IF NOT EXISTS streams (
            job TEXT, site TEXT, file TEXT,
            "end", cursor, lines, state, reason, total, digest, digest_from, agreed, outcome,
            opened, last_seen, last_data, closed, utc_offset, skew,
            PRIMARY KEY (job, site, file)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE IF NOT EXISTS losses (
            job TEXT, site TEXT, file TEXT, offset INTEGER, length INTEGER, reason TEXT,
            PRIMARY KEY (job, site, file, offset, reason)
        ) WITHOUT ROWID
        """,
    ),
    (  # 2: what retention goes by, in seconds of the server's own uptime, and the jobs that it has removed
        "CREATE TABLE uptime (seconds REAL NOT NULL)",
        "INSERT INTO uptime VALUES (0)",
        """
        CREATE TABLE heard (job TEXT PRIMARY KEY, last_seen REAL NOT NULL, uptime REAL NOT NULL)
        WITHOUT ROWID
        """,
        """
        CREATE TABLE forgotten (job TEXT PRIMARY KEY, reason TEXT NOT NULL, removed REAL NOT NULL)
        WITHOUT ROWID
        """,
    ),
    (  # 3: what came is known after a restart too; what was expected of a site that sent another file is gone
        "ALTER TABLE streams ADD COLUMN came TEXT NOT NULL DEFAULT ''",
        """
        DELETE FROM streams WHERE state = 'expected' AND EXISTS (
            SELECT 1 FROM streams AS other
            WHERE other.job = streams.job AND other.site = streams.site AND other.state <> 'expected'
        )
        """,
    ),
    (  # 4: bytes of the sites' streams that a job's archive is known to hold
        "CREATE TABLE archived (job TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID",
    ),
    (  # 5: who reads a log in parts learns that its copy was begun again
        "ALTER TABLE streams ADD COLUMN copy INTEGER NOT NULL DEFAULT 1",
    ),
)
_TABLES = {"streams", "losses"}  # those of version 1
_SELECT_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring an index to the schema of this release; a current one is left as it is.

    Args:
        db: the open index.
        path: its file, to be named in errors.

    Raises:
        StoreError: if the file is an index of a later release, or no index of a log store.
        sqlite3.Error: if a step fails; the index is then what it was before.
    """
    if _version(db, path) == len(STEPS):
        return
    with db:  # commits, or rolls back after an error
        db.execute("BEGIN IMMEDIATE")
        for step in STEPS[_version(db, path) :]:
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(STEPS)}")


def _version(db: sqlite3.Connection, path: Path) -> int:
    """The index's schema version; 0 if it is new."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in db.execute(_SELECT_TABLES)}
    ours = tables <= _TABLES if version == 0 else tables >= _TABLES
    if version < 0 or not ours:
        raise StoreError(f"{path} is not the index of a log store")
    if version > len(STEPS):
        raise StoreError(
            f"{path} was written by a later release: it has schema version {version}, "
            f"this release knows versions up to {len(STEPS)}"
        )
    return version
