"""The doctor's findings for a person: a line for each place, and below it what is wrong there."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nvflare_logstream.deploy.findings import Finding, Severity, count
from nvflare_logstream.lines import in_one_line

_MARKS = {Severity.OK: ("✓", "green"), Severity.WARNING: ("!", "yellow"), Severity.ERROR: ("✗", "red")}
_WORST = list(_MARKS)
_TITLE = (("package", "versions"), ("site", "server"))  # checks that say what runs, and since when; one each


def view(findings: Sequence[Finding]) -> RenderableType:
    """What is shown of them, place by place, in the order in which they were found."""
    names = dict.fromkeys(finding.place for finding in findings)
    parts: list[RenderableType] = []
    for name in names:
        parts += _place(name, [finding for finding in findings if finding.place == name])
    return Group(*parts, _summary(findings))


def _place(name: str, findings: Sequence[Finding]) -> list[RenderableType]:
    worst = max((finding.severity for finding in findings), key=_WORST.index)
    right = {finding.check: finding.text for finding in findings if finding.severity is Severity.OK}
    facts = [[right[check] for check in checks if check in right][:1] for checks in _TITLE]
    mark, style = _MARKS[worst]
    title = Text.assemble((f"{mark} ", style), (in_one_line(name), "bold"))
    if any(facts):
        title.append(f": {in_one_line('; '.join(text for fact in facts for text in fact))}")
    return [title, *(_problem(finding) for finding in findings if finding.severity is not Severity.OK)]


def _problem(finding: Finding) -> RenderableType:
    mark, style = _MARKS[finding.severity]
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text(mark, style=style), Text(in_one_line(finding.text), style=style))
    if finding.advice:
        table.add_row(Text("→"), Text(in_one_line(finding.advice)))
    return Padding(table, (0, 0, 0, 2), expand=False)


def _summary(findings: Sequence[Finding]) -> Text:
    counts = [count(findings, severity) for severity in (Severity.ERROR, Severity.WARNING)]
    if not any(counts):
        return Text("nothing is wrong" if findings else "nothing is there to be checked", style="green")
    words = [
        f"{number} {word}{'s' if number > 1 else ''}"
        for number, word in zip(counts, ("error", "warning"), strict=True)
        if number
    ]
    return Text(", ".join(words), style="red" if counts[0] else "yellow")
