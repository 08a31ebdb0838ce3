"""What a query chooses and refuses, and which job a text names."""

from __future__ import annotations

from typing import Any

import pytest

from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.freshness import lag, rate
from nvflare_logstream.client.model import JobStreams
from nvflare_logstream.client.port import Port, read_reply
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import ArgumentError, ErrorCode, LostContactError, RetrievalError
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Loss, State, Stream, StreamKey
from nvflare_logstream.wire.queries import (
    ErrorReply,
    ReplyT,
    Request,
    StreamsReply,
    StreamsRequest,
)

ID = "8f3c0000-1111-2222-3333-444455556666"


def stream(site: str, file: str = "log.txt", state: State = State.OPEN, size: int = 5) -> Stream:
    return Stream(StreamKey(ID, site, file), state=state, end=size)


def chosen(streams: list[Stream], *sites: str, file: str = "log.txt") -> list[str]:
    return [f"{found.site}/{found.file}" for found in LogQuery(sites=sites, file=file).choose(tuple(streams))]


# -- which streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["site[1]", "h\u00f4pital-1", "-1", "*", "a?"])
def test_a_sites_own_name_chooses_it_even_if_it_looks_like_a_pattern(site):
    assert f"{site}/log.txt" in chosen([stream(site), stream("other")], site)


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


def test_sites_are_left_out_by_what_names_them():
    streams = [stream(name) for name in ("site-1", "site-2", "x-1", "server")]
    for left_out, rest in [
        (("site-1",), ["server", "site-2", "x-1"]),
        (("site-*", "server"), ["x-1"]),
        (("nowhere",), ["server", "site-1", "site-2", "x-1"]),
        (("all",), []),
    ]:
        query = LogQuery(sites=("all",), exclude_sites=left_out)
        assert [found.site for found in query.choose(streams)] == rest
    assert LogQuery(sites=("site-1",), exclude_sites=("site-1",)).unmatched(streams) == {}


def test_a_json_log_is_preferred_where_that_is_asked_for():
    streams = [stream("a"), stream("a", "log.json"), stream("b"), stream("c", "error_log.txt")]
    streams += [stream("d"), stream("d", "log.json", State.EXPECTED, 0), stream("a", "error_log.txt")]
    query = LogQuery(sites=("all",), prefer_json=True)
    assert [f"{found.site}/{found.file}" for found in query.choose(streams)] == [
        "a/log.json",
        "b/log.txt",
        "c/log.txt",
        "d/log.txt",
    ]
    (errors,) = LogQuery(sites=("a",), file="error_log.txt", prefer_json=True).choose(streams)
    assert errors.file == "error_log.txt"


def test_what_matches_nothing_is_listed_with_the_names_that_there_are():
    query = LogQuery(sites=("site-1", "nowhere", "x-*", "all"))
    streams = (stream("site-1"), stream("server"))
    reason = "no such site in this job; the job has server, site-1"
    assert query.unmatched(streams) == {"nowhere": reason, "x-*": reason}
    assert {entry.site for entry in query.choose(streams)} == {"site-1", "server"}
    unknown = "no such site in this job; nothing is known of this job's sites yet"
    assert query.unmatched(()) == dict.fromkeys(("site-1", "nowhere", "x-*"), unknown)
    assert query.choose(()) == []


def test_a_json_log_stands_in_for_a_text_log_that_is_not_there():
    both, only, neither = (
        (stream("a"), stream("a", "log.json")),
        (stream("b", "log.json"),),
        (stream("c", "error_log.txt"),),
    )
    expected = (stream("d", state=State.EXPECTED, size=0), stream("d", "log.json"))
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
    refused = stream("a", state=State.REFUSED, size=0)._replace(reason="not allowed there")
    (found,) = LogQuery(sites=("a",)).choose((refused,))
    assert found.standing == "refused (not allowed there)" and not found.available


def test_an_empty_log_is_there_and_one_that_is_only_expected_is_not():
    assert stream("a", size=0).available and stream("a", state=State.CLOSED, size=0).available
    assert not stream("a", state=State.EXPECTED, size=0).available
    assert stream("a", state=State.REFUSED, size=3).available, "what came before the refusal"


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("sites", "all", "a tuple of at least one name"),
        ("sites", (), "a tuple of at least one name"),
        ("sites", None, "a tuple of at least one name"),
        ("sites", ("",), 'a pattern such as "site-*"'),
        ("sites", (3,), 'a pattern such as "site-*"'),
        ("sites", ("x" * 257,), 'a pattern such as "site-*"'),
        ("exclude_sites", ("",), 'a pattern such as "site-*"'),
        ("file", "../log.txt", "no path"),
        ("file", 3, "no path"),
        ("since", "tomorrow", "a time such as"),
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
        LogQuery(**{field: value})
    shown = value[0] if field.endswith("sites") and isinstance(value, tuple) and value else value
    assert str(caught.value).startswith(f"{field}: ") and allowed in str(caught.value)
    assert repr(shown)[:20] in str(caught.value) and len(str(caught.value)) < 400


class ServicePort(Port):
    """A server in this process."""

    def __init__(self, service: LogService):
        self.service = service

    def ask(self, job_id: str, request: Request[ReplyT], seconds: float) -> ReplyT:
        return read_reply(job_id, request, self.service.answer(job_id, request.encode()))


@pytest.mark.parametrize("bound", ["tail", "max_bytes"])
def test_a_bound_of_nothing_travels_and_gives_nothing(memory_path, bound):
    """0 is a bound; what is not given does not travel."""
    store = LogStore(memory_path)
    key = StreamKey(ID, "server", "log.txt")
    store.append(key, store.open(key).end, b"text\n", b"")
    client = LogClient(ServicePort(LogService(store, 30.0)))
    assert client.read(ID, LogQuery())["server"].text == "text\n"
    found = client.read(ID, LogQuery(**{bound: 0}))["server"]
    assert found.text == "" and found.truncated
    store.close()


def test_reading_says_why_there_is_no_text(memory_path):
    store = LogStore(memory_path)
    store.refuse(StreamKey(ID, "site-1", "log.txt"), "not allowed there")
    client = LogClient(ServicePort(LogService(store, 30.0)))
    logs = client.read(ID, LogQuery(sites=("site-1", "nowhere")))
    assert list(logs) == ["nowhere", "site-1"] and not any(log.text for log in logs.values())
    assert logs["site-1"].stream.standing == "refused (not allowed there)"
    assert logs["nowhere"].stream is None
    assert logs["nowhere"].reason == "no such site in this job; the job has site-1"
    store.close()


# -- what the server says --------------------------------------------------------------------------------


def answer(**changes: Any) -> dict[str, Any]:
    """A reply with one stream, some of whose fields are others."""
    listed = stream("site-1")._replace(losses=(Loss(3, None, "why"),))
    reply = StreamsReply(JobStreams(ID, "RUNNING", (listed,), 1.0)).encode()
    reply["streams"][0] |= changes
    return reply


def decoded(reply: object) -> StreamsReply:
    return read_reply(ID, StreamsRequest(), reply)


@pytest.mark.parametrize("name", ["../up", "", ".", "a/b", None, "a\nb"])
@pytest.mark.parametrize("field", ["site", "file"])
def test_a_name_from_the_server_that_is_no_plain_name_is_not_taken(field, name):
    """Names become paths here."""
    with pytest.raises(RetrievalError, match=rf"streams\[0\]\.{field}: ") as caught:
        decoded(answer(**{field: name}))
    assert caught.value.code == "INVALID_REPLY"


def test_what_a_site_says_of_itself_cannot_move_the_readers_cursor():
    """Reasons and outcomes are a site's own words."""
    hostile = "\x1b[2Jgone\r\x07"
    losses = [{"offset": 0, "length": 1, "reason": hostile}]
    (found,) = decoded(answer(reason=hostile, outcome=hostile, losses=losses)).job.streams
    assert found.reason == found.outcome == found.losses[0].reason == r"\x1b[2Jgone\x0d\x07"


def test_a_server_that_is_not_ready_is_asked_again():
    with pytest.raises(LostContactError, match="not started yet") as caught:
        decoded(ErrorReply(ErrorCode.SYSTEM_NOT_READY, "not started yet").encode())
    assert caught.value.code is ErrorCode.CONNECTION_FAILED


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
    assert JobStreams(ID, status, ()).over is over


# -- which job -------------------------------------------------------------------------------------------


class Jobs(Port):
    """A server that knows some jobs, the newest first, and notes how it was asked."""

    def __init__(self, *ids: str):
        self.ids, self.asked = ids, []

    def job_ids(self, prefix: str | None) -> list[str]:
        self.asked.append(prefix)
        return (
            list(self.ids[:1]) if prefix is None else [name for name in self.ids if name.startswith(prefix)]
        )


def find(jobs: Jobs, text: str) -> str:
    return LogClient(jobs).find_job(text)


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
    assert caught.value.code == "JOB_NOT_FOUND" and "nvflare-logstream status" in caught.value.hint


def test_latest_is_the_job_submitted_last_of_those_one_may_see():
    jobs = Jobs(ID, "0" + ID[1:])
    assert find(jobs, "@latest") == ID and jobs.asked == [None]
    with pytest.raises(RetrievalError, match="@latest"):
        find(Jobs(), "@latest")


def test_latest_before_any_job_says_that_there_is_none_and_how_to_submit_one():
    with pytest.raises(RetrievalError, match="@latest: there is no job yet that you may see") as caught:
        find(Jobs(), "@latest")
    assert caught.value.code == "JOB_NOT_FOUND"
    assert "nvflare job submit" in caught.value.hint and "--study" in caught.value.hint


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


# -- how fresh -------------------------------------------------------------------------------------------


def test_the_lag_of_a_log_is_that_of_its_site_until_it_ends():
    """A sign of life is of a site: a quiet log is not behind."""
    quiet, busy = stream("a")._replace(last_seen=5.0), stream("a", "error_log.txt")._replace(last_seen=8.0)
    closed = stream("a", "old.txt", State.CLOSED)._replace(last_seen=3.0)
    job = JobStreams(ID, "RUNNING", (quiet, busy, closed, stream("b")._replace(last_seen=9.5)), now=10.0)
    assert lag(quiet, job) == lag(busy, job) == 2.0 and lag(closed, job) is None
    assert lag(quiet, job._replace(now=7.0)) == 0.0, "clocks may go back"


def test_the_rate_is_that_since_the_last_look_or_the_average():
    log = stream("a", size=1000)._replace(opened=100.0, last_data=110.0)
    job = JobStreams(ID, "RUNNING", (log,), now=120.0)
    assert rate(log, job, None) == 100.0
    before = JobStreams(ID, "RUNNING", (log._replace(end=400),), now=118.0)
    assert rate(log, job, before) == 300.0
    assert rate(log, job, before._replace(streams=())) == 100.0, "it came after that look"
    assert rate(log._replace(last_data=100.0), job, None) == 1000.0, "all in one go counts as in a second"
