"""What the runtime raises becomes an error of ours, with a code and a hint."""

from __future__ import annotations

import pytest
from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api import api_spec

from nvflare_logstream.errors import ErrorCode, LostContactError, RetrievalError
from nvflare_logstream.flare.session_port import explained


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (
            api_spec.JobNotFound("no such job"),
            "JOB_NOT_FOUND",
            "Only study 'research' was searched; name another one with --study",
        ),
        (api_spec.AuthorizationError("not yours"), "AUTH_FAILED", "whose role may view this job"),
        (api_spec.AuthenticationError("who?"), "AUTH_FAILED", "nvflare config list"),
        (api_spec.NoConnection("gone"), "CONNECTION_FAILED", "nvflare system status"),
        (api_spec.SessionClosed("closed"), "CONNECTION_FAILED", "nvflare system status"),
        (api_spec.SessionExpired("expired"), "CONNECTION_FAILED", "nvflare system status"),
        (FLCommunicationError("no cell"), "CONNECTION_FAILED", "nvflare system status"),
        (ConnectionResetError("reset"), "CONNECTION_FAILED", "nvflare system status"),
        (
            api_spec.InternalError("command logstream not found"),
            "NO_RECEIVER",
            "nvflare_logstream.JobLogReceiver",
        ),
        (api_spec.InternalError("something else"), "INTERNAL_ERROR", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_runtime_raises_becomes_a_code_and_a_hint(error, code, hint):
    with pytest.raises(RetrievalError) as caught, explained("research"):
        raise error
    assert caught.value.code == code and hint in caught.value.hint and caught.value.__cause__ is error
    assert str(error) in str(caught.value) or code == "NO_RECEIVER"
    # The same request may succeed later; a server that was restarted does not know the session any more.
    lost = code == "CONNECTION_FAILED" or isinstance(error, api_spec.AuthenticationError)
    assert isinstance(caught.value, LostContactError) is lost


@pytest.mark.parametrize(
    "error",
    [RetrievalError(ErrorCode.LOG_NOT_FOUND, "x"), ValueError("x"), KeyboardInterrupt()],
    ids=repr,
)
def test_what_is_not_the_runtimes_is_left_alone(error):
    with pytest.raises(type(error)) as caught, explained("research"):
        raise error
    assert caught.value is error
