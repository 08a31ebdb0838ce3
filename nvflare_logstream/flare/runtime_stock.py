"""The runtime's own log streaming, as far as its versions differ in it: nvflare 2.7 has none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

from nvflare.apis.fl_context import FLContext

_logger = logging.getLogger(__name__)
_STOCK_GATE = "is_log_streaming_allowed"  # what the runtime's own log streamers ask before they send


def bound_stock_streamers(watch: Callable[[FLContext], Callable[[], bool]]) -> None:
    """Let the runtime's own log streamers in this process send only where the site says yes too.

    They ask a function of the runtime's, which lets logs out unless it is told not to in so many words. What
    stands there from now on asks both; so it does not matter how a job's config came to name such a class.
    While they run, the site is asked before each part; its first no ends them.

    Args:
        watch: gives, for the context of an event, what says whether logs may leave the site now.
    """
    try:
        from nvflare.app_common.logging import constants
    except ImportError:
        return  # a runtime without log streamers
    theirs = getattr(constants, _STOCK_GATE, None)
    if theirs is None or hasattr(theirs, "bounded"):
        return

    def both(fl_ctx: Any = None) -> bool:
        try:
            _bound_parts(watch)  # not before: it loads modules that most jobs need not
        except (ImportError, AttributeError) as error:  # a later version of the runtime has none of that name
            _logger.warning("the runtime's own log streamer stays off: it would heed no later no (%s)", error)
            return False
        return bool(theirs(fl_ctx)) and watch(fl_ctx)()

    both.bounded = True  # type: ignore[attr-defined]
    for name, module in list(sys.modules.items()):  # those that have imported it already, and its own
        # Not getattr: a package may load what it is asked for.
        if name.startswith("nvflare.") and getattr(module, "__dict__", {}).get(_STOCK_GATE) is theirs:
            setattr(module, _STOCK_GATE, both)


def _bound_parts(watch: Callable[[FLContext], Callable[[], bool]]) -> None:
    """Have whatever follows a log for the runtime's own streamers ask before each part whether it may go."""
    from nvflare.apis.streaming import StreamContextKey
    from nvflare.app_common.logging.constants import Channels
    from nvflare.app_common.streamers.log_streamer import _LogTailProducer as Producer

    produce = Producer.produce
    if hasattr(produce, "bounded"):
        return

    @wraps(produce)
    def bounded(self: Any, stream_ctx: dict[str, Any], fl_ctx: FLContext) -> Any:
        if stream_ctx.get(StreamContextKey.CHANNEL) == Channels.LOG_STREAMING_CHANNEL:
            if not hasattr(self, "may_go"):
                self.may_go = watch(fl_ctx)
            if not self.may_go():
                _logger.warning("the runtime's own log streamer ends: the site no longer lets logs out")
                return None, 0.0
        return produce(self, stream_ctx, fl_ctx)

    bounded.bounded = True  # type: ignore[attr-defined]
    Producer.produce = bounded


class StockNames(NamedTuple):
    """How the messages of the runtime's own log streamers are named, and what stands where in them.

    Attributes:
        part_topic, abort_topic: topics of the messages.
        channel, topic, upload_id, number, context: headers of a part; `context` is in the first only.
        log_channel, log_topic: values of the first two in a part of a log.
        job_id, file: fields of the context.
        data, size, eof: fields of a part.
    """

    part_topic: str
    abort_topic: str
    channel: str
    topic: str
    upload_id: str
    number: str
    context: str
    log_channel: str
    log_topic: str
    job_id: str
    file: str
    data: str
    size: str
    eof: str


def stock_names() -> StockNames | None:
    """The names that this runtime uses; None for one whose log streamers send nothing while a job runs."""
    try:
        from nvflare.apis.fl_constant import StreamCtxKey
        from nvflare.app_common.logging.constants import LIVE_LOG_TOPIC, Channels
        from nvflare.app_common.streamers import streamer_base as base
        from nvflare.private.stream_runner import TOPIC_STREAM_ABORT, TOPIC_STREAM_REQUEST, HeaderKey
    except ImportError:
        return None
    return StockNames(
        part_topic=TOPIC_STREAM_REQUEST,
        abort_topic=TOPIC_STREAM_ABORT,
        channel=HeaderKey.CHANNEL,
        topic=HeaderKey.TOPIC,
        upload_id=HeaderKey.TX_ID,
        number=HeaderKey.SEQ,
        context=HeaderKey.CTX,
        log_channel=Channels.LOG_STREAMING_CHANNEL,
        log_topic=LIVE_LOG_TOPIC,
        job_id=StreamCtxKey.JOB_ID,
        file=base.KEY_FILE_NAME,
        data=base.KEY_DATA,
        size=base.KEY_DATA_SIZE,
        eof=base.KEY_EOF,
    )


def stock_job_streamer(file: str) -> Any:
    """The runtime's own component that sends a log to the server's parent process; None if it has none."""
    try:
        from nvflare.app_common.logging.job_log_streamer import JobLogStreamer
    except ImportError:
        return None
    return JobLogStreamer(log_file_name=file, target_parent_server=True)


def files_of_stock_streamers(engine: Any) -> set[str]:
    """The logs that a job sends by components of the runtime's that it brought itself."""
    try:
        from nvflare.app_common.logging.job_log_streamer import JobLogStreamer
    except ImportError:
        return set()
    components: dict[str, Any] = getattr(engine, "get_all_components", dict)()
    found = [component for component in components.values() if isinstance(component, JobLogStreamer)]
    return {str(getattr(component, "_log_file_name", "")) for component in found}


def stock_site_streamer(file: str) -> Any:
    """The runtime's own component for a client's parent process; None if it has none."""
    try:
        from nvflare.app_common.logging.site_log_streamer import SiteLogStreamer
    except ImportError:
        return None
    return SiteLogStreamer(log_file_name=file)
