"""What a reader asks for: which sites, which log, and what of it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nvflare_logstream import typed_time
from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.filters import FILTER_NAMES, Filters
from nvflare_logstream.filters.rules import MAX_PATTERN
from nvflare_logstream.names import ALL_SITES, SERVER_SITE, check_name, fits, server_first
from nvflare_logstream.streams import State, Stream, StreamKey
from nvflare_logstream.wire.queries import FilterOptions

TEXT_LOG, _JSON_LOG = "log.txt", "log.json"
_MAX_SITE = 256  # characters of a name or pattern
_FARTHEST = 14 * 3600  # seconds between UTC and the clocks farthest from it
_WRONG = datetime.timedelta(days=1)  # the server's clock tells what a duration means; ours may differ


@dataclass(frozen=True)
class LogQuery:
    """What to read of a job's logs.

    Attributes:
        sites: site names or patterns such as "site-*"; "all" means every site and the server.
        exclude_sites: names or patterns of sites to leave out.
        file: the log's name; where a site has no log.txt but a log.json, that is read instead.
        prefer_json: instead of a log.txt, read the log.json of each site that has one.
        since, until: times or durations as `nvflare_logstream.typed_time.parse_since` reads them.
        grep: one pattern, or several of which any has to match.
        level, exclude, ignore_case, invert, before, after, head, tail, max_bytes: as in
            `nvflare_logstream.filters.Filters`.

    Raises:
        ArgumentError: naming the field, the value and what is allowed.
    """

    sites: tuple[str, ...] = (SERVER_SITE,)
    file: str = TEXT_LOG
    since: str | None = None
    until: str | None = None
    level: str | None = None
    grep: str | tuple[str, ...] | None = None
    ignore_case: bool = False
    invert: bool = False
    before: int = 0
    after: int = 0
    tail: int | None = None
    max_bytes: int | None = None
    exclude: tuple[str, ...] = ()
    head: int | None = None
    exclude_sites: tuple[str, ...] = ()
    prefer_json: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.sites, (list, tuple)) or not self.sites:
            allowed = 'a tuple of at least one name or pattern, such as ("all",)'
            raise ArgumentError("sites", self.sites, allowed)
        for name in ("sites", "exclude_sites"):
            for site in getattr(self, name):
                if not isinstance(site, str) or not 0 < len(site) <= _MAX_SITE:
                    allowed = 'a site\'s name, a pattern such as "site-*", "server" or "all"'
                    raise ArgumentError(name, site, allowed)
        check_name("file", self.file)
        self.filters()
        self._check_window()

    def _check_window(self) -> None:
        """Refuse a window that ends before it begins, whatever a site's zone, and however wrong our clock."""
        if self.since is None or self.until is None:
            return
        present = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        days, zones = (-_WRONG, _WRONG), (-_FARTHEST, _FARTHEST)
        for now, offset in ((present + wrong, offset) for wrong in days for offset in zones):
            since = typed_time.parse_since("since", self.since, now=now, utc_offset=offset)
            if since <= typed_time.parse_since("until", self.until, now=now, utc_offset=offset):
                return
        raise ArgumentError("since", self.since, f"a time that is not after until, {self.until!r}")

    def fixed(self, now: float) -> LogQuery:
        """The same query with durations counted back from `now`, however long reading takes.

        Args:
            now: in seconds since the epoch.
        """
        since = self.since and typed_time.fixed_time("since", self.since, now)
        until = self.until and typed_time.fixed_time("until", self.until, now)
        return replace(self, since=since, until=until)

    def filters(self) -> FilterOptions:
        """What to keep of each log."""
        values = {name: getattr(self, name) for name in FILTER_NAMES}
        return FilterOptions(**{**values, "grep": _one_pattern(self.grep)})

    @property
    def by_record(self) -> bool:
        """Whether a JSON log is filtered as records, also where it is shown as text.

        Of a record the level is known; in text, a level has to be found again.
        """
        return self.level is not None or self.grep is not None

    def choose(self, streams: Iterable[Stream]) -> list[Stream]:
        """The streams that the query is about, one for each known site that it names, the server's first.

        A site that does not send the log has a stream that is only expected, with what it sends as the
        reason.
        """
        by_site: dict[str, dict[str, Stream]] = {}
        for stream in streams:
            by_site.setdefault(stream.site, {})[stream.file] = stream
        wanted = [files for site, files in by_site.items() if self._is_about(site)]
        chosen = [self._of_site(files) for files in wanted]
        return sorted(chosen, key=lambda stream: server_first(stream.site))

    def unmatched(self, streams: Iterable[Stream]) -> dict[str, str]:
        """The names and patterns in `sites` that fit no known site, each with the reason in words."""
        known = sorted({stream.site for stream in streams})
        names = f"the job has {', '.join(known)}" if known else "nothing is known of this job's sites yet"
        return {
            entry: f"no such site in this job; {names}"
            for entry in self.sites
            if entry != ALL_SITES and not any(fits(site, entry) for site in known)
        }

    def _is_about(self, site: str) -> bool:
        wanted = any(fits(site, entry) for entry in self.sites)
        return wanted and not any(fits(site, entry) for entry in self.exclude_sites)

    def _of_site(self, files: dict[str, Stream]) -> Stream:
        stream, instead = files.get(self.file), files.get(_JSON_LOG)
        has_text = stream is not None and stream.available and not self.prefer_json
        if self.file == TEXT_LOG and instead and instead.available and not has_text:
            return instead
        if stream:
            return stream
        sent = sorted(name for name, other in files.items() if other.available)
        reason = f"not sent by this site; it sends {', '.join(sent)}" if sent else "not sent by this site"
        key = next(iter(files.values())).key
        return Stream(StreamKey(key.job_id, key.site, self.file), state=State.EXPECTED, reason=reason)


def _one_pattern(grep: str | tuple[str, ...] | None) -> str | None:
    """One pattern that finds what any of several finds.

    Raises:
        ArgumentError: for the first that is no pattern, and where they are too long together.
    """
    if not isinstance(grep, (list, tuple)):
        return grep
    if not grep:
        return None
    for pattern in grep:
        Filters(grep=pattern)  # "a)" and "(b" are a pattern together, and none alone
    if len(grep) == 1:
        return str(grep[0])
    # What \Q begins reaches to the pattern's end, unless \E ends it.
    ended = [f"{each}\\E" if each.rfind("\\Q") > each.rfind("\\E") else each for each in grep]
    together = "|".join(f"(?:{pattern})" for pattern in ended)
    if len(together) > MAX_PATTERN:
        allowed = f"patterns of together at most {MAX_PATTERN} characters"
        raise ArgumentError("grep", grep, allowed)
    return together
