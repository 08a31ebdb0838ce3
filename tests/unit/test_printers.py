"""Where log text goes: what reaches a terminal, a pipe, a file or a program."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from nvflare_logstream.cli.matches import Highlight
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


def printer(prefix: bool = False, headers: bool = False, colour: bool = False) -> TerminalPrinter:
    return TerminalPrinter(prefix=prefix, headers=headers, colour=colour)


@contextmanager
def terminal() -> Iterator[io.StringIO]:
    """Standard output is a terminal, whose screen is given."""
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        yield screen


# -- the terminal --------------------------------------------------------------------------------------------


def test_what_was_searched_for_is_shown_in_reverse_within_the_levels_colour():
    marked = Highlight(("dea?d", "ea"), ("site",), ignore_case=True)
    with terminal() as screen:
        one = TerminalPrinter(prefix=False, headers=False, colour=True, highlight=marked)
        one.text(stream(), "DEAD and dead\nx\n2026-04-28 10:00:00,000 - n - ERROR - ea\n")
    shown = screen.getvalue()
    assert shown.count("\x1b[1m\x1b[7m") == 3 and "\x1b[7mDEAD\x1b[0m and " in shown and "\nx\n" in shown
    assert "\x1b[31m\x1b[1m\x1b[7mea\x1b[0m" in shown, "in the level's own colour"
    assert re.sub(r"\x1b\[\d+m", "", shown) == "DEAD and dead\nx\n2026-04-28 10:00:00,000 - n - ERROR - ea\n"


def test_matches_that_overlap_or_are_empty_change_no_character():
    marked = Highlight(("abc", "bcd", "x*", "d$"), (), ignore_case=False)
    assert re.sub(r"\x1b\[\d+m", "", marked.styled("abcd", None)) == "abcd"
    assert marked.styled("nothing", None) == "nothing"


def test_groups_of_lines_that_are_apart_have_a_line_between_them_as_with_grep(capsys):
    one = printer()
    one.text(stream(), "a\nb\nc\n", (0, 4))
    one.text(stream(), "d\n", (0,))
    one.text(stream(), "e\n")
    one.text(stream("site-2"), "f\n", (0,))
    assert capsys.readouterr().out == "a\nb\n--\nc\n--\nd\ne\nf\n"


def test_very_many_groups_take_little_time_and_places_outside_of_the_text_are_passed_over(capsys):
    began = time.process_time()
    printer().text(stream(), "a\nb\n" * 50_000, tuple(range(0, 10**6, 4)))
    assert time.process_time() - began < 5
    assert capsys.readouterr().out == "a\nb\n" + "--\na\nb\n" * 49_999


def test_what_is_in_json_form_is_taken_apart_before_it_is_rendered(capsys):
    printer().text(stream(), RECORD * 2, (len(RECORD),), records=True)
    record = "2026-04-28 10:00:00,000 - n - INFO - hello\n"
    assert capsys.readouterr().out == f"{record}--\n{record}"


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
    shown.close()
    assert capsys.readouterr().out == (
        "===== server =====\none\ntwo\n\n===== site-1 =====\n(no log content)\n\n===== site-2 =====\nthree\n"
    )


def test_a_log_whose_first_part_is_empty_is_not_called_empty(capsys):
    """The server looks through so many bytes at a time: what is wanted may lie farther on."""
    shown = printer(headers=True)
    for site, text in (("server", ""), ("server", "one\n"), ("site-1", ""), ("site-1", ""), ("site-2", "")):
        shown.text(stream(site), text)
    shown.close()
    assert capsys.readouterr().out == (
        "===== server =====\none\n\n===== site-1 =====\n(no log content)\n"
        "\n===== site-2 =====\n(no log content)\n"
    )


@pytest.mark.parametrize("before", ["", "\n  \n"])
def test_a_json_log_reads_as_text_wherever_its_first_record_comes(capsys, before):
    shown = printer()
    for text in ("", before, RECORD):
        shown.text(stream(file="log.json"), text, records=text == RECORD)
    assert capsys.readouterr().out.strip() == "2026-04-28 10:00:00,000 - n - INFO - hello"


def test_a_json_log_reads_as_text_and_what_is_no_record_in_it_stays(capsys):
    printer().text(stream(file="log.json"), RECORD + "not a record\n" + RECORD.rstrip(), records=True)
    line = "2026-04-28 10:00:00,000 - n - INFO - hello\n"
    assert capsys.readouterr().out == line + "not a record\n" + line


def test_a_text_log_with_a_json_line_in_it_stays_as_it_is(capsys):
    shown = printer()
    shown.text(stream(), "text\n" + RECORD)
    shown.text(stream(), RECORD)
    assert capsys.readouterr().out == "text\n" + RECORD + RECORD


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


def test_a_directory_may_be_a_link_and_a_site_in_it_may_not(tmp_path):
    """Whoever names a link means where it points; one in the place of a site leads where nobody said."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "site-2").symlink_to(tmp_path)
    files = FilePrinter(tmp_path / "link")
    files.text(stream("site-1"), "text\n")
    with pytest.raises(
        RetrievalError, match=r"link/site-2/log.txt: site-2 is a symbolic link, not a directory; "
    ) as caught:
        files.text(stream("site-2"), "text\n")
    files.close()
    assert caught.value.code is ErrorCode.OUTPUT_DIR_NOT_WRITABLE
    assert (tmp_path / "disk" / "site-1" / "log.txt").read_text() == "text\n"
    assert not (tmp_path / "log.txt").exists()


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
    printer = EventPrinter()
    printer.text(stream(), HOSTILE + "a\r\n\u2028\nno end")
    printer.close()
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


# -- lines that overwrite themselves -------------------------------------------------------------------------


def following(prefix: bool = False) -> TerminalPrinter:
    return TerminalPrinter(prefix=prefix, headers=False, colour=False, last_states=True)


BAR = "start\n\r10 %\r50 %\r100 %\nwindows\r\n"


def test_a_line_that_overwrote_itself_is_printed_as_it_reads_at_last(capsys):
    following().text(stream(), BAR)
    assert capsys.readouterr().out == "start\n100 %\nwindows\r\n"
    printer().text(stream(), BAR)
    assert capsys.readouterr().out == BAR, "only a follower's text"


def test_no_pipe_gets_a_line_that_has_not_ended(capsys):
    shown = following()
    assert not shown.grows
    shown.grow(stream(), "10 %")
    shown.pause()
    assert not capsys.readouterr().out


def test_a_terminal_shows_a_line_while_it_grows_in_one_line_that_text_and_notices_replace():
    with terminal() as screen:
        shown = following(prefix=True)
        assert shown.grows
        for text in ("10 %", "20 % \x1b[2J"):
            shown.grow(stream(), text)
            shown.pause()
        shown.pause()
        assert screen.getvalue() == "\r\x1b[Ksite-1 10 %\r\x1b[Ksite-1 20 % \\x1b[2J"
        shown.interrupt()
        assert screen.getvalue().endswith("[2J\r\x1b[K"), "room for a notice"
        shown.pause()
        assert screen.getvalue().endswith("\r\x1b[Ksite-1 20 % \\x1b[2J"), "and it is there again"
        shown.text(stream(), "20 %\r30 %\n")
        shown.pause()
        assert screen.getvalue().endswith("\r\x1b[Ksite-1 30 %\n")


def test_lines_that_grow_at_several_sites_share_the_terminals_width():
    with terminal() as screen:
        shown = following(prefix=True)
        for site in ("a", "b"):
            shown.grow(stream(site), "\u5bbd" * 100)
        shown.pause()
        shown.close()
    line = screen.getvalue().split("\x1b[K")[1].rstrip("\r")
    assert [part[0] for part in line.split("  ")] == ["a", "b"] and cell_len(line) < 80
    assert screen.getvalue().endswith("\r\x1b[K"), "nothing of it stays"
