"""Finishes the logs of jobs that are over, at a site: as soon as that is sure, and however often it fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from nvflare.apis.workspace import Workspace

from nvflare_logstream.flare.elsewhere import Elsewhere
from nvflare_logstream.flare.fallback import ErrorLogs
from nvflare_logstream.flare.kept_back import keep_for_good, why_kept
from nvflare_logstream.flare.launched import Launched
from nvflare_logstream.flare.launchers import Launcher
from nvflare_logstream.flare.restart import refuse_rest
from nvflare_logstream.flare.shared import shared
from nvflare_logstream.flare.site_policy import read_policy
from nvflare_logstream.names import CONSOLE_FILE
from nvflare_logstream.site.console_copy import show_rest
from nvflare_logstream.site.endings import Doubt
from nvflare_logstream.site.sender import Sender

_RETRY_SECONDS = 5.0  # until jobs that could not be finished are tried again
NOTHING_LEFT = (OSError, RuntimeError)  # a process without descriptors, or without threads

_logger = logging.getLogger(__name__)


class OverJob(NamedTuple):
    """A job whose handle says that it is over.

    Attributes:
        outcome: how its process ended.
        launcher: ran it.
        let_out: its logs were let out when it was launched.
        engine, workspace: of this process.
        sender: gives the sender of this process; raises OSError or RuntimeError where it can have none now.
    """

    job_id: str
    outcome: str
    launcher: Launcher
    let_out: bool
    engine: Any
    workspace: Workspace
    sender: Callable[[], Sender]


class OverJobs:
    """Finishes them; thread-safe.

    Args:
        error_logs: sends the error logs of jobs to a server without a receiver of ours.
        kept_back: jobs whose logs stay at the site, whatever it lets out by now; others add to it.
    """

    def __init__(self, error_logs: ErrorLogs, kept_back: set[str]):
        self._error_logs, self._kept_back = error_logs, kept_back
        self._lock = threading.RLock()
        self._over: dict[str, tuple[OverJob, Doubt | None]] = {}  # what is not finished yet
        self._retry: threading.Timer | None = None  # tries that again
        self._said: set[str] = set()  # jobs that failed, which was said

    def add(self, job: OverJob) -> None:
        """Finish a job, as soon as it is sure that it is over."""
        if not job.launcher.may_run_on:
            self._end(job)
            return
        with suppress(RuntimeError):  # no thread is left: a later life of the site closes the logs
            threading.Thread(target=self._end, args=(job,), daemon=True).start()

    def _end(self, job: OverJob) -> None:
        files = shared.site_entries.log_files
        try:
            elsewhere = Elsewhere(job.launcher, job.engine, job.workspace)
            elsewhere.wait(job.job_id)
            doubt = elsewhere.doubt_at_end(job.job_id, Launched(files, job.outcome, time.time()), job.let_out)
        except Exception as error:  # whatever a launcher's service raises: no stream stays open for that
            self._say(job.job_id, error)
            self._later(self._end, job)
            return
        with self._lock:
            self._over[job.job_id] = (job, doubt)
        self.finish()
        if CONSOLE_FILE in files:
            try:
                show_rest(Path(job.workspace.get_log_root(job.job_id)) / CONSOLE_FILE)
            except Exception as error:  # it is in the log all the same
                _logger.warning("what job %s printed last cannot be shown: %s", job.job_id, error)

    def finish(self) -> None:
        """Finish the jobs that are over, once it is known whether the site lets their logs out."""
        with self._lock:
            if self._retry:
                self._retry.cancel()  # each job that ends asks anew: one timer is enough
                self._retry = None
            for job, doubt in list(self._over.values()):
                try:
                    is_done = self._finish(job, doubt)
                except Exception as error:  # the others are finished all the same, and this one later
                    self._say(job.job_id, error)
                    is_done = False
                if is_done:
                    del self._over[job.job_id]
                    self._said.discard(job.job_id)
            if self._over:
                self._retry = self._later(self.finish)

    def _finish(self, job: OverJob, doubt: Doubt | None) -> bool:
        """Finish a job; False if that has to wait."""
        job_id, files = job.job_id, shared.site_entries.log_files
        try:
            sender = job.sender()
        except NOTHING_LEFT:
            return False
        sender.watch(job_id, is_over=True)  # from here on it is decided here
        if job_id in self._kept_back:
            self._kept_back.discard(job_id)
            return True
        logs = read_policy(job.workspace).logs
        if not logs.sure:
            return False
        if not logs.allowed:
            keep_for_good(job.workspace, job_id, logs.reason)
        if why := why_kept(job.workspace, job_id):
            refuse_rest(sender, job.workspace, [job_id], files, why)
            return True
        self._error_logs.over(job.engine, job_id, files)
        directory = Path(job.workspace.get_log_root(job_id))
        sender.finish(job_id, directory, files, job.outcome, doubt=doubt)
        return True

    def _later(self, do: Callable[..., None], *arguments: object) -> threading.Timer | None:
        timer = threading.Timer(_RETRY_SECONDS, do, arguments)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no thread is left: the next job that ends asks anew
            return None
        return timer

    def _say(self, job_id: str, error: Exception) -> None:
        if job_id not in self._said:
            self._said.add(job_id)
            _logger.exception(
                "the logs of job %s cannot be finished now, which is tried again: %s", job_id, error
            )
