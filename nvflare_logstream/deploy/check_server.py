"""Checks of what the server says of its sites: what they run, and which of them are silent."""

from __future__ import annotations

import time

from nvflare_logstream.deploy.findings import Report
from nvflare_logstream.wire.server_status import ServerStatus
from nvflare_logstream.wire.standing import Standing

_SKEW = 5.0  # seconds; from there on times of different machines are hard to compare
_SECONDS = {"d": 86400, "h": 3600, "min": 60}


def check_server(place: str, status: ServerStatus, asked: float, answered: float) -> list[Report]:
    """What the server's answer tells.

    Args:
        place: who asked.
        status: the answer.
        asked: this machine's clock before the question, in seconds since the epoch.
        answered: the same after the answer.
    """
    report = Report(place, "server")
    report.ok(f"up for {_span(status.up)}")
    versions = Report(place, "versions")
    versions.ok(_versions(status.package, status.upload_protocol, status.runtime))
    skew = asked - status.now if asked > status.now else min(0.0, answered - status.now)
    if abs(skew) > _SKEW:
        report.warning(
            f"this machine's clock is {_ahead(skew)} the server's", "have both set by a time service (NTP)"
        )
    if not status.named:
        advice = "use the start-up kit of a project admin"
        report.warning("the server names its sites to project admins only", advice)
    elif not status.standings and status.sites:
        report.warning("the server is too old to tell how its sites stand", "update nvflare_logstream there")
    sites = [found for site in status.standings for found in _check_site(site, status)]
    return [versions, report, *sites]


def _check_site(site: Standing, status: ServerStatus) -> tuple[Report, Report]:
    report, versions = Report(site.site, "site"), Report(site.site, "versions")
    heard = _span(max(0.0, status.now - site.heard))
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(site.heard))
    if site.silent:
        away = "" if site.connected else ", and it is not connected to the server"
        report.error(
            f"silent since {since} ({heard}): {site.silent} of {site.open} open logs{away}",
            "look whether the site runs, and into its log.txt",
        )
    elif not site.heard:
        report.warning(
            "connected, and no log ever came",
            "if a job has run there, run `nvflare-logstream doctor` at the site",
        )
    else:
        report.ok(f"heard of {heard} ago")
    if site.stock:
        report.warning(
            "its last logs were sent by the runtime's own streamer, and are not checked",
            "at the site: `pip install nvflare-logstream`, then `nvflare-logstream setup`",
        )
    elif site.package:
        versions.ok(_versions(site.package, site.protocol, site.runtime))
    elif site.heard:
        versions.ok(f"its versions were not told since the receiver started, {_span(status.up)} ago")
    if abs(site.skew) > _SKEW:
        report.warning(
            f"its clock is {_ahead(site.skew)} the server's", "have both set by a time service (NTP)"
        )
    return versions, report


def _versions(package: str, protocol: int, runtime: str) -> str:
    told = f"nvflare_logstream {package}, protocol {protocol}"
    return f"{told}, nvflare {runtime}" if runtime else told


def _ahead(skew: float) -> str:
    return f"{_span(abs(skew))} {'ahead of' if skew > 0 else 'behind'}"


def _span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit, size in _SECONDS.items():
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
