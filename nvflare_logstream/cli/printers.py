"""Where log text goes: the terminal, one file a site, a JSON envelope, or one JSON event a line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import typer

from nvflare_logstream import lines
from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.output import notice, print_json
from nvflare_logstream.client.disk import writing
from nvflare_logstream.client.merge import Clock, merge, split_lines, timed
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.streams import Stream

_COLOURS = (
    "cyan", "magenta", "green", "blue", "bright_yellow", "bright_cyan", "bright_magenta", "bright_green",
)  # fmt: skip


class Printer(ABC):
    """Takes text as it comes: whole lines of one site at a time."""

    @abstractmethod
    def text(self, stream: Stream, text: str) -> None:
        """Take more of a site's log."""

    def pause(self) -> None:  # noqa: B027 - most printers keep nothing
        """Show what was kept: all text that was there has been given."""

    def close(self) -> None:
        """Show what was kept: nothing more will come."""
        self.pause()

    def answer(self) -> dict[str, Any]:
        """The fields that the printer adds to the JSON answer."""
        return {}


class TerminalPrinter(Printer):
    """Text as a person reads it, on stdout.

    Args:
        prefix: put the site's name before each line; otherwise, with `headers`, before each site's text.
        merged: hold text until `pause`, then put the lines of all sites in order.
        headers: print a line with the site's name before its text, as the runtime's command does.
        colour: colour names and levels, and show the log's control characters instead of sending them.
    """

    def __init__(self, *, prefix: bool, merged: bool, headers: bool, colour: bool):
        self._prefix, self._merged, self._headers, self._colour = prefix, merged, headers, colour
        self._safe = colour or terminal.out().isatty()
        self._colours: dict[str, str] = {}
        self._clocks: dict[str, Clock] = {}
        self._json: dict[str, bool] = {}
        self._waiting: dict[str, list[tuple[float, str, str]]] = {}
        self._shown = ""

    def text(self, stream: Stream, text: str) -> None:
        """Print it, or keep it for `pause`."""
        if self._headers:
            self._header(stream.site, bool(text))
        if self._merged:
            clock = self._clocks.setdefault(stream.site, Clock(stream))
            self._waiting.setdefault(stream.site, []).extend(timed(clock, stream.site, split_lines(text)))
            return
        self._write(stream.site, text)

    def pause(self) -> None:
        """Print what was kept, in order."""
        for _, site, line in merge(map(iter, self._waiting.values())):
            self._write(site, line)
        self._waiting.clear()
        terminal.out().flush()

    def _header(self, site: str, has_text: bool) -> None:
        if self._shown != site:
            terminal.out().write(("\n" if self._shown else "") + f"===== {lines.visible(site)} =====\n")
            self._shown = site
            if not has_text:
                terminal.out().write("(no log content)\n")

    def _write(self, site: str, text: str) -> None:
        if site not in self._json:
            self._json[site] = lines.is_json(text)
        if self._json[site]:
            text = lines.json_as_text(text)
        if not (self._prefix or self._safe):
            terminal.out().write(text)
            return
        name = lines.visible(site)
        if self._colour:
            name = typer.style(name, fg=self._colour_of(site), bold=True)
        for line in split_lines(text):
            end = "\n" if line.endswith("\n") or self._prefix else ""
            prefix = f"{name} " if self._prefix else ""
            terminal.out().write(f"{prefix}{self._styled(line.removesuffix(chr(10)))}{end}")

    def _styled(self, line: str) -> str:
        level = lines.text_level(line) if self._colour else None
        if self._safe:
            line = lines.visible(
                line.removesuffix("\r")
            )  # shown, not obeyed: a log must not rewrite the reader's screen
        if level is None or level < lines.LEVELS["WARNING"]:
            return line
        return typer.style(line, fg="yellow" if level < lines.LEVELS["ERROR"] else "red")

    def _colour_of(self, site: str) -> str:
        return self._colours.setdefault(site, _COLOURS[len(self._colours) % len(_COLOURS)])


class FilePrinter(Printer):
    """One file a site, `DIR/<site>/<file>`, exactly as the log is.

    Raises:
        RetrievalError: OUTPUT_DIR_NOT_WRITABLE, or OUTPUT_DIR_EXISTS: no file is overwritten.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self.paths: dict[str, Path] = {}
        self._files: dict[str, TextIOWrapper] = {}

    def text(self, stream: Stream, text: str) -> None:
        """Append to the site's file."""
        path = self.paths.setdefault(stream.site, self._directory / stream.site / stream.file)
        with writing(path):
            if stream.site not in self._files:
                self._files[stream.site] = _open_new(path)
            self._files[stream.site].write(text)

    def pause(self) -> None:
        """Let others see what is written so far."""
        for site, file in self._files.items():
            with writing(self.paths[site]):
                file.flush()

    def close(self) -> None:
        """Close the files and name them."""
        for site, file in self._files.items():
            with writing(self.paths[site]):
                file.close()
            notice(f"wrote {self.paths[site]}")

    def answer(self) -> dict[str, Any]:
        """The files, by site."""
        return {"files": {site: str(path) for site, path in self.paths.items()}}


def _open_new(path: Path) -> TextIOWrapper:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return path.open("x", encoding="utf-8", errors="backslashreplace", newline="")
    except FileExistsError:
        hint = "Choose another directory, or remove it."
        raise RetrievalError(ErrorCode.OUTPUT_DIR_EXISTS, f"{path} exists", hint) from None


class Collector(Printer):
    """Text by site, for the JSON envelope."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def text(self, stream: Stream, text: str) -> None:
        """Keep it."""
        self._texts.setdefault(stream.site, []).append(text)

    def answer(self) -> dict[str, Any]:
        """The whole text, by site."""
        return {"logs": {site: "".join(texts) for site, texts in self._texts.items()}}


class EventPrinter(Printer):
    """One JSON event a line of log."""

    def text(self, stream: Stream, text: str) -> None:
        """Print its lines."""
        for line in split_lines(text):
            event = {"event": "line", "site": stream.site, "line": line.removesuffix("\n"), "terminal": False}
            print_json(event)
