"""Changes to a JSON text that leave every other character of it as it is.

The standard parser finds where each value begins and ends. After each change the new text is parsed, and must
hold exactly what was meant, in the same order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from nvflare_logstream.errors import KitError

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_OPEN = {"{": "}", "[": "]"}
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # at the beginning of a file as some editors save it
_UNIT = "  "  # indentation where the text shows none

Path = Sequence["str | int"]


class Element(NamedTuple):
    """A member of an object or an item of an array: where it stands in the text, with its key and without."""

    key: str | int
    start: int
    value: int
    end: int


@dataclass(frozen=True)
class Container:
    """An object or array in the text: where it stands, brackets included, and what it holds."""

    start: int
    end: int
    elements: tuple[Element, ...]

    def element(self, key: str | int) -> Element:
        """The element with `key`; of an object's equal keys the last, as the parser has it."""
        return next(element for element in reversed(self.elements) if element.key == key)


class JsonText:
    """A JSON document as text and as a value; each change makes a new one.

    A path is the keys and indexes that lead from the whole document to a value.

    Args:
        text: the document.

    Raises:
        KitError: if it is not one, with the line.
    """

    def __init__(self, text: str):
        self.text = text
        try:
            self.value: Any = json.loads(text)
        except ValueError as error:
            if text.startswith(_MARK):
                raise KitError(
                    "it is not JSON: it begins with a byte order mark; save it as UTF-8 without one"
                ) from error
            raise KitError(f"it is not JSON: {error}; correct that by hand") from error
        except RecursionError as error:
            raise KitError("it is not JSON: it is nested too deeply; correct that by hand") from error
        self._newline = "\r\n" if "\r\n" in text else "\n"

    def repeated_keys(self, path: Path = ()) -> list[str]:
        """Keys that an object has more than once; of these the runtime sees the last."""
        keys = [str(element.key) for element in self._container(path).elements]
        return sorted({key for key in keys if keys.count(key) > 1})

    def replaced(self, path: Path, value: object) -> JsonText:
        """With another value at `path`, which exists."""
        element = self._container(path[:-1]).element(path[-1])
        base = self._indentation(element.start)
        text = self.text[: element.value] + self._shown(value, base) + self.text[element.end :]
        return self._checked(text, path, value)

    def removed(self, path: Path) -> JsonText:
        """Without the element at `path`, its comma and its line."""
        container = self._container(path[:-1])
        elements, element = container.elements, container.element(path[-1])
        number = elements.index(element)
        if not elements[1:]:
            start, end = container.start + 1, container.end - 1
        elif number:
            start, end = elements[number - 1].end, element.end
        else:
            start, end = element.start, elements[1].start
        return self._checked(self.text[:start] + self.text[end:], path)

    def added(self, path: Path, value: object) -> JsonText:
        """With a new last element; the last part of `path` is its key, or the length of the array."""
        container = self._container(path[:-1])
        multi_line, base = self._layout(container)
        key = f"{json.dumps(path[-1])}: " if isinstance(path[-1], str) else ""
        shown = key + (self._shown(value, base) if multi_line else json.dumps(value))
        line = self._newline + base if multi_line else ""
        if container.elements:
            at, before, after = container.elements[-1].end, f",{line}" if line else ", ", ""
        else:
            at = container.start + 1
            outer = self._indentation(container.start)
            before, after = line, self._newline + outer if line else ""
        end = at if container.elements else container.end - 1
        return self._checked(self.text[:at] + before + shown + after + self.text[end:], path, value)

    def _container(self, path: Path) -> Container:
        """Where the object or array at `path` stands."""
        container = self._scanned(self._skipped(0))
        for key in path:
            container = self._scanned(container.element(key).value)
        return container

    def _scanned(self, start: int) -> Container:
        elements: list[Element] = []
        closing, at = _OPEN[self.text[start]], self._skipped(start + 1)
        while self.text[at] != closing:
            first: int = at
            key: str | int = len(elements)
            if closing == "}":
                key, at = scanstring(self.text, at + 1)
                at = self._skipped(self._skipped(at) + 1)  # the colon
            _, end = _DECODER.raw_decode(self.text, at)
            elements.append(Element(key, first, at, end))
            at = self._skipped(end)
            if self.text[at] == ",":
                at = self._skipped(at + 1)
        return Container(start, at + 1, tuple(elements))

    def _skipped(self, at: int) -> int:
        return _SPACE.match(self.text, at).end()  # type: ignore[union-attr]

    def _indentation(self, at: int) -> str:
        """The blanks at the beginning of the line that the place is in."""
        line = self.text.rfind("\n", 0, at) + 1
        return self.text[line:at][: len(self.text[line:at]) - len(self.text[line:at].lstrip(" \t"))]

    def _layout(self, container: Container) -> tuple[bool, str]:
        """Whether each element has a line of its own, and how that is indented."""
        if not container.elements:
            whole = "\n" in self.text
            return whole, self._indentation(container.start) + self._unit() if whole else ""
        last = container.elements[-1]
        before = container.elements[-2].end if container.elements[1:] else container.start
        return "\n" in self.text[before : last.start], self._indentation(last.start)

    def _unit(self) -> str:
        """What one level more is indented by, as the document's own first level is."""
        elements = self._container(()).elements
        return (self._indentation(elements[0].start) if elements else "") or _UNIT

    def _shown(self, value: object, base: str) -> str:
        """A value as it is written here; `base` is the indentation of the line where it begins."""
        if "\n" not in self.text or not (isinstance(value, (dict, list)) and value):
            return json.dumps(value)
        if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
            return json.dumps(value)
        inner = base + self._unit()
        if isinstance(value, dict):
            pairs: Iterable[str] = (
                f"{json.dumps(key)}: {self._shown(item, inner)}" for key, item in value.items()
            )
        else:
            pairs = (self._shown(item, inner) for item in value)
        opening = "{" if isinstance(value, dict) else "["
        lines = f",{self._newline}{inner}".join(pairs)
        return f"{opening}{self._newline}{inner}{lines}{self._newline}{base}{_OPEN[opening]}"

    def _checked(self, text: str, path: Path, *value: object) -> JsonText:
        """The new text, if it holds what was meant: the old value with `value` at `path`, or without it."""
        meant = json.loads(self.text)  # a copy
        parent = meant
        for key in path[:-1]:
            parent = parent[key]
        if not value:
            del parent[path[-1]]
        elif isinstance(parent, list) and path[-1] == len(parent):
            parent.append(value[0])
        else:
            parent[path[-1]] = value[0]
        changed = JsonText(text)
        if json.dumps(changed.value) != json.dumps(meant):
            raise KitError("it cannot be edited without a change to other parts of it")
        return changed
