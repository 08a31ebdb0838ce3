"""The package's exceptions: one small tree, told apart by whose fault it is, and the codes that programs know
them by.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from nvflare_logstream.words import Word

_SHOW = reprlib.Repr()  # a hostile value may be huge, or nested so deep that repr() fails
_SHOW.maxstring = _SHOW.maxother = _SHOW.maxlong = 120


def show(value: object) -> str:
    """A value as errors show it, cut short."""
    return _SHOW.repr(value)


class ErrorCode(Word):
    """What went wrong for a reader, as it travels in a reply and stands in the command line's JSON output."""

    AUTH_FAILED = "AUTH_FAILED"
    CONNECTION_FAILED = "CONNECTION_FAILED"
    EXPORT_UNFINISHED = "EXPORT_UNFINISHED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    INVALID_ARGS = "INVALID_ARGS"
    INVALID_MANIFEST = "INVALID_MANIFEST"
    INVALID_REPLY = "INVALID_REPLY"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    LOG_CHANGED = "LOG_CHANGED"
    LOG_NOT_FOUND = "LOG_NOT_FOUND"
    NO_RECEIVER = "NO_RECEIVER"
    OUTPUT_DIR_EXISTS = "OUTPUT_DIR_EXISTS"
    OUTPUT_DIR_NOT_WRITABLE = "OUTPUT_DIR_NOT_WRITABLE"
    OUTPUT_NOT_WRITABLE = "OUTPUT_NOT_WRITABLE"
    SERVER_TOO_OLD = "SERVER_TOO_OLD"
    STORE_NOT_REPAIRED = "STORE_NOT_REPAIRED"
    STARTUP_KIT_MISSING = "STARTUP_KIT_MISSING"
    SYSTEM_NOT_READY = "SYSTEM_NOT_READY"
    TIMEOUT = "TIMEOUT"


class LogStreamError(Exception):
    """Base of every error this package raises on purpose."""


class ArgumentError(LogStreamError, ValueError):
    """A value given by a user is not allowed; the text names the argument, the value and what is allowed."""

    def __init__(self, argument: str, value: object, allowed: str):
        super().__init__(f"{argument}: {show(value)} is not allowed; {allowed}")
        self.argument = argument


class WireError(LogStreamError):
    """A message from the other side is malformed, oversized, damaged or of an unknown version."""


class OlderPeerError(WireError):
    """The other side is older, and ignored something in a message that it should have heeded."""


class LinkError(LogStreamError):
    """A request got no usable reply; the sender keeps what it has and tries again."""


class NoReceiverError(LinkError):
    """The server says that it has no log receiver of this package."""


class StoreError(LogStreamError):
    """The store cannot take or give data now (disk full, file missing); nothing was changed."""


class DamagedError(StoreError):
    """The store's index is damaged; the text says how to repair it."""


class CommitError(StoreError):
    """Some streams are not on disk; all others are.

    Attributes:
        failed: why, by the stream's key.
    """

    def __init__(self, failed: Mapping[Any, str]):
        super().__init__("cannot commit: " + "; ".join(f"{key}: {why}" for key, why in failed.items()))
        self.failed = failed


class RefusedError(StoreError):
    """The store takes no more of this stream, for good; the text says why."""


class QuotaError(RefusedError):
    """A quota of the store is used up; the stream stays as it is, and its verdict says so."""


class BusyError(LogStreamError):
    """A site asks for more at a time than one site may; it keeps what it has and comes again."""


class GapError(LogStreamError):
    """A frame starts beyond the end of the stored stream.

    Attributes:
        end: the stored length in bytes, where the sender has to go on.
        cursor: the sender's own cursor that belongs to `end`.
    """

    def __init__(self, end: int, cursor: bytes):
        super().__init__(f"the stream is stored up to byte {end}")
        self.end = end
        self.cursor = cursor


class LogNotFoundError(LogStreamError):
    """The server has no such log."""


class JobConfigError(LogStreamError):
    """A job's deployed config cannot be read, or has a shape that a component cannot be put into."""


class KitError(LogStreamError):
    """A directory is no start-up kit, or its files cannot be read or changed; the text says why."""


class RetrievalError(LogStreamError):
    """A reader got no answer to use: the server, the connection or the reader's own disk said no.

    Attributes:
        code: what went wrong, for programs.
        hint: what to do about it, or "".
    """

    def __init__(self, code: ErrorCode, text: str, hint: str = ""):
        super().__init__(text)
        self.code, self.hint = code, hint


class LostContactError(RetrievalError):
    """The server cannot be reached now; the same request may succeed later, over a new connection."""


class NoReconnectError(LostContactError):
    """The connection was lost, and its port has no way to make a new one."""
