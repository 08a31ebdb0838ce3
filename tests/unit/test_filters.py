"""The pipeline gives what the runtime's own command gives, and over a file what it gives over the text."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvflare.tool.job.job_cli import (
    _apply_job_log_bounds,
    _looks_like_json_log,
    _normalize_log_timestamp,
    _render_log_json_as_text,
)

from nvflare_logstream import lines, typed_time
from nvflare_logstream.errors import ArgumentError, StoreError
from nvflare_logstream.filters import apply_filters, log, reading
from nvflare_logstream.filters import times as log_times
from nvflare_logstream.filters.bounds import plan
from nvflare_logstream.filters.line_filter import MAX_BEFORE, LineFilter
from nvflare_logstream.filters.log import FileLog, LogLines, last_line_end
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.filters.times import LogTimes
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.query_values import decode_reading, encode_reading

TIMES = st.sampled_from(
    [
        "2026-04-28 10:00:00,123",
        "2026-04-28 10:00:01,5",
        "2026-04-28T09:59:59.999999",
        "2026-04-28 10:00:02,1234567",
    ]
)
ODD_TIMES = TIMES | st.sampled_from(["2026-13-01 10:00:00", "[2026-04-28 10:00:03"])
ZONED = st.sampled_from(["2026-04-28T12:00:01+02:00", "2026-04-28T10:00:01Z"])
ENDS = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\x0b", "\u2028", "\x85", ""])
LEVELS = st.sampled_from(["DEBUG", "INFO", "ERROR"])
TEXT_LINES = st.builds("{} - n - {} - {}".format, ODD_TIMES, LEVELS, st.text(max_size=8)) | st.text(
    max_size=10
)
KEYS = st.sampled_from(["asctime", "timestamp", "time", "x"])
JSON_LINES = st.builds(
    '{{"{}": "{}", "levelname": "{}", "message": "x"}}'.format, KEYS, ODD_TIMES, LEVELS
) | st.sampled_from(['{"a": 1}', "[]", "x", '{"asctime": 5}'])


def logs(line):
    return st.lists(st.tuples(line, ENDS).map("".join), max_size=30).map("".join)


LOGS = logs(TEXT_LINES) | logs(JSON_LINES)
COUNTS = st.none() | st.integers(0, 12)
SIZES = st.none() | st.integers(0, 120)


@settings(max_examples=500)
@given(LOGS, st.none() | TIMES | ZONED, COUNTS, SIZES)
def test_the_result_is_the_one_of_the_runtimes_own_command(text, since, tail, max_bytes):
    wanted_since = _normalize_log_timestamp(since) if since else None
    texts, sites, truncated, applied = _apply_job_log_bounds({"s": text}, tail, wanted_since, max_bytes)
    found = apply_filters(text, since=since, tail=tail, max_bytes=max_bytes)
    assert found.text == texts["s"]
    assert (found.truncated, found.since_applied) == (truncated, applied)
    assert (found.lines, found.bytes) == (sites["s"]["lines"], sites["s"]["bytes"])


@given(LOGS)
def test_json_is_told_and_shown_as_the_runtimes_own_command_does(text):
    assert lines.is_json(text) == _looks_like_json_log(text)
    assert lines.json_as_text(text) == _render_log_json_as_text(text)


RAW_LOGS = LOGS.map(lambda text: text.encode()) | st.lists(st.binary(max_size=10)).map(b"\n".join)
FILTERS = st.fixed_dictionaries(
    {
        "since": st.none() | TIMES,
        "until": st.none() | TIMES,
        "level": st.sampled_from([None, None, "INFO", "ERROR"]),
        "grep": st.sampled_from(
            [None, None, "1", "[a-z]", "^2", "x$", r"\bn\b", r"\A[^a]", r"x\z", r"\B0", "n - I"]
        ),
        "invert": st.booleans(),
        "before": st.integers(0, 2),
        "after": st.integers(0, 2),
        "tail": COUNTS,
        "max_bytes": SIZES,
    }
)


def model(text, since, until, tail, max_bytes, **others):
    """The pipeline as described: line by line, then the last lines, then the last bytes."""
    filters = Filters(
        since=since and lines.parse_time(since), until=until and lines.parse_time(until), **others
    )
    kept, json = text.splitlines(keepends=True), lines.is_json(text)
    time_of = lines.json_time if json else lines.text_time
    timed = any(time_of(line) for line in kept)
    if filters.drops_lines:
        line_filter = LineFilter(filters, json, timed)
        kept = [shown for line in kept for shown in line_filter.feed(line)]
    over = max(0, len(kept) - tail) if tail is not None else 0
    data = "".join(kept[over:]).encode()
    cut = max(0, len(data) - max_bytes) if max_bytes is not None else 0
    text = data[cut:].decode(errors="ignore")
    return text, timed and bool(since), over > 0 or cut > 0


@settings(max_examples=500)
@given(
    raw=RAW_LOGS,
    given_filters=FILTERS,
    block=st.sampled_from([4, 16, 64, 1 << 16]),
    part=st.integers(1, 50),
    most=st.sampled_from([1, 100, 1 << 26]),
    is_indexed=st.booleans(),
)
def test_over_a_file_it_gives_what_it_gives_over_the_text(
    memory_path, raw, given_filters, block, part, most, is_indexed
):
    text = raw.decode(errors="replace")
    path = memory_path / "filtered.txt"
    path.write_bytes(raw)
    wanted = model(text, **given_filters)
    whole = apply_filters(text, **given_filters)
    assert (whole.text, whole.since_applied, whole.truncated) == wanted
    times = {
        name: given_filters[name] and lines.parse_time(given_filters[name]) for name in ("since", "until")
    }
    filters = Filters(**{**given_filters, **times})
    source = LogLines(FileLog(path, len(raw)), LogTimes() if is_indexed else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "BLOCK", block)
        patch.setattr(log_times, "CHUNK", block)
        patch.setattr(reading, "MOST_READ", most)
        place, found = plan(source, filters), ""
        while not place.done:
            place, more = decode_reading(Fields(encode_reading(place))).part(source, filters, part)
            found += more
    assert (found, place.since_applied, place.truncated) == wanted


@pytest.fixture(scope="module")
def long_log(tmp_path_factory):
    """50 MB of lines in the order of their times, a tenth of a second apart."""
    path = tmp_path_factory.mktemp("long") / "log.txt"
    with path.open("w") as file:
        for block in range(100):
            start = time.mktime((2026, 4, 28, 0, 0, 0, 0, 0, -1)) + 400.0 * block
            stamps = [
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start + second)) for second in range(400)
            ]
            file.write(
                "".join(
                    f"{stamps[n // 10]},{n % 10}00 - trainer - INFO - step {n:090d}\n" for n in range(4000)
                )
            )
    return path


@pytest.mark.parametrize("seconds_from_end", [None, 60])
def test_the_end_of_a_long_log_costs_little_reading(long_log, seconds_from_end):
    filters, file, times = Filters(tail=10), FileLog(long_log, long_log.stat().st_size), LogTimes()
    if seconds_from_end:
        last = apply_filters(long_log.read_text()[-1000:], tail=1).text
        filters = Filters(since=lines.text_time(last) - lines.datetime.timedelta(seconds=seconds_from_end))
        earlier = LogLines(file, times)  # a reader who has looked at all times
        reading = plan(earlier, filters)
        while not reading.done:
            reading, _ = reading.part(earlier, filters, 1 << 20)
    source = LogLines(file, times)
    _, text = plan(source, filters).part(source, filters, 1 << 20)
    assert len(text.splitlines()) == (601 if seconds_from_end else 10)
    assert source.bytes_read < 1 << 20


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(grep="line"), Filters(tail=3), Filters(tail=3, grep="1")]
)
def test_a_file_that_is_cut_while_it_is_read_is_an_error_and_not_its_end(tmp_path, filters):
    path = tmp_path / "log.txt"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(100)))
    source = LogLines(FileLog(path, path.stat().st_size))
    reading = plan(source, filters)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(StoreError, match="is shorter"):
        reading.part(source, filters, 1 << 20)


@pytest.mark.parametrize(
    "filters", [Filters(since=lines.parse_time("2026-04-28")), Filters(grep="z"), Filters(tail=1), Filters()]
)
def test_a_line_without_end_costs_linear_time_and_bounded_memory(tmp_path, filters):
    path = tmp_path / "log.txt"
    path.write_bytes(b"y" * (100 << 20))
    source = LogLines(FileLog(path, path.stat().st_size))
    began = time.process_time()
    _, text = plan(source, filters).part(source, filters, 1 << 20)
    assert time.process_time() - began < 3.0 and len(text) <= log.MAX_LINE + log.BLOCK


def test_a_line_that_is_handled_in_pieces_keeps_its_characters(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "MAX_LINE", 50)
    monkeypatch.setattr(log, "BLOCK", 16)
    path = tmp_path / "log.txt"
    for shift in range(4):
        text = "a" * shift + "é€x😀" * 40
        path.write_bytes(text.encode())
        source = LogLines(FileLog(path, path.stat().st_size))
        assert "".join(line for _, block in source.forward(0, source.end) for line in block) == text
        assert b"".join(run for _, run in reversed(list(source.backward(0, source.end)))).decode() == text
        assert all(run.decode() for _, run in source.backward(0, source.end)), (
            "each piece is whole characters"
        )
        source.end = last_line_end(source, 0)
        assert source.read(0, source.end).decode()


@pytest.mark.parametrize("hours", [1, 4])
def test_since_in_an_hour_that_the_clock_went_through_twice(tmp_path, hours):
    """The end of summer time: what was written before the clock went back is there too."""
    start = lines.parse_time("2026-10-25 03:00:00") - lines.datetime.timedelta(hours=hours)
    stamps = [start + lines.datetime.timedelta(seconds=second) for second in range(3600 * hours)]
    stamps += [
        lines.parse_time("2026-10-25 02:00:00") + lines.datetime.timedelta(seconds=s)
        for s in range(3600 * hours)
    ]
    path = tmp_path / "log.txt"
    path.write_text(
        "".join(f"{stamp},000 - trainer - INFO - step {n:0100d}\n" for n, stamp in enumerate(stamps))
    )
    for minute in range(5, 55, 7):
        since = lines.parse_time(f"2026-10-25 02:{minute:02d}:00")
        source = LogLines(FileLog(path, path.stat().st_size), LogTimes())
        filters, found = Filters(since=since), ""
        place = plan(source, filters)
        while not place.done:
            place, text = place.part(source, filters, 1 << 20)
            found += text
        assert found == apply_filters(path.read_text(), since=since).text, minute


def test_context_before_a_match_is_bounded_in_memory():
    log_lines = ["x" * 100_000 + "\n"] * 300
    line_filter = LineFilter(Filters(grep="hit", before=1000), json=False, timed=False)
    assert not any(map(line_filter.feed, log_lines))
    assert sum(map(len, line_filter.state.before)) <= MAX_BEFORE
    assert len(line_filter.feed("hit\n")) == 11


def test_a_time_at_the_edge_of_the_calendar_is_none():
    assert lines.json_time('{"asctime": "0001-01-01T00:00:00+10:00"}') is None
    with pytest.raises(ArgumentError, match=r"^since: "):
        typed_time.parse_since("since", "9999-12-31T23:59:59Z", utc_offset=7200)


def test_a_pattern_built_to_explode_costs_linear_time():
    began = time.perf_counter()
    found = apply_filters("a" * 200_000 + "\n", grep="(a+)+$b|(a|aa)+$c")
    assert found.text == "" and time.perf_counter() - began < 2.0


@pytest.mark.parametrize("pattern", ["^line 2", r"\Aline 2", "2 of 3$", r"2 of 3\z", r"\B 2", r"\bline 2\b"])
def test_a_pattern_that_looks_at_a_lines_ends_finds_it_among_others(pattern):
    log = "".join(f"line {number} of 3\n" for number in (1, 2, 3))
    assert apply_filters(log, grep=pattern.replace(r"\B 2", r"\Be 2")).text == "line 2 of 3\n"


def test_a_continuation_line_belongs_to_its_record():
    log = "2026-04-28 10:00:00,0 - n - ERROR - bad\nTraceback\n  line\n"
    log += "2026-04-28 10:00:01,0 - n - INFO - good\nmore\n"
    assert apply_filters(log, level="ERROR").text == log[: log.index("2026-04-28 10:00:01")]
    assert apply_filters(log, until="2026-04-28 10:00:00").text == log[: log.index("2026-04-28 10:00:01")]
    assert apply_filters(log, grep="line", before=1).text == "Traceback\n  line\n"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("tail", -1),
        ("max_bytes", True),
        ("level", "LOUD"),
        ("grep", "(("),
        ("since", "tomorrow"),
        ("until", "10x"),
        ("before", 5000),
    ],
)
def test_a_wrong_argument_is_named(argument, value):
    with pytest.raises(ArgumentError, match=rf"^{argument}: .* is not allowed; "):
        apply_filters("", **{argument: value})


def test_times_are_read_into_the_sites_own_clock():
    now = lines.parse_time("2026-04-28T10:00:00")
    hour = 3600
    assert typed_time.parse_since("since", "2026-04-28T10:00:00", utc_offset=2 * hour) == now, (
        "a naive time is the log's own"
    )
    assert (
        str(typed_time.parse_since("since", "2026-04-28T10:00:00Z", utc_offset=2 * hour))
        == "2026-04-28 12:00:00"
    )
    assert str(typed_time.parse_since("since", "1h30m", now=now, utc_offset=-hour)) == "2026-04-28 07:30:00"
    fixed = typed_time.fixed_time(
        "since", "1h30m", now.replace(tzinfo=lines.datetime.timezone.utc).timestamp()
    )
    assert (
        fixed == "2026-04-28T08:30:00Z" and typed_time.fixed_time("since", "2026-04-28", 0.0) == "2026-04-28"
    )
