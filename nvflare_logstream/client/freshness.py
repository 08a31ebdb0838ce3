"""How fresh the server's copy of a log is, and how fast it grows."""

from __future__ import annotations

from nvflare_logstream.client.model import JobStreams
from nvflare_logstream.streams import State, Stream


def lag(stream: Stream, job: JobStreams) -> float | None:
    """Seconds since the site last sent something or said that nothing is new; None unless it is open."""
    if stream.state is not State.OPEN:
        return None
    last_heard = max(other.last_seen for other in (stream, *job.streams) if other.site == stream.site)
    return max(0.0, job.now - last_heard)


def rate(stream: Stream, job: JobStreams, before: JobStreams | None) -> float:
    """Bytes a second since an earlier look at the job; without one, on average while the log was written."""
    earlier = next((other for other in before.streams if other.key == stream.key), None) if before else None
    if before and earlier:
        size, seconds = stream.end - earlier.end, job.now - before.now
    else:
        size, seconds = stream.end, stream.last_data - stream.opened
    return max(0, size) / max(1.0, seconds)  # what came in one go has no rate
