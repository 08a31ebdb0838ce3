"""The command line without a server: arguments, help, schemas, and what becomes of errors."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream import __version__
from nvflare_logstream.cli.main import _COMMANDS, _application, run
from nvflare_logstream.cli.options import Access
from nvflare_logstream.errors import ErrorCode, LostContactError, RetrievalError
from nvflare_logstream.flare import admin_session


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Help is as wide as its longest example."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("NVFLARE_LOGSTREAM_DEBUG", raising=False)


def refuse(capsys, *arguments: str) -> str:
    """What a person is told of wrong arguments: a few lines, what is wrong first; nothing on stdout."""
    assert run(arguments) == 4
    said = capsys.readouterr()
    assert not said.out and "Traceback" not in said.err
    assert said.err.index("\nUsage: nvflare-logstream") < said.err.rindex("\nHint: ")
    assert len(said.err.splitlines()) <= 5
    assert re.search(r"\nHint: .*--help.*\nCode: INVALID_ARGS \(exit 4\)\n$", said.err)
    return said.err.splitlines()[0]


def envelope(capsys) -> dict[str, Any]:
    """The one JSON document on stdout, with nothing on stderr."""
    said = capsys.readouterr()
    assert not said.err and said.out.count("\n") == 1
    found: dict[str, Any] = json.loads(said.out)
    return found


# -- help, version, schema -----------------------------------------------------------------------------------


def test_no_arguments_ask_for_help(capsys):
    assert run([]) == 0
    shown = capsys.readouterr()
    assert all(command in shown.out for command in _COMMANDS) and not shown.err


def test_the_version_is_that_of_the_package(capsys):
    assert run(["--version"]) == 0 and capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_of_a_command_shows_each_of_its_examples(capsys, command):
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr()
    assert not shown.err and f"Usage: nvflare-logstream {command}" in shown.out
    for example in import_module(f"nvflare_logstream.cli.{command}").EXAMPLES:
        assert example in shown.out


@pytest.mark.parametrize("extra", [(), ("--format", "text"), ("anything",)])
@pytest.mark.parametrize("command", _COMMANDS)
def test_a_schema_is_json_and_needs_neither_a_job_nor_a_server(capsys, command, extra):
    assert run([command, *extra, "--schema"]) == 0
    schema = envelope(capsys)
    assert (
        schema["schema_version"] == "1"
        and schema["command"] == f"nvflare-logstream {command}"
        and schema["description"]
    )
    assert schema["examples"] == list(import_module(f"nvflare_logstream.cli.{command}").EXAMPLES)
    assert {"name", "type", "required", "description", "default"} <= set.intersection(
        *(set(entry) for entry in schema["args"])
    )


@pytest.mark.parametrize("command", _COMMANDS)
def test_a_schema_names_the_options_that_help_names(capsys, command):
    run([command, "--schema"])
    entries = envelope(capsys)["args"]
    named = {
        name
        for entry in entries
        for name in (entry["name"], *entry.get("aliases", ()))
        if name.startswith("--")
    }
    run([command, "--help"])
    options = re.findall(r"^  (-[^ ]*(?:,? /? ?--[a-z-]+)*)", capsys.readouterr().out, re.M)
    shown = {name for row in options for name in re.findall(r"--[a-z-]+", row) if name != "--no-prefix"}
    assert shown - {"--help"} <= named and shown


def options_of(command: str) -> list[Any]:
    """What the command itself takes, as the library that reads the arguments knows it."""
    return [entry for entry in _application(command).params if entry.name != "help"]


@pytest.mark.parametrize("command", _COMMANDS)
def test_a_schema_is_what_the_command_takes(capsys, command):
    """Names, also those that take an option back; what has to be there, and what may come again."""
    run([command, "--schema"])
    entries = envelope(capsys)["args"]
    assert len(entries) == len(options_of(command))
    for entry, option in zip(entries, options_of(command), strict=True):
        positional = option.param_type_name == "argument"
        names = [entry["name"], *entry.get("aliases", ())]
        assert entry["required"] is option.required
        assert positional is not entry["name"].startswith("-")
        assert positional or set(names) == set(option.opts)
        assert entry.get("negations", []) == getattr(option, "secondary_opts", [])
        assert entry.get("repeatable", False) is option.multiple
        several = ("+" if option.required else "*") if option.nargs == -1 else None
        assert entry.get("nargs") == (several or ("?" if positional and not option.required else None))
        assert (entry["type"] == "boolean") is bool(getattr(option, "is_flag", False))
        choices = option.type_descriptor.choices
        assert entry.get("choices", []) == [member.value for member in choices or ()]


@pytest.mark.parametrize("command", _COMMANDS)
def test_a_schema_names_the_formats_that_the_command_takes(capsys, monkeypatch, tmp_path, command):
    run([command, "--schema"])
    schema = envelope(capsys)
    assert schema["streaming"] is ("jsonl" in schema["output_modes"])
    if command in ("demo", "completion"):  # nothing for programs
        assert schema["output_modes"] == ["text"]
        return
    wanted = {
        "export": ["8f3c", "-o", str(tmp_path)],
        "repair": [str(tmp_path / "none")],
        "server": [],
        "setup": [str(tmp_path / "none")],
        "doctor": [],
        "templates": [],
    }
    for form in ("text", "json", "jsonl"):
        error = RetrievalError(ErrorCode.JOB_NOT_FOUND, "no such job")
        code = run_with(monkeypatch, error, *wanted.get(command, ["8f3c"]), "--format", form, command=command)
        said = capsys.readouterr()
        assert (code == 4) is (form not in schema["output_modes"]), said


def test_what_looks_like_a_wish_for_the_schema_may_be_a_value(capsys, monkeypatch):
    error = RetrievalError(ErrorCode.JOB_NOT_FOUND, "no such job")
    assert run_with(monkeypatch, error, "--grep", "--schema") == 1
    assert capsys.readouterr().err.startswith("no such job\n")


# -- wrong arguments -----------------------------------------------------------------------------------------

WRONG = [
    (("lgos", "x"), "lgos", "No such command: lgos. Did you mean logs?"),
    (("get", "logs", "8f3c"), "get", "No such command: get. Did you mean logs?"),
    (("tree",), "tree", "No such command: tree. The commands are logs, status, export, verify, "),
    (("--verison",), "--verison", "No such option: --verison. Did you mean --version?"),
    (("logs",), "JOB_ID", "Missing argument 'JOB_ID'. `nvflare-logstream status` lists the jobs"),
    (("export", "-o", "x"), "JOB_ID", "Missing argument 'JOB_ID'. `nvflare-logstream status` lists the jobs"),
    (
        ("logs", "8f3c", "site-1"),
        "(site-1)",
        "unexpected extra argument(s) (site-1); did you mean --site site-1?",
    ),
    (("status", "8f3c", "a", "b"), "(a b)", "unexpected extra argument(s) (a b); did you mean --site a?"),
    (("export", "8f3c", "extra", "-o", "x"), "extra", "unexpected extra argument(s) (extra)"),
    (("logs", "8f3c", "--frob"), "--frob", "No such option: --frob"),
    (("logs", "8f3c", "--tial", "5"), "--tial", "No such option: --tial. Did you mean --tail?"),
    (("logs", "8f3c", "-tail=5"), "-t", "No such option: -t. Did you mean --tail?"),
    (("logs", "8f3c", "--tail"), "--tail", "requires an argument"),
    (("logs", "8f3c", "--tail", "-2"), "--tail", "'-2' is not allowed; a whole number from 0 on"),
    (("logs", "8f3c", "--tail", "²"), "--tail", "'²' is not allowed; a whole number from 0 on"),
    (("logs", "8f3c", "--tail", "9" * 16), "--tail", "is not allowed; a whole number from 0 on"),
    (("logs", "8f3c", "--max-bytes", "1k"), "--max-bytes", "'1k' is not allowed; a whole number from 0 on"),
    (("logs", "8f3c", "-g", "x", "-C", "1.5"), "--context", "'1.5' is not allowed; a whole number from 0 on"),
    (
        ("logs", "8f3c", "-g", "x", "-A", "1001"),
        "after",
        "1001 is not allowed; a whole number from 0 to 1000",
    ),
    (("logs", "8f3c", "--since", "noon"), "since", "'noon' is not allowed; a time such as"),
    (("logs", "8f3c", "--until", ""), "until", "'' is not allowed; a time such as"),
    (("logs", "8f3c", "--level", "loud"), "level", "'LOUD' is not allowed; one of DEBUG, INFO"),
    (("logs", "8f3c", "--grep", "(("), "grep", "'((' is not allowed; a pattern in RE2 syntax"),
    (("logs", "8f3c", "--site", ""), "sites", "'' is not allowed; a site's name"),
    (("logs", "8f3c", "--file", "../x"), "file", "'../x' is not allowed; a plain name"),
    (("logs", "8f3c", "--color", "red"), "--color", "'red' is not one of 'auto', 'always', 'never'"),
    (("logs", "8f3c", "--format", "xml"), "--format", "'xml' is not one of 'text', 'json', 'jsonl'"),
    (
        ("logs", "8f3c", "--connect-timeout", "0"),
        "--connect-timeout",
        "'0' is not allowed; a number of seconds from 0.1 to 3600",
    ),
    (
        ("logs", "8f3c", "--connect-timeout", "nan"),
        "--connect-timeout",
        "'nan' is not allowed; a number of seconds",
    ),
    (
        ("status", "8f3c", "--interval", "x"),
        "--interval",
        "'x' is not allowed; a number of seconds from 0.1 to 3600",
    ),
    (("export", "8f3c"), "--output", "Missing option"),
    (("verify",), "JOB_ID|DIR", "Missing argument"),
]
CONTRADICTIONS = [
    (("logs", "8f3c", "--merge", "-o", "x"), "--merge", "--output"),
    (("logs", "8f3c", "--kit-id", "a", "--startup-kit", "b"), "--kit-id", "--startup-kit"),
    (("status", "8f3c", "--kit-id", "a", "--startup-kit", "b"), "--kit-id", "--startup-kit"),
    (("export", "8f3c", "-o", "x", "--kit-id", "a", "--startup-kit", "b"), "--kit-id", "--startup-kit"),
    (("verify", "8f3c", "--kit-id", "a", "--startup-kit", "b"), "--kit-id", "--startup-kit"),
    (("logs", "8f3c", "--invert"), "--invert", "add --grep"),
    (("logs", "8f3c", "--ignore-case"), "--ignore-case", "add --grep"),
    (("logs", "8f3c", "--before", "1"), "--before", "add --grep"),
    (("logs", "8f3c", "--after", "1"), "--after", "add --grep"),
    (("logs", "8f3c", "--context", "1"), "--context", "add --grep"),
]
OF_FORMATS = [
    (("logs", "8f3c", "--follow", "--format", "json"), "--follow with --format json", "use jsonl"),
    (("logs", "8f3c", "--merge", "--format", "json"), "--merge with --format json", "use text or jsonl"),
    (
        ("logs", "8f3c", "--output", "x", "--format", "jsonl"),
        "--output with --format jsonl",
        "use text or json",
    ),
    (("status", "8f3c", "--watch", "--format", "json"), "--watch with --format json", "use jsonl"),
    (("export", "8f3c", "-o", "x", "--format", "jsonl"), "'--format': 'jsonl'", "one of 'text', 'json'"),
    (("verify", "8f3c", "--format", "jsonl"), "'--format': 'jsonl'", "one of 'text', 'json'"),
    (("repair", "store", "--format", "jsonl"), "'--format': 'jsonl'", "one of 'text', 'json'"),
]


@pytest.mark.parametrize(
    ("arguments", "option", "allowed"), WRONG + CONTRADICTIONS, ids=lambda value: str(value)[:40]
)
def test_a_person_reads_first_the_option_its_value_and_what_is_allowed(capsys, arguments, option, allowed):
    said = refuse(capsys, *arguments)
    assert option in said and allowed in said


def test_an_option_behind_two_dashes_is_taken_for_no_site(capsys):
    said = refuse(capsys, "logs", "8f3c", "--", "--tail", "3")
    assert "extra argument(s) (--tail 3)" in said and "did you mean" not in said


@pytest.mark.parametrize(
    "form", [("--format", "json"), ("--format=json",), ("--format", "jsonl")], ids=" ".join
)
@pytest.mark.parametrize(
    ("arguments", "option", "allowed"),
    [case for case in WRONG + CONTRADICTIONS if "--format" not in case[0] and case[0][0] in ("logs", "lgos")],
    ids=lambda value: str(value)[:40],
)
def test_a_program_reads_one_envelope_and_nothing_else(capsys, arguments, option, allowed, form):
    assert run([arguments[0], *form, *arguments[1:]]) == 4
    found = envelope(capsys)
    assert (found["status"], found["exit_code"], found["error_code"]) == (
        "error",
        4,
        "INVALID_ARGS",
    ) and found["hint"]
    assert option in found["message"] and allowed in found["message"]
    assert found.get("terminal", False) is ("jsonl" in form)


@pytest.mark.parametrize(("arguments", "what", "instead"), OF_FORMATS, ids=lambda value: str(value)[:40])
def test_an_answer_that_a_format_cannot_hold_is_refused_in_that_format(capsys, arguments, what, instead):
    assert run(arguments) == 4
    found = envelope(capsys)
    assert what in found["message"] and instead in found["message"] and found["error_code"] == "INVALID_ARGS"


# -- other ends ----------------------------------------------------------------------------------------------


def run_with(monkeypatch, error: BaseException, *extra: str, command: str = "logs") -> int:
    """Run a command whose login fails like this."""

    def fail(access: Access) -> None:
        raise error

    monkeypatch.setattr(Access, "client", fail)
    return run([command, *(["8f3c"] if command == "logs" and extra[:1] != ("8f3c",) else []), *extra])


def test_a_bug_of_ours_is_an_internal_error_without_a_traceback(capsys, monkeypatch):
    assert run_with(monkeypatch, ZeroDivisionError("division by zero")) == 5
    said = capsys.readouterr()
    assert not said.out and "Traceback" not in said.err
    assert said.err.splitlines()[0] == "ZeroDivisionError: division by zero"
    assert (
        "Hint: This is likely a bug; please report it" in said.err
        and "Code: INTERNAL_ERROR (exit 5)" in said.err
    )


def test_a_bug_of_ours_is_one_envelope_for_a_program(capsys, monkeypatch):
    assert run_with(monkeypatch, ZeroDivisionError("division by zero"), "--format=json") == 5
    found = envelope(capsys)
    assert (found["error_code"], found["exit_code"], found["message"]) == (
        "INTERNAL_ERROR",
        5,
        "ZeroDivisionError: division by zero",
    )


def test_a_bug_of_ours_is_raised_for_whoever_looks_for_it(monkeypatch):
    monkeypatch.setenv("NVFLARE_LOGSTREAM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, ZeroDivisionError())


def test_an_interruption_is_quiet(capsys, monkeypatch):
    assert run_with(monkeypatch, KeyboardInterrupt()) == 130
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("JOB_NOT_FOUND", 1), ("LOG_NOT_FOUND", 1), ("NO_RECEIVER", 1), ("OUTPUT_DIR_EXISTS", 1),
        ("AUTH_FAILED", 2), ("CONNECTION_FAILED", 2), ("STARTUP_KIT_MISSING", 2), ("TIMEOUT", 3),
        ("INVALID_ARGS", 4), ("INTERNAL_ERROR", 5),
    ],
)  # fmt: skip
def test_an_errors_code_decides_the_exit_code(capsys, monkeypatch, code, exit_code):
    error = RetrievalError(ErrorCode(code), "what happened", "what to do")
    assert run_with(monkeypatch, error) == exit_code
    assert capsys.readouterr().err == f"what happened\nHint: what to do\nCode: {code} (exit {exit_code})\n"
    error = RetrievalError(ErrorCode(code), "what happened")
    assert run_with(monkeypatch, error, "--format", "jsonl") == exit_code
    found = envelope(capsys)
    assert found["error_code"] == code and found["event"] == "terminal" and found["terminal"] is True


class Connection:
    """A client whose job lookup fails like this."""

    def __init__(self, error: BaseException):
        self.error, self.closed = error, False

    def find_job(self, text: str) -> str:
        raise self.error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("error", "exit_code", "closed"),
    [
        (RetrievalError(ErrorCode.JOB_NOT_FOUND, "no such job"), 1, True),
        (LostContactError(ErrorCode.CONNECTION_FAILED, "gone"), 2, False),
        (LostContactError(ErrorCode.TIMEOUT, "no answer"), 3, False),
        (ZeroDivisionError(), 5, True),
        (BrokenPipeError(), 0, True),  # of our own output, whose reader has had enough
        (KeyboardInterrupt(), 130, False),
    ],
    ids=repr,
)
def test_a_session_is_ended_unless_that_could_wait_for_a_frozen_server(monkeypatch, error, exit_code, closed):
    connection = Connection(error)
    monkeypatch.setattr(admin_session, "open_client", lambda *access: connection)
    with Path(os.devnull).open("w") as stdout:  # it is closed for good where its reader has gone
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run(["status", "8f3c"]) == exit_code
    gc.unfreeze()
    assert connection.closed is closed


@pytest.mark.parametrize(
    "arguments", [["--help"], ["logs", "--help"], ["logs", "--schema"], ["--version"]], ids=" ".join
)
def test_a_reader_that_has_had_enough_is_no_error(arguments):
    """As with `| head -1`: the pipe is closed before all is written."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "nvflare_logstream.cli.main", *arguments]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_no_bug_of_ours():
    for options in ([], ["--format", "json"]):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "nvflare_logstream.cli.main", "logs", "--schema", *options]
            run = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
            )
        assert (
            run.returncode == 1
            and "cannot write the output: No space left" in run.stderr
            and "Traceback" not in run.stderr
        )


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EAGAIN, errno.EBADF]
)
def test_an_output_that_takes_no_more_is_said_to_be_so(capsys, monkeypatch, number):
    assert run_with(monkeypatch, OSError(number, os.strerror(number))) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"cannot write the output: {os.strerror(number)}\n")
    assert "Code: OUTPUT_NOT_WRITABLE (exit 1)" in said


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/kit/startup/client.key"),
        OSError(errno.EIO, "Input/output error", "/kit/startup/client.key"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),  # the working directory was removed
        OSError(errno.EMFILE, "Too many open files"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        OSError("cannot identify the terminal"),
    ],
    ids=str,
)
def test_what_is_not_about_the_output_is_not_said_to_be(capsys, monkeypatch, error):
    assert run_with(monkeypatch, error) == 5
    said = capsys.readouterr().err
    assert said.startswith(f"{type(error).__name__}: {error}\n")
    assert "output: " not in said and "Is there room" not in said


def test_what_is_not_about_the_output_is_raised_for_whoever_looks_for_it():
    code = """
import sys
from nvflare_logstream.cli import main, options

def fail(access):
    raise PermissionError(13, "Permission denied", "/kit/client.key")

options.Access.client = fail
sys.argv = ["nvflare-logstream", "status", "8f3c"]
main.main()
"""
    environment = {**os.environ, "NVFLARE_LOGSTREAM_DEBUG": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1 and "output: " not in run.stderr
    assert run.stderr.startswith("Traceback") and "'/kit/client.key'" in run.stderr


def test_a_closed_stdout_is_nobody_who_listens():
    command = f"{sys.executable} -m nvflare_logstream.cli.main --version >&-"
    run = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
