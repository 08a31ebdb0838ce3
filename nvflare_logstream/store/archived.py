"""Which jobs' archives hold what is stored, so that a restarted server has to look at the others alone.

An archive is known by the stored bytes that its sites' streams had when it was completed. So whatever comes
later is seen, also what came just before the server was killed, and nobody has to write a mark first.
"""

from __future__ import annotations

from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.store.database import Database

_MOST = 1000  # jobs that are looked at after a restart; each costs the job store a question


class Archived(Database):
    """The index's table of completed archives; every method is one transaction.

    Each raises StoreError if the file cannot be used.
    """

    def note_archived(self, job_id: str, size: int) -> None:
        """A job's archive holds the `size` bytes that its sites' streams have together."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO archived (job, size) VALUES (?, ?)", (job_id, size))

    def unarchived(self) -> list[str]:
        """The ids of the newest jobs of which sites have stored other than was archived, the newest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT job FROM streams LEFT JOIN archived USING (job) WHERE site <> ? GROUP BY job "
                'HAVING SUM("end") <> COALESCE(MAX(size), 0) ORDER BY MAX(last_seen) DESC LIMIT ?',
                (SERVER_SITE, _MOST),
            ).fetchall()
        return [job_id for (job_id,) in rows]
