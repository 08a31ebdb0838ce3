"""The components as the runtime loads them, or in their place one that does nothing and says why.

A component that cannot be loaded keeps a site or a server from starting, and makes a job fail. So it is made
in any case: under a runtime that is not supported, nothing of that runtime is looked for, changed or hooked.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.widgets.widget import Widget

from nvflare_logstream import __version__

_MODULES = {
    "JobLogReceiver": "job_log_receiver",
    "JobLogStreamer": "job_log_streamer",
    "SiteLogStreamer": "site_log_streamer",
}
_BEGINNINGS = (EventType.SYSTEM_START, EventType.START_RUN)  # of a parent process, and of a job's


class StandIn(Widget):
    """Takes the place of a component that cannot work here: it takes any arguments, and says so in one line.

    Attributes:
        problem: why the component cannot work.
    """

    problem = ""

    def __init__(self, **arguments: Any):
        super().__init__()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Say at the beginning that no logs are streamed; the runtime calls it for every event."""
        if event_type in _BEGINNINGS:
            ours = f"nvflare_logstream {__version__}"
            self.log_error(fl_ctx, f"{ours} does nothing here, and no job is affected: {self.problem}")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from nvflare_logstream.flare import runtime

        problem = runtime.unsupported()
        if not problem:
            return getattr(import_module(f"nvflare_logstream.flare.{_MODULES[name]}"), name)
    except Exception as error:  # a library is missing or broken, or the runtime is another than it says
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        problem = f"{name} cannot be loaded ({why}); install nvflare-logstream with its dependencies"
    return type(name, (StandIn,), {"problem": problem})
