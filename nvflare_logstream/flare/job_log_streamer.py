"""The job component that streams a client job's logs while it runs."""

from __future__ import annotations

import threading

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.widgets.widget import Widget

from nvflare_logstream.flare import site_policy
from nvflare_logstream.flare.cell_channel import CellLink
from nvflare_logstream.flare.log_directory import own_log_directory
from nvflare_logstream.names import DEFAULT_LOG_FILES, check_log_files, check_seconds
from nvflare_logstream.site.sender import Sender

DEFAULT_POLL_INTERVAL = 0.5
DEFAULT_LIVENESS_INTERVAL = 10.0
DEFAULT_DRAIN_TIMEOUT = 5.0


class JobLogStreamer(Widget):
    """Streams log files of a client job to the server, byte for byte, while the job runs.

    Add it to a job's client config (`recipe.job.to_clients(JobLogStreamer())`), or let the site's `SiteLogStreamer` do so. All
    instances in a process share one sender: one thread and one connection, whatever the number of files.

    Args:
        log_files: names of the files in the job's log directory; default log.txt and error_log.txt.
        poll_interval: most seconds until a new line is seen where the system does not tell of changes (0.01 to 60).
        liveness_interval: seconds of silence after which a sign of life is sent (0.1 to 3600); keep it below the receiver's
            `idle_timeout`.
        drain_timeout: most seconds the job's end waits for the rest to be sent (0 to 600).
        site_closes: a SiteLogStreamer sends what is written after the run and closes the streams; it sets this itself.

    Raises:
        ArgumentError: naming the argument, the value and what is allowed.
    """

    def __init__(
        self,
        log_files: list[str] | None = None,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        liveness_interval: float = DEFAULT_LIVENESS_INTERVAL,
        drain_timeout: float = DEFAULT_DRAIN_TIMEOUT,
        site_closes: bool = False,
    ):
        super().__init__()
        self.log_files = log_files
        self._files = DEFAULT_LOG_FILES if log_files is None else check_log_files("log_files", log_files)
        self.poll_interval = check_seconds("poll_interval", poll_interval, 0.01, 60)
        self.liveness_interval = check_seconds("liveness_interval", liveness_interval, 0.1, 3600)
        self.drain_timeout = check_seconds("drain_timeout", drain_timeout, 0, 600)
        self.site_closes = site_closes
        self.register_event_handler(EventType.START_RUN, self._start)
        self.register_event_handler(EventType.END_RUN, self._end)

    def _start(self, event_type: str, fl_ctx: FLContext) -> None:
        workspace = fl_ctx.get_workspace()
        reason = site_policy.refusal(workspace)
        if reason:
            self.log_warning(fl_ctx, f"job logs stay at this site: {reason}")
            return
        job = fl_ctx.get_job_id()
        directory = own_log_directory(workspace, job)
        sender = _shared.begin(self, fl_ctx)
        for file in self._files:
            sender.follow(job, directory, file)
        self.log_info(fl_ctx, f"streaming {', '.join(self._files)} to the server")

    def _end(self, event_type: str, fl_ctx: FLContext) -> None:
        _shared.end(self, fl_ctx)


class _Shared:
    """The one sender of this process and the components that use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sender: Sender | None = None
        self._users: list[JobLogStreamer] = []

    def begin(self, user: JobLogStreamer, fl_ctx: FLContext) -> Sender:
        with self._lock:
            self._users.append(user)
            if self._sender is None:
                link = CellLink(fl_ctx.get_engine().get_cell(), fl_ctx.get_job_id())
                self._sender = Sender(link, user.poll_interval, user.liveness_interval)
                self._sender.start()
            return self._sender

    def end(self, user: JobLogStreamer, fl_ctx: FLContext) -> None:
        """At the last user's end: send the rest, close where nobody else will, and stop; never raises."""
        with self._lock:
            if user not in self._users:
                return
            self._users.remove(user)
            if self._users or self._sender is None:
                return
            sender, self._sender = self._sender, None
        if user.site_closes:
            done = sender.drain(user.drain_timeout)
        else:
            job = fl_ctx.get_job_id()
            sender.finish(job, own_log_directory(fl_ctx.get_workspace(), job), (), "run ended")
            done = sender.wait_finished(user.drain_timeout)
        sender.stop()
        if not done:
            after = "the site's parent process sends the rest" if user.site_closes else "the rest is not sent"
            user.log_warning(fl_ctx, f"logs were not all sent within {user.drain_timeout:g} s; {after}")


_shared = _Shared()
