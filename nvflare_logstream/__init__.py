"""Live, byte-exact log streaming for NVIDIA FLARE.

The three classes below are what a resources.json, a job config or a recipe names, by these short public paths. They are loaded
when first asked for, so that the parts that need no runtime can be used without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvflare_logstream.flare.job_log_receiver import JobLogReceiver
    from nvflare_logstream.flare.job_log_streamer import JobLogStreamer
    from nvflare_logstream.flare.site_log_streamer import SiteLogStreamer

__version__ = "0.2.0"
__all__ = ["JobLogReceiver", "JobLogStreamer", "SiteLogStreamer"]

_HOMES = {
    "JobLogReceiver": "nvflare_logstream.flare.job_log_receiver",
    "JobLogStreamer": "nvflare_logstream.flare.job_log_streamer",
    "SiteLogStreamer": "nvflare_logstream.flare.site_log_streamer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    # An exported job must name the public path, which is also what a site's class_allow_list admits.
    found.__module__ = __name__
    globals()[name] = found
    return found
