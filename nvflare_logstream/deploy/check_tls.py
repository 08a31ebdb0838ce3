"""Checks of a start-up kit's keys and connection: are the certificates valid now, is anything verified?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509

from nvflare_logstream.deploy.findings import Report
from nvflare_logstream.deploy.interpreter import script_of
from nvflare_logstream.deploy.kits import Place, Role
from nvflare_logstream.deploy.reading import read_file

_SOON = timedelta(days=30)
_CERTIFICATES = {Role.SERVER: "server.crt"}
_INSECURE = re.compile(r"\bsecure_train=false\b", re.IGNORECASE)
_MOST_BYTES = 1 << 20


def check_certificates(place: Place, now: datetime | None = None) -> Report:
    """Whether the kit's certificates are valid by this machine's clock."""
    report = Report(place.name, "certificates")
    now = now or datetime.now(timezone.utc)
    ends = []
    for name in (_CERTIFICATES.get(place.role, "client.crt"), "rootCA.pem"):
        path = place.startup / name
        try:
            begin, end = _validity(path)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no certificate"
            report.error(f"{path} cannot be read: {why}", "take it from the start-up kit")
            continue
        ends.append(end)
        if now < begin:
            text = f"{name} is valid from {begin:%Y-%m-%d %H:%M} UTC only"
            report.error(f"{text}, and here it is {now:%Y-%m-%d %H:%M} UTC", "set this machine's clock")
        elif now >= end:
            report.error(
                f"{name} has expired on {end:%Y-%m-%d}: no connection can be made", "have a new kit made"
            )
        elif end - now < _SOON:
            report.warning(f"{name} expires on {end:%Y-%m-%d}", "have a new kit made before")
    if ends and not report.findings:
        report.ok(f"the certificates are valid until {min(ends):%Y-%m-%d}")
    return report


def _validity(path: Path) -> tuple[datetime, datetime]:
    certificate = x509.load_pem_x509_certificate(read_file(path, _MOST_BYTES))
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    begin, end = certificate.not_valid_before, certificate.not_valid_after  # of a library before 42
    return begin.replace(tzinfo=timezone.utc), end.replace(tzinfo=timezone.utc)


def check_connection(place: Place) -> Report:
    """Whether the kit asks for a connection on which the server knows who sends."""
    report = Report(place.name, "connection")
    path = place.startup / f"fed_{place.role}.json"
    try:
        config = json.loads(read_file(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or "it is no JSON"
        report.error(f"{path} cannot be read: {why}", "take it from the start-up kit")
        return report
    clear = any(value == "clear" for value in _values(config, "connection_security"))
    if clear or _INSECURE.search(script_of(place)):
        where = f'connection_security is "clear" in {path.name}' if clear else "secure_train is false"
        report.error(
            f"{where}: nothing is encrypted, and whoever reaches the server can send as any site",
            "use a kit that was provisioned with TLS",
        )
    return report


def _values(config: Any, key: str, depth: int = 20) -> Iterator[Any]:
    """What stands under a key, wherever it is."""
    if isinstance(config, dict):
        if key in config:
            yield config[key]
        config = list(config.values())
    if isinstance(config, list) and depth:
        for inner in config:
            yield from _values(inner, key, depth - 1)
