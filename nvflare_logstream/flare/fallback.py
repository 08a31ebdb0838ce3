"""The runtime's own log streamers, for as long as the server has no receiver of ours: nobody is to have less
than before this package was installed at a site.

They are used as they are, and they send only where the site's policy lets logs out.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode, WorkspaceConstants
from nvflare.apis.shareable import Shareable
from nvflare.private.event import fire_event

from nvflare_logstream.flare import runtime_stock
from nvflare_logstream.flare.policy_watch import watch_policy
from nvflare_logstream.names import is_pattern

_ASK_SECONDS = 5.0  # that the server has to answer whether it takes what the runtime's own streamers send
_MOST_WAITING = 1000  # jobs whose error log is remembered
_logger = logging.getLogger(__name__)


class JobFallback:
    """The runtime's own streamers in a job's process, one for each file.

    They are started by whoever finds that there is no receiver. When that is does not matter: they read a log
    from its beginning.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: Any = None
        self._streamers: dict[str, Any] = {}  # by file; None until it is started
        self._is_absent = self._is_ending = False
        self._is_received = False  # whether the server has the runtime's own receiver

    def prepare(self, engine: Any, files: Iterable[str]) -> None:
        """Name the files that are to be sent.

        Patterns are passed over: the runtime's own streamers know none. So is what the job itself sends by
        one of them. Called at the start of the run.
        """
        sent = runtime_stock.files_of_stock_streamers(engine)
        with self._lock:
            self._engine = engine
            named = [file for file in files if not is_pattern(file) and file not in {*self._streamers, *sent}]
            self._streamers.update(dict.fromkeys(named))
            if self._is_absent:
                self._start()

    def receiver_found(self, is_there: bool) -> None:
        """Whether the server has a receiver of ours; without one, start what was not started yet."""
        is_received = not is_there and self._ask()  # without the lock: no event of the job waits for it
        with self._lock:
            self._is_absent, self._is_received = not is_there, is_received
            if self._is_absent:
                self._start()

    def about_to_end(self) -> None:
        """The run is about to end: send what is there, and no more."""
        with self._lock:
            if not self._is_ending:
                self._is_ending = True
                self._fire(EventType.ABOUT_TO_END_RUN, self._streamers.values())

    def end(self) -> bool:
        """Wait until they have sent it, as the runtime does; returns whether there is still no receiver."""
        self.about_to_end()
        with self._lock:
            streamers, self._streamers = list(self._streamers.values()), {}
        self._fire(EventType.END_RUN, streamers)
        return self._is_absent

    def _start(self) -> None:
        new = [file for file, streamer in self._streamers.items() if streamer is None]
        if not new:
            return
        made = {file: runtime_stock.stock_job_streamer(file) for file in new if self._is_received}
        started = {file: streamer for file, streamer in made.items() if streamer is not None}
        if not started:
            _logger.warning("the server has no log receiver of nvflare_logstream; logs wait until it has one")
            return
        text = "the server has no log receiver of nvflare_logstream; the runtime's own streamer sends %s"
        _logger.warning(f"{text} to it: not checked, and without the last lines", ", ".join(started))
        runtime_stock.bound_stock_streamers(watch_policy)
        self._streamers.update(started)
        self._fire(EventType.START_RUN, started.values())
        if self._is_ending:
            self._fire(EventType.ABOUT_TO_END_RUN, started.values())

    def _ask(self) -> bool:
        try:
            return stock_receives(self._engine)
        except Exception as error:  # the runtime may be stopping
            _logger.warning("the server cannot be asked for the runtime's own log receiver: %s", error)
            return False

    def _fire(self, event: str, streamers: Iterable[Any]) -> None:
        there = [streamer for streamer in streamers if streamer is not None]
        if there:
            _fire(event, there, self._engine)


def stock_receives(engine: Any) -> bool:
    """Whether the server's parent process takes what the runtime's own streamers send; yes if it is slow.

    A job's process asks it, with an error log that has no bytes: of that the runtime's own receiver keeps
    nothing. A streamer that nobody listens to would leave errors in the job's log.
    """
    names = runtime_stock.stock_names()
    if names is None:
        return False
    part = Shareable()
    for header, value in (
        (names.channel, names.log_channel),
        (names.topic, names.log_topic),
        (names.upload_id, str(uuid.uuid4())),
        (names.number, 0),
        (names.context, {names.file: WorkspaceConstants.ERROR_LOG_FILE_NAME}),
    ):
        part.set_header(header, value)
    part.update({names.data: None, names.size: 0, names.eof: True})
    with engine.new_context() as fl_ctx:
        replies = engine.send_aux_request(
            ["server_parent"], names.part_topic, part, _ASK_SECONDS, fl_ctx, optional=True
        )
    return all(reply.get_return_code() != ReturnCode.EXECUTION_EXCEPTION for reply in replies.values())


class ErrorLogs:
    """Has the runtime's own component send the error logs of jobs that are over to a server without ours.

    It does so from a client's parent process: nobody else sends that of a job which died before its run
    began. Whether the server has ours is known only from its answers, and it may have changed since the last
    one. So a job is remembered until a receiver of ours has its error log.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[str, Any] = {}  # by job id
        self._is_absent = False

    def over(self, engine: Any, job_id: str, files: Iterable[str]) -> None:
        """A job is over, whose logs are the site's `files`."""
        if WorkspaceConstants.ERROR_LOG_FILE_NAME not in files:
            return
        with self._lock:
            if len(self._engines) >= _MOST_WAITING:
                self._engines.pop(next(iter(self._engines)))
            self._engines[job_id] = engine
        self._send()

    def taken(self, job_id: str, file: str) -> None:
        """A receiver of ours has a log."""
        if file == WorkspaceConstants.ERROR_LOG_FILE_NAME:
            with self._lock:
                self._engines.pop(job_id, None)

    def receiver_found(self, is_there: bool) -> None:
        """Whether the server has a receiver of ours; without one, send what nobody has taken yet."""
        self._is_absent = not is_there
        self._send()

    def _send(self) -> None:
        with self._lock:
            if not self._is_absent:
                return
            waiting, self._engines = self._engines, {}
        for job_id, engine in waiting.items():
            streamer = runtime_stock.stock_site_streamer(WorkspaceConstants.ERROR_LOG_FILE_NAME)
            if streamer is not None:
                _fire(EventType.JOB_COMPLETED, [streamer], engine, {FLContextKey.CURRENT_JOB_ID: job_id})


def _fire(event: str, streamers: list[Any], engine: Any, props: Mapping[str, Any] | None = None) -> None:
    """Hand an event on, in a context of its own: that of another event may be used again."""
    try:
        with engine.new_context() as fl_ctx:
            for name, value in (props or {}).items():
                fl_ctx.set_prop(name, value, private=True, sticky=False)
            fire_event(event, streamers, fl_ctx)
    except Exception as error:  # the runtime may be stopping; whatever it raises, the job goes on
        _logger.warning("the runtime's own streamer was not told of %s: %s", event, error)
