"""What a reader asks for: which sites, which log, and what of it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nvflare_logstream import lines
from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.filters import FILTER_NAMES
from nvflare_logstream.names import SERVER_SITE, check_name
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.wire.queries import FilterOptions

ALL_SITES = "all"
_TEXT_LOG, _JSON_LOG = "log.txt", "log.json"
_MAX_PATTERN = 256  # characters


@dataclass(frozen=True)
class LogQuery:
    """What to read of a job's logs.

    Attributes:
        sites: site names or patterns such as "site-*"; "all" means every site and the server.
        file: the log's name; where a site has no log.txt but a log.json, that is read instead.
        since, until: times or durations as `nvflare_logstream.lines.parse_since` reads them.
        level, grep, ignore_case, invert, before, after, tail, max_bytes: as in
            `nvflare_logstream.filters.Filters`.

    Raises:
        ArgumentError: naming the field, the value and what is allowed.
    """

    sites: tuple[str, ...] = (SERVER_SITE,)
    file: str = _TEXT_LOG
    since: str | None = None
    until: str | None = None
    level: str | None = None
    grep: str | None = None
    ignore_case: bool = False
    invert: bool = False
    before: int = 0
    after: int = 0
    tail: int | None = None
    max_bytes: int | None = None
    exclude: tuple[str, ...] = ()
    head: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sites, (list, tuple)) or not self.sites:
            allowed = 'a tuple of at least one name or pattern, such as ("all",)'
            raise ArgumentError("sites", self.sites, allowed)
        for site in self.sites:
            if not isinstance(site, str) or not 0 < len(site) <= _MAX_PATTERN:
                allowed = 'a site\'s name, a pattern such as "site-*", "server" or "all"'
                raise ArgumentError("sites", site, allowed)
        check_name("file", self.file)
        self.filters()

    def fixed(self, now: float) -> LogQuery:
        """The same query with durations counted back from `now`, however long reading takes.

        Args:
            now: in seconds since the epoch.
        """
        since = self.since and lines.fixed_time("since", self.since, now)
        until = self.until and lines.fixed_time("until", self.until, now)
        return replace(self, since=since, until=until)

    def filters(self) -> FilterOptions:
        """What to keep of each log."""
        return FilterOptions(**{name: getattr(self, name) for name in FILTER_NAMES})

    def choose(self, streams: Iterable[Stream]) -> list[Stream]:
        """The streams that the query is about, one for each known site that it names, the server's first.

        A site that does not send the log has a stream that is only expected, with what it sends as the
        reason.
        """
        by_site: dict[str, dict[str, Stream]] = {}
        for stream in streams:
            by_site.setdefault(stream.site, {})[stream.file] = stream
        wanted = [files for site, files in by_site.items() if any(_fits(site, entry) for entry in self.sites)]
        chosen = [self._of_site(files) for files in wanted]
        return sorted(chosen, key=lambda stream: (stream.site != SERVER_SITE, stream.site))

    def unmatched(self, streams: Iterable[Stream]) -> dict[str, str]:
        """The names and patterns in `sites` that fit no known site, each with the reason in words."""
        known = sorted({stream.site for stream in streams})
        names = f"the job has {', '.join(known)}" if known else "nothing is known of this job's sites yet"
        return {
            entry: f"no such site in this job; {names}"
            for entry in self.sites
            if entry != ALL_SITES and not any(_fits(site, entry) for site in known)
        }

    def _of_site(self, files: dict[str, Stream]) -> Stream:
        stream, instead = files.get(self.file), files.get(_JSON_LOG)
        if self.file == _TEXT_LOG and instead and instead.available and not (stream and stream.available):
            return instead
        if stream:
            return stream
        sent = sorted(name for name, other in files.items() if other.available)
        reason = f"not sent by this site; it sends {', '.join(sent)}" if sent else "not sent by this site"
        key = next(iter(files.values())).key
        return Stream(StreamKey(key.job_id, key.site, self.file), state=State.EXPECTED, reason=reason)


def _fits(site: str, pattern: str) -> bool:
    # A site's name may itself look like a pattern.
    return pattern in (ALL_SITES, site) or fnmatch.fnmatchcase(site, pattern)
