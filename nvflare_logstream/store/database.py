"""The SQLite file of a log store: opened, checked, and used in transactions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvflare_logstream.errors import DamagedError, StoreError
from nvflare_logstream.lines import visible
from nvflare_logstream.store.lock import StoreLock
from nvflare_logstream.store.migrations import migrate
from nvflare_logstream.streams import is_unchecked


@contextmanager
def _errors(what: str, store_dir: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        said = visible(" ".join(str(error).split()))  # it may quote what is damaged
        # What else can happen has a class of its own; but for text that is none.
        if type(error) is sqlite3.DatabaseError or "decode" in said:
            how = f"stop the server and run `nvflare-logstream repair {store_dir}`"
            raise DamagedError(f"{what}: {said}; {how}") from error
        raise StoreError(f"{what}: {said}") from error


class Database:
    """Thread-safe.

    Args:
        path: the SQLite file, made if it is not there, and migrated if an earlier release wrote it.

    Raises:
        DamagedError: if the file is damaged.
        StoreError: if the file is no index of a log store or one of a later release, or is being repaired.
    """

    def __init__(self, path: Path):
        self._lock, self._path = threading.Lock(), path
        self._in_use = StoreLock(path.parent)
        try:
            with _errors(f"cannot open the store's index {path}", str(path.parent)):
                self._db = sqlite3.connect(path, check_same_thread=False, timeout=30.0)
                try:
                    self._set_up()
                except BaseException:
                    self._db.close()
                    raise
        except BaseException:
            self._in_use.close()
            raise

    def _set_up(self) -> None:
        migrate(self._db, self._path)
        for (found,) in self._db.execute("PRAGMA quick_check(1)"):
            if found != "ok":  # what of it would be read, and what be overwritten, nobody knows
                raise sqlite3.DatabaseError(str(found).replace("\n", " "))
        self._db.create_function("is_unchecked", 1, is_unchecked, deterministic=True)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # what was committed is on disk, not only in order

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _errors("the store's index", "STORE_DIR"), self._lock, self._db:
            yield self._db

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
            self._in_use.close()
