"""Live, byte-exact log streaming for NVIDIA FLARE.

`SiteLogStreamer`, `JobLogStreamer` and `JobLogReceiver` are what a resources.json, a job config or a recipe
names, by these short public paths; `enable_log_streaming` puts them into a job or a recipe. `LogClient`,
`LogQuery` and `SessionPort` read logs from Python. All are loaded when first asked for, so that a process
loads no more than it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvflare_logstream.client.client import LogClient
    from nvflare_logstream.client.query import LogQuery
    from nvflare_logstream.flare.authoring import enable_log_streaming
    from nvflare_logstream.flare.job_log_receiver import JobLogReceiver
    from nvflare_logstream.flare.job_log_streamer import JobLogStreamer
    from nvflare_logstream.flare.session_port import SessionPort
    from nvflare_logstream.flare.site_log_streamer import SiteLogStreamer

__version__ = "0.2.0"
__all__ = [
    "JobLogReceiver",
    "JobLogStreamer",
    "LogClient",
    "LogQuery",
    "SessionPort",
    "SiteLogStreamer",
    "enable_log_streaming",
]

_HOMES = {
    "JobLogReceiver": "nvflare_logstream.flare.loading",
    "JobLogStreamer": "nvflare_logstream.flare.loading",
    "LogClient": "nvflare_logstream.client.client",
    "LogQuery": "nvflare_logstream.client.query",
    "SessionPort": "nvflare_logstream.flare.session_port",
    "SiteLogStreamer": "nvflare_logstream.flare.loading",
    "enable_log_streaming": "nvflare_logstream.flare.authoring",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = getattr(import_module(_HOMES[name]), name)
    # An exported job must name the public path, which is also what a site's class_allow_list admits.
    public.__module__ = __name__
    globals()[name] = public
    return public
