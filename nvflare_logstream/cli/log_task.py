"""What `nvflare-logstream logs` does once its options are read: one reading, or one following."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nvflare_logstream.cli.log_options import DEFAULT_TAIL
from nvflare_logstream.cli.output import OK, REFUSED, Format, notice, print_envelope, print_json
from nvflare_logstream.cli.printers import Printer
from nvflare_logstream.client.merge import in_order
from nvflare_logstream.client.model import COMPLETED, UNKNOWN, Event, EventKind, JobStreams
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.filters import FILTER_NAMES
from nvflare_logstream.names import ALL_SITES, server_first
from nvflare_logstream.streams import Stream, Verdict, in_words

if TYPE_CHECKING:
    from nvflare_logstream.client.client import LogClient
    from nvflare_logstream.wire.queries import ReadReply

_FORGOTTEN = "the server was restarted during the job, and does not know how it ended"
NOTICES = {
    EventKind.WAITING: "not started yet",
    EventKind.JOINED: "streaming",
    EventKind.SILENT: "went silent",
    EventKind.RECONNECTED: "is back",
    EventKind.REFUSED: "refused by the site",
    EventKind.BEGUN_ANEW: "begun anew",
    EventKind.LOST: "something could not be delivered",
    EventKind.ENDED: "ended",
    EventKind.MISSING: "no log",
    EventKind.LOST_CONTACT: "no contact with the server, trying again",
    EventKind.BACK: "in contact with the server again",
    EventKind.AWAITED: "no such site yet",
    EventKind.PAST: "--until has passed",
    EventKind.OVER: "over",
}


@dataclass
class SiteSummary:
    """What a reading showed of one site.

    Attributes:
        lines, bytes: of the text that was shown.
        truncated: as in `nvflare_logstream.filters.FilterResult`.
        applied: for each bound of time that was asked for, "since" and "until", whether it could be applied.
    """

    file: str
    verdict: Verdict
    verdict_reason: str
    available: bool
    lines: int = 0
    bytes: int = 0
    truncated: bool = False
    applied: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, stream: Stream, query: LogQuery) -> SiteSummary:
        """Before anything of the stream was shown."""
        applied = {name: False for name in ("since", "until") if getattr(query, name) is not None}
        return cls(stream.file, stream.verdict, stream.verdict_reason, stream.available, applied=applied)

    @property
    def standing(self) -> str:
        """The verdict, with its reason in brackets if it has one."""
        return in_words(self.verdict, self.verdict_reason)

    def add(self, reply: ReadReply) -> None:
        """Count a piece of the log that is shown."""
        self.lines += len(reply.text.splitlines())
        self.bytes += len(reply.text.encode(errors="surrogatepass"))
        self.truncated = reply.truncated
        applied = {"since": reply.since_applied, "until": reply.until_applied}
        self.applied = {name: applied[name] for name in self.applied}

    def as_json(self) -> dict[str, Any]:
        """The site's entry in the JSON answer."""
        known = {"file": self.file, "verdict": str(self.verdict), "verdict_reason": self.verdict_reason}
        if not self.available:
            return {"available": False, "reason": self.standing, **known}
        size = {"lines": self.lines, "bytes": self.bytes}
        applied = {f"{name}_applied": is_applied for name, is_applied in self.applied.items()}
        return {"available": True, **size, **known, "logs_truncated": self.truncated, **applied}


@dataclass(frozen=True)
class LogTask:
    """One reading or following.

    Attributes:
        default_tail: the query's `tail` is the default, not what the user asked for.
    """

    client: LogClient
    job_id: str
    query: LogQuery
    printer: Printer
    form: Format
    default_tail: bool

    def run(self, follow: bool, merged: bool) -> int:
        """Read or follow; returns the exit code, or raises as these do."""
        try:
            return self.follow(merged) if follow else self.read(merged)
        except RetrievalError:
            self.printer.interrupt()  # what came stands before the error
            raise

    def read(self, merged: bool) -> int:
        """Show what is there now; returns the exit code.

        Raises:
            RetrievalError: LOG_NOT_FOUND, if there is none of the logs that were asked for by name.
        """
        job = self.client.job(self.job_id)
        chosen = self.query.choose(job.streams)
        sites = self._summaries(chosen, job)
        streams = {stream.site: stream for stream in chosen if stream.available}
        none_left = not sites and bool(job.streams)
        if none_left or (not streams and ALL_SITES not in self.query.sites):
            reasons = "; ".join(f"{name}: {site.standing}" for name, site in sites.items())
            reasons = reasons or "--exclude-site leaves no site"
            hint = f"`nvflare-logstream status {self.job_id}` shows what there is."
            text = f"no such log for job {self.job_id}: {reasons}"
            raise RetrievalError(ErrorCode.LOG_NOT_FOUND, text, hint)
        query = self.query.fixed(job.now)

        def replies(stream: Stream) -> Iterator[ReadReply]:
            for reply in self.client.parts(self.job_id, stream, query, as_text=self.printer.renders):
                sites[stream.site].add(reply)
                yield reply

        if merged:
            records: dict[str, bool] = {}

            def texts(stream: Stream) -> Iterator[str]:
                for reply in replies(stream):
                    records[stream.site] = reply.reading.records
                    yield reply.text

            for site, line in in_order(streams.values(), texts, records=records.__getitem__):
                self.printer.text(streams[site], line, records=records[site])
        else:
            for stream in streams.values():
                for reply in replies(stream):
                    self.printer.text(stream, reply.text, reply.reading.breaks, reply.reading.records)
        self.printer.close()
        self._conclude(job.status, sites)
        return OK

    def _summaries(self, chosen: list[Stream], job: JobStreams) -> dict[str, SiteSummary]:
        """Every site and pattern that was asked for, the server first."""
        sites = {stream.site: SiteSummary.of(stream, self.query) for stream in chosen}
        for name, reason in self.query.unmatched(job.streams).items():
            sites[name] = SiteSummary(self.query.file, Verdict.NEVER_SEEN, reason, available=False)
        return dict(sorted(sites.items(), key=lambda item: server_first(item[0])))

    def _conclude(self, status: str, sites: dict[str, SiteSummary]) -> None:
        """Say what is to be said after the text."""
        if self.form is Format.TEXT:
            if not sites:
                notice(f"job: no log has come: {status}")
            self._explain(sites)
            return
        bounds = {name: value for name in FILTER_NAMES if (value := getattr(self.query, name))}
        bounds |= {name: getattr(self.query, name) for name in ("tail", "since", "max_bytes")}
        applied = {
            f"{name}_applied": any(site.applied.get(name) for site in sites.values())
            for name in ("since", "until")
            if name == "since" or self.query.until is not None
        }
        unavailable = {name: site.standing for name, site in sites.items() if not site.available}
        data = {
            "job_id": self.job_id,
            "job_status": status,
            "target": ",".join(self.query.sites),
            "file": self.query.file,
            "logs_truncated": any(site.truncated for site in sites.values()),
            "sites": {name: site.as_json() for name, site in sites.items()},
            "filters": bounds | applied | {"default_tail_applied": self.default_tail},
            **({"unavailable": unavailable} if unavailable else {}),
            **self.printer.answer(),
        }
        if self.form is Format.JSON:
            print_envelope(data)
        else:
            end = {"event": "terminal", "terminal": True, "status": "ok", "exit_code": OK}
            print_json({**end, "data": data})

    def _explain(self, sites: dict[str, SiteSummary]) -> None:
        """Tell a person what the text does not show."""
        for name, site in sites.items():
            if not site.available:
                notice(f"{name}: {site.standing}")
        available = [site for site in sites.values() if site.available]
        if self.default_tail and any(site.truncated for site in available):
            notice(f"(the last {DEFAULT_TAIL} lines of each site; --tail N shows more)")
        shown = {name: site for name, site in sites.items() if site.available and site.lines}
        self._explain_bounds(shown, len(available) == 1)

    def _explain_bounds(self, shown: dict[str, SiteSummary], alone: bool) -> None:
        """Tell of which logs more is shown than asked for, since they have no times."""
        for bound in ("since", "until"):
            names = [name for name, site in shown.items() if site.applied.get(bound) is False]
            if names:
                _say_not_applied(bound, "this log" if alone else f"the log of {', '.join(names)}")

    def follow(self, merged: bool = False) -> int:
        """Show what is there and what comes, until the job and its logs are over.

        Returns the exit code: 0 if the job ended well, or the query's time has passed, and there was any of
        the logs, otherwise 1.

        Raises:
            RetrievalError: LOG_NOT_FOUND, if a name is that of no site of the job.
        """
        any_log, code = ALL_SITES in self.query.sites, REFUSED
        printer = self.printer
        events = self.client.follow(self.job_id, self.query, merged, printer.grows, printer.renders)
        for event in events:
            any_log |= event.kind in (EventKind.TEXT, EventKind.JOINED, EventKind.ENDED)
            if event.kind is EventKind.TEXT and event.stream:
                printer.text(event.stream, event.text, event.breaks, event.records)
                continue
            if event.kind is EventKind.GROWING and event.stream:
                self.printer.grow(event.stream, event.text)
                continue
            if event.kind is EventKind.CAUGHT_UP:
                self.printer.pause()
                continue
            self.printer.interrupt()
            if event.kind is EventKind.BEGUN_ANEW:
                printer.begin_anew(event.site)
            if event.kind in (EventKind.OVER, EventKind.PAST):
                ended_well = event.kind is EventKind.PAST or event.text == COMPLETED
                code = OK if ended_well and any_log else REFUSED
                self._say_over(event, code)
            else:
                self._say(event)
        self.printer.close()
        return code

    def _say(self, event: Event) -> None:
        if self.form is Format.TEXT and event.kind is EventKind.NOT_APPLIED:
            _say_not_applied(event.text, f"the log of {event.site}")
        elif self.form is Format.TEXT:
            text = f": {event.text}" if event.text else ""
            notice(f"{event.site or 'job'}: {NOTICES[event.kind]}{text}")
        else:
            kind = event.kind.replace(" ", "_")
            print_json({"event": kind, "site": event.site, "text": event.text, "terminal": False})

    def _say_over(self, event: Event, code: int) -> None:
        if self.form is Format.TEXT:
            self._say(replace(event, text=_FORGOTTEN) if event.text == UNKNOWN else event)
        else:
            end = {"event": "terminal", "terminal": True, "job_id": self.job_id}
            status = {"status": "error" if code else "ok", "job_status": event.text, "exit_code": code}
            print_json(end | status)


def _say_not_applied(bound: str, whose: str) -> None:
    notice(f"(no line of {whose} has a time: --{bound} was not applied)")
