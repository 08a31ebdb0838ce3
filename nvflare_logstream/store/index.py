"""The store's index: one SQLite file (WAL) with a row per stream, per loss and per job that was removed.

It holds only what was committed: a row's `end` and `cursor` belong together, and the data up to `end` were on
disk before the row was written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import NamedTuple

from nvflare_logstream.errors import StoreError
from nvflare_logstream.store.archived import Archived
from nvflare_logstream.store.ledger import MAX_LOSSES
from nvflare_logstream.store.rows import (
    FIRST_LOSSES,
    SAVE_EXPECTED,
    SAVE_LOSS,
    SAVE_STREAM,
    SELECT_LOSSES,
    SELECT_STREAMS,
    loss_rows,
    read_streams,
    stream_row,
)
from nvflare_logstream.streams import UNCHECKED_CURSOR, State, Stream, StreamKey

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


class StoredSite(NamedTuple):
    """What the index knows of a site.

    Attributes:
        last_seen: its last sign of life, in seconds since the epoch; unchecked: the last that came by the
            runtime's own streamer, 0 if none did.
        open: how many of its streams are open; silent: those that were not heard of for a while.
    """

    site: str
    last_seen: float
    open: int
    silent: int
    unchecked: float


class StoredTotals(NamedTuple):
    """What the index holds, in figures.

    Attributes:
        states: how many streams are in each state, "unchecked" for those that ended as such; silent: open
            ones that were not heard of for a while.
        largest: the largest stream, "job/site/file", and its bytes.
        most_files: the site with most streams in a job, "job/site", and how many.
    """

    states: dict[str, int]
    silent: int
    largest: tuple[str, int]
    most_files: tuple[str, int]


class StoredPart(NamedTuple):
    """How many bytes of a site are stored in a job."""

    job_id: str
    site: str
    size: int


class Index(Archived):
    """What is known of the streams and the jobs; every method is one transaction.

    Each raises StoreError if the file cannot be used.
    """

    def save(self, streams: Iterable[Stream], listed: Mapping[StreamKey, int] | None = None) -> None:
        """Write streams, with the losses they carry.

        Args:
            streams: the streams.
            listed: how many losses of each are written already; none where it is not named.
        """
        rows, losses = [], []
        for stream in streams:
            rows.append(stream_row(stream))
            losses += loss_rows(stream, (listed or {}).get(stream.key, 0), MAX_LOSSES)
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
            db.executemany(SAVE_LOSS, loss_rows(stream, 0, MAX_LOSSES))

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
        self,
        job_id: str | None = None,
        site: str | None = None,
        file: str | None = None,
        *,
        brief: bool = False,
    ) -> list[Stream]:
        """All streams that match, ordered by job, site and file.

        With `brief` they come without their ledgers, but for the first entry about missing bytes: a site may
        have 64 ledgers of 1,000 entries in a job, and ask for them often.
        """
        wanted = {"job": job_id, "site": site, "file": file}
        columns = [column for column, value in wanted.items() if value is not None]
        where = " WHERE " + " AND ".join(f"{column} = ?" for column in columns) if columns else ""
        values = [wanted[column] for column in columns]
        with self._transaction() as db:
            rows = db.execute(f"{SELECT_STREAMS}{where} ORDER BY job, site, file", values).fetchall()
            select = FIRST_LOSSES if brief else SELECT_LOSSES
            losses = db.execute(select.format(where), values).fetchall()
        return read_streams(rows, losses)

    def jobs(self) -> list[StoredJob]:
        """Every job; nobody else waits for it."""
        try:
            with closing(sqlite3.connect(self._path, timeout=30.0)) as db:
                rows = db.execute(
                    "SELECT job, SUM(\"end\"), MAX(last_seen), MAX(state = 'open') FROM streams GROUP BY job"
                ).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the store's index: {error}") from error
        return [
            StoredJob(job_id, size, last_seen, bool(is_open)) for job_id, size, last_seen, is_open in rows
        ]

    def live(self, seconds: float, now: float) -> list[StreamKey]:
        """The open streams heard of at most `seconds` before the last sign of life of all until `now`."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT job, site, file FROM streams WHERE state = 'open' AND last_seen > ? + "
                "(SELECT MAX(last_seen) FROM streams WHERE last_seen <= ?)",
                (-seconds, now),
            ).fetchall()
        return [StreamKey(*row) for row in rows]

    def parts(self) -> list[StoredPart]:
        """What every site has stored in every job."""
        with self._transaction() as db:
            rows = db.execute('SELECT job, site, SUM("end") FROM streams GROUP BY job, site').fetchall()
        return [StoredPart(*row) for row in rows]

    def sites(self, heard_since: float) -> list[StoredSite]:
        """Every site of which something came; open streams are silent if not heard of since then."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT site, MAX(last_seen), SUM(state = 'open'), SUM(state = 'open' AND last_seen < ?), "
                "MAX(last_seen * (cursor = ?)) FROM streams WHERE state <> ? GROUP BY site",
                (heard_since, UNCHECKED_CURSOR, State.EXPECTED.value),
            ).fetchall()
        return [StoredSite(*row) for row in rows]

    def totals(self, heard_since: float) -> StoredTotals:
        """How many streams there are, and the largest; open ones are silent if not heard of since then."""
        with self._transaction() as db:
            states = db.execute(
                "SELECT CASE WHEN state = ? AND is_unchecked(cursor) THEN 'unchecked' ELSE state END "
                "AS standing, COUNT(*), SUM(last_seen < ?) FROM streams GROUP BY standing",
                (State.STOPPED.value, heard_since),
            ).fetchall()
            largest = db.execute(
                "SELECT job || '/' || site || '/' || file, \"end\" FROM streams ORDER BY \"end\" DESC LIMIT 1"
            ).fetchone()
            most_files = db.execute(
                "SELECT job || '/' || site, COUNT(*) AS files FROM streams WHERE state <> ? "
                "GROUP BY job, site ORDER BY files DESC LIMIT 1",
                (State.EXPECTED.value,),
            ).fetchone()
        silent = sum(quiet for state, _, quiet in states if state == State.OPEN.value)
        by_state = {str(state): int(count) for state, count, _ in states}
        return StoredTotals(by_state, silent, largest or ("", 0), most_files or ("", 0))

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
        """Forget a job's streams; that it was removed stays, and why. Its ledgers are still to be deleted."""
        with self._transaction() as db:
            for table in ("streams", "heard", "archived"):
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

    def delete_ledgers(self, job_id: str) -> None:
        """Delete the ledgers of a job that was removed, one by one: others have their turn between."""
        ledger = (job_id, "", "")
        while True:
            with self._transaction() as db:
                db.execute("DELETE FROM losses WHERE job = ? AND site = ? AND file = ?", ledger)
                row = db.execute(
                    "SELECT job, site, file FROM losses WHERE job = ? LIMIT 1", (job_id,)
                ).fetchone()
            if row is None:
                return
            ledger = row

    def half_deleted(self) -> list[str]:
        """Jobs that were removed, and of which there are ledgers."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT job FROM forgotten WHERE EXISTS (SELECT 1 FROM losses WHERE job = forgotten.job)"
            ).fetchall()
        return [job_id for (job_id,) in rows]

    def forgotten(self, job_id: str) -> str:
        """Why a job was removed; empty if it was not."""
        with self._transaction() as db:
            rows = db.execute("SELECT reason FROM forgotten WHERE job = ?", (job_id,)).fetchall()
        return str(rows[0][0]) if rows else ""
