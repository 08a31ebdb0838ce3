"""A stream's row in the index: the one place where columns and attributes meet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nvflare_logstream.errors import StoreError
from nvflare_logstream.streams import Loss, State, Stream, StreamKey

# The columns after the key, named as the attributes of `Stream`. A new one goes to the end, with a migration.
_FIELDS = (
    "end", "cursor", "lines", "state", "reason", "total", "digest", "digest_from", "agreed", "outcome",
    "opened", "last_seen", "last_data", "closed", "utc_offset", "skew", "came", "copy",
)  # fmt: skip
_COLUMNS = ", ".join(["job", "site", "file", *(f'"{name}"' for name in _FIELDS)])  # "end" is a word of SQL
_PLACES = ", ".join("?" * (3 + len(_FIELDS)))
SELECT_STREAMS = f"SELECT {_COLUMNS} FROM streams"
SAVE_STREAM = f"INSERT OR REPLACE INTO streams ({_COLUMNS}) VALUES ({_PLACES})"
# A site that has sent or refused anything in the job is not expected any more; values: a row, job, site, job.
SAVE_EXPECTED = f"""
    INSERT INTO streams ({_COLUMNS}) SELECT {_PLACES}
    WHERE NOT EXISTS (SELECT 1 FROM streams WHERE job = ? AND site = ?)
    AND NOT EXISTS (SELECT 1 FROM forgotten WHERE job = ?)
"""
_LOSS_COLUMNS = "job, site, file, offset, length, reason"
# To be formatted with a WHERE clause. The order is that of the table, so nothing is sorted.
SELECT_LOSSES = f"SELECT {_LOSS_COLUMNS} FROM losses{{}} ORDER BY job, site, file, offset"
FIRST_LOSSES = (
    "SELECT job, site, file, MIN(offset), length, reason "
    "FROM (SELECT * FROM losses{}) WHERE length IS NOT 0 GROUP BY job, site, file"
)
SAVE_LOSS = f"INSERT OR IGNORE INTO losses ({_LOSS_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"

Row = tuple[Any, ...]


def stream_row(stream: Stream) -> Row:
    """The values of a stream's columns."""
    return (*stream.key, *(getattr(stream, name) for name in _FIELDS))


def loss_rows(stream: Stream, first: int, most: int) -> list[Row]:
    """The values of `_LOSS_COLUMNS` for a stream's losses from number `first` on, up to number `most`."""
    return [(*stream.key, *loss) for loss in stream.losses[first:most]]


def read_streams(streams: Iterable[Row], losses: Iterable[Row]) -> list[Stream]:
    """The streams of these rows, each with its losses; both are in the order in which they are wanted."""
    ledger: dict[Row, list[Loss]] = {}
    for job_id, site, file, *loss in losses:
        ledger.setdefault((job_id, site, file), []).append(Loss(*loss))
    return [_stream(row, tuple(ledger.get(row[:3], ()))) for row in streams]


def _stream(row: Row, losses: tuple[Loss, ...]) -> Stream:
    values = dict(zip(_FIELDS, row[3:], strict=True))
    try:
        values |= {"state": State(values["state"]), "agreed": bool(values["agreed"])}
    except ValueError:
        allowed = ", ".join(State)
        where = "/".join(map(str, row[:3]))
        raise StoreError(f"{where}: state: {values['state']!r} is not allowed; one of {allowed}") from None
    return Stream(StreamKey(*row[:3]), **values, losses=losses)
