"""The job component that streams a client job's logs while it runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.widgets.widget import Widget

from nvflare_logstream.flare import runtime
from nvflare_logstream.flare.job_console import begin_console
from nvflare_logstream.flare.kept_back import keep_for_good, why_kept
from nvflare_logstream.flare.log_directory import own_log_directory
from nvflare_logstream.flare.shared import SiteEntries, SiteEntry, shared
from nvflare_logstream.flare.site_policy import read_policy
from nvflare_logstream.names import (
    CONSOLE_FILE,
    DEFAULT_LOG_FILES,
    SERVER_SITE,
    check_seconds,
    log_files_of,
)

if TYPE_CHECKING:
    from nvflare_logstream.site.sender import Sender

DEFAULT_POLL_INTERVAL = 0.5
DEFAULT_LIVENESS_INTERVAL = 10.0
DEFAULT_DRAIN_TIMEOUT = 5.0
_NO_TARGET = (
    "target_parent_server has no meaning here and can go: "
    "logs go to whichever of the server's processes has a receiver"
)
_AT_THE_SERVER = (
    "nothing to stream here, this component can go: the receiver keeps the server's own logs, "
    f"{' and '.join(DEFAULT_LOG_FILES)}"
)


class JobLogStreamer(Widget):
    """Streams log files of a client job to the server, byte for byte, while the job runs.

    `enable_log_streaming` puts it into a job's client config, or the site's `SiteLogStreamer` does so. All
    instances in a process share one sender: one thread and one connection, whatever the number of files. At a
    site with a `SiteLogStreamer` that one's files and intervals hold.

    Args:
        log_files: names of files in the job's log directory and patterns of such, as `SiteLogStreamer` takes
            them; default log.txt and error_log.txt.
        poll_interval: most seconds until a new line is seen where the system does not tell of changes (0.01
            to 60).
        liveness_interval: seconds of silence after which a sign of life is sent (0.1 to 3600); keep it below
            the receiver's `idle_timeout`.
        drain_timeout: most seconds the job's end waits for the rest to be sent (0 to 600).
        site_closes: a SiteLogStreamer sends what is written after the run and closes the streams; it sets
            this itself.
        log_file_name: one file name, as in the runtime's own component, instead of `log_files`.
        target_parent_server: taken from configs of the runtime's own component, and without a meaning here:
            logs go to whichever of the server's processes has a receiver.

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
        log_file_name: str | None = None,
        target_parent_server: bool | None = None,
    ):
        super().__init__()
        self.log_files, self.log_file_name = log_files, log_file_name
        self.files = log_files_of(log_files, log_file_name)
        self.target_parent_server = target_parent_server
        self.poll_interval = check_seconds("poll_interval", poll_interval, 0.01, 60)
        self.liveness_interval = check_seconds("liveness_interval", liveness_interval, 0.1, 3600)
        self.drain_timeout = check_seconds("drain_timeout", drain_timeout, 0, 600)
        self.site_closes = site_closes  # as it was given: an exported recipe says the same
        self._wanted: SiteEntry | SiteEntries = SiteEntry(
            self.files, self.poll_interval, self.liveness_interval
        )
        self._site_closes = site_closes
        begin_console(shared.site_entries.log_files or self.files)  # the site decides, where it has a say
        self.register_event_handler(EventType.START_RUN, self._start)
        self.register_event_handler(EventType.ABOUT_TO_END_RUN, self._about_to_end)
        self.register_event_handler(EventType.END_RUN, self._end)

    def _start(self, event_type: str, fl_ctx: FLContext) -> None:
        workspace, job_id = fl_ctx.get_workspace(), fl_ctx.get_job_id()
        if self.target_parent_server is not None:
            self.log_info(fl_ctx, _NO_TARGET)
        if fl_ctx.get_engine().get_cell().get_fqcn().partition(".")[0] == SERVER_SITE:
            self.log_info(fl_ctx, _AT_THE_SERVER)
            return
        logs = read_policy(workspace).logs
        if why := why_kept(workspace, job_id) or ("" if logs.allowed else logs.reason):
            self.log_warning(fl_ctx, f"job logs stay at this site: {why} ({runtime.versions()})")
            return

        # The site decides what leaves it, also where the job's config could not be rewritten.
        if shared.site_entries.log_files:
            self._wanted, self._site_closes = shared.site_entries, True

        def make() -> Sender:
            # Only here: they are most of what a job's process loads of us, and not every site lets logs out.
            from nvflare_logstream.flare.cell_channel import CellLink
            from nvflare_logstream.flare.policy_watch import PolicyWatch
            from nvflare_logstream.site.sender import Sender

            fallback = shared.job_fallback.receiver_found
            link = CellLink(fl_ctx.get_engine().get_cell(), job_id, on_change=fallback)
            intervals = self._wanted.poll_interval, self._wanted.liveness_interval
            sender = Sender(
                link,
                *intervals,
                runtime=runtime.VERSION,
                allowed=PolicyWatch(workspace, job_id=job_id),
                on_kept_back=partial(keep_for_good, workspace),
            )
            sender.start()
            return sender

        shared.job_fallback.prepare(fl_ctx.get_engine(), self._wanted.log_files)
        try:
            sender = shared.job_sender.acquire(self, make)
        except (ImportError, OSError, RuntimeError) as error:  # no descriptor or no thread is left
            self.log_warning(fl_ctx, f"job logs are not streamed while it runs: {error}")
            return
        if CONSOLE_FILE in self._wanted.log_files and shared.console:
            self.log_warning(fl_ctx, f"{CONSOLE_FILE} will not hold what is printed: {shared.console}")
        directory = own_log_directory(workspace, job_id)
        for file in self._wanted.log_files:
            sender.follow(job_id, directory, file)
        files = ", ".join(self._wanted.log_files)
        self.log_info(fl_ctx, f"streaming {files} to the server ({runtime.versions()})")

    def _about_to_end(self, event_type: str, fl_ctx: FLContext) -> None:
        shared.job_fallback.about_to_end()

    def _end(self, event_type: str, fl_ctx: FLContext) -> None:
        """After the last component's run: send the rest, close where nobody else will, and stop."""
        sender = shared.job_sender.release(self)
        if sender is None:
            return
        if shared.job_fallback.end():  # there is no receiver: nobody would take what is left
            sender.stop()
            return
        if self._site_closes:
            sent = sender.drain(self.drain_timeout)
        else:
            job_id = fl_ctx.get_job_id()
            sender.finish(job_id, own_log_directory(fl_ctx.get_workspace(), job_id), (), "run ended")
            sent = sender.wait_finished(self.drain_timeout)
        sender.stop()
        if not sent:
            after = (
                "the site's parent process sends the rest" if self._site_closes else "the rest is not sent"
            )
            self.log_warning(fl_ctx, f"logs were not all sent within {self.drain_timeout:g} s; {after}")
