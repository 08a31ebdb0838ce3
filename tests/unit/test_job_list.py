"""`status` without a job: which jobs have which logs, who may ask, and how it is shown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import AuthorizationError, InternalError
from nvflare.fuel.hci.server.constants import ConnProps
from rich.console import Console

from nvflare_logstream.cli import job_list as command
from nvflare_logstream.cli.job_list_view import JobTable
from nvflare_logstream.cli.main import run
from nvflare_logstream.cli.options import Access
from nvflare_logstream.client.client import LogClient
from nvflare_logstream.errors import ErrorCode, RetrievalError, WireError
from nvflare_logstream.flare import admin_protocol, job_list_command
from nvflare_logstream.flare.session_port import SessionPort
from nvflare_logstream.server import job_list
from nvflare_logstream.server.job_list import JobLister
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey, Verdict
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.job_list import (
    DEFAULT_JOBS,
    MAX_JOBS,
    JobList,
    JobQuestion,
    ListedJob,
    SiteVerdict,
    decode_jobs,
    decode_question,
    encode_jobs,
    encode_question,
)
from tests.unit.fake_runtime import AdminConsole, Session, upload

DAY = 86400.0
A, B, C, D = (f"{letter * 8}-1111-2222-3333-444455556666" for letter in "abcd")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(memory_path, clock):
    """Four jobs: one that is whole, one with a site that never came, one that runs, one without logs."""
    store = LogStore(memory_path, clock=clock)
    for site in ("server", "site-1", "site-2"):
        upload(store, StreamKey(A, site, "log.txt"), b"0123456789")
    upload(store, StreamKey(B, "site-1", "log.txt"), b"01234")
    store.refuse(StreamKey(B, "site-1", "error_log.txt"), "not allowed")
    store.expect({StreamKey(B, "site-2", "log.txt"): "nothing arrived"})
    upload(store, StreamKey(C, "site-1", "log.txt"), b"0", closed=False)
    yield store
    store.close()


@pytest.fixture
def jobs(clock):
    """As the runtime knows them, the newest in the middle."""
    at = clock.now
    return [
        ListedJob(A, "first", "FINISHED:COMPLETED", at - 3 * DAY),
        ListedJob(C, "third", "RUNNING", at - 2.0),
        ListedJob(B, "second", "FINISHED:ABORTED", at - 2 * DAY),
        ListedJob(D, "", "SUBMITTED", at - 1.0),
    ]


@pytest.fixture
def lister(store, clock):
    return JobLister(store, 30.0, lambda job_id: {C: "UNKNOWN", D: "SUBMITTED"}[job_id], clock)


def site(name: str, verdict: Verdict, size: int) -> SiteVerdict:
    return SiteVerdict(name, verdict, size)


# -- what the server answers ---------------------------------------------------------------------------------


def test_jobs_come_newest_first_with_the_worst_verdict_on_each_sites_logs(lister, jobs, clock):
    found = lister.list(JobQuestion(), jobs)
    assert [job.job_id for job in found.jobs] == [D, C, B, A] and not found.more and found.now == clock.now
    newest, running, aborted, whole = found.jobs
    assert newest.sites == () and newest.last_seen == 0.0
    assert running.sites == (site("site-1", Verdict.STREAMING, 1),)
    assert running.status == "UNKNOWN", "what readers of its logs are told"
    assert aborted.sites == (site("site-1", Verdict.REFUSED, 5), site("site-2", Verdict.NEVER_SEEN, 0))
    assert whole.sites == tuple(site(name, Verdict.COMPLETE, 10) for name in ("server", "site-1", "site-2"))
    assert (whole.name, whole.status) == ("first", "FINISHED:COMPLETED")


def test_a_site_that_fell_silent_is_partial(lister, jobs, clock):
    clock.advance(31)
    assert lister.list(JobQuestion(verdicts=(Verdict.PARTIAL,)), jobs).jobs[0].job_id == C


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ({"sites": ("site-2",)}, {B: ["site-2"], A: ["site-2"]}),
        ({"sites": ("site-*",), "verdicts": (Verdict.COMPLETE,)}, {A: ["site-1", "site-2"]}),
        ({"sites": ("nowhere",)}, {}),
        ({"verdicts": (Verdict.NEVER_SEEN, Verdict.STREAMING)}, {C: ["site-1"], B: ["site-2"]}),
        ({"verdicts": (Verdict.LOST,)}, {}),
        ({"sites": ("all",)}, {C: ["site-1"], B: ["site-1", "site-2"], A: ["server", "site-1", "site-2"]}),
    ],
)
def test_only_what_was_asked_for(lister, jobs, question, found):
    listed = lister.list(JobQuestion(**question), jobs).jobs
    assert {job.job_id: [site.site for site in job.sites] for job in listed} == found


def test_since_is_about_when_a_job_was_submitted_or_heard_of(lister, jobs, clock, store):
    clock.advance(DAY)
    upload(store, StreamKey(C, "site-1", "log.txt"), b"0", closed=False)
    since = JobQuestion(since=clock.now - 10.0)
    assert [job.job_id for job in lister.list(since, jobs).jobs] == [C], "it runs since yesterday"


def test_an_answer_is_bounded_and_says_so(lister, jobs, monkeypatch):
    assert lister.list(JobQuestion(limit=4), jobs).more is False
    few = lister.list(JobQuestion(limit=2), jobs)
    assert [job.job_id for job in few.jobs] == [D, C] and few.more
    monkeypatch.setattr(job_list, "MAX_SITES", 2)
    sites = lister.list(JobQuestion(), jobs)
    assert sum(len(job.sites) for job in sites.jobs) == 2 and sites.more
    monkeypatch.setattr(job_list, "_SECONDS", -1.0)
    assert lister.list(JobQuestion(), jobs) == JobList((), True, sites.now)


def test_a_question_that_is_none_is_answered_with_the_field(lister):
    def answer(**fields: Any) -> str:
        return str(lister.answer({"v": 1, **fields}, list)["error"])

    assert lister.answer({"v": 1}, list)["jobs"] == []
    assert answer(sites="x").startswith("sites: 'x' is not allowed")
    assert answer(sites=[""]).startswith("sites: [''] is not allowed")
    assert answer(verdicts=["bad"]).startswith("verdicts: ['bad'] is not allowed; some of streaming")
    assert answer(limit=0).startswith("limit: 0 is not allowed") and answer(limit=1001)
    assert answer(since=-1).startswith("since: -1 is not allowed") and "version 1" in answer(v=2)


def test_a_defect_is_an_answer_and_a_traceback_in_the_servers_log(lister, caplog):
    def broken() -> Iterator[ListedJob]:
        raise RuntimeError("a defect")

    assert lister.answer({"v": 1}, broken)["code"] == ErrorCode.INTERNAL_ERROR
    assert "Traceback" in caplog.text


# -- how it travels ------------------------------------------------------------------------------------------

FULL = JobList(
    (
        ListedJob(B, "second", "RUNNING", 1e9, 2e9, (SiteVerdict("site-1", Verdict.LOST, 7),)),
        ListedJob(A),
    ),
    True,
    3e9,
)


def test_the_command_lets_ask_for_as_many_jobs_as_the_server_gives():
    assert (command.MAX_JOBS, command.DEFAULT_JOBS) == (MAX_JOBS, DEFAULT_JOBS)


def test_question_and_answer_arrive_as_they_were_sent():
    assert decode_jobs(json.loads(json.dumps(encode_jobs(FULL)))) == FULL
    for question in (JobQuestion(), JobQuestion(("a", "b-*"), (Verdict.LOST,), 5.0, 3)):
        assert decode_question(json.loads(json.dumps(encode_question(question)))) == question


def test_what_an_author_wrote_cannot_reach_the_terminal_raw():
    answer = encode_jobs(JobList((ListedJob(A, "\x1b[2J\n\u202ename", "\x07"),), now=1.0))
    (job,) = decode_jobs(answer).jobs  # type: ignore[union-attr]
    assert job.name.isprintable() and job.status.isprintable() and "name" in job.name


@pytest.mark.parametrize(
    ("field", "value"), [("job_id", "../x"), ("name", 3), ("submitted", "now"), ("sites", [3]), ("sites", 3)]
)
def test_a_damaged_answer_is_refused_with_the_field(field, value):
    answer = encode_jobs(FULL)
    answer["jobs"][0][field] = value
    with pytest.raises(WireError, match=rf"^jobs\[0\]\.{field}"):
        decode_jobs(answer)


# -- who may ask ---------------------------------------------------------------------------------------------

POLICY = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": "any",
        "org_admin": {"logstream_jobs": "any", "logstream": "o:submitter"},
        "lead": {"view": "any", "logstream": "n:submitter"},
        "member": {"view": "none"},
    },
}


@pytest.fixture
def ask(monkeypatch):
    """Ask as a user of a role, through the runtime's own check of rights; gives the jobs' ids."""
    submitters = {A: ("ann", "nvidia"), B: ("bob", "nvidia"), C: ("cem", "other"), D: ("ann", "nvidia")}
    metas: list[Any] = [
        {"job_id": job_id, "name": "n", "status": "RUNNING", "submit_time": "5.5", "submitter_role": "lead"}
        | dict(zip(("submitter_name", "submitter_org"), submitter, strict=True))
        for job_id, submitter in submitters.items()
    ]
    metas[3] |= {"study": "cardio", "submit_time": None}
    metas.append({"job_id": "../x"})

    @contextmanager
    def new_context() -> Iterator[object]:
        yield object()

    manager = SimpleNamespace(get_all_jobs=lambda fl_ctx: [SimpleNamespace(meta=meta) for meta in metas])
    engine = SimpleNamespace(new_context=new_context, job_def_manager=manager)
    seen: list[list[ListedJob]] = []
    commands = job_list_command.JobListCommand(lambda question, jobs: seen.append(list(jobs())) or {})
    (spec,) = commands.get_spec().cmd_specs

    console = AdminConsole(monkeypatch, POLICY, [admin_protocol.COMMAND, admin_protocol.JOBS_COMMAND], engine)

    def ask(role: str, study: str | None = None) -> list[ListedJob] | None:
        of_study = {ConnProps.ACTIVE_STUDY: study} if study else {}
        return None if console.send(spec, role, **of_study) is None else seen.pop()

    return ask


def ids(jobs: list[ListedJob]) -> list[str]:
    return [job.job_id for job in jobs]


def test_everyone_sees_the_jobs_whose_logs_they_may_read_and_no_others(ask):
    assert ids(ask("project_admin")) == [A, B, C]
    assert ids(ask("org_admin")) == [A, B], "jobs of the same organisation"
    assert ids(ask("lead")) == [A], "their own"
    assert ask("member") is None


def test_a_session_sees_the_jobs_of_its_study(ask):
    (job,) = ask("project_admin", "cardio")
    assert job == ListedJob(D, "n", "RUNNING", 0.0), "a meta without a time"
    assert ask("project_admin", "default")[0] == ListedJob(A, "n", "RUNNING", 5.5)


# -- the port ------------------------------------------------------------------------------------------------


def test_the_question_is_a_command_of_its_own():
    session = Session(encode_jobs(FULL))
    assert LogClient(SessionPort(session)).jobs(JobQuestion(limit=2)) == FULL  # type: ignore[arg-type]
    assert session.asked == [("logstream_jobs", encode_question(JobQuestion(limit=2)))]


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (InternalError("Command logstream_jobs not found"), ErrorCode.NO_RECEIVER, "or an older one"),
        (AuthorizationError("not yours"), ErrorCode.AUTH_FAILED, "not yours"),
        ({"v": 2}, ErrorCode.INVALID_REPLY, "v: 2 is not allowed"),
    ],
)
def test_a_server_that_has_no_answer_says_why(answer, code, text):
    with pytest.raises(RetrievalError, match=text) as caught:
        LogClient(SessionPort(Session(answer))).jobs()  # type: ignore[arg-type]
    assert caught.value.code is code


# -- the command ---------------------------------------------------------------------------------------------

MANY = tuple(SiteVerdict(f"site-{number}", Verdict.COMPLETE, 1) for number in range(4))
SHOWN = JobList(
    (
        ListedJob(A, "train", "RUNNING", 1e9, 1e9, (SiteVerdict("server", Verdict.STREAMING, 5), *MANY)),
        ListedJob(
            A[:-1] + "7", "x", "FINISHED:COMPLETED", 1e9 - DAY, 1e9, (SiteVerdict("b", Verdict.LOST, 0),)
        ),
        ListedJob(B),
    ),
)


@pytest.fixture
def status(monkeypatch, capsys):
    """Run `status` with this answer of the server."""
    monkeypatch.setenv("TERM", "dumb")
    asked: list[JobQuestion] = []

    def shown(*arguments: str, answer: JobList = SHOWN) -> SimpleNamespace:
        def jobs(question: JobQuestion, seconds: float) -> JobList:
            asked.append(question)
            return answer

        @contextmanager
        def connected(access: Access) -> Iterator[LogClient]:
            yield LogClient(SimpleNamespace(jobs=jobs))  # type: ignore[arg-type]

        monkeypatch.setattr(Access, "client", connected)
        code = run(["status", *arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, asked=asked[-1] if asked else None)

    return shown


def test_a_line_for_each_job_with_what_is_bad_first(status):
    shown = status()
    first, second, third = shown.out.strip().splitlines()[2:]
    assert shown.code == 0 and not shown.err
    assert first.startswith(f" {A}  20") and "RUNNING" in first and " train " in first
    assert first.rstrip().endswith("streaming: server, complete: 4 sites"), (
        "ids are as long as tells them apart"
    )
    assert "lost: b" in second and "no logs" in third
    assert status(answer=JobList(())).out == "no jobs\n"
    assert status(answer=SHOWN._replace(jobs=SHOWN.jobs[:1])).out.splitlines()[3].startswith(" aaaaaaaa  20")


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_on_a_narrow_terminal_what_is_shown_is_whole(width, capsys):
    jobs = SHOWN._replace(jobs=SHOWN.jobs[1:2] + SHOWN.jobs[2:])
    Console(width=width, color_system=None).print(JobTable(jobs))
    shown = capsys.readouterr().out
    assert "aaaaaaaa" in shown and "lost: b" in shown and "…" not in shown
    assert ("COMPLETED" in shown) is (width >= 60) and ("2001-09-08 " in shown) is (width >= 80)


def test_more_jobs_than_are_shown_are_told(status):
    assert status(answer=SHOWN._replace(more=True)).err == "(the newest 3 jobs; --limit N shows more)\n"


def test_programs_read_json_lines_or_csv(status):
    data = json.loads(status("--format", "json").out)["data"]
    assert data["more"] is False and [job["name"] for job in data["jobs"]] == ["train", "x", ""]
    assert data["jobs"][1]["sites"] == [{"site": "b", "verdict": "lost", "bytes": 0}]
    *jobs, end = map(json.loads, status("--format", "jsonl").out.splitlines())
    assert [job["data"]["job_id"] for job in jobs] == [A, A[:-1] + "7", B]
    assert (end["event"], end["terminal"], end["data"]) == ("jobs", True, {"count": 3, "more": False})
    rows = list(csv.DictReader(io.StringIO(status("--format", "csv").out)))
    assert len(rows) == 7 and rows[0]["verdict"] == "streaming" and rows[0]["bytes"] == "5"
    assert rows[-1]["job_id"] == B and rows[-1]["site"] == rows[-1]["verdict"] == ""


def test_the_options_become_the_question(status, monkeypatch):
    asked = status(
        "--site",
        "site-1,x-*",
        "--verdict",
        "Never-Seen,lost",
        "--since",
        "1970-01-02T00:00:00Z",
        "--limit",
        "7",
    ).asked
    assert asked == JobQuestion(("site-1", "x-*"), (Verdict.NEVER_SEEN, Verdict.LOST), DAY, 7)
    monkeypatch.setattr(
        command.typed_time,
        "parse_since",
        lambda name, text, utc_offset: command.datetime.datetime(1970, 1, 1),
    )
    assert status("--since", "x").asked.since >= 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--verdict", "bad"), "'bad' is not allowed; some of streaming, complete, partial"),
        (("--since", "noon"), "'noon' is not allowed; a time such as"),
        (("--limit", "0"), "--limit"),
        (("--watch", "--format", "csv"), "use jsonl"),
        (("8f3c", "--since", "1h"), "leave out the job's id"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_asked(status, options, said):
    shown = status(*options)
    assert shown.code == 4 and said in shown.err and shown.asked is None
