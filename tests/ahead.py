"""What takes long and can run in the background, such as a demo or the start of a federation, begun early.

`@pytest.mark.ahead(run=function)` on a test, or on all tests of a module, has `function(directory)` run in
other threads, two at a time; the fixture `ahead` gives its result. What has to be closed, such as a
federation, is begun only while few others wait for their tests: they would take the machine.
The function is called once for each set of the parameters that it shares with the test.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

_STANDING = 3  # results that have to be closed and that no test has asked for yet


class Ahead:
    """Runs what the markers of the tests ask for, each once, in the order of the tests."""

    def __init__(self, items: Sequence[pytest.Item], directory_for: Callable[[str], Path]):
        self._pool = ThreadPoolExecutor(2)
        self._results: dict[tuple[Any, ...], Future[Any]] = {}
        self._standing: list[int] = []  # the numbers of those that have to be closed
        self._asked, self._changed = 0, threading.Condition()  # so many, in their order, were asked for
        self._ended = False
        for item in items:
            key = key_of(item)
            if key and key not in self._results:
                function, *values = key
                directory = directory_for(function.__name__)
                number = len(self._results)
                self._results[key] = self._pool.submit(self._run, number, function, directory, *values)

    def _run(self, number: int, function: Callable[..., Any], *values: Any) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or number < self._asked or self._has_room())
        result = None if self._ended else function(*values)
        if hasattr(result, "close"):
            self._standing.append(number)
        return result

    def _has_room(self) -> bool:
        return sum(number >= self._asked for number in self._standing) < _STANDING

    def result(self, function: Callable[..., Any], *values: Any) -> Any:
        """What the function returned, once it has; raises what it raised."""
        key = (function, *values)
        with self._changed:
            self._asked = max(self._asked, list(self._results).index(key) + 1)
            self._changed.notify_all()
        return self._results[key].result()

    def end(self) -> None:
        """Begin nothing more, and close what no test came for."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._pool.shutdown(cancel_futures=True)
        for future in self._results.values():
            if not future.cancelled() and not future.exception() and hasattr(future.result(), "close"):
                future.result().close()


def key_of(item: pytest.Item) -> tuple[Any, ...]:
    """The function to run ahead of a test, and the values of its parameters; empty if there is none."""
    marker = item.get_closest_marker("ahead")
    if marker is None:
        return ()
    names = list(inspect.signature(marker.kwargs["run"]).parameters)[1:]
    return (marker.kwargs["run"], *(item.callspec.params[name] for name in names))  # type: ignore[attr-defined]
