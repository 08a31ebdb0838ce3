"""A JSON log shown as text gives what the runtime's own command gives: rendered first, then bounded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvflare.tool.job.job_cli import (
    _apply_job_log_bounds,
    _looks_like_json_log,
    _normalize_log_timestamp,
    _render_log_json_as_text,
)

from nvflare_logstream.client.parts import read_parts
from nvflare_logstream.client.port import read_reply
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.filters import reading
from nvflare_logstream.server import service, turns
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Stream, StreamKey
from tests.unit.conftest import in_small_parts

JOB = "job-1"
TIMES = st.sampled_from(
    [
        "2026-04-28 10:00:00,123",
        "2026-04-28 10:00:01,5",
        "2026-04-28T09:59:59.99",
        "2026-04-28T10:00:02+02:00",
    ]
)
MESSAGES = st.text("ab é\n\r\u2028\\", max_size=9) | st.sampled_from(
    ["Traceback\n  one\n\n  two", "\ud83d", ""]
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "asctime": TIMES,
        "time": TIMES | st.just(5),
        "levelname": st.sampled_from(["INFO", "ERROR"]),
        "message": MESSAGES,
        "other": st.integers(),
    },
)
LINES = st.builds(json.dumps, RECORDS)
ODD = st.sampled_from(["", "  ", "not json", "[1]", "2026-04-28 10:00:01,000 - n - INFO - text", '"\x85'])
LOGS = st.lists(LINES | LINES | ODD, max_size=25).map("\n".join)


class Server:
    """A port to a server with one log."""

    def __init__(self, root, data: bytes):
        self.store, self.read = LogStore(root), 0
        self.key = StreamKey(JOB, "site-1", "log.json")
        self.store.open(self.key)
        self.store.append(self.key, 0, data, b"cursor")
        self.service = service.LogService(self.store, 30.0)

    def ask(self, job_id, request, seconds):
        reply = read_reply(
            job_id, request, self.service.answer(job_id, json.loads(json.dumps(request.encode())))
        )
        self.read += reply.read
        return reply

    def text(self, **wanted) -> tuple[str, bool, bool]:
        parts = list(read_parts(self, JOB, Stream(self.key), LogQuery(("all",), **wanted), False, None, True))
        return "".join(part.text for part in parts), parts[-1].since_applied, parts[-1].truncated


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    with in_small_parts() as patch:
        patch.setattr(reading, "MOST_READ", 200)
        yield


@settings(max_examples=150, deadline=None)
@given(
    LOGS,
    st.none() | TIMES.filter(lambda time: "+" not in time),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 150),
    st.sampled_from([0.0, 2.0]),
)
def test_bounds_of_a_json_log_in_text_are_those_of_the_runtimes_own_command(
    memory_path_factory, text, since, tail, max_bytes, turn
):
    wanted_since = _normalize_log_timestamp(since) if since else None
    shown = _render_log_json_as_text(text) if _looks_like_json_log(text) else text
    shown = shown.replace("\ud83d", "\ufffd")  # the runtime's command ends with an error there
    texts, _, truncated, applied = _apply_job_log_bounds({"s": shown}, tail, wanted_since, max_bytes)
    with memory_path_factory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "TURN_SECONDS", turn)
        server = Server(root, text.encode())
        found = server.text(since=since, tail=tail, max_bytes=max_bytes)
        server.store.close()
    assert found == (texts["s"], applied, truncated)


def test_the_last_lines_of_a_long_json_log_are_found_with_little_reading(memory_path):
    record = {"asctime": "2026-04-28 10:00:00,000", "levelname": "INFO", "message": "a\nb"}
    server = Server(memory_path, b"".join(json.dumps(record).encode() + b"\n" for _ in range(20_000)))
    text, _, truncated = server.text(tail=3)
    assert text == "b\n2026-04-28 10:00:00,000 - INFO - a\nb\n" and truncated
    assert server.text(max_bytes=4)[0] == "a\nb\n" and server.read < 3000
    server.store.close()


@pytest.mark.parametrize("wanted", [{"level": "ERROR"}, {"grep": "ERROR"}])
def test_levels_and_patterns_are_looked_for_in_the_records(memory_path, wanted):
    record = json.dumps({"level": "error", "message": "ERROR"}) + "\n"
    server = Server(memory_path, record.encode() + b'{"level": "info", "message": "no"}\n')
    assert server.text(**wanted, tail=5)[0] == record
    server.store.close()
