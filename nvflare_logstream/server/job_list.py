"""Answers which jobs have which logs, for `status` without a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from nvflare_logstream.names import fits, server_first
from nvflare_logstream.server.answers import answered
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Stream, Verdict
from nvflare_logstream.wire.job_list import (
    MAX_SITES,
    JobList,
    JobQuestion,
    ListedJob,
    SiteVerdict,
    decode_question,
    encode_jobs,
)

_SECONDS = 5.0  # for one answer: the server has others to serve
# From the worst on: where a site has several logs, the worst of their verdicts is the site's.
_WORST = (
    Verdict.LOST, Verdict.PARTIAL, Verdict.REFUSED, Verdict.NEVER_SEEN, Verdict.STREAMING, Verdict.COMPLETE,
)  # fmt: skip


class JobLister:
    """Lists jobs with the verdicts on their logs; thread-safe.

    Args:
        store: the streams.
        idle_timeout: seconds without a sign of life after which a site counts as silent.
        job_status: the status of a job in the runtime's words, as readers of its logs are told it.
        clock: gives the time in seconds since the epoch.
    """

    def __init__(
        self,
        store: LogStore,
        idle_timeout: float,
        job_status: Callable[[str], str],
        clock: Callable[[], float] = time.time,
    ):
        self._store, self._idle_timeout = store, idle_timeout
        self._job_status, self._clock = job_status, clock

    def answer(self, question: object, jobs: Callable[[], Iterable[ListedJob]]) -> dict[str, Any]:
        """The reply to a question; one that is not allowed, or fails, gets an `ErrorReply`.

        Args:
            question: as it came.
            jobs: gives the jobs that the asking admin may see, without what the store knows of them.
        """
        return answered(
            lambda: encode_jobs(self.list(decode_question(question), jobs())), "a reader's list of jobs"
        )

    def list(self, question: JobQuestion, jobs: Iterable[ListedJob]) -> JobList:
        """The jobs that a question is about, newest first."""
        deadline, now, sites = time.monotonic() + _SECONDS, self._clock(), 0
        listed: list[ListedJob] = []
        for job in sorted(jobs, key=lambda job: (-job.submitted, job.job_id)):
            if len(listed) >= question.limit or sites >= MAX_SITES or time.monotonic() > deadline:
                return JobList(tuple(listed), True, now)
            if (found := self._look(job, question, now)) is not None:
                found = found._replace(sites=found.sites[: MAX_SITES - sites])
                sites += len(found.sites)
                listed.append(found)
        return JobList(tuple(listed), False, now)

    def _look(self, job: ListedJob, question: JobQuestion, now: float) -> ListedJob | None:
        """The job with its sites as far as they were asked for; None if it was not."""
        streams = [
            stream.as_of(now, self._idle_timeout) for stream in self._store.streams(job.job_id, brief=True)
        ]
        last_seen = max((stream.last_seen for stream in streams), default=0.0)
        if max(job.submitted, last_seen) < question.since:
            return None
        sites = _sites(streams, question)
        if not sites and (question.sites or question.verdicts):
            return None
        over = job.status.startswith("FINISHED")
        status = job.status if over else self._job_status(job.job_id)
        return job._replace(status=status, last_seen=last_seen, sites=sites)


def _sites(streams: Iterable[Stream], question: JobQuestion) -> tuple[SiteVerdict, ...]:
    found: dict[str, SiteVerdict] = {}
    for stream in streams:
        if question.sites and not any(fits(stream.site, entry) for entry in question.sites):
            continue
        before = found.get(stream.site, SiteVerdict(stream.site, stream.verdict, 0))
        verdict = min(before.verdict, stream.verdict, key=_WORST.index)
        found[stream.site] = SiteVerdict(stream.site, verdict, before.size + stream.end)
    wanted = [site for site in found.values() if not question.verdicts or site.verdict in question.verdicts]
    return tuple(sorted(wanted, key=lambda site: server_first(site.site)))
