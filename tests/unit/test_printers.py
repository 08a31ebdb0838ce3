"""Where log text goes: what reaches a terminal, a pipe, a file or a program."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.cli.printers import (
    Collector,
    EventPrinter,
    FilePrinter,
    TerminalPrinter,
)
from nvflare_logstream.cli.terminal import Colour
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.streams import Stream, StreamKey

HOSTILE = "\x1b[2Jgone\r\x07\x9b31m\x7f\ttab\n"
SHOWN = r"\x1b[2Jgone\x0d\x07\x9b31m\x7f" + "\ttab\n"
RECORD = '{"asctime": "2026-04-28 10:00:00,000", "name": "n", "levelname": "INFO", "message": "hello"}\n'


def stream(site: str = "site-1", file: str = "log.txt") -> Stream:
    return Stream(StreamKey("job-1", site, file))


def printer(
    prefix: bool = False, merged: bool = False, headers: bool = False, colour: bool = False
) -> TerminalPrinter:
    return TerminalPrinter(prefix=prefix, merged=merged, headers=headers, colour=colour)


@contextmanager
def terminal() -> Iterator[io.StringIO]:
    """Standard output is a terminal, whose screen is given."""
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        yield screen


# -- the terminal --------------------------------------------------------------------------------------------


def test_control_characters_are_shown_on_a_terminal_and_not_obeyed():
    with terminal() as screen:
        printer().text(stream(), HOSTILE)
    assert screen.getvalue() == SHOWN


def test_control_characters_are_shown_wherever_colours_are_wanted(capsys):
    """Colours go to a terminal in the end, by way of `less -R` for example."""
    printer(colour=True).text(stream(), HOSTILE)
    assert capsys.readouterr().out == SHOWN


def test_a_pipe_gets_the_text_as_it_is(capsys):
    for site in ("site-1", "site-2"):
        printer().text(stream(site), HOSTILE + "no end")
    assert capsys.readouterr().out == 2 * (HOSTILE + "no end")


@given(st.text())
def test_whatever_a_log_holds_a_terminal_gets_no_control_character(text):
    with terminal() as screen:
        printer().text(stream(), "text\n" + text)
    assert not {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"} & set(screen.getvalue())
    assert screen.getvalue().count("\n") == text.count("\n") + 1


def test_with_the_sites_name_before_it_every_line_gets_an_end(capsys):
    """Otherwise the next site's name would stand in the middle of a line."""
    shown = printer(prefix=True)
    shown.text(stream("site-1"), "one\ntwo has no end")
    shown.text(stream("site-2"), "three\r\n")
    assert capsys.readouterr().out == "site-1 one\nsite-1 two has no end\nsite-2 three\r\n"


def test_sites_have_colours_of_their_own_and_levels_theirs():
    with terminal() as screen:
        shown = printer(prefix=True, colour=True)
        for site, level in (("a", "INFO"), ("b", "WARNING"), ("a", "ERROR")):
            shown.text(stream(site), f"2026-04-28 10:00:00,000 - n - {level} - m\n")
    names, styles = zip(*(line.split(" ", 1) for line in screen.getvalue().splitlines()), strict=True)
    assert names[0] == names[2] != names[1]
    assert [style[:5] for style in styles] == ["2026-", "\x1b[33m", "\x1b[31m"]


def test_headers_are_those_of_the_runtimes_command(capsys):
    shown = printer(headers=True)
    for site, text in (("server", "one\n"), ("server", "two\n"), ("site-1", ""), ("site-2", "three\n")):
        shown.text(stream(site), text)
    assert capsys.readouterr().out == (
        "===== server =====\none\ntwo\n\n===== site-1 =====\n(no log content)\n\n===== site-2 =====\nthree\n"
    )


def test_a_json_log_reads_as_text_and_what_is_no_record_in_it_stays(capsys):
    printer().text(stream(file="log.json"), RECORD + "not a record\n" + RECORD.rstrip())
    line = "2026-04-28 10:00:00,000 - n - INFO - hello\n"
    assert capsys.readouterr().out == line + "not a record\n" + line


def test_a_text_log_with_a_json_line_in_it_stays_as_it_is(capsys):
    shown = printer()
    shown.text(stream(), "text\n" + RECORD)
    shown.text(stream(), RECORD)
    assert capsys.readouterr().out == "text\n" + RECORD + RECORD


def test_merged_text_waits_for_the_pause_and_comes_in_order(capsys):
    shown = printer(prefix=True, merged=True)
    for site, second in (("a", 2), ("b", 1), ("a", 3)):
        shown.text(stream(site), f"2026-04-28 10:00:0{second} - n - INFO - {second}\n")
    assert not capsys.readouterr().out
    shown.pause()
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["b", "a", "a"]
    shown.text(stream("b"), "2026-04-28 10:00:09 - n - INFO - last\n")
    shown.close()
    assert capsys.readouterr().out.endswith("last\n")


@pytest.mark.parametrize(
    ("choice", "tty", "environment", "wanted"),
    [
        (Colour.AUTO, True, {}, True),
        (Colour.AUTO, False, {}, False),
        (Colour.AUTO, True, {"NO_COLOR": "1"}, False),
        (Colour.AUTO, True, {"TERM": "dumb"}, False),
        (Colour.ALWAYS, False, {"NO_COLOR": "1"}, True),
        (Colour.NEVER, True, {}, False),
    ],
)
def test_colours_are_for_terminals_unless_somebody_says_otherwise(
    monkeypatch, choice, tty, environment, wanted
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    stream.isatty = lambda: tty  # type: ignore[method-assign]
    assert bool(choice.wanted(stream)) is wanted


# -- files ---------------------------------------------------------------------------------------------------


def test_a_file_gets_the_text_as_it_is(tmp_path, capsys):
    files = FilePrinter(tmp_path / "new" / "directory")
    for text in (HOSTILE, "\r\né\u2028", "no end"):
        files.text(stream(), text)
        files.pause()
    files.text(stream("site-2", "log.json"), RECORD)
    files.close()
    assert files.paths["site-1"].read_bytes() == (HOSTILE + "\r\né\u2028no end").encode()
    assert files.paths["site-2"] == tmp_path / "new" / "directory" / "site-2" / "log.json"
    assert files.paths["site-2"].read_text() == RECORD
    said = capsys.readouterr()
    assert not said.out
    assert said.err.splitlines() == [f"wrote {files.paths[site]}" for site in ("site-1", "site-2")]
    assert files.answer() == {"files": {site: str(path) for site, path in files.paths.items()}}


@pytest.mark.parametrize("kind", ["file", "link to nowhere"])
def test_no_file_is_overwritten(tmp_path, kind):
    (tmp_path / "site-1").mkdir()
    there = tmp_path / "site-1" / "log.txt"
    there.write_text("mine") if kind == "file" else there.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RetrievalError, match=f"{there} exists") as caught:
        FilePrinter(tmp_path).text(stream(), "text\n")
    assert caught.value.code is ErrorCode.OUTPUT_DIR_EXISTS and caught.value.hint
    assert not (tmp_path / "elsewhere").exists() and (kind != "file" or there.read_text() == "mine")


@pytest.mark.parametrize("kind", ["below a file", "no permission", "name too long"])
def test_a_directory_that_cannot_be_written_is_named_with_the_reason(tmp_path, kind):
    directory = tmp_path / ("x" * 300 if kind == "name too long" else "directory")
    if kind == "below a file":
        directory.write_text("")
        directory = directory / "deeper"
    if kind == "no permission":
        if os.geteuid() == 0:
            directory = type(tmp_path)("/proc/nothing-can-be-made-here")
        else:
            directory.mkdir(mode=0o500)
    with pytest.raises(RetrievalError, match=r"cannot write .*log\.txt: \w+") as caught:
        FilePrinter(directory).text(stream(), "text\n")
    assert caught.value.code is ErrorCode.OUTPUT_DIR_NOT_WRITABLE


# -- programs ------------------------------------------------------------------------------------------------


def test_one_event_a_line_with_the_line_as_it_is(capsys):
    EventPrinter().text(stream(), HOSTILE + "a\r\n\u2028\nno end")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["line"] + "\n" for event in events] == [HOSTILE, "a\r\n", "\u2028\n", "no end\n"]
    assert {(event["event"], event["site"], event["terminal"]) for event in events} == {
        ("line", "site-1", False)
    }


def test_an_envelope_collects_the_whole_text_by_site():
    collector = Collector()
    for site, text in (("a", "one\n"), ("b", ""), ("a", "two")):
        collector.text(stream(site), text)
    assert collector.answer() == {"logs": {"a": "one\ntwo", "b": ""}}
