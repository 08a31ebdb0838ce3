"""Admin sessions for the command line: which start-up kit, the login, and what the runtime's exceptions mean.

The kit is found as the runtime's own commands find it. A login takes the runtime more than a second longer than it needs: its
first challenge is sent before the connection stands, and it waits a whole second to repeat it; and it reads the user's private
key four times, checking its primes each time. Here the challenge is repeated sooner, and the key is read once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives import serialization
from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    JobNotFound,
    SessionClosed,
)
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session
from nvflare.fuel.hci.client import api
from nvflare.tool.cli_session import resolve_admin_user_and_dir_for_args

from nvflare_logstream.client.client import LogClient, NoAnswer
from nvflare_logstream.errors import ErrorCode, RetrievalError

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
        user, kit = resolve_admin_user_and_dir_for_args(
            SimpleNamespace(kit_id=kit_id, startup_kit=startup_kit)
        )
    except (
        ValueError
    ) as error:  # the runtime's StartupKitConfigError is one, and so is a config that cannot be read
        raise RetrievalError(
            ErrorCode.STARTUP_KIT_MISSING, str(error), getattr(error, "hint", None) or ""
        ) from error

    def connect() -> Session:
        # What is redirected are greetings and tracebacks of the runtime.
        with _quick_login(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return new_secure_session(user, kit, timeout=timeout, study=study, auto_login_max_tries=1)

    with explained(study):
        try:
            return LogClient(connect(), reconnect=connect)
        except ValueError as error:  # the study's name, which the runtime checks when it makes a session
            raise RetrievalError(ErrorCode.INVALID_ARGS, str(error)) from error


@contextmanager
def explained(study: str) -> Iterator[None]:
    """Turn the runtime's exceptions into errors with a code and a hint.

    Raises:
        RetrievalError: instead of them.
    """
    try:
        yield
    except JobNotFound as error:
        hint = f"Only study '{study}' was searched; name another one with --study. `nvflare job list` shows the jobs of a study."
        raise RetrievalError(ErrorCode.JOB_NOT_FOUND, str(error), hint) from error
    except AuthorizationError as error:
        raise RetrievalError(
            ErrorCode.AUTH_FAILED, str(error), "Use a start-up kit whose role may view this job."
        ) from error
    except AuthenticationError as error:
        hint = "Check the start-up kit (`nvflare config list`) and the study's name."
        raise RetrievalError(ErrorCode.AUTH_FAILED, str(error), hint) from error
    except NoAnswer as error:
        raise RetrievalError(
            ErrorCode.TIMEOUT, str(error), "Try again; if it goes on, look at the server's log."
        ) from error
    except BrokenPipeError:  # of our own output, whose reader has had enough
        raise
    except (
        ConnectionError,
        SessionClosed,
        FLCommunicationError,
    ) as error:  # NoConnection is a ConnectionError
        hint = "Is the server up (`nvflare system status`) and is this the right start-up kit (`nvflare config list`)?"
        raise RetrievalError(ErrorCode.CONNECTION_FAILED, str(error), hint) from error
    except InternalError as error:
        if "not found" in str(error):  # the runtime's words for a command that its server does not have
            hint = "Add nvflare_logstream.JobLogReceiver to the server's resources.json."
            raise RetrievalError(
                ErrorCode.NO_RECEIVER, "the server has no log receiver of ours", hint
            ) from error
        raise RetrievalError(ErrorCode.INTERNAL_ERROR, str(error)) from error
