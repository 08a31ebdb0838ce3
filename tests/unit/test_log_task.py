"""What `logs` shows and says once its options are read, with a client that has its answers ready."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nvflare_logstream.cli.log_task import LogTask
from nvflare_logstream.cli.output import Format
from nvflare_logstream.cli.printers import Collector, EventPrinter, Printer, TerminalPrinter
from nvflare_logstream.client.model import COMPLETED, UNKNOWN, Event, EventKind, JobStreams
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.filters.reading import Reading
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.wire.queries import ReadReply

JOB = "job-1"
LAST = Reading(9, 9, since_applied=True, truncated=True)


def stream(site: str, state: State = State.CLOSED, reason: str = "") -> Stream:
    return Stream(StreamKey(JOB, site, "log.txt"), state=state, reason=reason, agreed=state is State.CLOSED)


def record(second: int, text: str) -> str:
    return f"2026-04-28 10:00:0{second},000 - n - INFO - {text}\n"


class Client:
    """Answers like a LogClient; each text of a site is one reply."""

    def __init__(
        self, *streams: Stream, last: Reading = LAST, events: tuple[Event, ...] = (), **texts: list[str]
    ):
        self.streams, self.last, self.events, self.texts = streams, last, events, texts
        self.queries: list[LogQuery] = []

    def job(self, job_id: str) -> JobStreams:
        return JobStreams(job_id, COMPLETED, self.streams, 1e9)

    def parts(
        self, job_id: str, stream: Stream, query: LogQuery, as_text: bool = False
    ) -> Iterator[ReadReply]:
        self.queries.append(query)
        *texts, last = self.texts[stream.site]
        for text in texts:
            yield ReadReply(text, Reading(0, 9))
        yield ReadReply(last, self.last)

    def follow(
        self, job_id: str, query: LogQuery, merged: bool = False, growing: bool = False, as_text: bool = False
    ) -> Iterator[Event]:
        self.merged = merged
        return iter(self.events)


def task(client: Client, printer: Printer, form: Format, default_tail: bool = True, **query: Any) -> LogTask:
    return LogTask(client, JOB, LogQuery(**query), printer, form, default_tail)  # type: ignore[arg-type]


def on_terminal(prefix: bool = False) -> TerminalPrinter:
    return TerminalPrinter(prefix=prefix, headers=False, colour=False)


# -- reading -------------------------------------------------------------------------------------------------


def test_a_job_of_which_no_log_has_come_is_shown_with_its_status(capsys):
    assert task(Client(), on_terminal(), Format.TEXT, sites=("all",)).read(merged=False) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"job: no log has come: {COMPLETED}\n")


@pytest.mark.parametrize("sites", [("all",), ("a",)])
def test_a_query_that_leaves_out_every_site_says_so(sites):
    query = {"sites": sites, "exclude_sites": ("*",)}
    with pytest.raises(RetrievalError, match="--exclude-site leaves no site") as caught:
        task(Client(stream("a"), a=["x"]), on_terminal(), Format.TEXT, **query).read(merged=False)
    assert caught.value.code is ErrorCode.LOG_NOT_FOUND


def test_the_envelope_says_what_was_shown_of_each_site_and_why_others_were_not(capsys):
    client = Client(stream("a"), stream("b", State.REFUSED, "not allowed"), a=["one\n", "two\né"])
    query = {"sites": ("a", "b", "c*"), "tail": 500, "level": "INFO", "since": "1h"}
    assert task(client, Collector(), Format.JSON, **query).read(merged=False) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["exit_code"]) == ("ok", 0)
    unmatched = "no such site in this job; the job has a, b"
    assert answer["data"] == {
        "job_id": JOB,
        "job_status": COMPLETED,
        "target": "a,b,c*",
        "file": "log.txt",
        "logs_truncated": True,
        "sites": {
            "a": {
                "available": True, "lines": 3, "bytes": 10, "file": "log.txt",
                "verdict": "complete", "verdict_reason": "", "logs_truncated": True, "since_applied": True,
            },
            "b": {
                "available": False, "reason": "refused (not allowed)", "file": "log.txt",
                "verdict": "refused", "verdict_reason": "not allowed",
            },
            "c*": {
                "available": False, "reason": f"never seen ({unmatched})", "file": "log.txt",
                "verdict": "never seen", "verdict_reason": unmatched,
            },
        },
        "filters": {
            "level": "INFO", "since": "1h", "tail": 500, "max_bytes": None,
            "since_applied": True, "default_tail_applied": True,
        },
        "unavailable": {"b": "refused (not allowed)", "c*": f"never seen ({unmatched})"},
        "logs": {"a": "one\ntwo\né"},
    }  # fmt: skip
    assert client.queries[0].since == "2001-09-09T00:46:40Z", "an hour before the server's present"


def test_events_end_with_what_the_envelope_says(capsys):
    assert task(Client(stream("server"), server=["one\n"]), EventPrinter(), Format.JSONL).read(False) == 0
    line, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["event"], line["line"], line["terminal"]) == ("line", "one", False)
    assert (end["event"], end["status"], end["exit_code"], end["terminal"]) == ("terminal", "ok", 0, True)
    assert end["data"]["sites"]["server"]["lines"] == 1 and "unavailable" not in end["data"]


def test_a_person_is_told_what_the_text_does_not_show(capsys):
    streams = stream("a"), stream("server", State.EXPECTED, "nothing came")
    client = Client(*streams, last=Reading(9, 9, truncated=True), a=["one\n"])
    task(client, on_terminal(), Format.TEXT, sites=("all",), since="1h").read(merged=False)
    said = capsys.readouterr()
    assert said.out == "one\n"
    assert said.err.splitlines() == [
        "server: never seen (nothing came)",
        "(the last 500 lines of each site; --tail N shows more)",
        "(no line of this log has a time: --since was not applied)",
    ]


def test_a_bound_that_was_asked_for_is_not_explained(capsys):
    task(Client(stream("server"), server=["one\n"]), on_terminal(), Format.TEXT, False, tail=1).read(False)
    assert not capsys.readouterr().err


def test_merged_lines_come_in_order_and_count_for_their_site(capsys):
    client = Client(
        stream("a"), stream("b"), a=[record(1, "first") + record(3, "third")], b=[record(2, "second")]
    )
    printer = on_terminal(prefix=True)
    assert task(client, printer, Format.TEXT, False, sites=("all",)).read(merged=True) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["a", "b", "a"]
    task(client, EventPrinter(), Format.JSONL, False, sites=("all",)).read(merged=True)
    *lines, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["line"].split()[-1] for line in lines] == ["first", "second", "third"]
    assert {site: entry["lines"] for site, entry in end["data"]["sites"].items()} == {"a": 2, "b": 1}


def test_sites_asked_for_by_name_that_have_no_log_are_an_error_with_their_reasons():
    client = Client(stream("a", State.REFUSED, "no"))
    with pytest.raises(RetrievalError) as caught:
        task(client, Collector(), Format.JSON, sites=("a", "x")).read(merged=False)
    assert caught.value.code is ErrorCode.LOG_NOT_FOUND and f"status {JOB}" in caught.value.hint
    reasons = "a: refused (no); x: never seen (no such site in this job; the job has a)"
    assert str(caught.value) == f"no such log for job {JOB}: {reasons}"
    assert task(client, on_terminal(), Format.TEXT, sites=("all",)).read(merged=False) == 0


# -- following -----------------------------------------------------------------------------------------------

ALL_KINDS = (
    Event(EventKind.MISSING, "x*", "never seen (no such site)"),
    Event(EventKind.JOINED, "a", "", stream("a")),
    Event(EventKind.TEXT, "a", "one\n", stream("a")),
    Event(EventKind.CAUGHT_UP, "", ""),
    Event(EventKind.LOST_CONTACT, "", "the server is away"),
    Event(EventKind.BACK, "", ""),
    Event(EventKind.ENDED, "a", "complete", stream("a")),
    Event(EventKind.OVER, "", COMPLETED),
)


def test_a_person_reads_text_and_notices_as_they_come(capsys):
    assert task(Client(events=ALL_KINDS), on_terminal(), Format.TEXT).follow() == 0
    said = capsys.readouterr()
    assert said.out == "one\n"
    assert said.err.splitlines() == [
        "x*: no log: never seen (no such site)",
        "a: streaming",
        "job: no contact with the server, trying again: the server is away",
        "job: in contact with the server again",
        "a: ended: complete",
        f"job: over: {COMPLETED}",
    ]


def test_a_program_reads_one_event_a_line_and_one_that_is_terminal(capsys):
    assert task(Client(events=ALL_KINDS), EventPrinter(), Format.JSONL).follow() == 0
    *events, end = map(json.loads, capsys.readouterr().out.splitlines())
    kinds = ["missing", "joined", "line", "lost_contact", "back", "ended"]
    assert [event["event"] for event in events] == kinds and not any(event["terminal"] for event in events)
    assert events[3] == {
        "schema_version": "1", "event": "lost_contact", "site": "",
        "text": "the server is away", "terminal": False,
    }  # fmt: skip
    assert end == {
        "schema_version": "1", "event": "terminal", "terminal": True, "job_id": JOB,
        "status": "ok", "job_status": COMPLETED, "exit_code": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sites", "kinds", "status", "code"),
    [
        (("a",), (EventKind.JOINED,), COMPLETED, 0),
        (("a",), (EventKind.ENDED,), COMPLETED, 0),
        (("a",), (EventKind.JOINED,), "FINISHED:EXECUTION_EXCEPTION", 1),
        (("a",), (EventKind.JOINED,), UNKNOWN, 1),
        (("a",), (EventKind.MISSING,), COMPLETED, 1),
        (("a",), (EventKind.REFUSED,), COMPLETED, 1),
        (("all",), (EventKind.MISSING,), COMPLETED, 0),
        (("a",), (EventKind.JOINED, EventKind.PAST), "RUNNING", 0),
        (("a",), (EventKind.AWAITED, EventKind.PAST), "RUNNING", 1),
    ],
)
def test_the_exit_code_is_the_jobs_outcome_if_there_was_any_log(capsys, sites, kinds, status, code):
    *kinds, last = kinds if kinds[-1] is EventKind.PAST else (*kinds, EventKind.OVER)
    events = (*(Event(kind, "a", "") for kind in kinds), Event(last, "", status))
    for printer, form in ((on_terminal(), Format.TEXT), (EventPrinter(), Format.JSONL)):
        assert task(Client(events=events), printer, form, sites=sites).follow() == code
    said = capsys.readouterr()
    end = json.loads(said.out.splitlines()[-1])
    assert (end["exit_code"], end["status"]) == (code, "error" if code else "ok")
    assert end["job_status"] == status
    assert ("the server was restarted during the job" in said.err) is (status == UNKNOWN)


@pytest.mark.parametrize("merged", [False, True])
def test_following_asks_for_the_order_that_is_wanted(capsys, merged):
    client = Client(events=ALL_KINDS)
    task(client, on_terminal(), Format.TEXT).follow(merged)
    assert client.merged is merged


def test_what_came_stands_before_the_error_that_ends_it(capsys):
    class Failing(Client):
        def follow(self, *args: Any) -> Iterator[Event]:
            yield Event(EventKind.TEXT, "a", "half a li", stream("a"))
            raise RetrievalError(ErrorCode.LOG_CHANGED, "no more")

    with pytest.raises(RetrievalError):
        task(Failing(), EventPrinter(), Format.JSONL).run(follow=True, merged=False)
    assert [json.loads(line)["line"] for line in capsys.readouterr().out.splitlines()] == ["half a li"]


def test_every_kind_of_event_has_words():
    for kind in set(EventKind) - {EventKind.TEXT, EventKind.CAUGHT_UP, EventKind.GROWING}:
        task(Client(), on_terminal(), Format.TEXT)._say(Event(kind, "a", ""))
