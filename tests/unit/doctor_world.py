"""Start-up kits that are right in all that the doctor looks at, for tests that then make one mistake."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nvflare_logstream.deploy.doctor import diagnose
from nvflare_logstream.deploy.findings import Finding, Severity
from nvflare_logstream.deploy.interpreter import Interpreter
from nvflare_logstream.deploy.kits import Place, find_places
from nvflare_logstream.deploy.probe import Probe
from nvflare_logstream.deploy.resources_read import Resources
from tests.unit.deploy_world import write_kit

ROOT = Path(__file__).parents[2]
STREAMER = {"id": "logs", "path": "nvflare_logstream.SiteLogStreamer", "args": {"log_files": ["log.txt"]}}
RECEIVER = {"id": "logs", "path": "nvflare_logstream.JobLogReceiver", "args": {"idle_timeout": 30}}
STOCK = {"id": "stock", "path": "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer", "args": {}}
RIGHT = {"format_version": 2, "class_allow_list": ["nvflare.", "nvflare_logstream."]}
FITS = Probe(python="3.11.7", runtime="2.9.0", package="0.2.0", protocol=1)
NOW = datetime.now(timezone.utc)


@cache
def certificate(begin: float = -1, end: float = 365) -> bytes:
    """A certificate in PEM that is valid between these days from now."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(NOW + timedelta(begin)).not_valid_after(NOW + timedelta(end))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make(root: Path, role: str = "client", *components: dict[str, Any], **keys: Any) -> Path:
    """A kit at `root` whose resources have these components, or the right one, and these keys besides."""
    resources = {**RIGHT, **keys}
    resources["components"] = list(components or ([STREAMER] if role == "client" else [RECEIVER]))
    write_kit(root, role, json.dumps({name: value for name, value in resources.items() if value is not ...}))
    (root / "startup" / "sub_start.sh").write_text(
        f"start_python() {{\n  exec {sys.executable} -u -m nvflare.private.fed.app.client.client_train "
        f'-m "$WORKSPACE" -s fed_client.json --set secure_train=true uid={root.name} org=o\n}}\n'
    )
    for name in ("client.crt", "server.crt", "rootCA.pem"):
        (root / "startup" / name).write_bytes(certificate())
    config = {"format_version": 2, "client": {"connection_security": "mtls"}}
    (root / "startup" / f"fed_{role}.json").write_text(json.dumps(config))
    return root


def found(*roots: Path, probe: Probe | None = FITS) -> list[Finding]:
    """What is found wrong at these kits; their Python is asked only if no `probe` is given."""

    def answer(place: Place, resources: Resources, interpreter: Interpreter) -> Probe:
        assert probe is not None
        return probe

    places = [place for root in roots for place in find_places(root)]
    findings = diagnose(places) if probe is None else diagnose(places, answer)
    return [finding for finding in findings if finding.severity is not Severity.OK]
