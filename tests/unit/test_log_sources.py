"""The pipeline runs over whatever can be read by offset: ranges fetched from a server, and any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.port import Port, read_reply
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.filters import apply_filters
from nvflare_logstream.filters.bounds import plan
from nvflare_logstream.filters.log import LogLines
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Stream, StreamKey
from nvflare_logstream.wire.queries import ReplyT, Request

JOB = "job-1"
KEY = StreamKey(JOB, "site-1", "log.txt")


class ServicePort(Port):
    """A server in this process."""

    def __init__(self, service: LogService):
        self.service = service

    def ask(self, job_id: str, request: Request[ReplyT], seconds: float) -> ReplyT:
        return read_reply(job_id, request, self.service.answer(job_id, request.encode()))


class FetchedLog:
    """A log at a server, of which only the ranges that are read are fetched."""

    def __init__(self, client: LogClient, stream: Stream):
        self._client, self._stream, self.size = client, stream, stream.end

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        return b"".join(self._client.fetch(JOB, self._stream._replace(end=end), offset))


def filtered(log_lines: LogLines, query: LogQuery, stream: Stream) -> str:
    """What the pipeline gives at the reader."""
    filters = query.filters().for_site(stream.utc_offset)
    reading, parts = plan(log_lines, filters), []
    while not reading.done:
        reading, text = reading.part(log_lines, filters, 1000)
        parts.append(text)
    return "".join(parts)


@pytest.fixture
def client(memory_path):
    store = LogStore(memory_path)
    log = "".join(
        f"2026-04-28 10:{n // 600:02d}:{n // 10 % 60:02d},{n % 10}00 - n - {level} - line {n} é\n"
        for n, level in zip(range(20_000), ["INFO", "INFO", "ERROR"] * 7000, strict=False)
    )
    store.append(KEY, store.open(KEY).end, log.encode() + b"torn \xff", b"cursor")
    yield LogClient(ServicePort(LogService(store, 30.0)))
    store.close()


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"tail": 10},
        {"max_bytes": 333},
        {"since": "2026-04-28T10:30:00"},
        {"since": "2026-04-28T10:10:00", "until": "2026-04-28T10:10:05", "level": "ERROR"},
        {"grep": "line 19", "before": 2, "after": 1, "tail": 50, "max_bytes": 900},
        {"grep": "torn"},
    ],
    ids=lambda bounds: " ".join(bounds) or "all",
)
def test_the_pipeline_over_fetched_ranges_gives_what_the_server_gives(client, bounds):
    query = LogQuery(sites=("site-1",), **bounds)
    (stream,) = client.streams(JOB)
    answer = client.read(JOB, query)["site-1"]
    log_lines = LogLines(FetchedLog(client, stream))
    assert filtered(log_lines, query, stream) == answer.text != ""
    if "tail" in bounds and "grep" not in bounds:
        assert log_lines.bytes_read < stream.end / 5, "only what is needed is fetched"


@pytest.mark.parametrize("text", ["\ud800", "a\udc00b", "\ud800\ud800", "\udcff\n\ud800\n"])
def test_a_lone_surrogate_counts_as_one_replacement_character(text):
    wanted = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    assert apply_filters(text).text == wanted


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\ud800\udbff\udc00\udfff\n"), max_size=20))
def test_any_text_has_a_filtered_text_that_can_be_encoded(text):
    result = apply_filters(text)
    assert result.bytes == len(result.text.encode())
