"""What the doctor finds: one fact about one place, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nvflare_logstream.words import Word


class Severity(Word):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # it works, but somebody should know
    ERROR = "error"  # logs do not come, or not as they should


class Finding(NamedTuple):
    """One finding.

    Attributes:
        place: the site, the server or the admin that it is about.
        check: which check it comes from, in one word.
        text: what is the case.
        advice: what to do; empty where nothing is to be done.
    """

    place: str
    check: str
    severity: Severity
    text: str
    advice: str = ""


def count(findings: Iterable[Finding], severity: Severity) -> int:
    """How many findings are as bad as that."""
    return sum(finding.severity is severity for finding in findings)


class Report:
    """Gathers the findings of one check about one place.

    Args:
        place: whom it is about.
        check: which check it is.
    """

    def __init__(self, place: str, check: str):
        self._place, self._check = place, check
        self.findings: list[Finding] = []

    def ok(self, text: str) -> None:
        """Something is as it should be."""
        self._add(Severity.OK, text)

    def warning(self, text: str, advice: str) -> None:
        """Something works, but somebody should know."""
        self._add(Severity.WARNING, text, advice)

    def error(self, text: str, advice: str) -> None:
        """Something is wrong."""
        self._add(Severity.ERROR, text, advice)

    def _add(self, severity: Severity, text: str, advice: str = "") -> None:
        self.findings.append(Finding(self._place, self._check, severity, text, advice))
