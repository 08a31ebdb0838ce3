"""What level a record has: whatever its name, and only where a level stands."""

import pytest

from nvflare_logstream import lines
from nvflare_logstream.filters import apply_filters

_TIME = "2026-04-28 10:00:00,123"


@pytest.mark.parametrize(
    ("record", "level"),
    [
        ("n - INFO - m", 20),
        ("n - TRACE - m", 5),
        ("n - NOTICE - m", 25),
        ("n - WARN - m", 30),
        ("n - FATAL - m", 50),
        ("n - Level 45 - m", 45),
        ("n - MISHAP - m", 60),
        ("n - TRACE - said - ERROR - twice", 5),
        ("n - MISHAP - ERROR - m", 60),
        ("n - hello world - ERROR - m", None),
        ("n - m", None),
        # The runtime's other formats: without a name, with two, with a site before them.
        ("ERROR - m", 40),
        ("INFO - n - ERROR - m", 20),
        ("n - a.n - ERROR - [ctx] - m", 40),
        ("site-1 - n - a.n - ERROR - m", 40),
        ("my logger - ERROR - m", 40),
    ],
)
def test_a_text_line_has_the_level_that_stands_in_its_place(record, level):
    assert lines.text_level(f"{_TIME} - {record}\n") == level
    assert lines.text_level(f"[{_TIME}] - {record}\n") == level
    assert lines.text_level(f"Traceback - {record}\n") is None


@pytest.mark.parametrize(
    ("value", "level"),
    [('"info"', 20), ('"NOTICE"', 25), ('"Level 45"', 45), ("45", 45), ('"mishap"', 60), ("null", None)],
)
def test_a_json_line_has_the_level_that_it_names(value, level):
    assert lines.json_level(f'{{"levelname": {value}, "message": " - ERROR - "}}') == level
    assert lines.json_level(f'{{"level": {value}}}') == level


@pytest.mark.parametrize("json", [False, True])
def test_a_record_with_a_level_of_its_own_name_is_no_continuation(json):
    form = '{{"asctime": "{}", "levelname": "{}", "message": "{}"}}\n' if json else "{} - n - {} - {}\n"
    named = ("INFO", "FATAL", "TRACE", "ERROR", "NOTICE", "Level 45", "Level 35", "MISHAP", "DEBUG")
    records = {name: form.format(_TIME, name, "x - ERROR - y") for name in named}
    kept = apply_filters("".join(records.values()), level="ERROR").text
    assert kept == "".join(records[name] for name in ("FATAL", "ERROR", "Level 45", "MISHAP"))
