"""The keys of a start-up kit: with which an export is signed, and against which a signature is checked."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from nvflare_logstream.client.signature import Signer
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.flare import runtime_admin

_KEY, _CERTIFICATE, _ROOT = "client.key", "client.crt", "rootCA.pem"


def open_signer(kit_id: str | None, startup_kit: str | None) -> Signer:
    """The signer of an admin's start-up kit.

    Args:
        kit_id: a registered kit's id.
        startup_kit: a kit's directory; with neither, the active kit.

    Raises:
        RetrievalError: STARTUP_KIT_MISSING, saying why nothing can be signed with this kit.
    """
    place = _startup(kit_id, startup_kit)
    try:
        return Signer.load((place / _KEY).read_bytes(), (place / _CERTIFICATE).read_bytes())
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}"
    except ValueError as error:
        problem = f"{place}: {error}"
    raise RetrievalError(ErrorCode.STARTUP_KIT_MISSING, problem)


def federation_root(kit_id: str | None, startup_kit: str | None) -> x509.Certificate | None:
    """The certificate of a start-up kit's federation; None where no kit was named and none is active.

    Raises:
        RetrievalError: STARTUP_KIT_MISSING, if a kit was named and has none.
    """
    try:
        path = _startup(kit_id, startup_kit) / _ROOT
    except RetrievalError:
        if kit_id or startup_kit:
            raise
        return None
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        text = f"{path}: {getattr(error, 'strerror', None) or error}"
        raise RetrievalError(ErrorCode.STARTUP_KIT_MISSING, text) from error


def _startup(kit_id: str | None, startup_kit: str | None) -> Path:
    try:
        kit = runtime_admin.startup_kit(kit_id, startup_kit)
    except (ValueError, OSError) as error:
        hint = getattr(error, "hint", None) or ""
        raise RetrievalError(ErrorCode.STARTUP_KIT_MISSING, str(error), hint) from error
    return Path(kit) / "startup"
