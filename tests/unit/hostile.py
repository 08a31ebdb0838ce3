"""A server whose every word is hostile; light, for processes that are started by the dozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.port import Port
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.streams import Loss, State, Stream, StreamKey
from nvflare_logstream.wire.queries import (
    DigestReply,
    FetchReply,
    FollowedPart,
    FollowReply,
    JobStreams,
    Place,
    ReadReply,
    StreamsReply,
)

ID = "8f3c0000-1111-2222-3333-444455556666"
EVIL = (
    "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\x08\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    "\u200b\u200c\u200d\u2060\ufeff\u2028\u2029\xad\U000e0001\U000e0041\U000e0100\ud800\udfff\u115f\u3164"
)
SITE = "site-\u115f\u3164\u034f\U000e0100"  # a site's name has to be printable, which these are


class HostilePort(Port):
    """Answers each kind of request with what a function makes of it."""

    def __init__(self, **answers: Callable[[Any], Any]):
        self.answers = answers

    def ask(self, job_id: str, request: Any, seconds: float) -> Any:
        return self.answers[request.operation](request)

    def job_ids(self, prefix: str | None) -> list[str]:
        return [ID]

    def server_status(self, seconds: float) -> Any:
        raise NotImplementedError

    def reconnect(self) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def client(self) -> LogClient:
        return LogClient(self)


def hostile_port() -> HostilePort:
    """A server whose every word is hostile, as if nothing had been checked on its way."""
    key = StreamKey(ID, SITE, "log.txt")
    losses = (Loss(0, 5, EVIL),)
    closed = Stream(key, end=5, state=State.CLOSED, agreed=True, digest=EVIL, outcome=EVIL, losses=losses)
    stopped = Stream(key._replace(site="site-2"), end=5, state=State.STOPPED, reason=EVIL)
    missing = Stream(key._replace(site="site-3"), state=State.REFUSED, reason=EVIL)
    job = JobStreams(ID, f"FINISHED:{EVIL}", (closed, stopped, missing), 0.0)
    text = f"2026-04-28 10:00:00,123 - n - ERROR - {EVIL}\n{EVIL}\n"
    end = Reading(5, 5)
    return HostilePort(
        streams=lambda request: StreamsReply(job),
        read=lambda request: ReadReply(text, end),
        digest=lambda request: DigestReply(EVIL),
        fetch=lambda request: FetchReply(b"12345", 5),
        follow=lambda request: FollowReply(
            job,
            tuple(
                FollowedPart(Place(*place[:2], end), text) for place in request.places if not place[2].offset
            ),
            request.mark,
        ),
    )
