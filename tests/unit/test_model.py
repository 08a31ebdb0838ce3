"""What a query chooses and refuses, and which job a text names."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.model import JobStreams, LogQuery, Stream
from nvflare_logstream.errors import ArgumentError, RetrievalError
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey

ID = "8f3c0000-1111-2222-3333-444455556666"


def stream(site: str, file: str = "log.txt", state: str = "open", size: int = 5) -> Stream:
    return replace(Stream.missing(site, file, ""), state=state, bytes=size, verdict="streaming")


def chosen(streams: list[Stream], *sites: str, file: str = "log.txt") -> list[str]:
    return [f"{found.site}/{found.file}" for found in LogQuery(sites=sites, file=file).choose(tuple(streams))]


# -- which streams ----------------------------------------------------------------------------------------------


def test_all_means_every_site_and_the_server_comes_first():
    streams = [stream("site-2"), stream("a-site"), stream("server"), stream("site-2", "error_log.txt")]
    assert chosen(streams, "all") == ["server/log.txt", "a-site/log.txt", "site-2/log.txt"]
    assert chosen(streams, "all", "site-2", "site-*") == [
        "server/log.txt",
        "a-site/log.txt",
        "site-2/log.txt",
    ]
    assert chosen([], "all") == []


def test_patterns_choose_as_a_shell_does_and_heed_capitals():
    streams = [stream(name) for name in ("site-1", "site-2", "site-10", "Site-1", "server")]
    assert chosen(streams, "site-?") == ["site-1/log.txt", "site-2/log.txt"]
    assert chosen(streams, "[Ss]ite-1") == ["Site-1/log.txt", "site-1/log.txt"]
    assert chosen(streams, "site-10", "server") == ["server/log.txt", "site-10/log.txt"]


def test_what_matches_nothing_is_listed_with_the_names_that_there_are():
    query = LogQuery(sites=("site-1", "nowhere", "x-*"))
    found = {entry.site: entry for entry in query.choose((stream("site-1"), stream("server")))}
    assert set(found) == {"site-1", "nowhere", "x-*"} and not found["nowhere"].available
    assert (
        found["nowhere"].reason
        == found["x-*"].reason
        == "no such site in this job; the job has server, site-1"
    )
    assert query.choose(())[0].reason == "no such site in this job; nothing is known of this job's sites yet"


def test_a_json_log_stands_in_for_a_text_log_that_is_not_there():
    both, only, neither = (
        (stream("a"), stream("a", "log.json")),
        (stream("b", "log.json"),),
        (stream("c", "error_log.txt"),),
    )
    expected = (stream("d", state="expected", size=0), stream("d", "log.json"))
    assert chosen([*both, *only, *neither, *expected], "all") == [
        "a/log.txt",
        "b/log.json",
        "c/log.txt",
        "d/log.json",
    ]
    (missing,) = LogQuery(sites=("c",)).choose(neither)
    assert missing.standing == "never seen (not sent by this site; it sends error_log.txt)"
    (missing,) = LogQuery(sites=("b",), file="error_log.txt").choose(only)
    assert missing.reason == "not sent by this site; it sends log.json", "only log.txt has a stand-in"


def test_a_log_that_is_refused_or_expected_keeps_its_own_reason():
    refused = replace(stream("a", state="refused", size=0), verdict="refused", reason="not allowed there")
    (found,) = LogQuery(sites=("a",)).choose((refused,))
    assert found.standing == "refused (not allowed there)" and not found.available


def test_an_empty_log_is_there_and_one_that_is_only_expected_is_not():
    assert stream("a", size=0).available and stream("a", state="closed", size=0).available
    assert not stream("a", state="expected", size=0).available
    assert stream("a", state="refused", size=3).available, "what came before the refusal"


# -- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("sites", "all", "a tuple of at least one name"),
        ("sites", (), "a tuple of at least one name"),
        ("sites", None, "a tuple of at least one name"),
        ("site", ("",), 'a pattern such as "site-*"'),
        ("site", (3,), 'a pattern such as "site-*"'),
        ("site", ("x" * 257,), 'a pattern such as "site-*"'),
        ("file", "../log.txt", "no path"),
        ("file", 3, "no path"),
        ("since", "yesterday", "a time such as"),
        ("since", 5, "a time such as"),
        ("since", "99999999999d", "a time such as"),
        ("until", "", "a time such as"),
        ("level", "warning", "one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("level", ["INFO"], "one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("grep", "((", "a pattern in RE2 syntax (missing )"),
        ("grep", r"(a)\1", "a pattern in RE2 syntax"),
        ("grep", "\ud800", "a pattern in RE2 syntax"),
        ("grep", "x" * 1001, "at most 1000 characters"),
        ("grep", 3, "at most 1000 characters"),
        ("before", -1, "a whole number from 0 to 1000"),
        ("before", 1001, "a whole number from 0 to 1000"),
        ("after", 1.0, "a whole number from 0 to 1000"),
        ("tail", -1, "a whole number from 0 to"),
        ("tail", True, "a whole number from 0 to"),
        ("max_bytes", "5", "a whole number from 0 to"),
    ],
)
def test_a_refused_field_is_named_with_its_value_and_what_is_allowed(field, value, allowed):
    with pytest.raises(ArgumentError) as caught:
        LogQuery(**{"sites" if field == "site" else field: value})
    shown = value[0] if field == "site" else value
    assert str(caught.value).startswith(f"{field}: ") and allowed in str(caught.value)
    assert repr(shown)[:20] in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("bound", ["tail", "max_bytes"])
def test_a_bound_of_nothing_travels_and_gives_nothing(memory_path, bound):
    """0 is a bound; what is not given does not travel."""
    store = LogStore(memory_path)
    store.append(
        StreamKey(ID, "server", "log.txt"), store.open(StreamKey(ID, "server", "log.txt")).end, b"text\n", b""
    )
    service = LogService(store, 30.0)
    session = SimpleNamespace(
        set_timeout=lambda seconds: None,
        _do_command=lambda command, enforce_meta, props: service.answer(ID, props),
        _get_dict_data=lambda found: found,
    )
    client = LogClient(session)  # type: ignore[arg-type]
    assert client.read(ID, LogQuery())["server"].text == "text\n"
    found = client.read(ID, LogQuery(**{bound: 0}))["server"]
    assert found.text == "" and found.truncated
    store.close()
    assert "tail" not in LogQuery(grep="x").filters() and LogQuery(tail=0).filters()["tail"] == 0


# -- what the server says ---------------------------------------------------------------------------------------


def row(**changes: Any) -> dict[str, Any]:
    plain = {name: getattr(stream("site-1"), name) for name in Stream.__dataclass_fields__}
    return {**plain, "losses": [[3, None, "why"]], **changes}


@pytest.mark.parametrize("name", ["../up", "", ".", "a/b", None, "a\nb"])
@pytest.mark.parametrize("field", ["site", "file"])
def test_a_name_from_the_server_that_is_none_is_not_taken(field, name):
    with pytest.raises(RetrievalError) as caught:
        Stream.from_row(row(**{field: name}))
    assert caught.value.code == "INVALID_REPLY"


def test_what_a_site_says_of_itself_cannot_move_the_readers_cursor():
    """Reasons and outcomes are a site's own words."""
    hostile = "\x1b[2Jgone\r\x07"
    found = Stream.from_row(row(reason=hostile, outcome=hostile, losses=[[0, 1, hostile]]))
    assert found.reason == found.outcome == found.losses[0][2] == r"\x1b[2Jgone\x0d\x07"


@pytest.mark.parametrize(
    ("status", "over"),
    [
        ("RUNNING", False),
        ("SUBMITTED", False),
        ("", False),
        ("FINISHED:COMPLETED", True),
        ("FINISHED:ABORTED", True),
        ("UNKNOWN", True),
    ],
)
def test_a_job_is_over_when_it_has_finished_or_nobody_will_ever_know(status, over):
    assert JobStreams(status, ()).over is over


# -- which job --------------------------------------------------------------------------------------------------


class Jobs:
    """A session that knows some jobs, and notes how it was asked."""

    def __init__(self, *ids: str):
        self.ids, self.asked = ids, []

    def set_timeout(self, seconds: float) -> None:
        pass

    def list_jobs(self, **wanted: Any) -> list[dict[str, str]]:
        self.asked.append(wanted)
        ids = [name for name in self.ids if name.startswith(wanted.get("id_prefix", ""))]
        return [{"job_id": name} for name in ids[: wanted.get("limit")]]


def find(jobs: Jobs, text: str) -> str:
    return LogClient(jobs).find_job(text)  # type: ignore[arg-type]


def test_a_whole_id_is_taken_without_asking():
    jobs = Jobs()
    assert find(jobs, ID) == ID and not jobs.asked


def test_the_beginning_of_one_id_is_enough():
    assert find(Jobs(ID, "0" + ID[1:]), "8f3c0000-1") == ID


def test_the_beginning_of_several_ids_is_answered_with_them():
    with pytest.raises(
        RetrievalError, match=f"8f3c is the beginning of 9 job ids: {ID[:-1]}0, .*, …"
    ) as caught:
        find(Jobs(*(f"{ID[:-1]}{number}" for number in range(9))), "8f3c")
    assert caught.value.code == "INVALID_ARGS"


def test_a_beginning_of_no_id_is_not_found():
    with pytest.raises(RetrievalError, match="no job that you may see has the id abc") as caught:
        find(Jobs(ID), "abc")
    assert caught.value.code == "JOB_NOT_FOUND"


def test_latest_is_the_job_submitted_last_of_those_one_may_see():
    jobs = Jobs(ID, "0" + ID[1:])
    assert find(jobs, "@latest") == ID and jobs.asked == [{"reverse": True, "limit": 1}]
    with pytest.raises(RetrievalError, match="@latest"):
        find(Jobs(), "@latest")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "-d",
        "-a",
        "--",
        "a b",
        "a;b",
        "8f3c\n",
        "*",
        "../8f3c",
        "8F3C",
        "@LATEST",
        "\x1b[2J",
        "é",
        "0" * 37,
        ID + "\n",
    ],
)
def test_what_cannot_be_an_id_never_becomes_an_argument_of_a_command(text):
    """A command's argument that begins with a dash would be an option."""
    jobs = Jobs(ID)
    with pytest.raises(RetrievalError) as caught:
        find(jobs, text)
    assert caught.value.code == "JOB_NOT_FOUND" and not jobs.asked
