"""What a shell is offered while a command is typed: it comes soon, and it is all that is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from nvflare_logstream.cli import COMPLETING, PROGRAM, ask_server, complete
from nvflare_logstream.cli.main import run
from nvflare_logstream.cli.options import Access
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.streams import Stream, StreamKey, Verdict
from nvflare_logstream.wire.job_list import JobList, ListedJob, SiteVerdict

A, B = (f"{letter * 8}-1111-2222-3333-444455556666" for letter in "ab")
NOBODY = {"study": None, "kit_id": None, "startup_kit": None}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NVFLARE_STARTUP_KIT_DIR", raising=False)
    return tmp_path / "cache" / PROGRAM


@pytest.fixture
def server(monkeypatch):
    """A server that knows two jobs; every question that reaches it is noted."""
    asked: list[str] = []
    odd = "a'b $(reboot)"

    class Client:
        def jobs(self, question):
            asked.append("jobs")
            sites = tuple(SiteVerdict(site, Verdict.COMPLETE, 1) for site in ("server", "site-1", odd))
            return JobList((ListedJob(A, "tr`ain'", "RUNNING", sites=sites), ListedJob(B)))

        def find_job(self, text):
            if text != "aaaa":
                raise RetrievalError(ErrorCode.JOB_NOT_FOUND, "none")
            return A

        def streams(self, job_id):
            asked.append(job_id)
            names = [("site-2", "log.txt"), ("site-2", "train.log"), ("server", "log.txt")]
            return [Stream(StreamKey(job_id, *name)) for name in names]

    @contextmanager
    def client(access):
        yield Client()

    monkeypatch.setattr(Access, "client", client)

    class Process:
        """Asks at once, in this process."""

        def __init__(self, command: list[str], **settings: Any):
            assert settings["stdout"] is settings["stderr"] is subprocess.DEVNULL
            ask_server.ask(json.loads(command[-1]))

        def wait(self, seconds: float) -> None:
            pass

    monkeypatch.setattr(complete, "Popen", Process)
    return asked


def context(job: str = "", **params: str) -> Any:
    return SimpleNamespace(params={**NOBODY, "job": job, **params}, obj=None)


def offered(what: str, ctx: Any, incomplete: str) -> list[str]:
    return [name for name, _ in getattr(complete, what)(ctx, incomplete)]


# -- what is offered -----------------------------------------------------------------------------------------


def test_jobs_are_offered_newest_first_with_what_tells_them_apart(server):
    assert list(complete.jobs(context(), "")) == [
        (A, "RUNNING train"),
        (B, " "),
        ("@latest", "the job that was submitted last"),
    ]
    assert offered("jobs", context(), "b") == [B] and offered("jobs", context(), "x") == []
    assert offered("jobs", context(), "@l") == ["@latest"]


def test_sites_and_files_are_those_of_the_job(server):
    assert offered("sites", context("aaaa"), "") == ["server", "site-2", "all"]
    assert offered("sites", context("aaaa"), "site-2,s") == ["site-2,server", "site-2,site-2"]
    assert offered("files", context("aaaa"), "") == ["log.txt", "train.log"]
    assert server == [A], "asked once"


def test_without_a_job_the_sites_of_all_are_offered_and_the_usual_files(server):
    assert offered("sites", context(), "") == ["server", "site-1", "all"], "no name that a shell would run"
    assert offered("files", context(), "e") == ["error_log.txt"]


def test_an_answer_is_kept_for_some_seconds_for_who_asked(server, cache):
    for _ in range(3):
        offered("jobs", context(), "")
    assert server == ["jobs"]
    assert offered("jobs", context(study="other"), "") and server == ["jobs"] * 2
    for path in cache.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        os.utime(path, (time.time() - 60, time.time() - 60))
    offered("jobs", context(), "")
    assert server == ["jobs"] * 3 and len(list(cache.iterdir())) == 1, "what is old is removed"
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_server_that_says_no_is_not_asked_at_every_key(server, monkeypatch):
    assert offered("sites", context("zzzz"), "") == ["all"]
    monkeypatch.setattr(complete, "Popen", lambda *args, **settings: pytest.fail("asked again"))
    assert offered("sites", context("zzzz"), "") == ["all"]


def test_a_slow_server_is_answered_without(server, monkeypatch):
    class Slow:
        def __init__(self, command, **settings):
            assert settings["start_new_session"], "it goes on when we are done"

        def wait(self, seconds):
            assert seconds <= 5
            raise subprocess.TimeoutExpired("x", seconds)

    monkeypatch.setattr(complete, "Popen", Slow)
    assert offered("jobs", context(), "") == ["@latest"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"jobs": 3}', '{"jobs": [[1, 2]], "sites": [], "files": []}']
)
def test_a_damaged_file_is_as_none(server, cache, content):
    offered("jobs", context(), "")
    (path,) = cache.iterdir()
    path.write_text(content)
    assert offered("jobs", context(), "")[-1] == "@latest"


def test_where_no_file_can_be_written_nothing_is_offered(server, cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/x")
    assert offered("jobs", context(), "") == ["@latest"]


# -- through a shell -----------------------------------------------------------------------------------------


def typed(*words: str, **environment: str) -> tuple[int, list[str], str]:
    """What bash gets to hear when Tab is pressed behind these words."""
    asking = {
        COMPLETING: "complete_bash",
        "COMP_WORDS": "\n".join(["nvflare-logstream", *words]),
        "COMP_CWORD": str(len(words)),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-m", "nvflare_logstream.cli.main"],
        env={**os.environ, **asking},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.split(), done.stderr


def test_commands_options_and_choices_are_offered():
    assert typed("lo") == (0, ["logs"], "")
    assert typed("logs", "--exclude-") == (0, ["--exclude-site"], "")
    assert typed("status", "--verdict", "n") == (0, ["never-seen"], "")


def test_what_bash_takes_apart_is_put_together(server):
    ask_server.ask({**NOBODY, "study": "default", "job": "aaaa"})
    for words in (["--site", "=", "si"], ["--site", "si"], ["--tail", "5", "--site", "si"]):
        assert typed("logs", "aaaa", *words) == (0, ["site-2"], "")


def test_without_a_start_up_kit_there_is_silence(tmp_path):
    code, offered, said = typed("logs", "", HOME=str(tmp_path))
    assert (code, offered, said) == (0, ["@latest"], "")


@pytest.mark.parametrize("environment", [{"COMP_CWORD": "x"}, {COMPLETING: "dance"}])
def test_a_question_that_is_none_is_answered_by_silence(environment):
    code, offered, said = typed("logs", **environment)
    assert code == 1 and not offered and not said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed_for_each_shell(capsys, shell):
    assert run(["completion", shell]) == 0
    said = capsys.readouterr()
    assert f"{COMPLETING}=complete_{shell}" in said.out and not said.err
