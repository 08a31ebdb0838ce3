"""A federation that changes over on three days, one machine after the other, in two orders; and one that goes
back meanwhile.

It begins as the runtime provisions it. In each state a job runs through, one is killed at a site and aborted,
and one runs across the change. What the runtime alone gives is seen in the first state and, where machines
are restarted, in a federation that does not change: each error log as a whole, and no other log of a site.
Nobody has less than that, what is said of each log is so, and at the end all are complete.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream.lab.federation import ADMIN
from nvflare_logstream.lab.kits import SiteSetup
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.streams import State, Verdict

from .lab import LOGS, SCHEDULER, Job, Lab, wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.by_hand]

_, ERRORS = LOGS
SITES = KILLED, ABORTED, OPTED_OUT = ("site-1", "site-2", "site-3")
OTHERS = (ABORTED, OPTED_OUT)
OURS, STOCK, AS_IT_IS = ("--yes",), ("--remove", "--yes"), ()  # what `setup` is told, if it runs
BACK = "and back"  # it begins with ours at a site and the server
# On each day these machines are set up and restarted, while a job runs.
DAYS: Mapping[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "not at all": [((KILLED,), AS_IT_IS), ((SERVER_SITE,), AS_IT_IS)],
    "server first": [((SERVER_SITE,), OURS), ((KILLED,), OURS), (OTHERS, OURS)],
    "sites first": [((KILLED,), OURS), (OTHERS, OURS), ((SERVER_SITE,), OURS)],
    BACK: [
        ((SERVER_SITE,), STOCK),
        ((SERVER_SITE,), OURS),
        ((KILLED,), STOCK),
        (SITES, OURS),
    ],
}
AS_SHIPPED: dict[str, Any] = {"remove_stock_log_components": False, "class_allow": ()}
NOT_CHECKED = "sent by the runtime's own streamer: not checked"
_BEGIN = [["lines", 100], ["traceback"]]
_ON, _FOR_EVER = (["lines_until", sign, 0.02, "error"] for sign in ("go", "never"))
_IS_ON = b"line 20"


@dataclass
class Begun:
    """A job, the machines that had ours when it began, and those that were restarted while it ran."""

    job: Job
    had: frozenset[str]
    restarted: frozenset[str] = frozenset()


class ChangingLab(Lab):
    """A federation whose machines are changed as an admin does it."""

    def __init__(self, root: Path):
        keeps_logs = SiteSetup(extra={"allow_log_streaming": False}, **AS_SHIPPED)
        setups = {"server": SiteSetup([SCHEDULER], **AS_SHIPPED), "client": SiteSetup(**AS_SHIPPED)}
        super().__init__(root, clients=SITES, overrides={OPTED_OUT: keeps_logs}, **setups)
        self.has: frozenset[str] = frozenset()  # the machines that have ours
        self.began = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:5.1f} s: {what}", flush=True)

    @property
    def kits(self) -> Path:
        return self.federation.server_dir.parent

    def change(self, names: tuple[str, ...], how: tuple[str, ...]) -> None:
        """Set machines up, or undo that, and restart them."""
        for name in names:
            if how:
                command = [sys.executable, "-m", "nvflare_logstream.cli.main", "setup", str(self.kits / name)]
                subprocess.run([*command, *how], check=True, stdout=subprocess.DEVNULL)
            self.federation.kill(name)
            self.federation.start_site(name)
        self.federation.wait_ready()
        self.has = self.has - {*names} if how == STOCK else self.has | {*names} if how else self.has
        self.say(f"{', '.join(names)} restarted; ours: {', '.join(sorted(self.has)) or 'nowhere'}")

    def day(self, number: int, names: tuple[str, ...] = (), how: tuple[str, ...] = ()) -> list[Begun]:
        """Run the jobs of one state, and change it while the last of them runs."""
        had = self.has
        normal = self.submit(f"normal-{number}", [*_BEGIN, ["lines", 20, 0.02]], sites=SITES)
        scripts = {KILLED: [*_BEGIN, _ON, ["kill"]], ABORTED: [*_BEGIN, _FOR_EVER]}
        broken = self.submit(f"broken-{number}", scripts, sites=(KILLED, ABORTED))
        begun = [Begun(normal, had), Begun(broken, had)]
        if names:
            across = self.submit(f"across-{number}", [*_BEGIN, _ON, ["traceback"]], sites=SITES)
            begun.append(Begun(across, had, frozenset(names)))
        assert normal.wait() == "FINISHED:COMPLETED"
        self._wait_on(broken)
        broken.signal(KILLED)
        wait_for(lambda: not broken.runs_at(KILLED), "the kill")
        self.federation.abort(broken.id)
        assert broken.wait().startswith("FINISHED")
        self.say("one job ran through, one was killed and aborted")
        if names:
            self._wait_on(across)
            self.change(names, how)
            self._end(across, {*names})
        return begun

    def _wait_on(self, job: Job) -> None:
        for site in job.sites:
            path = job.directory(site) / ERRORS
            wait_for(lambda path=path: path.exists() and _IS_ON in path.read_bytes(), f"{path} to grow")

    def _end(self, job: Job, restarted: set[str]) -> None:
        for site in job.sites:
            job.signal(site)
        if SERVER_SITE not in restarted:  # which takes up no job again
            self.federation.abort(job.id)  # it would wait for the site that was restarted
            job.wait()
        wait_for(lambda: not any(job.runs_at(name) for name in (SERVER_SITE, *SITES)), "the job's end")
        self.say("one job ran across the change")

    def copies(self, job: Job, site: str, file: str) -> list[bytes]:
        """What the server has of a log: the runtime's own receiver keeps it in the job store."""
        component = f"ERRORLOG_{site}" if file == ERRORS else f"LOG_{file}_{site}"
        kept = self.federation.server_dir / "jobs-storage" / job.id / component
        return [path.read_bytes() for path in (kept, job.path(site, file)) if path.exists()]

    def components(self, job: Job) -> list[str]:
        """What the runtime's `download_job_components` brings."""
        components: list[str] = self.federation.session().list_job_components(job.id)
        return components

    def shown(self, job: Job) -> dict[str, str]:
        """What `nvflare job logs --site all` shows, by site."""
        logs: dict[str, str] = self.federation.session().get_job_logs(job.id, target="all")["logs"]
        return logs


@pytest.mark.parametrize("order", DAYS)
def test_nobody_has_less_than_before_and_at_the_end_all_is_complete(tmp_path: Path, order: str) -> None:
    with ChangingLab(tmp_path) as lab:
        lab.say("the federation is up, as it was provisioned")
        if order == BACK:
            lab.change((KILLED, SERVER_SITE), OURS)
        begun: list[Begun] = []
        shown: list[tuple[Job, dict[str, str]]] = []
        for number, (names, how) in enumerate([*DAYS[order], ((), ())]):
            new = lab.day(number, names, how)
            begun += new
            for one in new:
                check_job(lab, one)
            check_what_is_said(lab, set(names))
            shown += [(one.job, lab.shown(one.job)) for one in new if not one.restarted]
            lab.say("checked")
        for one in begun:
            check_job(lab, one)
        for job, before in shown:
            after = lab.shown(job)
            assert all(after[site].startswith(text) for site, text in before.items()), job.id
        lab.say("checked again")


def check_job(lab: ChangingLab, begun: Begun) -> None:
    job = begun.job
    for site in job.sites:
        if site == OPTED_OUT:
            check_kept_back(lab, begun)
            continue
        for file in LOGS:
            check_log(lab, begun, site, file)
        wait_for(lambda site=site: f"ERRORLOG_{site}" in lab.components(job), f"{site} in {job.id}", 150)


def _until_the_streamer_ended(written: bytes) -> bytes:
    """Without what a job's process logs last, of its parent that is gone: by then its streamer has ended."""
    lines = written.splitlines(keepends=True)
    while lines and b" - conn_manager - " in lines[-1]:
        lines.pop()
    return b"".join(lines)


def check_log(lab: ChangingLab, begun: Begun, site: str, file: str) -> None:
    job, written = begun.job, begun.job.written(site, file)
    went_back = site in begun.had and site in begun.restarted and site not in lab.has
    if file == ERRORS:  # all that the runtime alone gives
        least = _until_the_streamer_ended(written)
        wait_for(
            lambda: any(
                copy.startswith(least) and written.startswith(copy) for copy in lab.copies(job, site, file)
            ),
            f"{site}/{file} of {job.id}",
            60,
        )
    if SERVER_SITE in lab.has and site in begun.had and not went_back:
        job.assert_complete(site, file, outcome=job.wait_closed(site, file).outcome)
    elif SERVER_SITE in lab.has and (stream := job.stream(site, file)):
        if site in begun.had:
            assert stream.verdict is not Verdict.COMPLETE
        elif stream.state is not State.EXPECTED:
            stream = job.wait_closed(site, file)
            assert stream.verdict is Verdict.PARTIAL and stream.verdict_reason.startswith(NOT_CHECKED), stream
            assert stream.end == job.path(site, file).stat().st_size
    for copy in lab.copies(job, site, file):
        assert written.startswith(copy), f"{site}/{file} of {job.id}: no byte is there twice or another"


def check_kept_back(lab: ChangingLab, begun: Begun) -> None:
    job = begun.job
    assert not any(lab.copies(job, OPTED_OUT, file) for file in LOGS)
    if SERVER_SITE not in lab.has:
        return
    if OPTED_OUT in begun.had:
        assert job.wait_closed(OPTED_OUT).verdict is Verdict.REFUSED
    elif stream := job.stream(OPTED_OUT):
        assert stream.verdict is Verdict.NEVER_SEEN


def check_what_is_said(lab: ChangingLab, changed: set[str]) -> None:
    """The doctor tells by each machine's files, and by each site's last logs, what runs there.

    The last logs of sites that have `changed` just now are those of a job from before.
    """
    run = lab.run(
        "doctor", str(lab.kits), "--startup-kit", str(lab.federation.admin_dir()), "--format", "json"
    )
    findings = json.loads(run.stdout)["data"]["findings"]
    for name in (SERVER_SITE, *SITES):
        texts = [found["text"] for found in findings if found["place"] == name]
        listed = any("nvflare.app_common.logging." in text for text in texts)
        assert listed is (name not in lab.has), texts
    if SERVER_SITE not in lab.has:
        (asked,) = [found for found in findings if found["place"] == ADMIN]
        assert "has no nvflare_logstream.JobLogReceiver" in asked["text"]
        return
    for site in {KILLED, ABORTED} - changed:
        texts = [found["text"] for found in findings if found["place"] == site]
        by_stock = "its last logs were sent by the runtime's own streamer, and are not checked" in texts
        assert by_stock is (site not in lab.has), texts
