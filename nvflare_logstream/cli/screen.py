"""What commands show on a terminal, once or again and again in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from nvflare_logstream.cli import terminal
from nvflare_logstream.lines import visible

_WIDE = 160  # columns


class Screen(Console):
    """A console for words of others: names, reasons and log lines are shown, and never obeyed.

    Args:
        error: write to stderr.
        options: of rich's console.
    """

    def __init__(self, error: bool = False, **options: Any):
        file = terminal.err() if error else terminal.out()
        # Names may look like markup.
        super().__init__(file=file, highlight=False, markup=False, emoji=False, **options)

    @property
    def size(self) -> ConsoleDimensions:
        """The terminal's size: rich looks at file descriptors that may not be ours."""
        width, height = super().size
        return ConsoleDimensions(self._width or terminal.columns() or width, height)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size

    def status(self, *arguments: Any, **options: Any) -> Status:
        """As rich has it, without showing what others print meanwhile."""
        status = super().status(*arguments, **options)
        status._live._redirect_stdout = status._live._redirect_stderr = False
        return status

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich has it; escaped here already, so that a table leaves room for what is shown."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich has it; what it makes itself to move the cursor is marked as such and stays."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


def show(views: Iterator[RenderableType], watch: bool) -> None:
    """Print views one after another; with `watch`, on a terminal, each in the place of the one before."""
    screen = Screen()
    if not screen.is_terminal:
        screen.width = _WIDE  # a file has room for everything
    if not (watch and screen.is_terminal):
        for view in views:
            screen.print(view)
        return
    with Live(
        console=screen,
        auto_refresh=False,
        vertical_overflow="visible",
        redirect_stdout=False,  # what others print meanwhile would stand above it
        redirect_stderr=False,
    ) as live:
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
