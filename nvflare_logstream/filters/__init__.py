"""The log filter pipeline: since → (until, level, grep) → tail → max-bytes. The server, the command line and
the API use it.

`since`, `tail` and `max_bytes` give what `nvflare job logs` of nvflare 2.9 gives on the same text, for text
and JSON logs, to the byte and with the same flags; a property test compares the two. The rest goes into the
same order:

* a continuation line (a traceback) belongs to the record before it, for `since`, `until` and `level`;
* where no line has a time, `since` and `until` are not applied, and the result says so;
* `grep` looks at single lines, in RE2 syntax, whose time is linear in the log whatever the pattern;
* `tail` keeps the last lines of what is left, `max_bytes` the last bytes of that, never half a character.

In the order in which a log goes through it: `rules` (what to keep), `log` (bytes and their lines), `bounds`
(where the wanted part begins and ends), `timed_blocks`, `times` and `spans` (what of it may be in a window of
time), `line_filter` (one line after the other), `reading` (the result in parts), `pipeline` (the whole).
"""

from nvflare_logstream.filters.pipeline import FilterResult, apply_filters
from nvflare_logstream.filters.rules import FILTER_NAMES, Filters

__all__ = ["FILTER_NAMES", "FilterResult", "Filters", "apply_filters"]
