"""Who vouches for an export: the signature beside its manifest.

The exporting admin's own key, that of the start-up kit, signs the exact bytes of `manifest.json`. Beside it
stand `manifest.sig`, the signature alone, and `manifest.crt`, the admin's certificate and those between it
and the federation's own. No tool of ours is needed to check them:

    openssl x509 -in manifest.crt -pubkey -noout > key.pem
    openssl dgst -sha256 -sigopt rsa_padding_mode:pss -verify key.pem -signature manifest.sig manifest.json

An RSA key signs with PSS and a salt of 32 bytes. With the same key the runtime signs logins and jobs, and
there takes the longest salt: neither can be passed off as the other.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

from nvflare_logstream.client.disk import open_to_read
from nvflare_logstream.client.manifest import CERTIFICATE, EXPORTED, SIGNATURE
from nvflare_logstream.words import Word

_SHA256 = hashes.SHA256()
_PSS = padding.PSS(padding.MGF1(_SHA256), padding.PSS.DIGEST_LENGTH)
_ECDSA = ec.ECDSA(_SHA256)
_MAX_SIZE = 1 << 20  # bytes of a signature, or of certificates
_MAX_CHAIN = 8  # certificates

_SigningKey = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)


@dataclass(frozen=True)
class Signer:
    """Signs as the user of a start-up kit.

    Attributes:
        key: the user's private key.
        chain: the user's certificate, then those between it and the federation's.
    """

    key: _SigningKey
    chain: tuple[x509.Certificate, ...]

    @classmethod
    def load(cls, key: bytes, certificates: bytes) -> Signer:
        """Read both from their PEM texts.

        Raises:
            ValueError: saying in words why nothing can be signed with them.
        """
        try:
            private = serialization.load_pem_private_key(key, password=None)
            chain = _certificates(certificates)
            public = chain[0].public_key()
        except TypeError as error:  # in the library's words: a password was not given
            raise ValueError("the private key needs a passphrase") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"the private key or its certificate cannot be read: {error}") from error
        if not isinstance(private, _SigningKey):
            raise ValueError(f"a key of this kind signs nothing: {type(private).__name__}")
        if private.public_key() != public:
            raise ValueError("the private key is not that of the certificate")
        return cls(private, chain)

    @property
    def name(self) -> str:
        """The user's name."""
        return _name(self.chain[0].subject)

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        """The signature of `data`, and the certificates in PEM that tell whose it is."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(data, _PSS, _SHA256)
        elif isinstance(self.key, ec.EllipticCurvePrivateKey):
            signature = self.key.sign(data, _ECDSA)
        else:
            signature = self.key.sign(data)
        pem = serialization.Encoding.PEM
        return signature, b"".join(certificate.public_bytes(pem) for certificate in self.chain)


class Trust(Word):
    """What is known of a manifest's signature."""

    SIGNED = "signed"  # by a certificate of the federation
    UNCHECKED = "not checked"  # it is the certificate's; nobody here can know whose the certificate is
    NONE = "not signed"
    FOREIGN = "of another federation"
    INVALID = "not valid"


@dataclass(frozen=True)
class Signature:
    """What is known of a manifest's signature; what names the signer is as the certificate says.

    Attributes:
        detail: all of it in plain words.
        signer, organisation, role: of the certificate that signed; federation: the name of its issuer.
    """

    trust: Trust
    detail: str
    signer: str = ""
    organisation: str = ""
    role: str = ""
    federation: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing speaks against the manifest; it may be without a signature."""
        return self.trust in (Trust.SIGNED, Trust.UNCHECKED, Trust.NONE)


def check_signature(
    dest: Path, data: bytes, exported: str, root: Callable[[], x509.Certificate | None]
) -> Signature:
    """Check the signature beside a manifest.

    Args:
        dest: the export's directory.
        data: the manifest, as it was read.
        exported: when it says that it was written; the certificate must have been valid then.
        root: gives the certificate of the federation that the reader trusts, or None without one; called only
            if there is a signature.
    """
    parts = {name: _read(dest / name) for name in (SIGNATURE, CERTIFICATE)}
    missing = [name for name, part in parts.items() if part is None]
    if len(missing) == len(parts):
        return Signature(Trust.NONE, "not signed: nothing tells who wrote it")
    if missing:
        return Signature(Trust.INVALID, f"the signature cannot be checked: {missing[0]} is missing")
    try:
        chain = _certificates(parts[CERTIFICATE] or b"")
        _verify(chain[0], parts[SIGNATURE] or b"", data)
    except InvalidSignature:
        text = f"the signature does not match: {' or '.join(parts)} or the manifest was changed"
        return Signature(Trust.INVALID, text)
    except (ValueError, UnsupportedAlgorithm) as error:
        return Signature(Trust.INVALID, f"the signature cannot be checked: {error}")
    return _judge(chain, exported, root())


def _judge(chain: tuple[x509.Certificate, ...], exported: str, root: x509.Certificate | None) -> Signature:
    """Whose the certificates of a signature that matches are."""
    subject = chain[0].subject
    organisation, role = _name(subject, NameOID.ORGANIZATION_NAME), _name(subject, NameOID.UNSTRUCTURED_NAME)
    known = (_name(subject), organisation, role, _name(chain[-1].issuer))
    more = ", ".join(filter(None, (organisation, role)))
    who = f"{known[0]}{f' ({more})' if more else ''} of federation {known[3]}"
    if root is None:
        text = f"signed with a certificate that names {who}; no start-up kit is here to tell if it is genuine"
        return Signature(Trust.UNCHECKED, text, *known)
    if _belongs(chain, root, _time(exported)):
        return Signature(Trust.SIGNED, f"signed by {who}", *known)
    if _belongs(chain, root, max(certificate.not_valid_before_utc for certificate in (*chain, root))):
        text = f"signed by {who}, with a certificate that was not valid at the time of the export, {exported}"
        return Signature(Trust.INVALID, text, *known)
    text = f"signed by a certificate of another federation: it names {who}"
    text = f"{text}, and the start-up kit's federation {_name(root.subject)} did not issue it"
    return Signature(Trust.FOREIGN, text, *known)


def _belongs(
    chain: tuple[x509.Certificate, ...], root: x509.Certificate, time: datetime.datetime | None
) -> bool:
    """Whether a chain ended at the federation's certificate at that time, as the runtime itself judges it."""
    if time is None:
        return False
    try:
        builder = PolicyBuilder().store(Store([root])).time(time)
        builder = builder.extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all()
        )
        builder.build_client_verifier().verify(chain[0], list(chain[1:]))
    except (VerificationError, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _time(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.strptime(text, EXPORTED).replace(tzinfo=datetime.timezone.utc)
    except ValueError:  # a manifest may say anything
        return None


def _verify(certificate: x509.Certificate, signature: bytes, data: bytes) -> None:
    """Check a signature with a certificate's key.

    Raises:
        InvalidSignature: if it does not match.
        ValueError: if a key of this kind signs nothing.
    """
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, data, _PSS, _SHA256)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, data, _ECDSA)
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, data)
    else:
        raise ValueError(f"a key of this kind signs nothing: {type(key).__name__}")


def _certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    chain = tuple(x509.load_pem_x509_certificates(pem))
    if not 0 < len(chain) <= _MAX_CHAIN:
        raise ValueError(f"{len(chain)} certificates are there; from 1 to {_MAX_CHAIN} are allowed")
    return chain


def _name(subject: x509.Name, part: x509.ObjectIdentifier = NameOID.COMMON_NAME) -> str:
    return next((str(found.value) for found in subject.get_attributes_for_oid(part)), "")


def _read(path: Path) -> bytes | None:
    """A file's content, or None if there is none; what is not to be read is empty, and matches nothing."""
    try:
        with open_to_read(path) as file:
            return file.read(_MAX_SIZE)
    except FileNotFoundError:
        return None
    except OSError:
        return b""
