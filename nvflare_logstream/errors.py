"""The package's exceptions: one small tree, told apart by whose fault it is."""

from __future__ import annotations

import reprlib

_SHOW = reprlib.Repr()  # a hostile value may be huge, or nested so deep that repr() fails
_SHOW.maxstring = _SHOW.maxother = _SHOW.maxlong = 120


class LogStreamError(Exception):
    """Base of every error this package raises on purpose."""


class ArgumentError(LogStreamError, ValueError):
    """A value given by a user is not allowed; the text names the argument, the value and what is allowed."""

    def __init__(self, argument: str, value: object, allowed: str):
        super().__init__(f"{argument}: {_SHOW.repr(value)} is not allowed; {allowed}")
        self.argument = argument


class WireError(LogStreamError):
    """A message from the other side cannot be taken: malformed, oversized, damaged or of an unknown version."""


class LinkError(LogStreamError):
    """A request got no usable reply; the sender keeps what it has and tries again."""


class StoreError(LogStreamError):
    """The store cannot take or give data now (disk full, file missing); nothing was changed."""


class QuotaError(StoreError):
    """A quota of the store is used up; the stream stays as it is, and its verdict says so."""


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
