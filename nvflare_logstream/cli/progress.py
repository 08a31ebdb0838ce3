"""The terminal's last line: it shows lines of the logs that have not ended, such as progress bars."""

from __future__ import annotations

import os
from typing import TextIO

_ERASE = "\r\x1b[K"
_BETWEEN = "  "


class Progress:
    """Shows the growing line of each site, all in one line that never wraps.

    Args:
        screen: the terminal.
    """

    def __init__(self, screen: TextIO):
        self._screen = screen
        self._growing: dict[str, str] = {}  # by site
        self._shown = ""

    def grow(self, site: str, text: str) -> None:
        """A site's line reads so now; `show` shows it."""
        self._growing[site] = text

    def end(self, site: str) -> None:
        """More of a site's log is about to be printed, in which its line has ended or gone on."""
        self._growing.pop(site, None)
        self.hide()

    def hide(self) -> None:
        """Make room for a line that stays."""
        if self._shown:
            self._screen.write(_ERASE)
        self._shown = ""

    def show(self) -> None:
        """Show the lines that grow, cut to the terminal's width."""
        line = self._line() if self._growing else ""
        if line != self._shown:
            self._screen.write(_ERASE + line)
            self._shown = line

    def _line(self) -> str:
        from rich.cells import set_cell_size

        share = (_width(self._screen) - 1) // len(self._growing) - len(_BETWEEN)
        texts = (set_cell_size(text, max(1, share)).rstrip() for text in self._growing.values())
        return _BETWEEN.join(texts)


def _width(screen: TextIO) -> int:
    try:
        return os.get_terminal_size(screen.fileno()).columns
    except (OSError, ValueError):
        return 80
