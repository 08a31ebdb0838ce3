"""What reaches a terminal: our own words only, and nothing in them that it would obey."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import unicodedata
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.main import run
from nvflare_logstream.cli.options import Access
from nvflare_logstream.cli.printers import TerminalPrinter
from nvflare_logstream.cli.screen import Screen
from nvflare_logstream.cli.status_view import view
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.lines import in_one_line, visible
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.wire.job_streams import JobStreams
from nvflare_logstream.wire.server_status import (
    Disk,
    Problem,
    QuotaUse,
    Refused,
    ServerStatus,
    SiteUse,
    StreamCounts,
)
from tests.unit.hostile import EVIL, ID, hostile_port

ROOT = Path(__file__).parents[2]
# -- one function --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "char", EVIL.replace("[2J", "").replace("]0;title", "").replace("31m", ""), ids=ascii
)
def test_what_a_terminal_obeys_or_hides_is_shown(char):
    for shown in (visible(f"a{char}b"), in_one_line(f"a{char}b")):
        assert shown.isprintable() and shown.encode() and char not in shown
        assert f"{ord(char):02x}" in shown


def test_every_control_and_every_sign_without_a_look_is_shown():
    """All of Unicode; signs that Arabic and hieroglyphs put before a number or join have a look."""
    seen = set("\t\n\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
    seen |= {chr(code) for code in range(0x13430, 0x13440)}
    for char in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in seen:
            assert visible(char) != char, ascii(char)


def test_text_in_all_scripts_and_emoji_stay_as_they_are():
    text = "\tÄrzte 病院 Больница مستشفى ✅ ⚠\ufe0f 50\xa0%\n"
    assert visible(text) == text
    assert in_one_line(text) == r"\tÄrzte 病院 Больница مستشفى ✅ ⚠" + "\ufe0f" + r" 50\xa0%\n"


@given(st.text())
def test_what_is_shown_stays_as_it_is(text):
    assert visible(visible(text)) == visible(text)
    assert in_one_line(in_one_line(text)) == in_one_line(text)
    assert len(in_one_line(text).splitlines()) <= 1


# -- every print ---------------------------------------------------------------------------------------------


def prints_of_its_own(source: str) -> list[str]:
    """The places of a module that write to the terminal by other ways than ours."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("print", "Console", "typer.echo", "typer.secho", "echo", "secho"):
                found.append(name)
    return found


def test_a_print_of_its_own_is_found():
    assert prints_of_its_own("print(1)\ntyper.echo(x)\nsys.stdout.write(y)\nscreen.print(z)\n") == [
        "print",
        "typer.echo",
        "sys.stdout",
    ]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "nvflare_logstream" / "cli").glob("*.py")), ids=lambda path: path.name
)
def test_every_command_prints_by_way_of_output_printers_and_screen(path):
    allowed = {
        "main.py": {
            "typer.echo",
            "sys.stdout",
            "sys.stderr",
        },  # the version; where a closed stream is replaced
        "terminal.py": {"sys.stdout"},
    }
    assert set(prints_of_its_own(path.read_text())) <= allowed.get(path.name, set())


@pytest.fixture
def hostile(monkeypatch, capsys):
    """Runs a command against such a server, on a terminal; returns what that got."""
    port = hostile_port()

    @contextmanager
    def client(access):
        yield port.client

    def shown(*arguments: str) -> str:
        monkeypatch.setattr(Access, "client", client)
        monkeypatch.setenv("TERM", "dumb")
        for stream in (sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True)
        code = run(arguments)
        said = capsys.readouterr()
        assert code in (0, 1), said.err
        return said.out + said.err

    return shown


def assert_harmless(shown: str) -> None:
    assert shown and visible(shown) == shown, ascii(shown)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", ID),
        ("logs", ID, "--site", "all"),
        ("logs", ID, "--site", "all", "--prefix"),
        ("logs", ID, "--site", "all", "--merge"),
        ("logs", ID, "--site", "all", "--follow"),
        ("logs", ID, "--site", "site-3"),
        ("logs", ID, "--site", f"nobody{EVIL}"),
        ("logs", EVIL),
        ("verify", ID),
        ("status", ID, "--format", "json"),
        ("logs", ID, "--site", "all", "--format", "json"),
        ("logs", ID, "--site", "all", "--format", "jsonl"),
        ("verify", ID, "--format", "json"),
    ],
    ids=lambda words: ascii(" ".join(words))[:60],
)
def test_nothing_that_a_server_says_is_obeyed_by_the_terminal(hostile, arguments):
    assert_harmless(hostile(*arguments))


def test_nothing_in_an_export_is_obeyed_by_the_terminal(hostile, tmp_path):
    """Names of files that nobody expects, reasons in the manifest, and a manifest that is none."""
    hidden = EVIL.replace("\ud800", "").replace("\udfff", "")
    assert_harmless(hostile("export", ID, "-o", str(tmp_path / "export")))
    manifest = tmp_path / "export" / "manifest.json"
    found = json.loads(manifest.read_text())
    for entry in found["streams"]:
        entry["reason"] = entry["state_reason"] = entry["outcome"] = hidden
    (manifest.parent / f"site{hidden}").mkdir()
    (manifest.parent / f"site{hidden}" / f"log{hidden[:20]}.txt").write_text("x")
    found["job_status"] = hidden
    for content in (json.dumps(found), "{}", json.dumps({"format": EVIL}), hidden, json.dumps([hidden])):
        manifest.write_text(content)
        assert_harmless(hostile("verify", str(manifest.parent)))


def test_a_log_goes_to_a_file_whatever_is_in_it(hostile, tmp_path):
    assert_harmless(hostile("logs", ID, "--site", "all", "-o", str(tmp_path / "logs")))
    assert "\\udfff" in (tmp_path / "logs" / "site-2" / "log.txt").read_text()


def test_nothing_in_the_status_of_a_server_is_obeyed_by_the_terminal(hostile, monkeypatch):
    """As if it had not been checked when it was decoded."""
    refused = (Refused(EVIL, 1, 1e9, EVIL),)
    status = ServerStatus(
        package=EVIL,
        runtime=EVIL,
        upload_protocol=1,
        query_protocol=1,
        now=1e9,
        up=5.0,
        streams=StreamCounts(1, 1, 1, 1, 1),
        requests=1,
        request_rate=1.0,
        byte_rate=1.0,
        disk=Disk(100, 10, 20, 10, EVIL),
        quotas=(QuotaUse(EVIL, 95, 100, EVIL),),
        refused=refused,
        named=True,
        senders=refused,
        errors=(Problem(1e9, EVIL, EVIL, EVIL),),
        sites=(SiteUse(EVIL, 1, 1.0, 1),),
    )
    monkeypatch.setattr(LogClient, "server_status", lambda client: status)
    assert_harmless(hostile("server"))


# -- nothing but ours ----------------------------------------------------------------------------------------

NOISE = """
    import logging, os, sys, threading, warnings
    from nvflare_logstream.cli import main
    from nvflare_logstream.errors import ErrorCode, RetrievalError

    def noise(*ignored):
        print("NOISE")
        print("NOISE", file=sys.stderr)
        print("NOISE", file=sys.__stdout__, flush=True)
        print("NOISE", file=sys.__stderr__, flush=True)
        os.write(1, b"NOISE\\n")
        os.write(2, b"NOISE\\n")  # as grpc's core does
        logging.getLogger("nvflare.fuel.f3.cellnet.core_cell.CoreCell").error("NOISE")
        warnings.warn("NOISE")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()

    class Client:
        def find_job(self, text):
            noise()
            return text

        def job(self, job_id):
            noise()
            raise RetrievalError(ErrorCode.JOB_NOT_FOUND, "ours")

        verify = job
        close = noise

    class Runtime:  # in its place, as it takes a second to load
        @staticmethod
        def open_client(*access):
            noise()
            return Client()

    sys.modules["nvflare_logstream.flare.admin_session"] = Runtime
"""


def in_a_process(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = dedent(code) + f"\nsys.argv = {['nvflare-logstream', *arguments]}\nmain.main()\n"
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", ["status", "logs", "verify"])
def test_what_the_runtime_and_python_print_does_not_reach_the_terminal(command):
    done = in_a_process(NOISE, command, ID)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ours\nCode: JOB_NOT_FOUND (exit 1)\n"


RESTARTED = (
    dedent(NOISE)
    + """
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.errors import LostContactError
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.wire.queries import FollowReply, JobStreams, ReadReply, StreamsReply
from tests.unit.hostile import ID, HostilePort

class Port(HostilePort):
    there, job_is_over, attempts = True, False, 0

    def job(self):
        state = State.CLOSED if self.job_is_over else State.OPEN
        stream = Stream(StreamKey(ID, "site-1", "log.txt"), end=5, state=state, agreed=self.job_is_over)
        return JobStreams(ID, "FINISHED:COMPLETED" if self.job_is_over else "RUNNING", (stream,), 0.0)

    def ask(self, job_id, request, seconds):
        noise()
        if not self.there:
            raise LostContactError(ErrorCode.CONNECTION_FAILED, "it was killed")
        return super().ask(job_id, request, seconds)

    def followed(self, request):
        if self.job_is_over:
            return FollowReply(self.job(), (), request.mark)
        self.there = False
        return self.ask(ID, request, 1.0)

    def reconnect(self):
        noise()
        self.attempts += 1
        self.there = self.job_is_over = self.attempts == 3

port = Port()
port.answers = {
    "streams": lambda request: StreamsReply(port.job()),
    "read": lambda request: ReadReply("line\\n", Reading(5, 5)),
    "follow": port.followed,
}
Runtime.open_client = staticmethod(lambda *access: LogClient(port, sleep=noise))
"""
)


def test_a_follow_over_a_restart_of_the_server_says_so_in_our_words_and_no_others():
    done = in_a_process(RESTARTED, "logs", ID, "--site", "all", "-f")
    assert (done.returncode, done.stdout) == (0, "site-1 line\n")
    assert done.stderr.splitlines() == [
        "site-1: streaming",
        "job: no contact with the server, trying again: it was killed",
        "job: in contact with the server again",
        "site-1: ended: complete",
        "job: over: FINISHED:COMPLETED",
    ]


def test_who_looks_for_a_bug_sees_all_of_it():
    done = in_a_process(NOISE, "status", ID, NVFLARE_LOGSTREAM_DEBUG="1")
    assert done.returncode == 1 and "ours" in done.stderr
    assert done.stderr.count("NOISE") > 5 and "ZeroDivisionError" in done.stderr


def test_a_process_of_ours_is_as_before_when_a_command_is_over(capsys, monkeypatch):
    before = sys.stdout, sys.stderr
    terminal.take_over()
    assert (terminal.out(), terminal.err()) == before and sys.stdout is not before[0]
    print("others")
    terminal.out().write("ours")
    terminal.give_back()
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr() == ("ours", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character_shows_its_number(encoding):
    done = in_a_process(LONG, "verify", ID, PYTHONIOENCODING=encoding)
    assert done.returncode == 1 and ("✗" if encoding == "utf-8" else r"\u2717") in done.stdout, done.stderr
    imports = "import sys\nfrom nvflare_logstream.cli import main, output"
    code = f"{imports}\nmain.run = lambda words: output.say(*words)"
    done = in_a_process(code, "\u2713 \udcff", PYTHONIOENCODING=encoding)
    assert done.stdout == ("\u2713" if encoding == "utf-8" else r"\u2713") + " \\udcff\n", done.stderr


def test_a_line_that_ends_with_crlf_is_shown_without_a_sign_for_it(capsys):
    printer = TerminalPrinter(prefix=False, headers=False, colour=True)
    printer.text(Stream(StreamKey(ID, "site-1", "log.txt")), "one\r\n50%\r60%\r\n")
    assert capsys.readouterr().out == "one\n50%\\x0d60%\n"


# -- the pager -----------------------------------------------------------------------------------------------

LONG = """
    import sys
    from nvflare_logstream.cli import main
    from tests.unit.hostile import hostile_port

    class Runtime:
        open_client = staticmethod(lambda *access: hostile_port().client)

    sys.modules["nvflare_logstream.flare.admin_session"] = Runtime
"""
PAGER = f"{sys.executable} -S -c 'import sys, os; print(os.environ[\"LESS\"], sys.stdin.read().upper())'"


def on_a_terminal(code: str, *arguments: str, columns: int = 80, **environment: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; its exit code, and what was on the screen."""
    ours, process = start_on_a_terminal(code, *arguments, columns=columns, **environment)
    shown = screen_of(ours)
    return process.wait(60), shown


def start_on_a_terminal(
    code: str, *arguments: str, columns: int = 80, **environment: str
) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a command on a terminal of its own; our end of that, and the process."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    script = dedent(code) + f"\nsys.argv = {['nvflare-logstream', *arguments]}\nmain.main()\n"
    settings = {**os.environ, "TERM": "xterm", **environment}
    settings.pop("COLUMNS", None)
    streams = {"stdin": subprocess.DEVNULL, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen([sys.executable, "-c", script], env=settings, cwd=ROOT, **streams)
    os.close(theirs)
    return ours, process


def screen_of(terminal: int) -> str:
    """What is written to a terminal until nobody has it any more."""
    shown = b""
    with suppress(OSError):
        while part := os.read(terminal, 1 << 16):
            shown += part
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "arguments", [("logs", ID, "--site", "all"), ("status", ID), ("verify", ID)], ids=lambda words: words[0]
)
def test_long_text_goes_through_the_pager_of_the_reader(arguments):
    code, shown = on_a_terminal(LONG, *arguments, PAGER=PAGER)
    assert code in (0, 1) and "FRX" in shown and "SITE-2" in shown and "site-2" not in shown
    code, shown = on_a_terminal(LONG, *arguments, "--no-pager", PAGER=PAGER)
    assert code in (0, 1) and "site-2" in shown and "FRX" not in shown


@pytest.mark.parametrize(
    "settings",
    [{"PAGER": "cat"}, {"PAGER": ""}, {"PAGER": PAGER, "TERM": "dumb"}, {"PAGER": "no-such-pager"}],
    ids=str,
)
def test_where_there_is_no_pager_text_is_printed(settings):
    code, shown = on_a_terminal(LONG, "logs", ID, "--site", "all", **settings)
    assert code == 0 and "site-2" in shown and "FRX" not in shown


def test_an_interruption_is_for_the_pager(tmp_path):
    """Its reader goes on reading; otherwise the shell and the pager would both have the terminal."""
    leave = tmp_path / "leave"
    os.mkfifo(leave)
    script = 'import sys; sys.stdin.read(); print("READY", flush=True); open(sys.argv[1]).read()'
    pager = f"{sys.executable} -S -c '{script}' {leave}"
    ours, process = start_on_a_terminal(LONG, "logs", ID, "--site", "all", PAGER=pager)
    shown = b""
    while b"READY\r\n" not in shown:  # it has all text
        shown += os.read(ours, 1 << 16)
    process.send_signal(signal.SIGINT)
    leave.write_text("q")
    rest = screen_of(ours)
    assert process.wait(60) == 0 and not rest


@pytest.mark.parametrize("arguments", [("logs", "--follow", "--site", "all"), ("status", "--watch")], ids=str)
def test_what_goes_on_is_never_paged(arguments):
    code, shown = on_a_terminal(LONG, arguments[0], ID, *arguments[1:], PAGER="tr a-z A-Z")
    assert code in (0, 1) and "site-2" in shown


def test_a_reader_who_leaves_the_pager_is_no_error():
    code, shown = on_a_terminal(LONG, "logs", ID, "--site", "all", PAGER="head -1")
    assert code == 0 and "Traceback" not in shown and "Code:" not in shown


@pytest.mark.parametrize(
    "arguments",
    [("logs", ID, "--site", "all"), ("logs", ID, "--site", "all", "--format", "jsonl"), ("status", ID)],
)
def test_a_pipe_that_is_closed_in_the_middle_is_no_error(arguments):
    read_end, write_end = os.pipe()
    os.close(read_end)
    script = dedent(LONG) + f"\nsys.argv = {['nvflare-logstream', *arguments]}\nmain.main()\n"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60)
    os.close(write_end)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Code:" not in done.stderr


def test_a_pipe_is_never_paged():
    done = in_a_process(LONG, "logs", ID, "--site", "all", PAGER="tr a-z A-Z", TERM="xterm")
    assert "site-2" in done.stdout and "SITE-2" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("status", ID, "--watch"), ("export", ID, "-o", "{directory}"), ("demo",)],
    ids=lambda words: words[0],
)
def test_nothing_of_others_stands_above_what_is_refreshed_in_place(arguments, tmp_path):
    """Rich shows there what a process prints meanwhile."""
    code = f"""{LONG}
    noisy = hostile_port()
    answers = noisy.answers.copy()

    def noise(name):
        def answer(request):
            print("NOISE")
            print("NOISE", file=sys.stderr)
            return answers[name](request)
        return answer

    noisy.answers.update({{name: noise(name) for name in answers}})
    Runtime.open_client = staticmethod(lambda *access: noisy.client)

    class Demo:
        def __init__(self, root, sites, console):
            self.console = console
        def run(self):
            with self.console.status("busy"):
                print("NOISE")
            return True
        def stop(self):
            print("NOISE")

    class Lab:
        pass

    Lab.Demo = Demo
    sys.modules["nvflare_logstream.lab.demo"] = Lab
    """
    words = [word.format(directory=tmp_path / "export") for word in arguments]
    code, shown = on_a_terminal(code, *words)
    assert code in (0, 1) and shown and "NOISE" not in shown


# -- narrow screens ------------------------------------------------------------------------------------------


def test_status_of_a_job_without_logs_says_so_instead_of_showing_an_empty_table():
    screen = Screen(width=80)
    screen.file = StringIO()
    screen.print(view(JobStreams(ID, "SUBMITTED", (), 1e9), None))
    assert screen.file.getvalue().splitlines() == [f"job {ID}: SUBMITTED", "no log to show"]


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_status_keeps_its_figures_whole_and_leaves_columns_out(columns):
    key = StreamKey(ID, "university-hospital", "error_log.txt")
    stream = Stream(key, end=1_234_567_890, lines=8_100_000, state=State.CLOSED, agreed=True, last_seen=1e9)
    screen = Screen(width=columns)
    screen.file = StringIO()
    screen.print(view(JobStreams(ID, "RUNNING", (stream,), 1e9), None))
    shown = screen.file.getvalue()
    assert max(map(len, shown.splitlines())) <= columns and "…" not in shown
    assert all(word in shown for word in ("university-hospital", "error_log.txt", "complete"))
    row = next(line for line in shown.splitlines() if "complete" in line).split()
    assert row[3:] == [
        figure
        for name, figure in (
            ("bytes", "1,234,567,890"),
            ("lines", "8,100,000"),
            ("rate", "1.2 GB/s"),
            ("seen", ""),
        )
        if f" {name}" in shown
        for figure in (figure or row[-1]).split()
    ]
    assert ("rate" in shown) is (columns == 120)


@pytest.mark.parametrize("columns", [50, 100])
@pytest.mark.parametrize("pager", ["tr a-z A-Z", ""])
def test_a_table_is_as_wide_as_the_terminal_whatever_stands_between(columns, pager):
    """Also when the process's own descriptors are no terminal, as those of a command are."""
    code, shown = on_a_terminal(LONG, "status", ID, columns=columns, PAGER=pager)
    widths = [line.count("─") for line in shown.splitlines()]  # of the rule below the columns' names
    assert code == 0 and columns - 25 < max(widths) <= columns
