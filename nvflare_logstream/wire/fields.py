"""Typed access to a decoded message, with errors that name the field, its value and what is allowed."""

from __future__ import annotations

import reprlib
from enum import Enum
from typing import Any, TypeVar

from nvflare_logstream.errors import ArgumentError, WireError
from nvflare_logstream.names import check_name

MAX_TEXT = 400  # characters

_Kind = TypeVar("_Kind", bound=Enum)


class Fields:
    """Typed access to a decoded map, with errors that name the field and its value."""

    def __init__(self, value: object, where: str):
        if not isinstance(value, dict):
            raise WireError(f"{where}: a map is wanted, {type(value).__name__} came")
        self._value, self.where = value, where

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self._value

    def bad(self, name: str, value: object, allowed: str) -> WireError:
        """The error for a field that is not as it should be."""
        return WireError(f"{self.where}{name}: {reprlib.repr(value)} is not allowed; {allowed}")

    def number(self, name: str, high: int, low: int = 0) -> int:
        """A whole number from `low` to `high`."""
        value = self._value.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(name, value, f"a whole number from {low} to {high}")
        return value

    def time(self, name: str) -> float:
        """A time in seconds since 1970."""
        value = self._value.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e11:
            raise self.bad(name, value, "a time in seconds since 1970")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false; false where it is not there."""
        value = self._value.get(name, False)
        if not isinstance(value, bool):
            raise self.bad(name, value, "true or false")
        return value

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """A text of at most `most` characters."""
        value = self._value.get(name)
        if not isinstance(value, str) or len(value) > most:
            raise self.bad(name, value, f"a text of at most {most} characters")
        return value

    def word(self, name: str, kind: type[_Kind]) -> _Kind:
        """One of the words of an enum."""
        value = self._value.get(name)
        try:
            return kind(value)
        except ValueError:
            raise self.bad(name, value, f"one of {', '.join(str(word.value) for word in kind)}") from None

    def octets(self, name: str, most: int) -> bytes:
        """At most `most` bytes."""
        value = self._value.get(name)
        if not isinstance(value, bytes) or len(value) > most:
            raise self.bad(name, type(value).__name__, f"at most {most} bytes")
        return value

    def rows(self, name: str, most: int) -> list[Any]:
        """A list of at most `most` entries; empty where it is not there."""
        value = self._value.get(name, [])
        if not isinstance(value, list) or len(value) > most:
            raise self.bad(name, type(value).__name__, f"a list of at most {most} entries")
        return value

    def maps(self, name: str, most: int) -> list[Fields]:
        """A list of maps."""
        return [Fields(row, f"{self.where}{name}[{i}].") for i, row in enumerate(self.rows(name, most))]

    def name(self, name: str) -> str:
        """A plain name."""
        return _plain_name(f"{self.where}{name}", self._value.get(name))

    def names(self, name: str, most: int) -> tuple[str, ...]:
        """A list of at most `most` plain names."""
        return tuple(
            _plain_name(f"{self.where}{name}[{i}]", value) for i, value in enumerate(self.rows(name, most))
        )


def _plain_name(where: str, value: object) -> str:
    try:
        return check_name(where, value)
    except ArgumentError as error:
        raise WireError(str(error)) from None
