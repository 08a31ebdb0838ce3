"""Reading through a port: a job's streams, and the text of one log in parts."""

from __future__ import annotations

from collections.abc import Iterator

from nvflare_logstream.client.port import Port
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.filters.reading import STAGES, Reading
from nvflare_logstream.streams import Stream
from nvflare_logstream.wire.queries import JobStreams, ReadReply, ReadRequest, StreamsRequest

PATIENCE = 20.0  # seconds that a server has for a reply


def ask_streams(port: Port, job_id: str) -> JobStreams:
    """A job and its streams, as they are now; raises RetrievalError."""
    return port.ask(job_id, StreamsRequest(), PATIENCE).job


def read_parts(
    port: Port,
    job_id: str,
    stream: Stream,
    query: LogQuery,
    whole_lines: bool,
    reading: Reading | None,
    as_text: bool = False,
) -> Iterator[ReadReply]:
    """One log in parts of about a MiB; raises RetrievalError, also where a part comes no nearer to the end.

    Args:
        port: asks the server.
        job_id: the job's id.
        stream: which log.
        query: what of it; its times are fixed.
        whole_lines: leave out the line that is just being written.
        reading: of the last part that came, to go on after it.
        as_text: a JSON log is wanted as the text that it is shown as.
    """
    as_text = as_text and not query.by_record
    done = False
    while not done:
        request = ReadRequest(stream.site, stream.file, query.filters(), whole_lines, reading, as_text)
        part = port.ask(job_id, request, PATIENCE)
        if reading is not None and not _is_further(part.reading, reading):
            problem = (
                f"the server's reading of {stream.site}/{stream.file} comes no further than {reading.offset}"
            )
            raise RetrievalError(ErrorCode.INVALID_REPLY, problem)
        reading, done = part.reading, part.done
        yield part


def _is_further(now: Reading, before: Reading) -> bool:
    """Whether a reading has come nearer to its end, which stays where it was, in the same copy.

    It may go through the log several times, once in each of its stages.
    """
    here, there = (STAGES.index(reading.stage) for reading in (now, before))
    is_same = now.end == before.end and (not before.copy or now.copy == before.copy)
    return is_same and (here, now.offset) > (there, before.offset)
