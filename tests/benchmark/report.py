"""The lines of the benchmark: what is asked of each, and the table that says what was reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmark.searching import ROWS

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]  # case → set-up → name → median over the rounds
Reached = Callable[[float, float], bool]  # (ours, stock)


@dataclass(frozen=True)
class Goal:
    """What a figure has to reach."""

    text: str
    reached: Reached


def _times(factor: float) -> Goal:
    return Goal(f"≥ {factor:g} × stock", lambda ours, stock: ours >= factor * stock)


def _part(divisor: float) -> Goal:
    text = "≤ stock" if divisor == 1 else f"≤ 1/{divisor:g} of stock"
    return Goal(text, lambda ours, stock: ours <= stock / divisor)


def _at_most(most: float, unit: str = "") -> Goal:
    return Goal(f"≤ {most:g} {unit}".strip(), lambda ours, stock: ours <= most)


def _within(factor: float) -> Goal:
    return Goal(f"≤ {factor:g} × grep", lambda ours, stock: ours <= factor * stock)


def _below(most: float, unit: str) -> Goal:
    return Goal(f"< {most:g} {unit}", lambda ours, stock: ours < most)


_NO_FLOOR = Goal("–", lambda ours, stock: True)


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        cases: the cases it is taken from; with several, the worst one counts.
        name: the figure's name in the case's values.
        overhead: take off what the same work needs without streaming.
        alone: there is nothing in stock to compare with.
    """

    text: str
    cases: tuple[str, ...]
    name: str
    unit: str
    floor: Goal
    mark: Goal
    overhead: bool = False
    alone: bool = False

    def value(self, figures: Figures, setup: str) -> float | None:
        """The figure of a set-up; None if the cases were not run."""
        found = []
        for case in self.cases:
            values = figures.get(case, {})
            wanted = (setup, "none") if self.overhead else (setup,)
            if all(self.name in values.get(name, {}) for name in wanted):
                without = values["none"][self.name] if self.overhead else 0.0
                found.append(values[setup][self.name] - without)
        return max(found, default=None)

    def spread(self, figures: Figures, setup: str) -> str:
        """The least and the most of a figure that is itself a median, where the case tells them."""
        values = figures.get(self.cases[0], {}).get(setup, {})
        least, most = (values.get(f"{self.name}_{end}") for end in ("min", "max"))
        return "" if least is None or most is None else f" ({_number(least)}–{_number(most)})"


def _reads(kind: str, text: str) -> list[Line]:
    """Lines for the case `logs`: the sizes that a run does not measure are left out of the table."""
    megabytes = (10, 50, 100, 1000)
    return [
        Line(f"{text} of {mb:,} MB stored", ("logs",), f"{kind}_{mb}", "s", _part(2), _part(2))
        for mb in megabytes
    ]


def _searches() -> list[Line]:
    """Our filters and GNU grep over the largest log; grep's seconds stand in the column of stock."""
    cases = ("logs", "search")
    rows = [
        Line(f"grep: {text}", cases, f"search_{name}", "s", _within(3), _within(1.5))
        for name, text, _, _ in ROWS
    ]
    two = _at_most(2, "s")
    return [*rows, Line("since, the last tenth", cases, "search_since", "s", two, two, alone=True)]


_ANY_RATE = ("burst", "busy", "calm", "quiet")
# A drain that gives up at its deadline of 5 s has then to come back: half a second for that.
_END_DELAY = _at_most(5.5, "s")
# What a command takes must not depend on the length of the log.
_SAME_TIME = _at_most(1.25, "×")
_SAME_MEMORY = _below(16, "MiB")


def _sites(count: int) -> list[Line]:
    """Lines for the case `thousand`."""

    def line(text: str, name: str, unit: str, floor: Goal, mark: Goal = _NO_FLOOR) -> Line:
        text = f"{count:,} sites × 10 lines/s, {text}"
        return Line(text, ("thousand",), f"{name}_{count}", unit, floor, mark, alone=True)

    return [
        line("CPU of receiver", "cpu", "cores", _at_most(0.5, "cores")),
        line("memory added", "memory", "MiB", _at_most(100, "MiB")),
        line("median age of a line", "latency", "s", _NO_FLOOR),
        line("age of a line, p95", "latency_p95", "s", _NO_FLOOR, _at_most(3, "s")),
        line("files open", "files", "", _at_most(16)),
        line("threads added", "threads", "", _at_most(2)),
        line("streams not complete", "incomplete", "", _at_most(0)),
    ]


def _following(rate: int, oldest: float) -> list[Line]:
    """Lines for the case `follow`."""

    def line(text: str, name: str, unit: str, mark: Goal) -> Line:
        text = f"followed, 2 sites × {rate} lines/s, {text}"
        return Line(text, ("follow",), f"{name}_{rate}", unit, _NO_FLOOR, mark, alone=True)

    return [
        line("age of a line shown", "age_ms", "ms", _at_most(oldest, "ms")),
        line("its p95", "age_p95_ms", "ms", _NO_FLOOR),
        line("CPU of the command", "share", "%", _at_most(3, "%")),
        line("CPU of the server for it", "server_share", "%", _NO_FLOOR),
    ]


LINES = (
    Line("burst, drained", ("burst",), "mb_per_s", "MB/s", _times(15), _times(40)),
    Line("burst, CPU of client job + server", ("burst",), "cpu", "s", _part(10), _part(30), overhead=True),
    Line("1 GB at the job's end, bytes missing", ("end",), "missing", "bytes", _at_most(0), _at_most(0)),
    Line(
        "1 GB at the job's end, end delayed",
        ("end",),
        "end_seconds",
        "s",
        _END_DELAY,
        _END_DELAY,
        overhead=True,
    ),
    Line(
        "1,000 lines/s, CPU of client job", ("busy",), "client_cpu", "s", _part(10), _part(50), overhead=True
    ),
    # What logging itself takes differs from run to run by more than what is looked for; beside the writing
    # thread it does not.
    Line(
        "1,000 lines/s, CPU of its other threads",
        ("busy",),
        "client_background_cpu",
        "s",
        _part(10),
        _part(50),
        overhead=True,
    ),
    Line("10 lines/s, median latency", ("calm",), "latency_ms", "ms", _part(2), _part(5)),
    Line("10 lines/s, CPU of client job + server", ("calm",), "cpu", "s", _NO_FLOOR, _part(1), overhead=True),
    Line(
        "first line after a quiet minute, latency",
        ("quiet",),
        "latency_ms",
        "ms",
        _at_most(60, "ms"),
        _at_most(20, "ms"),
    ),
    Line(
        "idle, CPU of client job",
        ("quiet",),
        "client_share",
        "%",
        _below(0.5, "%"),
        _below(0.1, "%"),
        overhead=True,
    ),
    Line("threads added to client job", _ANY_RATE, "threads", "", _at_most(2), _at_most(1), overhead=True),
    Line(
        "memory added to client job",
        _ANY_RATE,
        "memory",
        "MiB",
        _at_most(16, "MiB"),
        _at_most(8, "MiB"),
        overhead=True,
    ),
    Line("round trip of 50 ms, drained", ("far",), "mb_per_s", "MB/s", _times(20), _times(60)),
    Line(
        "20 clients × 50 lines/s, CPU of server",
        ("crowd",),
        "server_cpu",
        "s",
        _part(5),
        _part(20),
        overhead=True,
    ),
    *(line for count in (10, 100, 1000) for line in _sites(count)),
    *_following(10, 30),
    *_following(200, 60),
    *_reads("tail", "last 10 lines"),
    *_reads("since", "last minute"),
    *_searches(),
    Line(
        "last 10 lines, time at the largest log : at the smallest",
        ("logs",),
        "tail_growth",
        "×",
        _SAME_TIME,
        _SAME_TIME,
    ),
    Line(
        "last minute, time at the largest log : at the smallest",
        ("logs",),
        "since_growth",
        "×",
        _SAME_TIME,
        _SAME_TIME,
    ),
    Line("last 10 lines of the largest log, CPU of server", ("logs",), "tail_cpu", "s", _part(20), _part(20)),
    Line("last minute of the largest log, CPU of server", ("logs",), "since_cpu", "s", _part(20), _part(20)),
    Line(
        "last 10 lines or minute, memory of server (added)",
        ("logs",),
        "server_memory",
        "MiB",
        _SAME_MEMORY,
        _SAME_MEMORY,
    ),
    Line("command's memory, largest log − smallest", ("logs",), "memory", "MiB", _SAME_MEMORY, _SAME_MEMORY),
    Line(
        "last 100,000 lines of the largest, lines missing",
        ("logs",),
        "many_missing",
        "",
        _at_most(0),
        _at_most(0),
    ),
    Line("last 100,000 lines of the largest, time", ("logs",), "many_seconds", "s", _NO_FLOOR, _NO_FLOOR),
    Line("last 100,000 lines of the largest, printed", ("logs",), "many_mb", "MB", _NO_FLOOR, _NO_FLOOR),
    Line(
        "last 100,000 lines of the largest, memory of server (added)",
        ("logs",),
        "many_server_memory",
        "MiB",
        _NO_FLOOR,
        _NO_FLOOR,
    ),
)


@dataclass(frozen=True)
class Outcome:
    """A line of the table with its figures."""

    line: Line
    ours: float
    stock: float
    ours_spread: str = ""
    stock_spread: str = ""

    @property
    def floor_reached(self) -> bool:
        return self.line.floor.reached(self.ours, self.stock)

    @property
    def mark_reached(self) -> bool:
        return self.line.mark.reached(self.ours, self.stock)

    @property
    def ratio(self) -> float | None:
        """Ours by stock; None where one of the two is lost in the noise."""
        return self.ours / self.stock if self.ours > 0 and self.stock > 0 else None

    def fields(self) -> dict[str, Any]:
        """For the JSON file."""
        line = self.line
        return {
            "line": line.text,
            "unit": line.unit,
            "ours": self.ours,
            "stock": None if line.alone else self.stock,
            "ratio": self.ratio,
            "floor": line.floor.text,
            "floor_reached": self.floor_reached,
            "mark": line.mark.text,
            "mark_reached": self.mark_reached,
        }


def outcomes(figures: Figures) -> list[Outcome]:
    """The lines that were measured."""
    found = []
    for line in LINES:
        ours = line.value(figures, "ours")
        stock = 0.0 if line.alone else line.value(figures, "stock")
        if ours is not None and stock is not None:
            found.append(
                Outcome(line, ours, stock, line.spread(figures, "ours"), line.spread(figures, "stock"))
            )
    return found


def show(found: list[Outcome], title: str) -> None:
    """Print the table."""
    table = Table(
        title=title,
        caption="added: compared with the same job without streaming; in brackets: least and most",
    )
    table.add_column("work")
    for heading in ("ours", "stock", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("floor", "mark"):
        table.add_column(heading, no_wrap=True)
    for outcome in found:
        line = outcome.line
        table.add_row(
            line.text + (" (added)" if line.overhead and "added" not in line.text else ""),
            f"{_number(outcome.ours)}{outcome.ours_spread} {line.unit}",
            "–" if line.alone else f"{_number(outcome.stock)}{outcome.stock_spread} {line.unit}",
            _ratio(outcome.ratio),
            _goal(line.floor, outcome.floor_reached),
            _goal(line.mark, outcome.mark_reached),
        )
    Console(width=130).print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio:.3g} ×" if ratio >= 1 else f"1/{1 / ratio:.3g}"


def _goal(goal: Goal, reached: bool) -> str:
    return f"[green]✓ {goal.text}[/]" if reached else f"[red]✗ {goal.text}[/]"
