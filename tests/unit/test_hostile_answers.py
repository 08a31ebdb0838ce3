"""A reader against a server that answers what it likes: whatever that does, the reader comes to an end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from nvflare_logstream.cli.output import notice
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import ErrorCode, LostContactError, RetrievalError
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.queries import (
    DigestReply,
    FollowedPart,
    FollowReply,
    FollowRequest,
    JobStreams,
    Place,
    ReadReply,
    ReadRequest,
    StreamsReply,
)

ID = "8f3c0000-1111-2222-3333-444455556666"
OPEN = Stream(StreamKey(ID, "site-1", "log.txt"), end=100)
CLOSED = OPEN._replace(state=State.CLOSED, agreed=True)
MOST = 5000  # requests; a reader that has asked so often is taken to ask for ever


class HostilePort:
    """Answers each kind of request with what a function makes of it; each takes 10 ms."""

    def __init__(self, **answers: Callable[[Any], Any]):
        self.answers, self.clock, self.asked = answers, Clock(), 0
        self.began = self.clock.now
        self.ids = [ID]

    def ask(self, job_id: str, request: Any, seconds: float) -> Any:
        self.asked += 1
        assert self.asked < MOST, "it never ends"
        self.clock.advance(0.01)
        return self.answers[request.operation](request)

    def job_ids(self, prefix: str | None) -> list[str]:
        return self.ids

    def reconnect(self) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def took(self) -> float:
        return self.clock.now - self.began

    @property
    def client(self) -> LogClient:
        return LogClient(self, self.clock, self.clock.advance)


def job(stream: Stream = OPEN, status: str = "RUNNING") -> Callable[[Any], StreamsReply]:
    return lambda request: StreamsReply(JobStreams(ID, status, (stream,), 0.0))


def refuses(error: RetrievalError) -> Callable[[Any], Any]:
    def answer(request: Any) -> Any:
        raise error

    return answer


def followed(stream: Stream, status: str, *parts: FollowedPart) -> Callable[[FollowRequest], FollowReply]:
    return lambda request: FollowReply(JobStreams(ID, status, (stream,), 0.0), parts, request.mark)


def ends_with(code: ErrorCode, words: str, reader: Callable[[], Any]) -> None:
    with pytest.raises(RetrievalError, match=words) as caught:
        reader()
    assert caught.value.code is code


def test_a_server_that_is_always_too_busy_to_hash_is_not_asked_for_ever():
    port = HostilePort(digest=lambda request: DigestReply(None))
    ends_with(ErrorCode.TIMEOUT, "site-1/log.txt.*busy.*try again", lambda: port.client.digest(ID, OPEN))
    assert 60 <= port.took <= 3600, "others may have long logs hashed"


@pytest.mark.parametrize(
    "readings",
    [
        [Reading(10, 100)],
        [Reading(10, 100), Reading(9, 100)],
        [Reading(10, 100, stage="lines"), Reading(10, 100, stage="lines", counted=1)],
        [Reading(10, 100), Reading(0, 100, stage="lines")],
        [Reading(10, 100, stage="bytes"), Reading(0, 100, stage="lines")],
        [Reading(10, 100, stage="times"), Reading(10, 100, stage="times")],
        [Reading(10, 100, stage="lines"), Reading(20, 100, stage="times")],
        [Reading(number, 2 * number) for number in range(1, MOST)],
    ],
    ids=[
        "stands still",
        "goes back",
        "counts for ever",
        "counts again",
        "counts otherwise",
        "looks for ever",
        "looks again",
        "runs away",
    ],
)
def test_a_reading_that_does_not_come_nearer_to_its_end_is_given_up(readings):
    def read(request: ReadRequest) -> ReadReply:
        number = next(numbers)
        return ReadReply("x\n", readings[min(number, len(readings) - 1)])

    numbers = count()
    port = HostilePort(streams=job(), read=read)
    ends_with(
        ErrorCode.INVALID_REPLY,
        "site-1/log.txt.*no further",
        lambda: port.client.read(ID, LogQuery(sites=("all",))),
    )
    assert port.asked <= len(readings) + 2


def test_a_reading_that_counts_before_it_gives_text_out_is_none_of_these():
    readings = iter(
        [
            Reading(40, 100, stage="times"),
            Reading(80, 100, stage="times"),
            Reading(50, 100, stage="lines"),
            Reading(0, 100, stage="bytes"),
            Reading(60, 100, stage="bytes"),
            Reading(0, 100),
            Reading(100, 100),
        ]
    )
    port = HostilePort(streams=job(), read=lambda request: ReadReply("x\n", next(readings)))
    assert port.client.read(ID, LogQuery(sites=("all",)))["site-1"].text == 7 * "x\n"


def test_a_server_that_takes_every_reader_back_and_drops_it_again_is_left():
    lost = LostContactError(ErrorCode.CONNECTION_FAILED, "dropped")
    port = HostilePort(
        streams=job(), read=lambda request: ReadReply("x\n", Reading(100, 100)), follow=refuses(lost)
    )
    ends_with(
        ErrorCode.CONNECTION_FAILED, "dropped", lambda: list(port.client.follow(ID, LogQuery(sites=("all",))))
    )
    assert 300 <= port.took <= 330


@pytest.mark.parametrize(
    "read",
    [
        refuses(RetrievalError(ErrorCode.LOG_CHANGED, "less than before")),
        lambda request: ReadReply("", Reading(50, 50)),
    ],
    ids=["never", "half"],
)
def test_the_rest_of_a_job_that_is_over_is_not_awaited_for_ever(read):
    done = "FINISHED:COMPLETED"
    port = HostilePort(streams=job(CLOSED, done), read=read, follow=followed(CLOSED, done))
    ends_with(
        ErrorCode.LOG_CHANGED,
        "the job is over.*site-1/log.txt",
        lambda: list(port.client.follow(ID, LogQuery(sites=("all",)))),
    )
    assert 30 <= port.took <= 300


@pytest.mark.parametrize(
    "part",
    [
        FollowedPart(Place("site-1", "log.txt", Reading(100, 100)), ""),
        FollowedPart(Place("site-1", "log.txt", Reading(100, 100)), "x\n"),
        FollowedPart(Place("site-1", "log.txt", Reading(50, 100)), "x\n"),
        FollowedPart(Place("site-1", "error_log.txt", Reading(200, 200)), "x\n"),
        FollowedPart(Place("site-2", "log.txt", Reading(200, 200)), "x\n"),
    ],
    ids=["nothing", "again", "back", "another log", "another site"],
)
def test_new_lines_that_do_not_follow_those_before_are_refused(part):
    port = HostilePort(
        streams=job(),
        read=lambda request: ReadReply("x\n", Reading(100, 100)),
        follow=followed(OPEN, "RUNNING", part),
    )
    ends_with(
        ErrorCode.INVALID_REPLY,
        f"{part.place.site}/{part.place.file}",
        lambda: list(port.client.follow(ID, LogQuery(sites=("all",)))),
    )


def test_an_id_that_is_none_is_not_taken_from_a_server():
    port = HostilePort()
    port.ids = ["8f3c\x1b[2J"]
    for text in ("8f3c", "@latest"):
        ends_with(
            ErrorCode.INVALID_REPLY, r"job_id: '8f3c\\x1b", lambda text=text: port.client.find_job(text)
        )


def test_words_of_a_server_do_not_reach_the_terminal_raw(capsys):
    notice("the server said \x1b[2J\x9b0m")
    assert capsys.readouterr().err == "the server said \\x1b[2J\\x9b0m\n"
