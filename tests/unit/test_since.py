"""`since` and `until` over a stored log give what they give over its text, in whatever order its times are.

The whole search, by hand: `python -m tests.unit.test_since 50000 1` (how many readings, first seed).
"""

from __future__ import annotations

import datetime
import random
import sys
from collections.abc import Iterator
from time import monotonic

import pytest

from nvflare_logstream import lines
from nvflare_logstream.filters import apply_filters, log, reading
from nvflare_logstream.filters import times as log_times
from nvflare_logstream.filters.bounds import plan
from nvflare_logstream.filters.log import LogLines
from nvflare_logstream.filters.rules import Filters
from nvflare_logstream.filters.times import LogTimes

START = datetime.datetime(2026, 10, 25, 1, 30)
_ENDS = ["\n"] * 12 + ["\r\n", "\r", "\x0b", "\x85", "\u2028", "\x1e"]
_UNTIMED = [
    "Traceback (most recent call last):", '  File "x.py", line 2', "", "2026-13-45 99:00:00 no time", " ",
    "2026-10-25", "2026-10-25 24:00:00", "at 2026-10-25 03:00:00,1 inside", "\ufeff2026-10-25 03:00:00,1",
    "{}", "[x", "[2026-10-25 3", "é€",
]  # fmt: skip
_ODD_JSON = [
    '{"time": "2026-10-25T02:00:00Z"}', '{"asctime": "2026-10-25 01:59:00+02:00"}', '{"timestamp": 5}', "x",
    '{"asctime": "2026-02-30 00:00:00", "time": "2026-10-25 02:00:01"}', '{"asctime": null}', "[]", "{}",
    '{"asctime": "2026-02-30 00:00:00", "timestamp": "2026-10-25 02:00:01"}', '{"asctime": "2026-10-25"}',
    r'{"\u0061sctime": "2026-10-25 01:00:00"}', '{"asctime": "20261025T030000"}',
    r'{"asctime": "2026-02-30 00:00:00", "\u0074im\u0065": "2026-10-25 02:00:01"}',
    r'{"asctime": "2026-10-25 01:31:00", "as\u0063tim\u0065": "2026-10-25 03:31:00"}',
    '{"asctime": "2026-10-25 01:31:00", "x": {"asctime": "2026-10-26 00:00:00"}}',
    '{"asctime": "2026-10-25 01:31:00", "asctime": "2026-10-25 03:31:00"}',
    '{"asctime": "2026-10-25 02:10:00"', ' {"asctime": "2026-10-25 02:10:00"}',
    '{"asctime":"2026-10-25 02:10:00"}', '{"n": 1, "time": "2026-10-25 02:00"}',
]  # fmt: skip


class Bytes:
    """A log in memory that grows."""

    def __init__(self) -> None:
        self.data = b""

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def clock(rng: random.Random) -> Iterator[datetime.datetime]:
    """Times as several writers leave them: bursts ahead, steps back, the end of summer time."""
    now, ahead, left = START, [datetime.timedelta()] * rng.randint(1, 3), 0
    step = rng.choice([0.05, 1.0, 20.0, 600.0])
    while True:
        now += datetime.timedelta(seconds=rng.uniform(0, step))
        if not left and rng.random() < 0.05:  # one writer's clock goes wrong for a while
            seconds = rng.choice([-7200, -3600, -60, 60, 3600, 6 * 3600, 86400 * 365])
            ahead[0], left = datetime.timedelta(seconds=seconds), rng.randint(1, 40)
        elif left == 1 and rng.random() < 0.8:
            ahead[0] = datetime.timedelta()
        left = max(0, left - 1)
        if rng.random() < 0.01:
            now -= datetime.timedelta(hours=1)
        yield now + rng.choice(ahead)


def text_line(rng: random.Random, time: datetime.datetime) -> str:
    if rng.random() < 0.15:
        return rng.choice(_UNTIMED) * rng.choice([1, 1, 1, 30])
    stamp = f"{time:%Y-%m-%d}{rng.choice('  T')}{time:%H:%M:%S}{rng.choice([',123', '', '.5', ',1234567'])}"
    level = rng.choice(["INFO", "INFO", "ERROR", "DEBUG"])
    return f"{rng.choice(['', '', '['])}{stamp} - n - {level} - {'x' * int(rng.expovariate(0.1))}"


def json_line(rng: random.Random, time: datetime.datetime, odd: float) -> str:
    if rng.random() < odd:
        return rng.choice(_ODD_JSON)
    millis = rng.randint(0, 999)
    return f'{{"asctime": "{time:%Y-%m-%d %H:%M:%S},{millis:03d}", "levelname": "INFO", "message": "x"}}'


def log_of(rng: random.Random) -> str:
    """A log of some hundred lines; a third of them are in JSON form."""
    is_json, odd = rng.random() < 0.3, rng.choice([0.0, 0.02, 0.3])
    ends = _ENDS if rng.random() < 0.4 else ["\n"]
    parts, times = [], clock(rng)
    untimed = rng.choice([0, 0, 50, 1000])
    for n in range(rng.randint(0, 200)):
        if n < untimed and not is_json:
            line = rng.choice(_UNTIMED)
        else:
            line = json_line(rng, next(times), odd) if is_json else text_line(rng, next(times))
        parts.append(line + rng.choice(ends))
    text = "".join(parts)
    return text[: rng.randint(0, len(text))] if rng.random() < 0.3 else text


def bounds_of(rng: random.Random, text: str) -> dict[str, datetime.datetime | None]:
    """A window between times of the log, or a little beside them."""
    time_of = lines.json_time if lines.is_json(text) else lines.text_time
    times = [time for line in text.splitlines() if (time := time_of(line))] or [START]
    shifts = [0.0, 0.0, 0.001, -0.001, 1.0, -1.0, 3600.0]
    since, until = (rng.choice(times) + datetime.timedelta(seconds=rng.choice(shifts)) for _ in range(2))
    which = rng.random()
    if which < 0.5:
        since, until = min(since, until), max(since, until)
    return {"since": since if which < 0.8 else None, "until": until if which < 0.5 or which > 0.7 else None}


def read(source: LogLines, filters: Filters, most: int) -> tuple[str, bool, bool]:
    place, found = plan(source, filters), ""
    while not place.done:
        place, more = place.part(source, filters, most)
        found += more
    return found, place.timed, place.truncated


def search(rng: random.Random, readings: int, patch: pytest.MonkeyPatch) -> None:
    """Compare readings of one log that grows with those of its text."""
    raw = log_of(rng).encode()
    if rng.random() < 0.2 and raw:
        place = rng.randrange(len(raw))
        raw = raw[:place] + bytes([rng.choice([0, 0x80, 0xC2, 0xFF])]) + raw[place + 1 :]
    patch.setattr(log, "BLOCK", rng.choice([20, 200, 1 << 16]))
    patch.setattr(log_times, "CHUNK", rng.choice([30, 100, 700, 5000]))
    patch.setattr(reading, "MOST_READ", rng.choice([100, 2000, 1 << 26]))
    stored, times = Bytes(), LogTimes()
    for _ in range(readings):
        stored.data = raw[: max(stored.size, rng.choice([rng.randint(0, len(raw)), len(raw)]))]
        text = stored.data.decode(errors="replace")
        others = rng.choice([{}, {}, {"tail": rng.randint(0, 20)}, {"level": "ERROR"}, {"max_bytes": 200},
                             {"grep": "x", "before": 1, "after": 2}])  # fmt: skip
        bounds = bounds_of(rng, text)
        whole = apply_filters(text, **bounds, **others)
        source, filters = LogLines(stored, times), Filters(**bounds, **others)
        found, timed, truncated = read(source, filters, rng.choice([50, 1 << 20]))
        assert (found, truncated) == (whole.text, whole.truncated), (stored.data, bounds, others)
        assert whole.since_applied == (timed and bounds["since"] is not None)


@pytest.mark.parametrize("seed", range(10))
def test_a_window_of_a_stored_log_is_that_of_its_text(seed, monkeypatch):
    for number in range(8):
        search(random.Random(seed * 1000 + number), 5, monkeypatch)


def search_by_hand(readings: int, seed: int) -> None:
    """The whole search: ten readings of each log; says how far it is, and at a failure the log's seed."""
    began = monotonic()
    for done in range(0, readings, 10):
        try:
            with pytest.MonkeyPatch.context() as context:
                search(random.Random(seed), 10, context)
        except AssertionError:
            print(f"seed {seed} fails; again: python -m tests.unit.test_since 10 {seed}", flush=True)
            raise
        seed += 1
        if not (done + 10) % 5000 or done + 10 >= readings:
            print(f"{done + 10} readings, {monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    search_by_hand(int(sys.argv[1]), int(sys.argv[2]))
