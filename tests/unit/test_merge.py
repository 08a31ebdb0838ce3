"""Merging: lines of several sites by corrected time, each site's own order kept."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvflare_logstream.client import merge as merge_module
from nvflare_logstream.client.merge import Clock, in_order, merge, runs, split_lines, timed
from nvflare_logstream.streams import Stream, StreamKey

NOON = datetime(2026, 4, 28, 12)


def stream(site: str, utc_offset: int = 0, skew: float = 0.0, as_json: bool = False) -> Stream:
    file = "log.json" if as_json else "log.txt"
    return Stream(StreamKey("job-1", site, file), utc_offset=utc_offset, skew=skew)


def stamp(seconds: float) -> str:
    """A time of the log, as the runtime writes it."""
    return (NOON + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]


def record(seconds: float, text: str, as_json: bool = False) -> str:
    if as_json:
        return json.dumps({"asctime": stamp(seconds), "levelname": "INFO", "message": text}) + "\n"
    return f"{stamp(seconds)} - name - INFO - {text}\n"


def merged(logs: dict[Stream, list[str]]) -> list[tuple[str, str]]:
    return [
        (site, line)
        for _, site, line in merge(
            timed(Clock(of, of.file == "log.json"), of.site, log) for of, log in logs.items()
        )
    ]


def test_zones_and_skewed_clocks_are_corrected():
    """All four lines are a second apart, though the sites' clocks show hours between them."""
    berlin, tokyo = stream("berlin", 7200), stream("tokyo", 9 * 3600, skew=100.0)
    logs = {
        berlin: [record(7200, "first"), record(7202, "third")],
        tokyo: [record(9 * 3600 + 101, "second"), record(9 * 3600 + 103, "fourth")],
    }
    assert [line.split()[-1] for _, line in merged(logs)] == ["first", "second", "third", "fourth"]


def test_a_traceback_stays_with_its_record():
    one = [
        record(0, "failed"),
        "Traceback (most recent call last):\n",
        "\n",
        "ValueError: no\n",
        record(9, "later"),
    ]
    two = [record(0.5 * number, f"number {number}") for number in range(12)]
    lines = [line for site, line in merged({stream("one"): one, stream("two"): two})]
    at = lines.index(one[0])
    assert lines[at : at + 4] == one[:4]


def test_what_precedes_the_first_time_comes_first():
    lines = merged({stream("one"): [record(0, "timed")], stream("two"): ["no time\n", record(-5, "earlier")]})
    assert [line for _, line in lines] == ["no time\n", record(-5, "earlier"), record(0, "timed")]


def test_sites_of_the_same_time_come_in_the_order_asked_for():
    names = ["server", "b", "a"]
    assert [site for site, _ in merged({stream(name): [record(0, name)] for name in names})] == names


def test_no_more_than_a_line_of_each_log_is_held():
    taken = []

    def endless():
        for number in range(10**9):
            taken.append(number)
            yield record(number, "x")

    two = timed(Clock(stream("two")), "two", [record(1e6, "y")])
    lines = merge([timed(Clock(stream("one")), "one", endless()), two])
    for _ in range(10):
        next(lines)
    assert len(taken) <= 11


PIECES = st.tuples(st.none() | st.integers(-5000, 5000), st.text("xé \r\x0b\u2028{", max_size=6))
SITES = st.tuples(st.integers(-12, 14), st.floats(-1000, 1000), st.booleans(), st.lists(PIECES, max_size=12))


@settings(max_examples=80, deadline=None)
@given(st.lists(SITES, min_size=1, max_size=4), st.data())
def test_each_sites_order_stays_and_records_come_by_corrected_time(sites, data):
    """A line without a time, or with an earlier one, counts as written with the line before it."""
    logs, wanted = {}, []
    for number, (hours, skew, as_json, pieces) in enumerate(sites):
        of, log, last = stream(f"site-{number}", hours * 3600, skew, as_json), [], float("-inf")
        for seconds, text in pieces:
            line = record(seconds, text, as_json) if seconds is not None else f" {text}\n"
            if seconds is not None:
                last = max(last, round(seconds - hours * 3600 - skew, 6))
            wanted.append((last, number, line))
            log.append(line)
        logs[of] = log
    found = merged(logs)
    assert times(found, wanted) == sorted(last for last, _, _ in wanted)
    for of, log in logs.items():
        assert [line for site, line in found if site == of.site] == log

    def parts(of: Stream):
        """The same logs in parts of whole lines, as a server sends them."""
        rest = logs[of]
        while rest:
            cut = data.draw(st.integers(1, len(rest)))
            yield "".join(rest[:cut])
            rest = rest[cut:]

    kinds = {of.site: of.file == "log.json" for of in logs}
    assert list(in_order(list(logs), parts, records=kinds.__getitem__)) == found


def times(found: list[tuple[str, str]], wanted: list[tuple[float, int, str]]) -> list[float]:
    """The corrected time of each line of the result: a site's lines are in its order, so its times are."""
    waiting = {f"site-{number}": [last for last, of, _ in wanted if of == number] for _, number, _ in wanted}
    return [waiting[site].pop(0) for site, _ in found]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("xy", max_size=30)), max_size=30))
def test_runs_keep_every_line_and_stay_short(log_lines):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_module, "MOST_RUN", 40)
        found = list(runs(log_lines))
    assert [(site, letter) for site, text in found for letter in text] == [
        (site, letter) for site, line in log_lines for letter in line
    ]
    assert all(len(text) < 40 + 30 for _, text in found)


@given(st.text(alphabet=st.sampled_from("a\n\r\x0b\x0c\x1c\x85\u2028")))
def test_only_a_newline_ends_a_line(text):
    assert "".join(split_lines(text)) == text
    assert all("\n" not in line[:-1] and line for line in split_lines(text))
    assert len(split_lines(text)) == text.count("\n") + bool(text and not text.endswith("\n"))
