"""A block of a log filtered at once gives what its lines give one by one.

A bounded share runs with the others; by hand: `python -m tests.unit.test_blocks 50000 1` (cases, first seed).
"""

import random
import sys

import pytest

from nvflare_logstream import lines
from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.filters import apply_filters, bounds, line_filter, log, reading
from nvflare_logstream.filters.block_filter import BlockFilter
from nvflare_logstream.filters.line_filter import LineFilter
from nvflare_logstream.filters.log import LogLines, TextLog
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.query_values import decode_reading, encode_reading

_CASES = 1500
_TIMES = [
    "2026-04-28 10:00:00,123",
    "2026-04-28 10:00:01",
    "2026-04-28T10:00:01.5",
    "2026-04-27 23:59:59,999999",
    "2026-04-28 10:00:02,1234567",
    "2026-05-01 00:00:00",
    "2026-13-01 10:00:00",
    "1999-12-31 23:59:59,1",
    "[2026-04-28 10:00:01,000]",
    "2026-04-28 10:00:0",
    "２026-04-28 10:00:00",
]
_NAMES = ["n", "a b", "x.y", "-", "", "INFO", "N2", "needle in"]
_LEVELS = [
    "INFO",
    "ERROR",
    "WARN",
    "TRACE",
    "FATAL",
    "Level 35",
    "Level 5",
    "ODD",
    "INFORM",
    "E",
    "info",
    "I F",
]
_WORDS = [
    *(
        "needle",
        "beedle in",
        "a-b",
        "x",
        "X",
        "1",
        " - ERROR - ",
        " ",
        "é",
        "\u2003",
        "\ufffd",
        "\U0001f600",
        "\t",
    ),
    *("^", "$", "\\", "[", "\x00", "needle in", "2026-04", "  "),
]
_ENDS = ["\n"] * 12 + ["\r\n", "\r", "\x0b", "\x0c", "\x1d", "\x85", "\u2028", "\n\n", "\n\n\n"]
_PATTERNS = [
    *(
        "needle",
        "[^ ]eedle in",
        "^2026-04",
        "n$",
        "^$",
        "$",
        "^",
        "x*",
        r"\bneedle\b",
        r"\B-",
        r"\Ax",
        r"in\z",
    ),
    *(r"[^a]$", r"\s$", r"\W", r"(?i)NEEDLE", "a.b", r"\d+", "é", r"\x{FFFD}", "(?s)n.n", r"\C$", "(?-m:^x)"),
    *(
        r"\Qa-b",
        "x|^n",
        "ne{2}dle",
        "nee?dle",
        "need+le",
        "[[:space:]]$",
        r"\PL",
        r"[\n]",
        r"[^x]needle",
        "1$|^1",
    ),
    *("(?:n|x)eedle", r"\pLeedle", "needl[e]", "z{0}n", r"\x6eee", "[]x]", r"[\]x]", "in{1,2}", r"^\[?2026"),
]


def _line(dice):
    kind = dice.random()
    text = "".join(dice.choices(_WORDS, k=dice.randrange(4)))
    if kind < 0.6:
        names = [dice.choice(_NAMES) for _ in range(dice.choice([0, 1, 1, 1, 1, 2, 3]))]
        return " - ".join([dice.choice(_TIMES), *names, dice.choice(_LEVELS), text])
    return dice.choice(_TIMES) + text if kind < 0.7 else text


def _log(dice, json):
    ends = _ENDS if dice.random() < 0.4 else ["\n"]
    parts = []
    for _ in range(dice.randrange(25)):
        line = _line(dice)
        if json and dice.random() < 0.9:
            time, level = dice.choice(_TIMES), dice.choice(_LEVELS)
            line = f'{{"asctime": "{time}", "levelname": "{level}", "message": "needle"}}'
        raw = (line + dice.choice(ends)).encode()
        if dice.random() < 0.03:
            raw = raw[: dice.randrange(len(raw))] + dice.choice([b"\xff", b"\xe2\x80", b"\xc2"]) + raw
        if dice.random() < 0.01:
            raw = b"y" * 2000 + raw
        parts.append(raw)
    data = b"".join(parts)
    return data.rstrip(b"\n") if dice.random() < 0.3 else data


def _options(dice):
    def perhaps(share, choose):
        return choose() if dice.random() < share else None

    times = [time for text in _TIMES[:6] if (time := lines.text_time(text))]
    options = {
        "since": perhaps(0.3, lambda: dice.choice(times)),
        "until": perhaps(0.3, lambda: dice.choice(times)),
        "level": perhaps(0.4, lambda: dice.choice(list(lines.LEVELS))),
        "grep": perhaps(0.7, lambda: dice.choice(_PATTERNS)),
        "exclude": tuple(dice.choices(_PATTERNS[:10], k=dice.choice([0, 0, 0, 1, 2]))),
        "ignore_case": dice.random() < 0.2,
        "invert": dice.random() < 0.3,
        "max_bytes": perhaps(0.2, lambda: dice.randrange(200)),
        perhaps(0.3, lambda: "head") or "tail": perhaps(0.4, lambda: dice.randrange(8)),
    }
    if dice.random() < 0.5:
        options |= {"before": dice.randrange(4), "after": dice.randrange(4)}
    return {name: value for name, value in options.items() if value}


def _model(data, filters, json):
    """What is kept, and where groups of it begin: line by line, then the first or last of it."""
    whole = data.decode(errors="replace").splitlines(keepends=True)
    timed = any(lines.json_time(line) if json else lines.text_time(line) for line in whole)
    line_by_line, kept, groups = LineFilter(filters, json, timed), [], []
    for line in whole:
        now = line_by_line.feed(line)
        if line_by_line.begins_group:
            groups.append(len(kept))
        kept += now
    start, end = 0, len(kept)
    if filters.head is not None:
        end = min(end, filters.head)
    if filters.tail is not None:
        start = max(0, end - filters.tail)
    before, text = "".join(kept[:start]), "".join(kept[start:end])
    places = [len("".join(kept[:group])) - len(before) for group in groups if start <= group < end]
    cut = max(0, len(text.encode()) - filters.max_bytes) if filters.max_bytes is not None else 0
    rest = text.encode()[cut:].decode(errors="ignore")
    shift = len(text) - len(rest)
    places = [place - shift for place in places if place - shift > 0]
    return rest, places, bool(start or end < len(kept) or cut)


def _read(data, filters, json, part):
    """The same as it is read in parts, each from the place that came over the wire."""
    source = LogLines(TextLog(""))
    source._log._data, source.end = data, len(data)
    here = bounds.plan(source, filters)
    if filters.drops_lines:
        here = here._replace(json=json)
    found, places = "", []
    while not here.done:
        here = decode_reading(Fields(encode_reading(here)))
        here, text = here.part(source, filters, part)
        places += [len(found) + place for place in here.breaks if len(found) + place]
        found += text
    return found, places, here.truncated


def _try(seed, patch):
    dice = random.Random(seed)
    json = dice.random() < 0.15
    data, options = _log(dice, json), _options(dice)
    try:
        filters = Filters(**options)
    except ArgumentError:  # patterns that cannot be joined
        return
    patch.setattr(line_filter, "MAX_BEFORE", dice.choice([40, 1 << 20]))
    patch.setattr("nvflare_logstream.filters.block_filter.MAX_BEFORE", line_filter.MAX_BEFORE)
    patch.setattr(log, "BLOCK", dice.choice([4, 16, 64, 1 << 16]))
    patch.setattr(reading, "MOST_READ", dice.choice([1, 100, 1 << 26]))
    patch.setattr("nvflare_logstream.filters.patterns._MISSES", dice.choice([0, 1, 64]))
    wanted = _model(data, filters, json)
    found = _read(data, filters, json, dice.randrange(1, 200))
    assert found == wanted, f"seed {seed}: {options} over {data!r}"


@pytest.mark.parametrize("seed", range(0, _CASES, 100))
def test_what_is_kept_of_blocks_is_what_is_kept_of_their_lines(seed, monkeypatch):
    for one in range(seed, seed + 100):
        _try(one, monkeypatch)


def test_a_record_within_bounds_is_found_whatever_its_time(monkeypatch):
    """Times around the bounds, at every place where a digit differs."""
    dice = random.Random(7)
    for _ in range(200):
        at = [f"{dice.randrange(1, 9999):04d}-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}"] * 2
        stamps = [
            f"{day} {dice.randrange(24):02d}:{dice.randrange(60):02d}:{dice.randrange(60):02d}" for day in at
        ]
        since, until = sorted(map(lines.parse_time, stamps))
        steps = [10**power * sign for power in range(9) for sign in (1, -1)]
        text = ""
        for step in dice.sample(steps, len(steps)):
            for bound in (since, until):
                try:
                    text += f"{bound + lines.datetime.timedelta(seconds=step)} - n - INFO - m\n"
                except OverflowError:
                    continue
            text += f"{since}\n{until}\n"
        filters = Filters(since=since, until=until)
        line_by_line = LineFilter(filters, False, True)
        wanted = "".join(kept for line in text.splitlines(keepends=True) for kept in line_by_line.feed(line))
        assert BlockFilter(filters, False, True).feed(text.encode()).text()[0] == wanted


def test_patterns_exclusions_and_the_first_lines():
    text = "".join(f"{word} {number}\n" for number in range(4) for word in ("red", "green", "blue"))
    assert apply_filters(text, grep="(?:^red)|(?:2$)").text == "red 0\nred 1\nred 2\ngreen 2\nblue 2\nred 3\n"
    assert apply_filters(text, grep="2", exclude=("RED", "blue"), ignore_case=True).text == "green 2\n"
    found = apply_filters(text, exclude=("red",), head=3)
    assert (found.text, found.truncated) == ("green 0\nblue 0\ngreen 1\n", True)
    found = apply_filters(text, grep="3", head=3)
    assert (found.text, found.truncated) == ("red 3\ngreen 3\nblue 3\n", False)
    assert apply_filters(text, head=2, max_bytes=4).text == "n 0\n"
    for wrong in ({"head": 1, "tail": 1}, {"head": -1}, {"exclude": ("(",)}, {"exclude": "red" * 999}):
        with pytest.raises(ArgumentError, match=r"^(head|exclude): .* is not allowed; "):
            apply_filters(text, **wrong)


def test_groups_of_context_that_are_not_adjacent_are_told_apart():
    data = b"".join(b"%d\n" % number for number in range(20))
    filters = Filters(grep="^(5|8|15)$", before=1, after=1)
    assert _read(data, filters, False, 1000) == ("4\n5\n6\n7\n8\n9\n14\n15\n16\n", [12], False)
    assert _read(data, Filters(grep="^(5|8)$"), False, 1000) == ("5\n8\n", [], False)


@pytest.mark.parametrize("options", [{"grep": "hit"}, {"level": "ERROR"}, {"grep": "hit", "level": "ERROR"}])
def test_the_last_of_what_is_kept_is_found_without_reading_all_twice(options):
    record = "2026-04-28 10:00:00,123 - n - {} - {}\n"
    quiet = record.format("INFO", "miss") * 40_000
    text = (
        quiet + record.format("ERROR", "hit") * 9 + quiet + record.format("ERROR", "a hit") + "traced hit\n"
    )
    source, filters = LogLines(TextLog(text)), Filters(**options, tail=2)
    place, found = bounds.plan(source, filters), ""
    while not place.done:
        place, more = place.part(source, filters, 1 << 20)
        found += more
    assert (found, place.truncated) == (text[text.index("a hit") - 38 :], True)
    assert source.bytes_read < 1.3 * len(text)


@pytest.mark.parametrize(
    ("options", "hits", "most"),
    [
        ({"tail": 5}, 2000, 0.05),  # the last hits are looked for from the end
        ({"max_bytes": 200}, 2000, 0.05),
        ({"tail": 3}, 9, 1.1),
        ({"tail": 50}, 9, 2.1),  # all is looked at, and from the first hit on given out
        ({"tail": 5}, 0, 1.1),  # it is known then that there is nothing to give out
    ],
)
def test_the_last_hits_are_found_without_reading_what_is_before_them(monkeypatch, options, hits, most):
    monkeypatch.setattr(log, "BLOCK", 1 << 12)
    log_lines = [f"line {number} é\n" for number in range(100_000)]
    for number in range(hits):
        log_lines[(number + 1) * 100_000 // hits - 1] = f"hit {number}\n"
    text = "".join(log_lines)
    source, filters = LogLines(TextLog(text)), Filters(grep="hit", exclude=("hit .*x",), **options)
    place, found = bounds.plan(source, filters), ""
    while not place.done:
        place = decode_reading(Fields(encode_reading(place)))
        place, more = place.part(source, filters, 1 << 20)
        found += more
    kept = "".join(line for line in log_lines if "hit" in line)
    last = kept.splitlines(keepends=True)[-options["tail"] :] if "tail" in options else kept[-200:]
    assert found == "".join(last)
    assert place.truncated is (len(found) < len(kept)) and source.bytes_read < most * len(text.encode())


@pytest.mark.parametrize("tail", range(5))
def test_hits_in_lines_that_come_in_pieces_are_those_that_are_found_from_the_beginning(monkeypatch, tail):
    monkeypatch.setattr(log, "BLOCK", 16)
    monkeypatch.setattr(log, "MAX_LINE", 50)
    text = "hit\n" + "é hit " * 40 + "\nmiss\n" + "hit " * 60 + "\nhit 2\n" + "y" * 70 + "hit"
    filters, found = Filters(grep="hit", tail=tail), []
    for stage in ("last", "lines"):
        source = LogLines(TextLog(text))
        place = bounds.plan(source, filters)
        assert place.stage == "last"
        place, now = place._replace(stage=stage), ""
        while not place.done:
            place, more = place.part(source, filters, 100)
            now += more
        found.append((now, place.truncated))
    assert found[0] == found[1]


def test_a_reading_that_found_nothing_goes_on_where_the_log_ended():
    record = "2026-04-28 10:00:00,123 - n - {} - m\n"
    first, more = record.format("ERROR"), "traced\n" + record.format("INFO")
    filters = Filters(level="ERROR", grep="traced", tail=5)
    place, found = Reading(0, len(first), stage="lines"), ""
    for text in (first, first + more):
        source = LogLines(TextLog(text))
        place = place._replace(end=len(text))
        while not place.done:
            place, now = place.part(source, filters, 1 << 20)
            found += now
    assert found == "traced\n"


def main():
    count, first = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, first + count):
        with pytest.MonkeyPatch.context() as patch:
            _try(seed, patch)
    print(f"{count} cases from seed {first}: none differs")


if __name__ == "__main__":
    main()
