"""Where log text goes: the terminal, one file a site, a JSON envelope, or one JSON event a line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from nvflare_logstream import lines
from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.matches import Highlight
from nvflare_logstream.cli.output import notice, print_json
from nvflare_logstream.cli.progress import Progress
from nvflare_logstream.client.disk import make_directory, writing
from nvflare_logstream.client.merge import split_lines
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.streams import Stream

_COLOURS = (
    "cyan", "magenta", "green", "blue", "bright_yellow", "bright_cyan", "bright_magenta", "bright_green",
)  # fmt: skip
_MOST_BEGUN = 1 << 20  # characters of a line that has not ended


class Printer(ABC):
    """Takes text as it comes: whole lines of one site at a time."""

    @abstractmethod
    def text(self, stream: Stream, text: str, breaks: tuple[int, ...] = (), records: bool = False) -> None:
        """Take more of a site's log.

        Args:
            stream: which log.
            text: whole lines, or pieces of lines that were cut.
            breaks: characters of it with which lines begin that do not follow the line before.
            records: it is records in JSON form. Only who read the log knows: its pieces need not look so.
        """

    def pause(self) -> None:  # noqa: B027 - most printers keep nothing
        """Show what was kept: all text that was there has been given."""

    @property
    def renders(self) -> bool:
        """Whether a JSON log is shown as text."""
        return False

    @property
    def grows(self) -> bool:
        """Whether lines are shown that have not ended."""
        return False

    def grow(self, stream: Stream, text: str) -> None:  # noqa: B027 - most printers show whole lines only
        """Show how the last line of a site reads now, which has not ended."""

    def interrupt(self) -> None:
        """Make room for a notice."""
        self.pause()

    def begin_anew(self, site: str) -> None:  # noqa: B027 - what was printed stays where it is
        """Drop what came of a site: it counts no more."""

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
        headers: print a line with the site's name before its text, as the runtime's command does.
        colour: colour names and levels, and show the log's control characters instead of sending them.
        highlight: what to make visible in each line, where there are colours.
        last_states: of a line that overwrites itself with carriage returns, print what it reads at last; on a
            terminal also while it grows.
    """

    def __init__(
        self,
        *,
        prefix: bool,
        headers: bool,
        colour: bool,
        highlight: Highlight | None = None,
        last_states: bool = False,
    ):
        out = terminal.out()
        self._highlight = highlight if colour else None
        self._begun: set[str] = set()  # sites of which a line was printed
        self._prefix, self._headers, self._colour = prefix, headers, colour
        self._safe = colour or out.isatty()
        self._last_states = last_states
        self._progress = Progress(out) if last_states and out.isatty() else None
        self._colours: dict[str, str] = {}
        self._shown, self._empty = "", False  # whose header was printed last, and whether nothing followed

    def text(self, stream: Stream, text: str, breaks: tuple[int, ...] = (), records: bool = False) -> None:
        """Print it; with a line "--", as grep does, between what does not follow."""
        if self._headers:
            self._header(stream.site)
        if not text:
            return
        self._empty = False
        if self._progress:
            self._progress.end(stream.site)
        begins = {place for place in breaks if place < len(text)}
        for start, end in pairwise(sorted({0, *begins, len(text)})):
            if start in begins and stream.site in self._begun:
                terminal.out().write((typer.style("--", fg="cyan") if self._colour else "--") + "\n")
            piece = text[start:end]
            if records:
                piece = lines.json_as_text(piece)
            self._write(stream.site, lines.last_states(piece) if self._last_states else piece)
            self._begun.add(stream.site)

    @property
    def renders(self) -> bool:
        """Whether a JSON log is shown as text."""
        return True

    def pause(self) -> None:
        """Let it be seen."""
        if self._progress:
            self._progress.show()
        terminal.out().flush()

    @property
    def grows(self) -> bool:
        """Whether lines are shown that have not ended."""
        return self._progress is not None

    def grow(self, stream: Stream, text: str) -> None:
        """Show how the last line of a site reads now, at the next `pause`."""
        if self._progress:
            shown = lines.in_one_line(text)
            self._progress.grow(stream.site, f"{stream.site} {shown}" if self._prefix else shown)

    def interrupt(self) -> None:
        """Make room for a notice."""
        if self._progress:
            self._progress.hide()
        terminal.out().flush()

    def close(self) -> None:
        """Only now is it known that the last site had nothing."""
        self.interrupt()
        self._end_site()
        terminal.out().flush()

    def _header(self, site: str) -> None:
        if self._shown != site:
            self._end_site()
            terminal.out().write(("\n" if self._shown else "") + f"===== {lines.visible(site)} =====\n")
            self._shown, self._empty = site, True

    def _end_site(self) -> None:
        if self._empty:
            terminal.out().write("(no log content)\n")
        self._empty = False

    def _write(self, site: str, text: str) -> None:
        if not (self._prefix or self._safe):
            terminal.out().write(text)
            return
        name = lines.visible(site)
        if self._colour:
            name = typer.style(name, fg=self._colour_of(site), bold=True)
        prefix, shown = f"{name} " if self._prefix else "", []
        for line in split_lines(text):
            end = "\n" if line.endswith("\n") or self._prefix else ""
            shown.append(f"{prefix}{self._styled(line.removesuffix(chr(10)))}{end}")
        terminal.out().write("".join(shown))

    def _styled(self, line: str) -> str:
        level = lines.text_level(line) if self._colour else None
        if self._safe:
            # Shown, not obeyed: a log must not rewrite the reader's screen.
            line = lines.visible(line.removesuffix("\r"))
        colour = None
        if level is not None and level >= lines.LEVELS["WARNING"]:
            colour = "yellow" if level < lines.LEVELS["ERROR"] else "red"
        if self._highlight:
            return self._highlight.styled(line, colour)
        return typer.style(line, fg=colour) if colour else line

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

    def text(self, stream: Stream, text: str, breaks: tuple[int, ...] = (), records: bool = False) -> None:
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

    def begin_anew(self, site: str) -> None:
        """Empty the site's file."""
        if site in self._files:
            with writing(self.paths[site]):
                self._files[site].seek(0)
                self._files[site].truncate()

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
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    make_directory(path.parent)  # a link in its place would lead where nobody said
    try:
        return path.open("x", encoding="utf-8", errors="backslashreplace", newline="")
    except FileExistsError:
        hint = "Choose another directory, or remove it."
        raise RetrievalError(ErrorCode.OUTPUT_DIR_EXISTS, f"{path} exists", hint) from None


class Collector(Printer):
    """Text by site, for the JSON envelope."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def text(self, stream: Stream, text: str, breaks: tuple[int, ...] = (), records: bool = False) -> None:
        """Keep it."""
        self._texts.setdefault(stream.site, []).append(text)

    def answer(self) -> dict[str, Any]:
        """The whole text, by site."""
        return {"logs": {site: "".join(texts) for site, texts in self._texts.items()}}


class EventPrinter(Printer):
    """One JSON event a line of log."""

    def __init__(self) -> None:
        self._begun: tuple[str, str] = ("", "")  # of which site a line has begun whose end may still come

    def text(self, stream: Stream, text: str, breaks: tuple[int, ...] = (), records: bool = False) -> None:
        """Print its lines; the filters may part one at a carriage return that a log has within it."""
        site, begun = self._begun
        if site != stream.site:
            self.interrupt()
            begun = ""
        *whole, begun = (begun + text).split("\n")
        for line in whole:
            self._print(stream.site, line)
        self._begun = stream.site, begun
        if len(begun) > _MOST_BEGUN:
            self.interrupt()

    def interrupt(self) -> None:
        """Print what came of a line: a notice stands behind all text before it."""
        if self._begun[1]:
            self._print(*self._begun)
        self._begun = "", ""

    def close(self) -> None:
        """Print what came of the last line."""
        self.interrupt()

    def _print(self, site: str, line: str) -> None:
        print_json({"event": "line", "site": site, "line": line, "terminal": False})
