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
    report.ok(
        f"the server runs nvflare_logstream {status.package}, protocol {status.upload_protocol}, nvflare "
        f"{status.runtime}; {_span(status.up)} up"
    )
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
    return [report, *(_check_site(site, status) for site in status.standings)]


def _check_site(site: Standing, status: ServerStatus) -> Report:
    report = Report(site.site, "site")
    heard = _span(max(0.0, status.now - site.heard))
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(site.heard))
    if site.silent:
        away = "" if site.connected else ", and it is not connected to the server"
        report.error(
            f"silent since {since} ({heard}): {site.silent} of {site.open} open logs{away}",
            "look whether the site runs, and into its log.txt",
        )
    elif site.stock:
        report.warning(
            f"its logs were sent by the runtime's own streamer and are not checked; heard of {heard} ago",
            "at the site: `pip install nvflare-logstream`, then `nvflare-logstream setup`",
        )
    elif not site.heard:
        report.warning(
            "connected, and no log ever came",
            "if a job has run there, run `nvflare-logstream doctor` at the site",
        )
    else:
        report.ok(f"{_versions(site, status)}; heard of {heard} ago")
    if abs(site.skew) > _SKEW:
        report.warning(
            f"its clock is {_ahead(site.skew)} the server's", "have both set by a time service (NTP)"
        )
    return report


def _versions(site: Standing, status: ServerStatus) -> str:
    if not site.package:
        return f"its versions were not told since the receiver started ({_span(status.up)} ago)"
    runtime = f", nvflare {site.runtime}" if site.runtime else ""
    return f"nvflare_logstream {site.package}, protocol {site.protocol}{runtime}"


def _ahead(skew: float) -> str:
    return f"{_span(abs(skew))} {'ahead of' if skew > 0 else 'behind'}"


def _span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit, size in _SECONDS.items():
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
