"""The one validator of all messages: typed access to a decoded map.

Every error names the field, its value and what is allowed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeGuard, TypeVar

from nvflare_logstream.errors import ArgumentError, WireError, show
from nvflare_logstream.names import check_name, check_site, is_name, is_version

MAX_TEXT = 400  # characters
_MAX_REAL = sys.float_info.max
_MAX_TIME = 1e11  # seconds since 1970


class _Required(Enum):
    REQUIRED = 0


_REQUIRED = _Required.REQUIRED
_Kind = TypeVar("_Kind", bound=Enum)
_Default = TypeVar("_Default")


class Fields:
    """A decoded map, read field by field.

    A method with a `default` returns it where the field is absent or null; without one the field is required.
    Every method raises WireError for a value that is not allowed.

    Args:
        value: what was decoded.
        where: what stands before a name in an error, such as "frames[3]."; empty for a message itself.

    Raises:
        WireError: if `value` is no map.
    """

    def __init__(self, value: object, where: str = ""):
        if not isinstance(value, dict):
            what = where.rstrip(".") or "message"
            raise WireError(f"{what}: {show(value)} is not allowed; a map")
        self._value, self.where = value, where

    def has(self, name: str) -> bool:
        """Whether the field is there; it may be null."""
        return name in self._value

    def bad(self, name: str, value: object, allowed: str) -> WireError:
        """The error for a field whose value is not allowed."""
        return WireError(f"{self.where}{name}: {show(value)} is not allowed; {allowed}")

    def number(
        self, name: str, high: int, low: int = 0, default: _Default | _Required = _REQUIRED
    ) -> int | _Default:
        """A whole number from `low` to `high`."""
        value = self._value.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            return self._default(name, value, default, f"a whole number from {low} to {high}")
        return value

    def numbers(self, names: Sequence[str], high: int, default: int | _Required = _REQUIRED) -> Sequence[int]:
        """Several whole numbers from 0 to `high`, each as `number` reads it, in less time."""
        values: list[Any] = list(map(self._value.get, names))
        for value in values:
            if type(value) is not int or not 0 <= value <= high:
                return [self.number(name, high, default=default) for name in names]
        return values

    def real(
        self, name: str, low: float, high: float, default: _Default | _Required = _REQUIRED
    ) -> float | _Default:
        """A finite number from `low` to `high`."""
        value = self._value.get(name)
        if not _is_real(value) or not low <= value <= high or not -_MAX_REAL <= value <= _MAX_REAL:
            return self._default(name, value, default, f"a number from {low:g} to {high:g}")
        return float(value)

    def time(self, name: str, default: _Default | _Required = _REQUIRED) -> float | _Default:
        """A time in seconds since 1970, or a length of time in seconds."""
        value = self._value.get(name)
        if not _is_real(value) or not 0 <= value < _MAX_TIME:
            return self._default(name, value, default, "a time in seconds since 1970")
        return float(value)

    def times(self, names: Sequence[str]) -> Sequence[float]:
        """Several times, each as `time` reads it, in less time."""
        values: list[Any] = list(map(self._value.get, names))
        for value in values:
            if type(value) is not float or not 0 <= value < _MAX_TIME:
                return [self.time(name) for name in names]
        return values

    def flag(self, name: str) -> bool:
        """True or false; false where the field is absent."""
        value = self._value.get(name, False)
        if not isinstance(value, bool):
            raise self.bad(name, value, "true or false")
        return value

    def flags(self, names: Sequence[str]) -> Sequence[bool]:
        """Several flags, each as `flag` reads it, in less time."""
        values = [self._value.get(name, False) for name in names]
        for value in values:
            if value is not True and value is not False:
                return [self.flag(name) for name in names]
        return values

    def text(
        self, name: str, most: int = MAX_TEXT, default: _Default | _Required = _REQUIRED
    ) -> str | _Default:
        """A text of at most `most` characters."""
        value = self._value.get(name)
        if not isinstance(value, str) or len(value) > most:
            return self._default(name, value, default, f"a text of at most {most} characters")
        return value

    def word(
        self, name: str, kind: type[_Kind], default: _Default | _Required = _REQUIRED
    ) -> _Kind | _Default:
        """One of the words of an enum."""
        value = self._value.get(name)
        if value is None and not isinstance(default, _Required):
            return default
        try:
            return kind(value)
        except ValueError:
            allowed = f"one of {', '.join(str(word.value) for word in kind)}"
            return self._default(name, value, default, allowed)

    def octets(self, name: str, most: int, default: _Default | _Required = _REQUIRED) -> bytes | _Default:
        """At most `most` bytes."""
        value = self._value.get(name)
        if not isinstance(value, bytes):
            return self._default(name, value, default, f"at most {most} bytes")
        if len(value) > most:
            raise self._too_many(name, len(value), "bytes", most)
        return value

    def rows(self, name: str, most: int) -> list[Any]:
        """A list of at most `most` entries; empty where the field is absent."""
        value = self._value.get(name, [])
        if not isinstance(value, list):
            raise self.bad(name, value, f"a list of at most {most} entries")
        if len(value) > most:
            raise self._too_many(name, len(value), "entries", most)
        return value

    def map(self, name: str, default: _Default | _Required = _REQUIRED) -> Fields | _Default:
        """A map inside this one."""
        value = self._value.get(name)
        if not isinstance(value, dict):
            return self._default(name, value, default, "a map")
        return Fields(value, f"{self.where}{name}.")

    def maps(self, name: str, most: int) -> list[Fields]:
        """A list of at most `most` maps; empty where the field is absent."""
        return [Fields(row, f"{self.where}{name}[{i}].") for i, row in enumerate(self.rows(name, most))]

    def name(self, name: str, default: _Default | _Required = _REQUIRED) -> str | _Default:
        """A plain name, of a job or a file."""
        value = self._value.get(name)
        if is_name(value):
            return value
        if value is None and not isinstance(default, _Required):
            return default
        return _plain_name(f"{self.where}{name}", value)

    def site(self, name: str) -> str:
        """The name of a site."""
        try:
            return check_site(f"{self.where}{name}", self._value.get(name))
        except ArgumentError as error:
            raise WireError(str(error)) from None

    def version(self, name: str) -> str:
        """The version of a package; empty where nothing is known of it."""
        value = self._value.get(name)
        if value != "" and not is_version(value):
            raise self.bad(name, value, "a version of at most 40 letters, digits and . + _ ! -")
        return str(value)

    def names(self, name: str, most: int) -> tuple[str, ...]:
        """A list of at most `most` plain names; empty where the field is absent."""
        values = self.rows(name, most)
        return tuple([_plain_name(f"{self.where}{name}[{i}]", value) for i, value in enumerate(values)])

    def _too_many(self, name: str, count: int, unit: str, most: int) -> WireError:
        return WireError(f"{self.where}{name}: {count} {unit} are not allowed; at most {most}")

    def _default(self, name: str, value: object, default: _Default | _Required, allowed: str) -> _Default:
        """The default of an optional field that is absent, else the error for its value."""
        if value is None and not isinstance(default, _Required):
            return default
        raise self.bad(name, value, allowed)


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain_name(where: str, value: object) -> str:
    try:
        return check_name(where, value)
    except ArgumentError as error:
        raise WireError(str(error)) from None
