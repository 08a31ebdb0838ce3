"""Which site may write logs of which job, as the server parent knows it."""

from __future__ import annotations

import time
from typing import Any

from nvflare.apis.fl_constant import RunProcessKey
from nvflare.apis.job_def import ALL_SITES, JobMetaKey

from nvflare_logstream.flare.site_policy import ALLOW_VARIABLE
from nvflare_logstream.names import SERVER_SITE
from nvflare_logstream.server.receiver import Admission
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State
from nvflare_logstream.wire.upload_reply import Status

_REMEMBER = 10.0  # seconds a decision holds
_MAX_REMEMBERED = 10_000


def participants(engine: Any, job: str) -> set[str]:
    """Names of the sites that run `job` now; empty when its server process is not there."""
    process = engine.run_processes.get(job) or {}
    clients = process.get(RunProcessKey.PARTICIPANTS) or {}
    return {client.name for client in clients.values()}


class JobAdmission:
    """Decides for the receiver: a participant of a running job, or of one that is still in the job store.

    Args:
        engine: the server's engine.
        store: a site that has streams of a job there was let in before.
    """

    def __init__(self, engine: Any, store: LogStore):
        self._engine, self._store = engine, store
        self._decided: dict[tuple[str, str], tuple[float, Admission]] = {}

    def __call__(self, site: str, job: str) -> Admission:
        """Decide; a decision holds for some seconds, so that a request does not cost a look into the job store."""
        now = time.monotonic()
        until, decision = self._decided.get((site, job), (0.0, Admission()))
        if now < until:
            return decision
        decision = self._decide(site, job)
        if len(self._decided) >= _MAX_REMEMBERED:
            self._decided.clear()
        if decision.status is not Status.LATER:
            self._decided[(site, job)] = (now + _REMEMBER, decision)
        return decision

    def job_exists(self, job: str) -> bool:
        """Whether the job is in the job store (or running)."""
        return job in self._engine.run_processes or self._meta(job) is not None

    def absent(self, job: str) -> set[str]:
        """Sites that a job that was just started names, and that do not run it: they were not connected."""
        named = (self._meta(job) or {}).get(JobMetaKey.DEPLOY_MAP.value) or {}
        sites = {str(site) for places in named.values() for site in places}
        return sites - participants(self._engine, job) - {SERVER_SITE, ALL_SITES}

    def _decide(self, site: str, job: str) -> Admission:
        if site == SERVER_SITE or not site:
            return Admission(Status.REFUSED, f"no site may write logs under the name {site!r}")
        decision = self._decide_by_job(site, job)
        client = self._engine.get_client_from_name(site)
        settings = (client.get_site_config() if client is not None else None) or {}
        if decision.status is Status.OK and settings.get(ALLOW_VARIABLE, True) is not True:
            return Admission(
                Status.REFUSED, f"the site does not allow it ({ALLOW_VARIABLE} is not true)", by_policy=True
            )
        return decision

    def _decide_by_job(self, site: str, job: str) -> Admission:
        if site in participants(self._engine, job):
            return Admission()
        meta = self._meta(job)
        if meta is None:
            return Admission(Status.REFUSED, f"job {job} is not in the job store")
        if any(
            info.state is not State.EXPECTED for info in self._store.streams(job, site)
        ) or site in _deployed_to(meta):
            return Admission()
        if str(meta.get(JobMetaKey.STATUS.value, "")).startswith("FINISHED"):
            return Admission(Status.REFUSED, f"{site} takes no part in job {job}")
        return Admission(Status.LATER, f"job {job} is not started yet")

    def _meta(self, job: str) -> dict[str, Any] | None:
        manager = self._engine.job_def_manager
        with self._engine.new_context() as fl_ctx:
            try:
                found = manager.get_job(job, fl_ctx)
            except Exception:  # each storage has its own errors for "no such job"
                return None
        return found.meta if found is not None else None


def _deployed_to(meta: dict[str, Any]) -> set[str]:
    """Sites that a job was deployed to, from the detail the runtime records: "site-1: OK"."""
    detail = meta.get(JobMetaKey.JOB_DEPLOY_DETAIL.value) or []
    return {str(row).rsplit(":", 1)[0] for row in detail if str(row).endswith(": OK")}
