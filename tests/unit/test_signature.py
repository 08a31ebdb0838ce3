"""Signatures of manifests: whose they are, and all that may be wrong with them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from nvflare.lighter.utils import serialize_cert, serialize_pri_key, sign_content

from nvflare_logstream.client.manifest import EXPORTED
from nvflare_logstream.client.signature import Signature, Signer, check_signature
from tests.unit.kit_world import Authority, days, make_kit, rsa_key

DATA = b'{"format": 1}\n'
NOW = days(0).strftime(EXPORTED)


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority.root()


def signer_of(federation: Authority, key: Any = None, *between: Authority, **more: Any) -> Signer:
    key = key or rsa_key(9)
    issuer = between[0] if between else federation
    leaf = issuer.issue("admin@nvidia.com", key.public_key(), **more)
    return Signer(key, (leaf, *(authority.certificate for authority in between)))


def check(dest: Path, signer: Signer, root: Authority | None, exported: str = NOW) -> Signature:
    signature, certificates = signer.sign(DATA)
    (dest / "manifest.sig").write_bytes(signature)
    (dest / "manifest.crt").write_bytes(certificates)
    return again(dest, root, exported)


def again(dest: Path, root: Authority | None, exported: str = NOW, data: bytes = DATA) -> Signature:
    return check_signature(dest, data, exported, lambda: root and root.certificate)


@pytest.mark.parametrize(
    "key",
    [rsa_key(9), ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["rsa", "ec", "ed25519"],
)
def test_a_signature_names_the_signer_and_the_federation(tmp_path, ours, key):
    found = check(tmp_path, signer_of(ours, key), ours)
    assert found.trust == "signed" and found.good, found
    assert found.detail == "signed by admin@nvidia.com (nvidia, lead) of federation logstream"
    assert (found.signer, found.organisation, found.role) == ("admin@nvidia.com", "nvidia", "lead")
    changed = again(tmp_path, ours, data=DATA + b" ")
    assert changed.trust == "not valid" and "does not match" in changed.detail and not changed.good


def test_without_a_start_up_kit_only_what_the_certificate_claims_is_known(tmp_path, ours):
    found = check(tmp_path, signer_of(ours), None)
    assert found.trust == "not checked" and found.good
    assert "a certificate that names admin@nvidia.com (nvidia, lead) of federation logstream" in found.detail
    assert again(tmp_path, None, data=b"{}").trust == "not valid"


@pytest.mark.parametrize("name", ["logstream", "other"])
def test_another_federation_is_an_error_also_one_of_the_same_name(tmp_path, ours, name):
    found = check(tmp_path, signer_of(Authority.root(name, key=1)), ours)
    assert found.trust == "of another federation" and not found.good
    assert f"of federation {name}" in found.detail and "federation logstream did not issue it" in found.detail


def test_a_certificate_between_the_user_and_the_federation_is_followed(tmp_path, ours):
    key = rsa_key(2)
    between = Authority("team", key, ours.issue("team", key.public_key(), None, None, ca=True))
    found = check(tmp_path, signer_of(ours, None, between), ours)
    assert found.trust == "signed" and found.federation == "logstream", found


def test_a_users_certificate_issues_no_others(tmp_path, ours):
    key = rsa_key(2)
    site = Authority("site-1", key, ours.issue("site-1", key.public_key(), None, None))
    assert check(tmp_path, signer_of(ours, None, site), ours).trust == "of another federation"


def test_a_certificate_must_have_been_valid_when_it_signed(tmp_path, ours):
    signer = signer_of(ours, not_valid_before=days(0), not_valid_after=days(5))
    assert check(tmp_path, signer, ours, days(2).strftime(EXPORTED)).trust == "signed"
    for exported in (days(9).strftime(EXPORTED), days(-1).strftime(EXPORTED), "yesterday", "\x1b[2J"):
        found = again(tmp_path, ours, exported)
        assert found.trust == "not valid" and "not valid at the time of the export" in found.detail


def test_what_the_runtime_signs_with_the_same_key_is_no_signature_of_a_manifest(tmp_path, ours):
    """A job with a file of these bytes, say."""
    signer = signer_of(ours)
    check(tmp_path, signer, ours)
    (tmp_path / "manifest.sig").write_bytes(sign_content(DATA, signer.key, return_str=False))
    assert again(tmp_path, ours).trust == "not valid"


def test_the_certificate_of_another_user_does_not_match(tmp_path, ours):
    check(tmp_path, signer_of(ours), ours)
    (tmp_path / "manifest.crt").write_bytes(serialize_cert(ours.issue("eve", rsa_key(3).public_key())))
    found = again(tmp_path, ours)
    assert found.trust == "not valid" and "does not match" in found.detail and not found.signer


@pytest.mark.parametrize("name", ["manifest.sig", "manifest.crt"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\xff" * 300, b"-----BEGIN CERTIFICATE-----\n", "directory", "link"]
)
def test_half_a_signature_and_what_is_none_are_not_valid(tmp_path, ours, name, content):
    check(tmp_path, signer_of(ours), ours)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    if content == "directory":
        (tmp_path / name).mkdir()
    elif content == "link":
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    found = again(tmp_path, ours)
    assert found.trust == "not valid" and not found.good
    assert f"{name} is missing" in found.detail if content is None else found.detail


def test_many_certificates_are_too_many(tmp_path, ours):
    check(tmp_path, signer_of(ours), ours)
    path = tmp_path / "manifest.crt"
    path.write_bytes(path.read_bytes() * 9)
    assert "9 certificates are there" in again(tmp_path, ours).detail


def test_no_signature_is_said(tmp_path, ours):
    found = again(tmp_path, ours)
    assert found.trust == "not signed" and found.good and found.detail.startswith("not signed")


def test_a_key_that_cannot_be_used_is_said_in_words(ours):
    certificate = serialize_cert(ours.issue("a", rsa_key(9).public_key()))
    key = dsa.generate_private_key(1024)
    own = serialize_cert(ours.issue("a", key.public_key()))
    cases = {
        "needs a passphrase": (serialize_pri_key(rsa_key(9), b"secret"), certificate),
        "is not that of the certificate": (serialize_pri_key(rsa_key(3)), certificate),
        "cannot be read": (b"junk", certificate),
        "or its certificate cannot be read": (serialize_pri_key(rsa_key(9)), b"junk"),
        "a key of this kind signs nothing": (serialize_pri_key(key), own),
    }
    for words, given in cases.items():
        with pytest.raises(ValueError, match=words):
            Signer.load(*given)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not here")
def test_openssl_checks_a_signature_as_the_documentation_says(tmp_path, ours):
    check(tmp_path, signer_of(ours), ours)
    (tmp_path / "manifest.json").write_bytes(DATA)
    key = "openssl x509 -in manifest.crt -pubkey -noout > key.pem"
    options = "-sha256 -sigopt rsa_padding_mode:pss -verify key.pem -signature manifest.sig"
    run = subprocess.run(
        ["sh", "-c", f"{key} && openssl dgst {options} manifest.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "Verified OK\n", run.stderr


def test_the_key_of_a_kit_is_read_as_the_runtime_writes_it(tmp_path, ours):
    startup = make_kit(tmp_path / "kit", ours) / "startup"
    signer = Signer.load((startup / "client.key").read_bytes(), (startup / "client.crt").read_bytes())
    assert signer.name == "admin@nvidia.com" and json.loads((startup / "fed_admin.json").read_text())
