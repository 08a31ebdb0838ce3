"""The log filter pipeline, shared by the server, the command line and the API: since → (until, level, grep) → tail → max-bytes.

`rules` says what to keep and looks at one line after the other; `bounds` finds where the wanted part of a log begins and ends;
`reading` gives it out in parts.
"""

from nvflare_logstream.filters.rules import FILTER_NAMES, FilterResult, Filters, apply_filters

__all__ = ["FILTER_NAMES", "FilterResult", "Filters", "apply_filters"]
