"""How `--help` reads: plain text, the options in groups, and the examples as they are typed.

Not in rich's boxes: to load what draws them took longer than all the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDTH = 110  # columns, where the terminal has them
_WHOLE = 1000  # characters; no first sentence is longer
_OTHERS = "Options"


class Command(TyperCommand):
    """A command with its options in groups, by their `rich_help_panel`; the epilog has its examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options in groups, in the order of their first members."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                argument = parameter.param_type_name == "argument"
                group = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or _OTHERS
                groups.setdefault(group, []).append(record)
        for name in sorted(groups, key=lambda name: name == _OTHERS):  # --format and --help come last
            _section(formatter, name, groups[name])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one a line."""
        formatter.write_paragraph()
        formatter.write("Examples:\n")
        formatter.write("".join(f"  {line}\n" for line in (self.epilog or "").splitlines()))


class Group(TyperGroup):
    """All commands; what each does stands there in full."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in their order."""
        _section(
            formatter,
            "Commands",
            ((name, command.get_short_help_str(_WHOLE)) for name, command in self.commands.items()),
        )


def _section(formatter: Any, name: str, records: Iterable[tuple[str, str]]) -> None:
    with formatter.section(name):
        formatter.write_dl(list(records))
