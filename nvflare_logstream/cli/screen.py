"""What commands show on a terminal, once or again and again in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDE = 160  # columns


def show(views: Iterator[RenderableType], watch: bool) -> None:
    """Print views one after another; with `watch`, on a terminal, each in the place of the one before."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)  # names may look like markup
    if not console.is_terminal:
        console.width = _WIDE  # a file has room for everything
    if not (watch and console.is_terminal):
        for view in views:
            console.print(view)
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for view in views:
            live.update(view, refresh=True)


def amount(size: float) -> str:
    """A number of bytes with a unit."""
    return _with_unit(size, 1000, ("B", "kB", "MB", "GB"))


def binary_amount(size: float) -> str:
    """A number of bytes with a unit of those in which limits are set."""
    return _with_unit(size, 1024, ("B", "KiB", "MiB", "GiB"))


def _with_unit(size: float, step: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if size < step:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= step
    return f"{size:,.1f} {units[-1]}"


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{int(seconds)} s"
