"""Words of the protocol: enums whose members travel, are stored and are shown as they are."""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A member reads as its value in an f-string and in `str`, in every version of Python."""

    def __str__(self) -> str:
        return str(self.value)
