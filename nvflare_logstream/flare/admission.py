"""Which site may write logs of which job, as the server's parent process knows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from nvflare.apis.fl_constant import RunProcessKey
from nvflare.apis.job_def import ALL_SITES, JobMetaKey

from nvflare_logstream.errors import RefusedError
from nvflare_logstream.flare.job_store import JobStore
from nvflare_logstream.flare.runtime import site_settings
from nvflare_logstream.flare.site_policy import ALLOW_VARIABLE
from nvflare_logstream.names import SERVER_SITE, is_site
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State
from nvflare_logstream.wire.upload_reply import Status

_UNSURE = "the job store does not give job"  # and whether it is deleted is not sure yet
_REMEMBER = 10.0  # seconds a decision holds
_MAX_REMEMBERED = 1000  # decisions a site
_MAX_SITES = 4096  # of which decisions are remembered; where nobody is authenticated, anybody claims a name
_SHOWN_NAME = 80  # characters of a name that is refused


def participants(engine: Any, job_id: str) -> set[str]:
    """Names of the sites that run a job now; empty when its server process is not there."""
    process = engine.run_processes.get(job_id) or {}
    clients = process.get(RunProcessKey.PARTICIPANTS) or {}
    return {client.name for client in clients.values()}


class JobAdmission:
    """Decides for the receiver: who runs a job, or ran one still in the job store, may write its logs.

    Args:
        engine: the server's engine.
        store: a site that has streams of a job in it was admitted before.
        clock: gives the time in seconds, from any beginning.

    Attributes:
        deleted: whether it is sure that a job was deleted, for the store's sweep. What sites ask has no part
            in it.
    """

    def __init__(self, engine: Any, store: LogStore, clock: Callable[[], float] = time.monotonic):
        self._engine, self._store, self._clock = engine, store, clock
        self._jobs = JobStore(engine, self._other_jobs, clock)
        self.deleted = JobStore(engine, self._other_jobs, clock).deleted
        # By site and job; the sites in the order in which they asked last.
        self._decided: dict[str, dict[str, tuple[float, Admission]]] = {}
        self._lock = threading.Lock()

    def __call__(self, site: str, job_id: str) -> Admission:
        """Decide; a decision holds for some seconds, since each costs a look into the job store."""
        if site == SERVER_SITE or not is_site(site):  # not remembered: it is as long as its sender likes
            shown = site[:_SHOWN_NAME]
            return Admission(Status.REFUSED, f"no site may write logs under the name {shown!r}")
        now, decided = self._clock(), self._decided_of(site)
        until, decision = decided.get(job_id, (0.0, Admission()))
        if now < until:
            return decision
        decision = self._decide(site, job_id)
        if len(decided) >= _MAX_REMEMBERED:
            decided.clear()
        if decision.status is not Status.LATER or decision.reason.startswith(_UNSURE):
            decided[job_id] = (now + _REMEMBER, decision)
        return decision

    def _decided_of(self, site: str) -> dict[str, tuple[float, Admission]]:
        """What was decided of a site; those that have not asked for longest are forgotten."""
        with self._lock:
            decided = self._decided[site] = self._decided.pop(site, {})
            if len(self._decided) > _MAX_SITES:
                del self._decided[next(iter(self._decided))]
        return decided

    def absent(self, job_id: str) -> set[str]:
        """Sites that a job that was just started names, and that do not run it: they were not connected."""
        deploy_map = (self._jobs.meta(job_id) or {}).get(JobMetaKey.DEPLOY_MAP.value) or {}
        sites = {str(site) for places in deploy_map.values() for site in places}
        return sites - participants(self._engine, job_id) - {SERVER_SITE, ALL_SITES}

    def _decide(self, site: str, job_id: str) -> Admission:
        decision = self._decide_by_job(site, job_id)
        if decision.status is Status.OK and not self._site_allows(site):
            reason = f"the site does not allow it ({ALLOW_VARIABLE} is not true)"
            return Admission(Status.REFUSED, reason, by_policy=True)
        return decision

    def _site_allows(self, site: str) -> bool:
        """What the site said when it registered; where it said nothing, its own components decide alone."""
        return site_settings(self._engine, site).get(ALLOW_VARIABLE, True) is True

    def _decide_by_job(self, site: str, job_id: str) -> Admission:
        if site in participants(self._engine, job_id):
            return Admission()
        try:
            self._store.check_kept(job_id)
        except RefusedError as error:
            return Admission(Status.REFUSED, str(error))
        meta = self._jobs.meta(job_id)
        if meta is None:
            if self._jobs.deleted(job_id):
                return Admission(Status.REFUSED, f"job {job_id} is not in the job store")
            return Admission(Status.LATER, f"{_UNSURE} {job_id} now")
        if self._has_streams(site, job_id) or site in _deployed_to(meta):
            return Admission()
        if str(meta.get(JobMetaKey.STATUS.value, "")).startswith("FINISHED"):
            return Admission(Status.REFUSED, f"{site} takes no part in job {job_id}")
        return Admission(Status.LATER, f"job {job_id} is not started yet")

    def _has_streams(self, site: str, job_id: str) -> bool:
        return any(
            stream.state is not State.EXPECTED for stream in self._store.streams(job_id, site, brief=True)
        )

    def _other_jobs(self) -> Iterator[str]:
        """Jobs that the job store is likely to have: those that run, then the newest with logs here."""
        yield from list(self._engine.run_processes)
        jobs = sorted(self._store.index.jobs(), key=lambda job: job.last_seen, reverse=True)
        yield from (job.job_id for job in jobs)


def _deployed_to(meta: dict[str, Any]) -> set[str]:
    """Sites that a job was deployed to, from the detail the runtime records: "site-1: OK"."""
    detail = meta.get(JobMetaKey.JOB_DEPLOY_DETAIL.value) or []
    return {str(row).rsplit(":", 1)[0] for row in detail if str(row).endswith(": OK")}
