"""What `nvflare-logstream logs` does once its options are read: one reading or one following."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nvflare_logstream.cli.log_options import DEFAULT_TAIL
from nvflare_logstream.cli.output import OK, REFUSED, Format, notice, print_envelope, print_json
from nvflare_logstream.cli.printers import (
    Collector,
    EventPrinter,
    FilePrinter,
    Printer,
    TerminalPrinter,
    in_order,
)
from nvflare_logstream.client.model import ALL_SITES, COMPLETED, UNKNOWN, Event, LogQuery, Part, Stream
from nvflare_logstream.errors import ErrorCode, RetrievalError

if TYPE_CHECKING:
    from nvflare_logstream.client.client import LogClient


@dataclass
class LogTask:
    """One reading or following under way."""

    client: LogClient
    job: str
    query: LogQuery
    printer: Printer
    form: Format
    default_tail: bool
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    now: float = 0.0  # by the server's clock, when the reading began
    seen: bool = False  # whether any log that was asked for is there

    def read(self, merged: bool) -> int:
        """Show what is there now."""
        job = self.client.job(self.job)
        self.now = job.now
        chosen = self.query.choose(job.streams)
        there = [stream for stream in chosen if stream.available]
        for stream in chosen:
            if not stream.available:
                self.unavailable[stream.site] = stream.standing
                self.results[stream.site] = {
                    "available": False,
                    "reason": stream.standing,
                    **_described(stream),
                }
        if not there and ALL_SITES not in self.query.sites:
            names = "; ".join(f"{site}: {reason}" for site, reason in self.unavailable.items())
            hint = f"`nvflare-logstream status {self.job}` shows what there is."
            raise RetrievalError(ErrorCode.LOG_NOT_FOUND, f"no such log for job {self.job}: {names}", hint)
        if merged:
            assert isinstance(self.printer, (TerminalPrinter, EventPrinter))
            for site, line in in_order(there, self._texts):
                self.printer.line(site, line)
        else:
            for stream in there:
                for text in self._texts(stream):
                    self.printer.text(stream, text)
        self.printer.close()
        self._conclude(job.status)
        return OK

    def _texts(self, stream: Stream) -> Iterator[str]:
        """A site's log in pieces; counts what it was."""
        result = self.results[stream.site] = {"available": True, "lines": 0, "bytes": 0, **_described(stream)}
        part = Part("", True, {}, False, False)
        for part in self.client.parts(self.job, stream, self.query.fixed(self.now)):
            result["lines"] += len(part.text.splitlines())
            result["bytes"] += len(part.text.encode())
            yield part.text
        result["logs_truncated"], result["since_applied"] = part.truncated, part.since_applied

    def _conclude(self, status: str) -> None:
        """What is to be said after the text."""
        cut = any(result.get("logs_truncated") for result in self.results.values())
        since_applied = any(result.pop("since_applied", False) for result in self.results.values())
        filters = {name: value for name, value in self.query.filters().items() if value}
        filters |= {name: getattr(self.query, name) for name in ("tail", "since", "max_bytes")}
        filters |= {"since_applied": since_applied, "default_tail_applied": self.default_tail}
        data = {
            "job_id": self.job, "job_status": status, "target": ",".join(self.query.sites), "file": self.query.file,
            "logs_truncated": cut, "sites": self.results, "filters": filters,
        }  # fmt: skip
        data |= {"unavailable": self.unavailable} if self.unavailable else {}
        if isinstance(self.printer, FilePrinter):
            data["files"] = {site: str(path) for site, path in self.printer.paths.items()}
        if isinstance(self.printer, Collector):
            data["logs"] = self.printer.logs
        if self.form is Format.JSON:
            print_envelope(data)
        elif self.form is Format.JSONL:
            print_json({"event": "terminal", "terminal": True, "status": "ok", "exit_code": OK, "data": data})
        else:
            self._say(cut, since_applied)

    def _say(self, cut: bool, since_applied: bool) -> None:
        for site, reason in self.unavailable.items():
            notice(f"{site}: {reason}")
        if cut and self.default_tail:
            notice(f"(the last {DEFAULT_TAIL} lines of each site; --tail N shows more)")
        if (
            self.query.since
            and not since_applied
            and any(result["available"] for result in self.results.values())
        ):
            notice("(no line of this log has a time: --since was not applied)")

    def follow(self) -> int:
        """Show what is there and what comes, until the job and its logs are over; the exit code is the job's outcome."""
        self.seen = ALL_SITES in self.query.sites
        for event in self.client.follow(self.job, self.query):
            self.seen = self.seen or event.kind in ("text", "joined", "ended")
            if event.kind == "text" and event.stream:
                self.printer.text(event.stream, event.text)
            elif event.kind == "caught up":
                self.printer.pause()
            else:
                self.printer.pause()
                code = self._tell(event)
        return code

    def _tell(self, event: Event) -> int:
        code = OK if event.text == COMPLETED and self.seen else REFUSED
        if self.form is Format.TEXT:
            text = _FORGOTTEN if event.text == UNKNOWN else event.text
            notice(f"{event.site or 'job'}: {_WORDS[event.kind]}{f': {text}' if text else ''}")
        elif event.kind == "over":
            end = {"status": "ok" if code == OK else "error", "job_status": event.text, "exit_code": code}
            print_json({"event": "terminal", "terminal": True, "job_id": self.job, **end})
        else:
            print_json(
                {
                    "event": event.kind.replace(" ", "_"),
                    "site": event.site,
                    "text": event.text,
                    "terminal": False,
                }
            )
        if event.kind == "over":
            self.printer.close()
        return code


_FORGOTTEN = "the server was restarted during the job, and does not know how it ended"
_WORDS = {
    "joined": "streaming",
    "silent": "went silent",
    "reconnected": "is back",
    "refused": "refused by the site",
    "lost": "something could not be delivered",
    "ended": "ended",
    "missing": "no log",
    "lost contact": "no contact with the server, trying again",
    "back": "in contact with the server again",
    "over": "over",
}


def _described(stream: Stream) -> dict[str, Any]:
    return {"file": stream.file, "verdict": stream.verdict, "verdict_reason": stream.reason}
