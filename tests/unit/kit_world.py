"""Start-up kits as the runtime provisions them, made with its own function for certificates."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from nvflare.lighter.utils import Identity, generate_cert, serialize_cert, serialize_pri_key

PEM = serialization.Encoding.PEM


@cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    """One of a few keys: each takes a while to make."""
    return rsa.generate_private_key(65537, 2048)


@dataclass
class Authority:
    """Whoever issues certificates: a federation, or one between it and its users."""

    name: str
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @classmethod
    def root(cls, name: str = "logstream", key: int = 0) -> Authority:
        own, pair = Identity(name), rsa_key(key)
        times = {"not_valid_before": days(-2), "not_valid_after": days(99)}
        return cls(name, pair, generate_cert(own, own, pair, pair.public_key(), ca=True, **times))

    def issue(
        self, name: str, public_key: Any, org: str | None = "nvidia", role: str | None = "lead", **more: Any
    ) -> Any:
        times = {"not_valid_before": days(-1), **more}
        return generate_cert(Identity(name, org, role), Identity(self.name), self.key, public_key, **times)


def make_kit(
    root: Path,
    federation: Authority,
    user: str = "admin@nvidia.com",
    key: Any = None,
    passphrase: bytes | None = None,
    **more: Any,
) -> Path:
    """Write an admin's kit and return its directory."""
    key = key or rsa_key(9)
    startup = root / "startup"
    startup.mkdir(parents=True)
    (startup / "fed_admin.json").write_text(json.dumps({"admin": {"username": user}}))
    (startup / "rootCA.pem").write_bytes(serialize_cert(federation.certificate))
    (startup / "client.crt").write_bytes(serialize_cert(federation.issue(user, key.public_key(), **more)))
    if isinstance(key, rsa.RSAPrivateKey):
        (startup / "client.key").write_bytes(serialize_pri_key(key, passphrase))
    else:
        text = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (startup / "client.key").write_bytes(text)
    return root


def days(number: int) -> datetime.datetime:
    """A time some days from now."""
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=number)
