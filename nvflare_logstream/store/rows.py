"""A stream's row in the index: the one place where columns and attributes meet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nvflare_logstream.streams import Loss, State, Stream, StreamKey

_COLUMNS = (
    'job, site, file, "end", cursor, lines, state, reason, total, digest, digest_from, agreed, outcome, '
    "opened, last_seen, last_data, closed, utc_offset, skew"
)
SELECT_STREAMS = f"SELECT {_COLUMNS} FROM streams"
SAVE_STREAM = (
    f"INSERT OR REPLACE INTO streams ({_COLUMNS}) VALUES ({', '.join('?' * len(_COLUMNS.split(',')))})"
)
_LOSS_COLUMNS = "job, site, file, offset, length, reason"
SELECT_LOSSES = f"SELECT {_LOSS_COLUMNS} FROM losses"
SAVE_LOSS = f"INSERT OR IGNORE INTO losses ({_LOSS_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"

Row = tuple[Any, ...]


def stream_row(stream: Stream) -> Row:
    """The values of `_COLUMNS`."""
    return (
        stream.key.job_id,
        stream.key.site,
        stream.key.file,
        stream.end,
        stream.cursor,
        stream.lines,
        stream.state.value,
        stream.reason,
        stream.total,
        stream.digest,
        stream.digest_from,
        stream.agreed,
        stream.outcome,
        stream.opened,
        stream.last_seen,
        stream.last_data,
        stream.closed,
        stream.utc_offset,
        stream.skew,
    )


def loss_rows(stream: Stream, most: int) -> list[Row]:
    """The values of `_LOSS_COLUMNS` for a stream's first `most` losses."""
    key = (stream.key.job_id, stream.key.site, stream.key.file)
    return [(*key, loss.offset, loss.length, loss.reason) for loss in stream.losses[:most]]


def read_streams(streams: Iterable[Row], losses: Iterable[Row]) -> list[Stream]:
    """The streams of these rows, each with its losses; both are in the order in which they are wanted."""
    ledger: dict[Row, list[Loss]] = {}
    for job_id, site, file, *loss in losses:
        ledger.setdefault((job_id, site, file), []).append(Loss(*loss))
    return [_stream(row, tuple(ledger.get(row[:3], ()))) for row in streams]


def _stream(row: Row, losses: tuple[Loss, ...]) -> Stream:
    job_id, site, file, end, cursor, lines, state, reason, total, digest, digest_from, agreed, outcome = row[
        :13
    ]
    opened, last_seen, last_data, closed, utc_offset, skew = row[13:]
    return Stream(
        key=StreamKey(job_id, site, file),
        end=end,
        cursor=cursor,
        lines=lines,
        state=State(state),
        reason=reason,
        total=total,
        digest=digest,
        digest_from=digest_from,
        agreed=bool(agreed),
        outcome=outcome,
        opened=opened,
        last_seen=last_seen,
        last_data=last_data,
        closed=closed,
        utc_offset=utc_offset,
        skew=skew,
        losses=losses,
    )
