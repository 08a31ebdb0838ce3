"""`logs` and `logs --follow` show the same lines of the same log, as text and as it is, merged or not."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvflare_logstream.cli.log_task import LogTask
from nvflare_logstream.cli.output import Format
from nvflare_logstream.cli.printers import EventPrinter, TerminalPrinter
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.flare.session_port import SessionPort
from tests.unit.conftest import in_small_parts
from tests.unit.test_follow import JOB, World

RECORD = {"asctime": "2026-04-28 10:00:00,000", "name": "n", "levelname": "INFO"}


def record(message: str, **fields: Any) -> str:
    return json.dumps({**RECORD, **fields, "message": message}) + "\n"


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.store.close()


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    with in_small_parts():
        yield


def shown(world: World, wanted: dict[str, Any], follow: bool, merged: bool = False, raw: bool = False) -> str:
    """What the command prints of the job's logs; of `raw` only the lines."""
    client = LogClient(SessionPort(world), world.clock, world.clock.advance)  # type: ignore[arg-type]
    several = merged or wanted.get("sites") == ("all",)
    printer = EventPrinter() if raw else TerminalPrinter(prefix=several, headers=False, colour=False)
    query = LogQuery(**{"sites": ("site-1",), **wanted})
    task = LogTask(client, JOB, query, printer, Format.JSONL if raw else Format.TEXT, False)
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        task.follow(merged) if follow else task.read(merged)
    if not raw:
        return out.getvalue()
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    return "".join(f"{event['site']} {event['line']}\n" for event in events if event["event"] == "line")


# -- what is in JSON form is known, not guessed --------------------------------------------------------------


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("wanted", [{}, {"level": "INFO"}, {"grep": "."}])
def test_a_json_log_whose_first_record_is_cut_is_shown_as_text(world, follow, wanted):
    world.write("site-1", (record("one") + record("two") + record("three")).encode(), "log.json")
    world.end("site-1", "log.json")
    world.over()
    text = shown(world, {"max_bytes": len(record("three")) + 20, "file": "log.json", **wanted}, follow)
    assert text.endswith("\n2026-04-28 10:00:00,000 - n - INFO - three\n") and "levelname" not in text


def test_a_json_log_whose_first_record_is_cut_stays_text_as_it_grows(world):
    world.write("site-1", (record("one") + record("two")).encode(), "log.json")
    world.steps = [
        lambda: None,
        lambda: world.write("site-1", record("three").encode(), "log.json"),
        lambda: world.end("site-1", "log.json"),
        world.over,
    ]
    text = shown(world, {"max_bytes": 20, "file": "log.json", "level": "INFO"}, True)
    assert text.endswith("\n2026-04-28 10:00:00,000 - n - INFO - three\n")


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("merged", [False, True])
def test_of_a_text_log_a_line_in_json_form_stays_as_it_is(world, follow, merged):
    """A job may print anything: the last lines of its log may all look like records."""
    printed = '{"loss": 0.5,  "message": "a"}\n\n{"time": "2030-01-01 00:00:00"}\n'
    world.write("site-1", ("2026-04-28 10:00:00,000 - n - INFO - begin\n" + printed).encode())
    world.end("site-1")
    world.over()
    text = shown(world, {"tail": 3}, follow, merged)
    assert text.replace("site-1 ", "") == printed


@pytest.mark.parametrize("follow", [False, True])
def test_a_message_that_is_a_record_itself_is_rendered_once(world, follow):
    line = json.dumps({"message": record("inner").strip()}) + "\n"
    world.write("site-1", line.encode(), "log.json")
    world.end("site-1", "log.json")
    world.over()
    assert shown(world, {"file": "log.json"}, follow) == record("inner")


@pytest.mark.parametrize("follow", [False, True])
def test_a_line_in_json_form_in_a_text_log_is_no_record_when_logs_are_merged(world, follow):
    line = "2026-04-28 10:00:0{},000 - n - INFO - {}\n"
    printed = '{"time": "2026-04-28 10:00:09"}\n'
    world.write("site-1", (line.format(1, "one") + printed + line.format(3, "three")).encode())
    world.write("site-2", (line.format(2, "two") + line.format(4, "four")).encode())
    for site in ("site-1", "site-2"):
        world.end(site)
    world.over()
    text = shown(world, {"sites": ("all",)}, follow, merged=True)
    assert [row.split()[-1] for row in text.splitlines() if "INFO" in row] == ["one", "two", "three", "four"]


# -- the same lines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("file", ["log.txt", "log.json"])
def test_the_last_lines_are_the_same_ones_of_messages_with_several_lines(world, file, raw):
    messages = [f"{number}\n  Traceback\n  end" for number in range(9)]
    lines = [record(message) if file == "log.json" else f"{message}\n" for message in messages]
    world.write("site-1", "".join(lines).encode(), file)
    world.end("site-1", file)
    world.over()
    wanted = {"file": file, "tail": 4}
    read, followed = (shown(world, wanted, follow, raw=raw) for follow in (False, True))
    assert followed == read
    assert len(read.splitlines()) == 4


TEXTS = st.text("ab é\n\r\u2028\\", max_size=9) | st.sampled_from(["Traceback\n  one\n\n  two", ""])
RECORDS = st.builds(
    record,
    TEXTS | st.just('{"message": "x"}'),
    asctime=st.sampled_from(["2026-04-28 10:00:00,123", "2026-04-28 10:00:01,5", ""]),
    levelname=st.sampled_from(["INFO", "ERROR", ""]),
)
ODD = st.sampled_from(["\n", "  \n", "not json\n", "[1]\n", '{"a": 1}\n', "\udcff\n"])
PRINTED = st.builds(
    "{}{}\n".format,
    st.sampled_from(["", "2026-04-28 10:00:00,000 - n - INFO - ", "2026-04-28 10:00:01,000 - n - ERROR - "]),
    st.text("ab é\r\u2028", max_size=9) | st.just("needle"),
)
JSON_LOGS = st.lists(RECORDS | RECORDS | ODD, max_size=15)
TEXT_LOGS = st.lists(PRINTED | PRINTED | ODD | RECORDS, max_size=15)
LOGS = st.tuples(st.just("log.json"), JSON_LOGS) | st.tuples(st.just("log.txt"), TEXT_LOGS)
LASTING: dict[str, Any] = {
    "grep": st.sampled_from(["a", "needle", "INFO"]),
    "invert": st.booleans(),
    "level": st.sampled_from(["INFO", "ERROR"]),
    "exclude": st.just(("b",)),
}
BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        **LASTING,
        "tail": st.integers(0, 9),
        "max_bytes": st.integers(0, 300),
        "since": st.just("2026-04-28 10:00:01"),
        "until": st.just("2026-04-28 10:00:00.5"),
    },
)


def as_bytes(lines: list[str]) -> bytes:
    return "".join(lines).encode(errors="surrogateescape")


@settings(max_examples=150, deadline=None)
@given(st.lists(LOGS, min_size=1, max_size=3), BOUNDS, st.booleans(), st.booleans())
def test_a_follow_begins_with_what_a_reading_shows(memory_path_factory, logs, bounds, merged, raw):
    """For any logs and bounds; a site's log is its log.txt, or the log.json that it has instead."""
    if {"since", "until"} <= bounds.keys():
        del bounds["until"]
    with memory_path_factory() as root:
        world = World(root, idle=0.0)
        for number, (file, lines) in enumerate(logs):
            world.write(f"site-{number}", as_bytes(lines), file)
            world.end(f"site-{number}", file)
        world.over()
        wanted = {"sites": ("all",), **bounds}
        read, followed = (shown(world, wanted, follow, merged, raw) for follow in (False, True))
        world.store.close()
    assert followed == read


def test_a_line_that_the_filters_part_at_a_carriage_return_is_one_line_for_programs(world):
    world.write("site-1", b"\n\ra\n")
    world.steps = [lambda: world.write("site-1", b"needle\n"), lambda: world.end("site-1"), world.over]
    wanted = {"grep": "a", "invert": True}
    assert shown(world, wanted, True, raw=True) == "site-1 \nsite-1 \rneedle\n"
    assert shown(world, wanted, False, raw=True) == "site-1 \nsite-1 \rneedle\n"


def test_of_blank_lines_alone_a_follow_waits_for_what_tells_whether_they_belong_to_a_json_log(world):
    record = b'{"asctime": "2026-04-28 10:00:00,123", "levelname": "INFO", "message": "x"}\n'
    world.write("site-1", b"\n", "log.json")
    world.steps = [lambda: world.write("site-1", record, "log.json"), lambda: world.end("site-1", "log.json")]
    world.steps.append(world.over)
    wanted = {"sites": ("site-*",), "file": "log.json"}
    assert shown(world, wanted, True) == shown(world, wanted, False)


@settings(max_examples=150, deadline=None)
@given(st.data(), LOGS, st.fixed_dictionaries({}, optional=LASTING), st.booleans())
def test_what_a_follow_shows_of_a_log_that_grows_is_in_the_end_what_a_reading_shows(
    memory_path_factory, data, named, bounds, raw
):
    """Wherever the log stood when the follow began: also before the first line that is not blank."""
    file, lines = named
    with memory_path_factory() as root:
        world = World(root, idle=0.0)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(lines)), max_size=3)))
        first, *rest = [lines[a:b] for a, b in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
        world.write("site-1", as_bytes(first), file)
        world.steps = [lambda piece=piece: world.write("site-1", as_bytes(piece), file) for piece in rest]
        world.steps += [lambda: world.end("site-1", file), world.over]
        wanted = {"sites": ("site-*",), "file": file, **bounds}
        followed = shown(world, wanted, True, raw=raw)
        read = shown(world, wanted, False, raw=raw)
        world.store.close()
    assert followed == read
