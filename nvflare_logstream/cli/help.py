"""How `--help` reads: plain text, the options in groups, and the examples as they are typed.

Not in rich's boxes: to load what draws them took longer than all the rest. Nor need a wrong value wait for
what typer loads to read the right ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

WIDTH = 110  # columns, where the terminal has them
_WHOLE = 1000  # characters; no first sentence is longer
_OTHERS = "Options"


class Command(TyperCommand):
    """A command with its options in groups, by their `rich_help_panel`; the epilog has its examples."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, first those with a parser of our own.

        For all others typer loads pydantic, which takes as long as all the rest: a slip is told sooner so.

        Raises:
            typer.TyperException: if an argument is not allowed.
        """
        given, _, typed = self.make_parser(ctx).parse_args(list(args))
        if not any(parameter.is_eager for parameter in typed):  # such as --help, whatever else is wrong
            self._check(ctx, given, typed)
        return super().parse_args(ctx, args)

    def _check(self, ctx: Any, given: Any, typed: Any) -> None:
        declared = inspect.signature(self.callback, eval_str=True).parameters if self.callback else {}
        for parameter in typed:
            _, info = get_args(declared[parameter.name].annotation)
            try:
                if info.parser:
                    info.parser(given[parameter.name])
            except typer.BadParameter as error:
                raise typer.BadParameter(error.message, ctx, parameter) from None

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
