"""The options of `logs`, as a user types them: what is asked of the server, and what is refused before."""

from __future__ import annotations

import datetime
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from nvflare_logstream.cli import log_task
from nvflare_logstream.cli.main import run
from nvflare_logstream.cli.options import Access
from nvflare_logstream.client.query import LogQuery

ID = "8f3c0000-1111-2222-3333-444455556666"


@pytest.fixture
def asked(monkeypatch):
    """Run `logs` with options; gives the query that they make, as a client would get it."""
    tasks: list[Any] = []

    @contextmanager
    def client(access):
        yield SimpleNamespace(find_job=lambda text: ID)

    class Task(SimpleNamespace):
        def run(self, follow, merged):
            tasks.append(self)
            return 0

    def make(client, job_id, query, printer, form, default_tail):
        return Task(query=query, printer=printer, default_tail=default_tail)

    monkeypatch.setattr(Access, "client", client)
    monkeypatch.setattr(log_task, "LogTask", make)

    def ask(*options: str) -> LogQuery:
        assert run(["logs", ID, *options]) == 0
        task = tasks.pop()
        assert task.default_tail is (task.query.tail == 500)
        return task.query

    ask.follow = lambda *options: ask("-f", *options)
    return ask


@pytest.fixture
def refused(capsys):
    def refuse(*options: str) -> str:
        assert run(["logs", ID, *options]) == 4
        said = capsys.readouterr()
        assert not said.out and "Traceback" not in said.err
        return said.err

    return refuse


# -- how much ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["-1", "all", "ALL"])
def test_tail_takes_all_lines_as_kubectl_and_docker_do(asked, value):
    for options in (["--tail", value], [f"--tail={value}"], ["-n", value]):
        assert asked(*options).tail is None


def test_a_tail_is_a_number_of_lines_or_all(asked, refused):
    assert asked().tail == 500 and asked("--tail", "0").tail == 0 and asked("-n", "7").tail == 7
    for value in ("-2", "+5", "some", ""):
        assert f"{value!r} is not allowed; a whole number from 0 on, or all" in refused("--tail", value)


def test_the_first_lines(asked, refused):
    query = asked("--head", "20")
    assert (query.head, query.tail) == (20, None)
    assert "--head and --tail" in refused("--head", "1", "--tail", "1")
    assert "--head with --follow" in refused("--head", "1", "-f")
    assert asked("--head", "1", "--tail", "all").head == 1


# -- which lines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "level"),
    [
        ("warn", "WARNING"), ("Warning", "WARNING"), ("WARN", "WARNING"), ("err", "ERROR"),
        ("error", "ERROR"), ("fatal", "CRITICAL"), ("crit", "CRITICAL"), ("critical", "CRITICAL"),
        ("info", "INFO"), ("debug", "DEBUG"),
    ],
)  # fmt: skip
def test_a_level_by_the_names_that_people_know(asked, typed, level):
    assert asked("--level", typed).level == level


def test_every_pattern_counts(asked):
    assert asked("--grep", "one").grep == "one"
    query = asked("--grep", "one", "-e", "two", "-g", "three")
    assert query.grep == ("one", "two", "three")
    assert query.filters().grep == "(?:one)|(?:two)|(?:three)"


def test_each_pattern_is_looked_at_alone(refused):
    """`a)` and `(b` are wrong, though together they are a pattern."""
    assert "'a)' is not allowed; a pattern in RE2 syntax" in refused("-e", "x", "-e", "a)")
    assert "patterns of together at most 1000 characters" in refused("-e", "x" * 600, "-e", "y" * 600)


@pytest.mark.parametrize(
    ("patterns", "hits", "misses"),
    [
        ((r"\Qa.b", "c"), ["a.b", "c"], ["axb", "|"]),
        ((r"\Qa.b\E", "c"), ["a.b", "c"], ["axb"]),
        (("^a|b", "c$"), ["ax", "xb", "xc"], ["xa", "cx"]),
        (("(?i)a", "b"), ["A", "b"], ["B"]),
        (("", "b"), ["anything"], []),
    ],
)
def test_several_patterns_find_what_each_finds_alone(patterns, hits, misses):
    from nvflare_logstream.filters import Filters

    filters = LogQuery(grep=patterns).filters().for_site(None)
    assert all(map(filters.matches, hits)) and not any(map(filters.matches, misses))
    assert all(any(Filters(grep=alone).matches(hit) for alone in patterns) for hit in hits)


def test_the_letters_of_grep(asked, refused):
    query = asked("-e", "x", "-v", "-i", "-A", "1", "-B", "2", "-C", "3")
    assert (query.invert, query.ignore_case, query.before, query.after) == (True, True, 3, 3)
    assert asked("-e", "x", "--invert-match").invert
    assert "add --grep" in refused("-v") and "add --grep" in refused("-A", "1", "--exclude", "x")
    assert asked("-i", "--exclude", "x").ignore_case


def test_lines_are_left_out_as_with_stern(asked, refused):
    query = asked("--exclude", "heartbeat", "--exclude", "ping|pong")
    assert query.exclude == ("heartbeat", "ping|pong") and query.grep is None
    assert query.tail == 500
    assert "exclude: '((' is not allowed; a pattern in RE2 syntax" in refused("--exclude", "((")


def test_what_is_only_to_be_seen_changes_nothing_else(asked, refused):
    assert asked("--highlight", "loss", "-H", "epoch") == asked()
    assert asked("-i", "-H", "x").ignore_case
    assert "highlight: '((' is not allowed; a pattern in RE2 syntax" in refused("-H", "((")


# -- which sites and files -----------------------------------------------------------------------------------


def test_sites_with_commas_between(asked, refused):
    assert asked("--site", "site-1,site-2", "--site", "server").sites == ("site-1", "site-2", "server")
    assert asked("--site", "site-1, site-2").sites == ("site-1", "site-2")
    assert "sites: '' is not allowed" in refused("--site", "site-1,")


@pytest.mark.parametrize(
    "typed, sites",
    [
        ("ALL", ("all",)),
        ("All", ("all",)),
        ("Server,site-1", ("server", "site-1")),
        ("SERVER", ("server",)),
        ("*", ("*",)),
        ("Site-1", ("Site-1",)),
        ("ALLY", ("ALLY",)),
        ("[A]LL", ("[A]LL",)),
    ],
)
def test_all_and_server_are_words_in_capitals_too(asked, typed, sites):
    """A site's own name is told from another in other letters."""
    assert asked("--site", typed).sites == sites
    assert asked("--exclude-site", typed).exclude_sites == sites


def test_all_sites_but_some(asked):
    query = asked("--exclude-site", "site-1,x-*")
    assert (query.sites, query.exclude_sites) == (("all",), ("site-1", "x-*")), "all, not the server alone"
    assert asked("--site", "site-*", "--exclude-site", "site-1").sites == ("site-*",)


def test_a_json_answer_is_made_of_json_logs_where_there_are_any(asked, tmp_path):
    assert asked("--format", "json").prefer_json
    assert not asked("--format", "json", "--file", "log.txt").prefer_json
    assert not asked("--format", "jsonl").prefer_json and not asked().prefer_json
    assert not asked("--format", "json", "-o", str(tmp_path / "new")).prefer_json, "files are as the logs are"
    assert asked("--format", "json").file == "log.txt"


# -- from when to when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("1h", "2h"),
        ("now", "1m"),
        ("2026-04-28T10:00:01Z", "2026-04-28T10:00:00Z"),
        ("2026-04-28T10:00:01", "2026-04-28T10:00:00"),
        ("10:01", "10:00"),
        ("today", "yesterday"),
        ("1h", "1714298400"),
    ],
)
def test_a_window_that_ends_before_it_begins_is_refused(refused, since, until):
    said = refused("--since", since, "--until", until)
    assert f"since: {since!r} is not allowed; a time that is not after until, {until!r}" in said


def test_a_readers_own_clock_decides_nothing(asked):
    """By a clock that is wrong by an hour, this window would end before it begins."""
    ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=10)
    assert asked("--since", ago.isoformat(), "--until", "1h").until == "1h"


@pytest.mark.parametrize(
    ("since", "until"),
    [("2h", "1h"), ("today", "now"), ("10:00", "10:00"), ("2026-04-28T10:00:00", "1h"), ("1h", "1h")],
)
def test_a_window_that_may_hold_something_is_asked_for(asked, since, until):
    query = asked("--since", since, "--until", until)
    assert (query.since, query.until) == (since, until)
