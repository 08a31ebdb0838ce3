"""Where unit tests keep a store: in memory, as syncing a thousand times would measure the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest

from nvflare_logstream.filters import log
from nvflare_logstream.server import following, service
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Stream, StreamKey
from nvflare_logstream.wire.upload import Close

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def wait_for(reached: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until `reached()` is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := reached()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return value


def close_and_commit(store: LogStore, key: StreamKey, close: Close) -> Stream:
    """Close a stream and bring that to disk, as the receiver does."""
    store.close_stream(key, close)
    store.commit(key)
    stream = store.info(key)
    assert stream is not None
    return stream


@contextmanager
def in_small_parts() -> Iterator[pytest.MonkeyPatch]:
    """Whatever is longer than a few lines goes out in several parts; gives what else may be patched with."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(service, "MAX_PART", 100)
        patched.setattr(following, "MAX_PART", 100)
        patched.setattr(log, "BLOCK", 64)
        yield patched


@pytest.fixture
def memory_path(no_sender_outlives_its_test: list[Sender]) -> Iterator[Path]:
    """A directory that costs nothing to sync."""
    with TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)
        stop_all(no_sender_outlives_its_test)  # else a receiver still makes files while the directory goes


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


@pytest.fixture(autouse=True)
def no_sender_outlives_its_test() -> Iterator[list[Sender]]:
    """One that a test leaves behind would go on looking at files while the next tests count the looks.

    Not by `monkeypatch`: what a test itself changed by it must be undone before its directories go.
    """
    started, start = [], Sender.start

    def start_and_note(sender: Sender) -> None:
        start(sender)
        started.append(sender)

    with patch.object(Sender, "start", start_and_note):
        yield started
    stop_all(started)


def stop_all(senders: list[Sender]) -> None:
    for sender in senders:
        sender.stop(5)
