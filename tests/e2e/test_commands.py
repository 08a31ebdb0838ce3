"""The command line on a real federation: reading, watching, exporting and checking the logs of a job."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream import LogClient, LogQuery, SessionPort, __version__
from nvflare_logstream.errors import NoReconnectError
from nvflare_logstream.lab.federation import ADMIN

from .lab import LOGS, SITES, Job, Lab, ended, wait_for

pytestmark = pytest.mark.timeout(240)

SCRIPT = [["lines", 700, 0.0], ["rotate"], ["traceback"], ["warning", "the end"]]
ABSENT = "site-9"
README_COMMANDS = {"logs": 6, "status": 1, "export": 1, "verify": 2}


def submit(lab: Lab) -> dict[str, Job]:
    """All jobs of these tests; some write while their test runs: lines all the time would cost a lot."""
    until_go = [["wait_for", "begin"], ["lines_until", "go", 0.02]]
    readme = [["lines", 80, 0.01, "of training"], ["warning", "loss is not a number"], ["traceback"]]
    return {
        "commands": lab.submit("commands", SCRIPT, sites=[*SITES, "site-3", ABSENT], min_clients=3),
        "live": lab.submit("followed-live", [*until_go, ["rotate"], ["warning", "the end"]]),
        "abort": lab.submit("followed-abort", until_go, sites=["site-1"]),
        "changed copy": lab.submit("changed-copy", [["lines", 5, 0.0]], sites=["site-1"]),
        "exploding": lab.submit("exploding", [["lines", 3, 0.0, "a" * 200_000]], sites=["site-1"]),
        "crowd": lab.submit("crowd", [["wait_for", "begin"], ["lines_until", "go", 0.2]], sites=["site-1"]),
        "readme": lab.submit(
            "readme", [["wait_for", "go"], *readme], sites=["site-1", "site-3", ABSENT], min_clients=2
        ),
    }


@pytest.fixture(scope="module")
def job(jobs: dict[str, Job]) -> Job:
    """A job whose sites are: two that stream, one that has opted out, and one that never connected."""
    job = jobs["commands"]
    assert job.wait() == "FINISHED:COMPLETED"
    for site in ("server", *SITES):
        job.wait_closed(site)
    return job


def envelope(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON document on stdout, whose exit code is the command's."""
    (line,) = run.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["schema_version"] == "1" and found["exit_code"] == run.returncode, (found, run.stderr)
    assert found["status"] == "ok" or found["message"]
    return found


def test_three_sites_three_answers(lab: Lab, job: Job) -> None:
    run = lab.run("logs", job.id, "--site", "all", "--format", "json")
    data = envelope(run)["data"]
    assert run.returncode == 0 and not run.stderr
    sites = data["sites"]
    assert (sites["site-1"]["available"], sites["site-1"]["verdict"]) == (True, "complete")
    assert (sites["site-3"]["available"], sites["site-3"]["verdict"]) == (False, "refused")
    assert (sites[ABSENT]["available"], sites[ABSENT]["verdict"]) == (False, "never seen")
    assert data["unavailable"] == {
        "site-3": "refused (the site does not allow it (allow_log_streaming is false))",
        ABSENT: "never seen (the site was not connected when the job was started)",
    }
    last = job.written("site-1").decode().splitlines(keepends=True)[-500:]
    assert data["logs"]["site-1"] == "".join(last)
    assert sites["site-1"]["lines"] == 500 and sites["site-1"]["bytes"] == len("".join(last))
    assert (
        data["logs_truncated"] and data["filters"]["default_tail_applied"] and data["filters"]["tail"] == 500
    )


@pytest.mark.parametrize(
    "bounds",
    [("--tail", "7"), ("--max-bytes", "1000"), ("--tail", "100000"), ("--since", "2020-01-01")],
    ids=" ".join,
)
def test_the_fields_that_we_share_with_the_runtimes_command_are_equal(
    lab: Lab, job: Job, bounds: tuple[str, ...]
) -> None:
    running = lab.command("logs", job.id, "--site", "site-1", *bounds, "--format", "json")
    stock = json.loads(
        lab.nvflare("--format", "json", "job", "logs", job.id, "--site", "site-1", *bounds).stdout
    )["data"]
    ours = envelope(ended(running))["data"]
    assert ours["logs"] == stock["logs"]
    for name in ("job_id", "target", "logs_truncated"):
        assert ours[name] == stock[name], name
    assert stock["filters"].items() <= ours["filters"].items()
    assert stock["sites"]["site-1"].items() <= ours["sites"]["site-1"].items()


def test_an_answer_in_json_reads_the_log_that_the_runtimes_command_reads(lab: Lab, job: Job) -> None:
    bounds = ("--site", "site-2", "--tail", "7")
    running = lab.command("logs", job.id, *bounds, "--format", "json")
    stock = json.loads(lab.nvflare("--format", "json", "job", "logs", job.id, *bounds).stdout)["data"]
    ours = envelope(ended(running))["data"]
    assert ours["logs"] == stock["logs"] and json.loads(ours["logs"]["site-2"].splitlines()[0])
    assert ours["sites"]["site-2"]["file"] == "log.json"


def test_what_fingers_type_does_what_is_meant(lab: Lab, job: Job) -> None:
    site = ("logs", job.id, "--site", "site-1")
    written = job.written("site-1").decode().splitlines(keepends=True)
    one, other = written[20].rstrip("\n"), written[40].rstrip("\n")
    patterns = ["-e", f"^{re.escape(one)}$", "-e", f"^{re.escape(other)}$"]
    either, apart, first, without, today, never, some = lab.run_all(
        [*site, *patterns],
        [*site, *patterns, "-C", "1"],
        [*site, "--head", "2"],
        [*site, "--exclude", " - INFO - ", "--level", "info", "--tail", "all"],
        [*site, "--since", "today", "--level", "warn"],
        [*site, "--since", "10:00", "--until", "9:00"],
        ["logs", job.id, "--exclude-site", "server,site-2", "--tail", "1"],
    )
    assert either.stdout == written[20] + written[40], either
    assert apart.stdout == "".join([*written[19:22], "--\n", *written[39:42]]), apart
    assert first.stdout == "".join(written[:2]), first
    assert " - WARNING - " in without.stdout and " - INFO - " not in without.stdout
    assert "the end" in today.stdout and today.returncode == 0, today
    assert never.returncode == 4 and "not after until, '9:00'" in never.stderr
    assert some.stdout.startswith("===== site-1 =====\n") and "site-2" not in some.stdout, some


def test_all_jobs_with_their_sites_verdicts_are_listed_for_those_who_may_see_them(lab: Lab, job: Job) -> None:
    text, data, table, denied = lab.run_all(
        ["status"],
        ["status", "--site", "site-3,site-9", "--verdict", "refused,never-seen", "--format", "json"],
        ["status", job.id, "--site", "site-1", "--format", "csv"],
        ["status"],
        kits=[ADMIN, ADMIN, ADMIN, "member@nvidia.com"],
    )
    (line,) = [line for line in text.stdout.splitlines() if job.id[:8] in line]
    assert "COMPLETED" in line and "refused: site-3" in line and "complete: server site-1 site-2" in line
    (row,) = [row for row in envelope(data)["data"]["jobs"] if row["job_id"] == job.id]
    assert [(site["site"], site["verdict"]) for site in row["sites"]] == [
        ("site-3", "refused"),
        (ABSENT, "never seen"),
    ]
    assert table.stdout.startswith("site,file,verdict,") and "\nsite-1,log.txt,complete,," in table.stdout
    assert denied.returncode == 2 and "AUTH_FAILED" in denied.stderr


def test_a_shell_is_offered_what_the_server_knows(lab: Lab, job: Job) -> None:
    def offered(*words: str) -> list[str]:
        typed = {"COMP_WORDS": "\n".join(["nvflare-logstream", *words]), "COMP_CWORD": str(len(words))}
        asked = {"_NVFLARE_LOGSTREAM_COMPLETE": "complete_bash", "XDG_CACHE_HOME": str(lab.root / "cache")}
        answer = ended(lab.command(env={**asked, **typed}))
        assert not answer.stderr
        return answer.stdout.split()

    wait_for(lambda: job.id in offered("logs", job.id[:4]), "the server's answer")
    wait_for(lambda: offered("logs", job.id, "--site", "s") == ["server", *SITES, "site-3", ABSENT], "sites")


def test_text_for_people(lab: Lab, job: Job) -> None:
    errors_anywhere = ["logs", job.id, "--site", "site-*", "--file", "error_log.txt"]
    one, several, errors, coloured = lab.run_all(
        ["logs", job.id[:13], "--site", "site-1", "-n", "3"],
        ["logs", job.id, "--site", "site-1", "--site", "site-3", "-n", "1"],
        [*errors_anywhere, "--prefix", "-g", "^VALUEERROR", "-i"],
        ["logs", job.id, "--site", "site-1", "--level", "warning", "--color", "always", "-g", "the end"],
    )
    assert (
        one.stdout.encode() == b"".join(job.written("site-1").splitlines(keepends=True)[-3:])
        and one.returncode == 0
    )
    assert one.stderr == f"job {job.id}\n", "an id that was not typed in full is told"
    assert several.stdout.startswith("===== site-1 =====\n") and several.stderr.startswith(
        "site-3: refused ("
    )
    assert re.fullmatch(
        r"(site-1 ValueError: a value that\n)+(site-2 ValueError: a value that\n)+", errors.stdout
    ), errors.stdout
    assert "\x1b[33m" in coloured.stdout and "the end" in coloured.stdout


def test_merged_lines_are_in_the_order_of_their_time(lab: Lab, job: Job) -> None:
    shown = lab.run("logs", job.id, "--site", "all", "--merge", "--tail", "100000").stdout.splitlines(
        keepends=True
    )
    for site in ("server", *SITES):
        assert "".join(
            line.removeprefix(f"{site} ") for line in shown if line.startswith(f"{site} ")
        ).encode() == job.written(site)
    # Within a site the order of the lines is the file's, also where two threads logged a millisecond out of
    # order.
    skews = {
        stream.site: stream.skew
        for stream in LogClient(SessionPort(lab.federation.session())).streams(job.id)
        if stream.file == "log.txt"
    }
    latest = dict.fromkeys(skews, 0.0)
    order = []
    for site, stamp in re.findall(r"^(\S+) (\d{4}-\S+ \S+) - ", "".join(shown), re.M):
        latest[site] = max(
            datetime.strptime(f"{stamp}000", "%Y-%m-%d %H:%M:%S,%f").timestamp() - skews[site], latest[site]
        )
        order.append(latest[site])
    assert order == sorted(order) and min(latest[site] for site in ("server", *SITES)) > 0


def test_json_logs_are_shown_as_text(lab: Lab, job: Job) -> None:
    command = ("logs", job.id, "--site", "site-2", "--file", "log.json", "--grep", "the end")
    text, data, missing = lab.run_all(
        command, (*command, "--format", "json"), ("logs", job.id, "--site", "site-1", "--file", "log.json")
    )
    assert re.fullmatch(r"\d{4}-\S+ \S+ - \w+ - WARNING - .*the end\n", text.stdout), text
    assert json.loads(envelope(data)["data"]["logs"]["site-2"])["message"] == "the end"
    assert missing.returncode == 1 and "it sends error_log.txt, log.txt" in missing.stderr


def test_following_to_the_end_as_text_events_and_files(lab: Lab, jobs: dict[str, Job]) -> None:
    running = jobs["live"]
    for act in (lambda site: running.signal(site, "begin"), running.wait_live):
        for site in SITES:
            act(site)
    text = lab.command("logs", running.id, "--site", "all", "-f")
    events = lab.command("logs", running.id, "--site", "site-1", "-f", "--format", "jsonl")
    files = lab.command("logs", running.id, "--site", "site-*", "-f", "-o", str(lab.root / "followed"))
    status = lab.command("status", running.id, "--watch", "--interval", "0.2", "--format", "jsonl")
    wait_for((lab.root / "followed" / "site-2" / "log.txt").exists, "the last follower")
    for site in SITES:
        running.signal(site)
    assert running.wait() == "FINISHED:COMPLETED"
    results = {name: (*process.communicate(timeout=60), process.returncode) for name, process in
               (("text", text), ("events", events), ("files", files), ("status", status))}  # fmt: skip
    assert [code for *_, code in results.values()] == [0, 0, 0, 0], results
    for site in ("server", *SITES):
        lines = [
            line.removeprefix(f"{site} ")
            for line in results["text"][0].splitlines(keepends=True)
            if line.startswith(f"{site} ")
        ]
        assert "".join(lines).encode() == running.written(site)
    rows = [json.loads(line) for line in results["events"][0].splitlines()]
    assert "".join(row["line"] + "\n" for row in rows if row["event"] == "line").encode() == running.written(
        "site-1"
    )
    assert [row["event"] for row in rows if row["event"] != "line"] == ["joined", "ended", "terminal"]
    assert rows[-1] == {
        "schema_version": "1",
        "event": "terminal",
        "terminal": True,
        "job_id": running.id,
        "status": "ok",
        "job_status": "FINISHED:COMPLETED",
        "exit_code": 0,
    }
    for site in SITES:
        assert (lab.root / "followed" / site / "log.txt").read_bytes() == running.written(site)
    looks = [json.loads(line) for line in results["status"][0].splitlines()]
    assert looks[0]["data"]["job_status"] == "RUNNING" and any(
        row["rate"] > 0 for row in looks[0]["data"]["streams"]
    )
    assert [look["terminal"] for look in looks] == [False] * (len(looks) - 1) + [True]


def test_following_an_aborted_job_fails(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["abort"]
    job.signal("site-1", "begin")
    job.wait_live("site-1")
    follower = lab.command("logs", job.id, "--site", "site-1", "-f")
    assert follower.stdout is not None and follower.stdout.readline(), "it follows before the job is aborted"
    lab.federation.abort(job.id)
    _, err = follower.communicate(timeout=60)
    assert follower.returncode == 1 and err.splitlines()[-1] == "job: over: FINISHED:ABORTED"


def test_status(lab: Lab, job: Job) -> None:
    shown, document = lab.run_all(["status", job.id], ["status", job.id, "--format", "json"])
    table = shown.stdout
    for row in (
        r"site-1 +error_log.txt +complete",
        r"log.txt +complete +[\d,]+ +7\d\d +",
        r"site-3 +error_log.txt +refused",
        rf"{ABSENT} +log.txt +never seen",
    ):
        assert re.search(row, table), table
    assert f"{ABSENT}: never seen: the site was not connected when the job was started" in table
    data = envelope(document)["data"]
    row = next(row for row in data["streams"] if (row["site"], row["file"]) == ("site-1", "log.txt"))
    assert (
        row["bytes"] == len(job.written("site-1"))
        and row["lag"] is None
        and data["job_status"] == "FINISHED:COMPLETED"
    )


def test_the_server_tells_admins_how_it_is_doing_and_others_no_names(lab: Lab, job: Job) -> None:
    shown = lab.run("server").stdout
    for row in (
        r"^log receiver \S+ on nvflare \S+, up ",
        r"^logs +\d.* closed",
        r"^incoming +\S+ \S+/s in \S+ requests/s; \d[\d,]* requests since the start",
        r"^disk +\S+ \S+ of logs in .*logstream; .* free, .* stay free",
        r"^max_store_gib +\S+ \S+ +256\.0 GiB +\d+% ",
        r"^site-1 +\S+ \S+ +\S+ \S+/s +\d",
    ):
        assert re.search(row, shown, re.M), shown
    data = envelope(lab.run("server", "--format", "json"))["data"]
    assert data["named"] and data["streams"]["closed"] >= 6 and data["requests"] > 0 and data["up"] > 0
    assert data["disk"]["directory"] == str(lab.store) and data["disk"]["free"] > 0
    stored = {row["site"]: row["stored"] for row in data["sites"]}
    assert stored["site-1"] >= len(job.written("site-1")) and not stored.get("site-3")
    lead = lab.run("server", "--format", "json", kit="lead@nvidia.com")
    totals = envelope(lead)["data"]
    assert not totals["named"] and totals["requests"] >= data["requests"]
    for name in (*SITES, job.id, str(lab.store)):
        assert name not in lead.stdout
    member = lab.run("server", kit="member@nvidia.com")
    assert (member.returncode, member.stdout) == (2, "") and "the server's status" in member.stderr


def test_the_doctor_asks_the_server_and_each_sites_own_python(lab: Lab, job: Job) -> None:
    kits = [str(lab.federation.client_dir(site)) for site in ("site-1", "site-3", "site-4")]
    run = lab.run("doctor", *kits, str(lab.federation.admin_dir()), "--format", "json")
    findings = json.loads(run.stdout)["data"]["findings"]
    found = {(row["place"], row["check"]): row for row in findings}
    here = f"nvflare_logstream {__version__}, protocol 1, nvflare "
    for check in ("package", "versions"):  # what is installed there, and what the site told the server
        assert found["site-1", check]["text"].startswith(here), findings
    assert found["site-1", "site"]["text"].startswith("heard of "), findings
    assert found["site-3", "policy"]["severity"] == "warning"
    assert found["site-4", "allow_list"]["severity"] == "error" and run.returncode == 1
    errors = {(row["place"], row["check"]) for row in findings if row["severity"] == "error"}
    assert {place for place, check in errors if check != "site"} == {"site-4"}, findings


def test_export_and_verify(lab: Lab, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "export"
    run = lab.run("export", job.id, "-o", str(out))
    assert run.returncode == 0 and run.stdout.startswith("exported 8 logs of job"), run.stderr
    assert f"{ABSENT}/log.txt: never seen" in run.stderr and "site-3/log.txt: refused" in run.stderr
    for site in SITES:
        for file in LOGS:
            assert (out / site / file).read_bytes() == job.written(site, file)
    verified = lab.run("verify", str(out))
    never_seen = f"✗ {ABSENT}/log.txt incomplete: never seen"
    assert verified.returncode == 1 and never_seen in verified.stdout, verified.stdout
    assert "1 of 11 logs are not as they should be" in verified.stdout, verified.stdout
    assert "✓ manifest.json signed by admin@nvidia.com (nvidia, " in verified.stdout
    assert ") of federation logstream" in verified.stdout
    against = lab.run("verify", str(out), "--against", job.id)
    assert against.returncode == 1 and never_seen in against.stdout, against.stdout
    assert "1 of 11 logs are not as they should be" in against.stdout, against.stdout
    again = lab.run("export", job.id, "-o", str(out), "--format", "json")
    assert again.returncode == 1 and envelope(again)["error_code"] == "OUTPUT_DIR_EXISTS"
    assert lab.run("export", job.id, "-o", str(out), "--force").returncode == 0
    with (out / "site-1" / "log.txt").open("r+b") as file:
        file.seek(100)
        file.write(b"#")
    changed = lab.run("verify", str(out), "--format", "json")
    assert changed.returncode == 1
    bad = [finding for finding in envelope(changed)["data"]["findings"] if not finding["good"]]
    assert [(finding["site"], finding["file"], finding["result"]) for finding in bad] == [
        ("site-1", "log.txt", "differs"),
        (ABSENT, "log.txt", "incomplete"),
    ]
    verified = lab.run("verify", job.id)
    assert verified.returncode == 1 and never_seen in verified.stdout
    assert verified.stdout.count("✓") == 10 and "1 of 11 logs are not as they should be" in verified.stdout, (
        verified.stdout
    )


def test_verify_and_export_find_a_changed_copy_on_the_server(
    lab: Lab, jobs: dict[str, Job], tmp_path: Path
) -> None:
    job = jobs["changed copy"]
    job.wait_closed("site-1")
    job.wait_closed("site-1", "error_log.txt")
    job.wait()
    job.wait_closed("server")
    job.wait_closed("server", "error_log.txt")
    assert lab.run("verify", job.id).returncode == 0
    path = job.path("site-1", "log.txt")
    with path.open("r+b") as file:
        file.write(b"#")
    found = lab.run("verify", job.id)
    assert found.returncode == 1 and "✗ site-1/log.txt differs" in found.stdout
    out = str(tmp_path / "export")
    exported = lab.run("export", job.id, "-o", out)
    assert exported.returncode == 1 and "the copy is not what the site wrote" in exported.stderr
    found = lab.run("verify", out)
    assert found.returncode == 1 and "✗ site-1/log.txt differs: matches its manifest, but" in found.stdout


def test_who_may_not_gets_no_byte(lab: Lab, job: Job) -> None:
    cases = (
        (2, ("logs", job.id, "--site", "all"), "member@nvidia.com"),
        (2, ("logs", job.id, "--site", "all", "--study", "other"), "admin@nvidia.com"),
        (2, ("logs", job.id, "--site", "all", "-f"), "member@nvidia.com"),
        (2, ("status", job.id), "member@nvidia.com"),
        (2, ("export", job.id, "-o", str(lab.root / "none")), "member@nvidia.com"),
        (2, ("verify", job.id), "member@nvidia.com"),
        (1, ("logs", "00000000-0000-0000-0000-000000000000"), "admin@nvidia.com"),
        (1, ("logs", "fffffff"), "admin@nvidia.com"),
    )
    _, commands, kits = zip(*cases, strict=True)
    for (code, arguments, _), run in zip(cases, lab.run_all(*commands, kits=kits), strict=True):
        assert (run.returncode, run.stdout) == (code, ""), (arguments, run.stdout, run.stderr)
        assert "Hint: " in run.stderr or "no job that you may see" in run.stderr
    assert not (lab.root / "none").exists()


def test_following_what_is_not_there_says_so(lab: Lab, job: Job) -> None:
    run = lab.run("logs", job.id, "--site", "site-typo", "-f")
    assert (
        run.returncode == 1
        and "site-typo: no log: never seen (no such site in this job; the job has server" in run.stderr
    )


def test_an_exploding_pattern_costs_linear_time(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["exploding"]
    job.wait_closed("site-1")
    began = time.monotonic()
    run = lab.run("logs", job.id, "--site", "site-1", "-g", "(a+)+$" + "(a|aa)*" * 20 + "b")
    assert run.returncode == 0 and run.stdout == "" and time.monotonic() - began < 10


def test_64_followers_leave_the_server_able_to_answer_others(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["crowd"]
    job.signal("site-1", "begin")
    job.wait_live("site-1", b"- line 2")
    begun, texts = threading.Barrier(65, timeout=60), []

    def follow() -> None:
        client, has_begun = LogClient(SessionPort(lab.federation.session())), False
        while True:
            text = ""
            try:
                for event in client.follow(job.id, LogQuery(sites=("site-1",))):
                    if event.kind == "text":
                        text += event.text
                    elif event.kind == "joined" and not has_begun:
                        has_begun = bool(begun.wait() >= 0)
            except NoReconnectError:  # 64 threads of one process, on a busy machine: an answer came too late
                continue
            texts.append(text)
            return

    threads = [threading.Thread(target=follow) for _ in range(64)]
    for thread in threads:
        thread.start()
    begun.wait()
    other, took = lab.federation.session("lead@nvidia.com"), []
    for _ in range(20):
        began = time.monotonic()
        assert other.get_system_info().client_info
        took.append(time.monotonic() - began)
    job.signal("site-1")
    for thread in threads:
        thread.join(90)
    assert max(took) < 2.0, took
    assert [text.encode() for text in texts] == [job.written("site-1")] * 64


def test_the_readmes_commands_print_what_it_shows(lab: Lab, jobs: dict[str, Job]) -> None:
    """Numbers, times and ids apart; what goes to stderr may come at another place than on a terminal.

    Whoever follows does so while the job runs, everything else comes after it, a check of the export last.
    """
    job = jobs["readme"]
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    examples = re.findall(r"^\$ nvflare-logstream (.*)\n((?:(?!\$ |```).*\n)*)", readme, re.M)
    of_job = {command: shown for command, shown in examples if command not in ("server", "status")}
    assert Counter(shlex.split(command)[0] for command in of_job) == README_COMMANDS
    words = {command: shlex.split(command.replace("3f3212db", job.id)) for command in of_job}
    notices = lab.root / "readme.err"
    with notices.open("w") as err:
        first, *while_it_runs = (command for command in of_job if {"-f", "--follow"} & {*words[command]})
        follower = lab.command(*words[first], stderr=err)
    wait_for(lambda: notices.read_text().count(": streaming\n") == 2, "the follower to begin", 180)
    (last,) = (command for command in of_job if command == "verify ./last-night")
    after = [command for command in of_job if command not in (first, *while_it_runs, last)]
    runs = dict(zip(while_it_runs, lab.run_all(*map(words.get, while_it_runs)), strict=True))
    for site in ("site-1", "site-3"):
        job.signal(site)
    runs[first] = ended(follower)
    runs[first].stderr = notices.read_text()
    runs |= zip(after, lab.run_all(*map(words.get, after)), strict=True)
    runs[last] = lab.run(*words[last])
    for command, shown in of_job.items():
        assert comparable(runs[command].stdout + runs[command].stderr) == comparable(shown), command
        assert runs[command].returncode == (1 if "✗" in shown or "(exit 1)" in shown else 0), command
    server, listed = lab.run_all(["server"], ["status"])  # of all jobs, those of other tests too
    shown = dict(examples)
    assert labels(shown["server"]) <= labels(server.stdout)
    rows = comparable(listed.stdout.replace(job.id[:8], "3f3212db"))
    wanted = [row for row in comparable(shown["status"]) if "submitted" in row or "readme" in row]
    assert len(wanted) == 2 and set(wanted) <= set(rows)


def labels(text: str) -> set[str]:
    """What the rows are about; whether all is well depends on the other tests."""
    return {line.split()[0] for line in text.splitlines() if line.strip() and line[0] not in "✓✗─ "}


def comparable(text: str) -> list[str]:
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]+){4}", "ID", text)
    text = re.sub(r"\d[\d,.:]*( kB/s| B/s)?", "0", text)
    return sorted(filter(None, (re.sub(r"[ ─]+", " ", line).strip() for line in text.splitlines())))
