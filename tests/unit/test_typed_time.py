"""What a user types as a time, for --since and --until: into the clock of a site's log."""

import datetime
from functools import partial

import pytest

from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.typed_time import fixed_time, parse_since

HOUR = 3600
NOW = datetime.datetime(2026, 4, 28, 10, 0)  # UTC
EPOCH = NOW.replace(tzinfo=datetime.timezone.utc).timestamp()
parse = partial(parse_since, "since", now=NOW)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("now", "2026-04-28 10:00:00"),
        ("NOW", "2026-04-28 10:00:00"),
        ("today", "2026-04-28 00:00:00"),
        ("Yesterday", "2026-04-27 00:00:00"),
        ("10:00", "2026-04-28 10:00:00"),
        ("9:05", "2026-04-28 09:05:00"),
        ("23:59:58.5", "2026-04-28 23:59:58.500000"),
        ("today 7:30", "2026-04-28 07:30:00"),
        ("yesterday  7:30", "2026-04-27 07:30:00"),
        ("1.5h", "2026-04-28 08:30:00"),
        ("2w", "2026-04-14 10:00:00"),
        ("1w1d", "2026-04-20 10:00:00"),
        ("0.5d", "2026-04-27 22:00:00"),
        ("1h30m", "2026-04-28 08:30:00"),
        ("1h30m ago", "2026-04-28 08:30:00"),
        ("-90m", "2026-04-28 08:30:00"),
        ("2.5s", "2026-04-28 09:59:57.500000"),
        ("0s", "2026-04-28 10:00:00"),
        (f"{EPOCH:.0f}", "2026-04-28 10:00:00"),
        (f"@{EPOCH:.0f}", "2026-04-28 10:00:00"),
        (f"{EPOCH:.0f}.25", "2026-04-28 10:00:00.250000"),
        ("2026-04-28T10:00:00z", "2026-04-28 10:00:00"),
        ("2026-04-28 10:00:00 Z", "2026-04-28 10:00:00"),
        ("2026-04-28t10:00", "2026-04-28 10:00:00"),
        ("2026-04-28T12:00+02:00", "2026-04-28 10:00:00"),
        ("2026-04-28", "2026-04-28 00:00:00"),
    ],
)
def test_times_as_people_type_them(text, time):
    assert str(parse(text)) == time
    # Pinned to the present, it is the same time whenever it is read later.
    pinned = fixed_time("since", text, EPOCH)
    assert str(parse_since("since", pinned, now=NOW + datetime.timedelta(days=3))) == time
    assert fixed_time("since", pinned, EPOCH + 1e6) == pinned


@pytest.mark.parametrize("text", ["now", "1.5h", "1714298400", "2026-04-28T10:00:00z"])
def test_what_is_pinned_is_read_by_servers_of_every_release(text):
    """They know times with a zone, and a zone's letter only as a capital."""
    assert fixed_time("since", text, EPOCH).endswith("Z")
    assert datetime.datetime.fromisoformat(fixed_time("since", text, EPOCH).removesuffix("Z"))


def test_a_day_and_a_time_of_day_are_those_of_the_sites_own_calendar():
    """At 22:00 UTC it is the next day in Tokyo, and still afternoon in New York."""
    parse = partial(parse_since, "since", now=NOW.replace(hour=22))
    assert str(parse("today", utc_offset=9 * HOUR)) == "2026-04-29 00:00:00"
    assert str(parse("08:00", utc_offset=9 * HOUR)) == "2026-04-29 08:00:00"
    assert str(parse("08:00", utc_offset=-4 * HOUR)) == "2026-04-28 08:00:00"
    pinned = fixed_time("since", "today", EPOCH + 12 * HOUR)
    assert str(parse_since("since", pinned, utc_offset=9 * HOUR)) == "2026-04-29 00:00:00"


def test_a_clock_that_is_slow_is_reckoned_with_but_for_a_time_of_its_own():
    slow = partial(parse, utc_offset=2 * HOUR, skew=-600.0)
    assert str(slow("5m")) == "2026-04-28 11:45:00"
    assert str(slow("now")) == str(slow("2026-04-28T10:00:00Z")) == "2026-04-28 11:50:00"
    assert str(slow("2026-04-28T10:00:00")) == str(slow("10:00")) == "2026-04-28 10:00:00"
    # Ten minutes after midnight by the right time, it has not yet struck midnight there.
    at_midnight = partial(parse_since, "since", "today", now=datetime.datetime(2026, 4, 28, 0, 5))
    assert (str(at_midnight()), str(at_midnight(skew=-600.0))) == (
        "2026-04-28 00:00:00",
        "2026-04-27 00:00:00",
    )


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "tomorrow", "25:00", "10:60", "10", "today 25:00", "noon", "5", "h", "1h1h", "30m1h", "1,5h",
        "1..5h", "-", "ago", "- ago", "@", "@-1", "99999999999999", "1e9", "NaN", "infw", "9" * 400 + "w",
        "1h 30m", "2026-13-01", "2026-04-28T10:00:00x", "10:00 as of ", "10:00 as of 10:00",
        "1h as of 2026-04-28T10:00:00Z",
        "today as of 2026-04-28T10:00:00",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_what_is_one(text):
    for read in (parse, partial(fixed_time, "since", now=EPOCH)):
        with pytest.raises(ArgumentError, match=r"^since: .* is not allowed; .*10:00.*yesterday.*1h30m"):
            read(text)
