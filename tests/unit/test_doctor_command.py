"""`nvflare-logstream doctor`: whom it asks, what it shows, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nvflare_logstream.cli.main import run
from nvflare_logstream.cli.options import Access
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.deploy import doctor as doctors
from nvflare_logstream.errors import ErrorCode, LostContactError, RetrievalError
from nvflare_logstream.wire.server_status import Disk, ServerStatus, StreamCounts
from nvflare_logstream.wire.standing import Standing
from tests.unit.doctor_world import FITS, STOCK, STREAMER, found, make

NOW = 1_800_000_000.0
ANSWER = ServerStatus(
    "0.2.0",
    "2.9.0",
    1,
    1,
    NOW,
    7200.0,
    StreamCounts(),
    0,
    0.0,
    0.0,
    Disk(),
    standings=(
        Standing("site-1", NOW - 60, 1, 1, True, "0.2.0", "2.8.3", 1),
        Standing("site-2", NOW - 1, 0, 0, True, "0.2.0", "2.9.0", 1),
    ),
)


@pytest.fixture
def ask(monkeypatch, capsys):
    """Run the command; the server answers, by the kit that asks, or with an error. Kits' Pythons fit."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("nvflare_logstream.cli.doctor.time.time", lambda: NOW)
    monkeypatch.setattr(doctors.diagnose, "__defaults__", (lambda place, resources, interpreter: FITS,))
    monkeypatch.setattr("nvflare_logstream.deploy.check_machine._OPEN_FILES", {"server": 1, "client": 1})

    def ask(*arguments, answers=None):
        asked = []

        class Port:
            def __init__(self, kit):
                self.kit = kit

            def server_status(self, seconds):
                return answers.get(self.kit, ANSWER) if answers else ANSWER

        @contextmanager
        def connected(self: Access) -> Iterator[LogClient]:
            kit = (self.startup_kit or "").rpartition("/")[2]
            asked.append(kit)
            error = (answers or {}).get(kit)
            if isinstance(error, Exception):
                raise error
            yield LogClient(Port(kit))  # type: ignore[arg-type]

        monkeypatch.setattr(Access, "client", connected)
        code = run(["doctor", *map(str, arguments)])
        return code, *capsys.readouterr(), asked

    return ask


def test_a_clean_set_up_is_a_line_a_place(tmp_path, ask):
    make(tmp_path / "server", "server")
    make(tmp_path / "site-1")
    code, out, err, asked = ask(tmp_path)
    lines = out.splitlines()
    assert (code, err, asked) == (0, "", []), "without an admin's kit nobody is asked"
    assert len(lines) == 3 and lines[2] == "nothing is wrong"
    assert lines[0].startswith("✓ server: nvflare_logstream 0.2.0, protocol 1, nvflare 2.9.0, Python 3.11.7")
    assert lines[1].startswith("✓ site-1: ")


def test_what_is_wrong_stands_below_its_place_with_what_to_do(tmp_path, ask):
    make(tmp_path / "site-1", "client", STREAMER, STOCK, allow_log_streaming=False)
    make(tmp_path / "site-2", allow_log_streaming=False)
    code, out, _, _ = ask(tmp_path)
    lines = [line.rstrip() for line in out.splitlines()]
    assert code == 1 and lines[0].startswith("✗ site-1: nvflare_logstream 0.2.0")
    assert lines[1].startswith("  ✗ resources.json.default lists nvflare.app_common.logging.")
    assert lines[2].startswith("  → remove the runtime's own; `nvflare-logstream setup ")
    assert lines[3] == "  ! no job log leaves this site: allow_log_streaming is false"
    assert lines[5].startswith("! site-2: ") and lines[-1] == "1 error, 2 warnings"
    code, out, _, _ = ask(tmp_path / "site-2")
    assert code == 0 and out.splitlines()[-1] == "1 warning", "a warning is no error"


def test_a_program_gets_one_envelope_with_everything(tmp_path, ask):
    make(tmp_path / "site-1", "client", STOCK)
    code, out, err, _ = ask(tmp_path, "--format", "json")
    answer = json.loads(out)
    assert (code, err, answer["exit_code"], answer["status"]) == (1, "", 1, "ok")
    assert (answer["data"]["errors"], answer["data"]["warnings"]) == (1, 0)
    wrong = [row for row in answer["data"]["findings"] if row["severity"] != "ok"]
    assert [set(row) for row in wrong] == [{"place", "check", "severity", "text", "advice"}]
    assert len(answer["data"]["findings"]) > 1, "also what is right"


def test_without_a_directory_the_server_is_asked_with_the_active_kit(ask):
    code, out, _, asked = ask()
    assert (code, asked) == (1, [""])
    assert [line.rstrip() for line in out.splitlines() if "silent since" not in line] == [
        "✓ server: nvflare_logstream 0.2.0, protocol 1, nvflare 2.9.0; up for 2 h",
        "✗ site-1: nvflare_logstream 0.2.0, protocol 1, nvflare 2.8.3",
        "  → look whether the site runs, and into its log.txt",
        "✓ site-2: nvflare_logstream 0.2.0, protocol 1, nvflare 2.9.0; heard of 1 s ago",
        "1 error",
    ]


def test_an_admins_kit_among_the_directories_asks_until_the_server_names_its_sites(tmp_path, ask):
    for name in ("a-lead@x", "b-admin@x", "c-other@x"):
        make(tmp_path / name, "admin")
    make(tmp_path / "site-2")
    totals = ANSWER.without_names()
    code, out, _, asked = ask(tmp_path, answers={"a-lead@x": totals})
    assert (code, asked) == (1, ["a-lead@x", "b-admin@x"]) and "project admins only" not in out
    refused = RetrievalError(ErrorCode.AUTH_FAILED, "not allowed")
    _, out, _, asked = ask(tmp_path, answers={"a-lead@x": refused, "b-admin@x": totals, "c-other@x": refused})
    assert len(asked) == 3 and "project admins only" in out
    _, _, _, asked = ask(tmp_path / "site-2", "--startup-kit", tmp_path / "b-admin@x")
    assert asked == ["b-admin@x"]


def test_a_server_that_cannot_be_asked_is_a_warning_beside_other_findings_else_an_error(tmp_path, ask):
    make(tmp_path / "admin@x", "admin")
    make(tmp_path / "site-1")
    gone = LostContactError(ErrorCode.CONNECTION_FAILED, "no connection", "Is the server up?")
    code, out, _, _ = ask(tmp_path, answers={"admin@x": gone})
    assert code == 0 and "! admin@x\n  ! the server could not be asked: no connection" in out
    assert "→ Is the server up?" in out
    code, out, _, _ = ask(tmp_path / "admin@x", answers={"admin@x": gone})
    assert code == 1 and "✗ the server could not be asked" in out
    code, out, err, _ = ask(answers={"": gone})
    assert code == 2 and not out and "no connection" in err


@pytest.mark.parametrize("option", ["--startup-kit", "--kit-id"])
def test_what_was_found_is_shown_also_if_the_server_named_by_an_option_cannot_be_asked(tmp_path, ask, option):
    make(tmp_path / "site-1", "client", STOCK)
    gone = LostContactError(ErrorCode.CONNECTION_FAILED, "no connection", "Is the server up?")
    kit = "admin@x" if option == "--startup-kit" else ""
    code, out, err, asked = ask(tmp_path, option, "admin@x", answers={kit: gone})
    assert (code, err, asked) == (1, "", [kit])
    assert "no component is nvflare_logstream.SiteLogStreamer" in out
    assert "✗ admin@x\n  ✗ the server could not be asked: no connection" in out


def test_where_there_is_nothing_to_look_at_it_is_said_what_may_be_named(ask):
    missing = RetrievalError(ErrorCode.STARTUP_KIT_MISSING, "no active kit", "run nvflare config")
    code, out, err, _ = ask(answers={"": missing})
    assert (code, out) == (2, "") and "nothing to look at: no DIR, and no active kit" in err
    assert "Hint: Name a start-up kit's or workspace's directory" in err
    code, _, err, _ = ask("--startup-kit", "x", answers={"x": missing})
    assert code == 2 and "run nvflare config" in err


def test_a_directory_that_is_no_kit_is_refused(tmp_path, ask):
    code, out, err, asked = ask(tmp_path)
    assert (code, out, asked) == (2, "", []) and "neither a start-up kit" in err


def test_two_kits_of_one_name_are_both_shown(tmp_path, ask):
    """Two federations on one machine: what is wrong at one is not said of the other."""
    right = make(tmp_path / "one" / "site-1")
    wrong = make(tmp_path / "other" / "site-1", "client", STREAMER, STOCK)
    code, out, _, _ = ask(right, wrong, "--format", "json")
    findings = json.loads(out)["data"]["findings"]
    assert code == 1 and {finding["place"] for finding in findings} == {
        f"site-1 ({right})",
        f"site-1 ({wrong})",
    }
    bad = {finding["place"] for finding in findings if finding["severity"] == "error"}
    assert bad == {f"site-1 ({wrong})"}


def test_a_damaged_kit_is_a_finding_and_the_others_are_looked_at(tmp_path, ask):
    make(tmp_path / "site-1")
    (make(tmp_path / "site-2") / "startup" / "fed_client.json").unlink()
    code, out, _, _ = ask(tmp_path)
    assert code == 1 and "✓ site-1" in out and "✗ site-2" in out and "it holds no startup" in out


def test_a_kit_named_twice_is_looked_at_once(tmp_path, ask):
    make(tmp_path / "site-1")
    _, out, _, _ = ask(tmp_path, tmp_path / "site-1", tmp_path / "site-1" / "local")
    assert out.count("site-1: ") == 1


def test_nothing_in_a_kit_can_move_the_terminal(tmp_path, ask):
    hostile = {**STOCK, "path": "nvflare.app_common.logging.\x1b]0;x\x07.SiteLogStreamer\nroot#"}
    make(tmp_path / "site-1", "client", STREAMER, hostile, **{"allow_log_steaming\x1b[2J\n": 1})
    assert found(tmp_path)
    _, out, err, _ = ask(tmp_path)
    assert "\x1b" not in out + err and "\nroot#" not in out


def test_a_long_text_folds_where_the_screen_is_narrow(tmp_path, ask, monkeypatch):
    monkeypatch.setattr("nvflare_logstream.cli.screen._WIDE", 60)
    make(tmp_path / "site-1", "client", STREAMER, STOCK)
    _, out, _, _ = ask(tmp_path)
    assert max(map(len, out.splitlines())) <= 60 and "does it" in out.replace("\n", "")
