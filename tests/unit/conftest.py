"""Where unit tests keep a store: in memory, as syncing a thousand times would measure the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from nvflare_logstream.store.store import LogStore

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def wait_for(reached: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until `reached()` is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := reached()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return value


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory that costs nothing to sync."""
    with TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


@pytest.fixture
def store(memory_path: Path) -> Iterator[LogStore]:
    """An empty store."""
    store = LogStore(memory_path)
    yield store
    store.close()


@pytest.fixture(scope="session")
def memory_path_factory():
    """Makes such directories for a test that needs many."""

    @contextmanager
    def make() -> Iterator[Path]:
        with TemporaryDirectory(dir=MEMORY) as directory:
            yield Path(directory)

    return make
