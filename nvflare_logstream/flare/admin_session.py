"""Admin sessions for the command line: which start-up kit, and the login.

The kit is found as the runtime's own commands find it. A login takes the runtime more than a second longer
than it needs: it sends its first challenge before the connection stands and waits a whole second to repeat
it, and it reads the user's private key four times, checking its primes each time. Here the challenge is
repeated sooner, and the key is read once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session
from nvflare.fuel.hci.client import api

from nvflare_logstream.client.client import LogClient
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.flare import runtime_admin
from nvflare_logstream.flare.session_port import SessionPort, explained

_CHALLENGE_AGAIN = 0.02  # seconds


class _PromptAuthenticator(api.Authenticator):
    """Asks again as soon as the connection may stand."""

    def __init__(self, **arguments: Any):
        super().__init__(**{**arguments, "retry_interval": _CHALLENGE_AGAIN})


@contextmanager
def _quick_login() -> Iterator[None]:
    keys: Any = serialization
    read_key, authenticator = keys.load_pem_private_key, api.Authenticator
    read_once = cache(read_key)
    keys.load_pem_private_key, api.Authenticator = (
        lambda data, password, backend=None: read_once(data, password),
        _PromptAuthenticator,
    )
    try:
        yield
    finally:
        keys.load_pem_private_key, api.Authenticator = read_key, authenticator


def open_client(kit_id: str | None, startup_kit: str | None, study: str, timeout: float) -> LogClient:
    """Log in as the user of a start-up kit.

    Args:
        kit_id: a registered kit's id.
        startup_kit: a kit's directory; with neither, the active kit.
        study: where jobs are looked for.
        timeout: seconds for the connection to stand.

    Raises:
        RetrievalError: STARTUP_KIT_MISSING, CONNECTION_FAILED or AUTH_FAILED, with a hint; INVALID_ARGS.
    """
    try:
        user, kit = runtime_admin.admin_kit(kit_id, startup_kit)
    except ValueError as error:  # the runtime's StartupKitConfigError, or a config that cannot be read
        hint = getattr(error, "hint", None) or ""
        raise RetrievalError(ErrorCode.STARTUP_KIT_MISSING, str(error), hint) from error

    def connect() -> Session:
        # What is redirected are greetings and tracebacks of the runtime.
        with _quick_login(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            session: Session = runtime_admin.open_session(new_secure_session, user, kit, timeout, study)
            return session

    with explained(study):
        try:
            return LogClient(SessionPort(connect(), reconnect=connect))
        except ValueError as error:  # the study's name, which the runtime checks when it makes a session
            raise RetrievalError(ErrorCode.INVALID_ARGS, str(error)) from error
