"""A resources file on disk: read with care, replaced in one step, with what it was kept beside it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nvflare_logstream.errors import KitError

_MOST_BYTES = 16 << 20  # a kit's file has 8 KiB
_MARK = ".before-logstream-"
_DIGITS = 12


@dataclass(frozen=True)
class Found:
    """A file as it was read."""

    path: Path
    text: str
    status: os.stat_result

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return self.text.encode()


def read(path: Path) -> Found:
    """Read a resources file, line ends as they are.

    Raises:
        KitError: if it is no regular file, larger than 16 MiB, not UTF-8, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise KitError(f"{path}: it is no regular file")
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        if error.errno == errno.ELOOP:
            text = f"it is a link to {path.readlink()}, and a set-up replaces files; put a copy in its place"
            raise KitError(f"{path}: {text}") from error
        raise KitError(f"{path}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise KitError(f"{path}: it is larger than {_MOST_BYTES >> 20} MiB")
    try:
        return Found(path, data.decode(), status)
    except UnicodeDecodeError as error:
        raise KitError(f"{path}: it is not UTF-8 (byte {error.start}); save it as UTF-8") from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other set-ups out of `directory`; the lock is on the directory, and ends with the process.

    Raises:
        KitError: if another set-up is in it now, or it cannot be opened.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KitError(f"{directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise KitError(
            f"{directory}: another set-up is changing it now; run this again when it is done"
        ) from error
    finally:
        os.close(descriptor)


def replace(path: Path, text: str, before: Found) -> Path:
    """Write `path` in one step, with mode and owner of what it was made from, and keep that under a new name.

    Args:
        path: the file; it need not exist.
        text: its new content.
        before: the file in effect until now.

    Returns:
        Where `before` is kept.

    Raises:
        KitError: if that is not possible; the file is as it was.
    """
    kept = path.with_name(f"{before.path.name}{_MARK}{_digest(text)}")
    try:
        _write(kept, before.data, before)
        try:
            _write(path, text.encode(), before)
        except BaseException:
            kept.unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise KitError(f"{path}: it cannot be written: {error.strerror}") from error
    return kept


def kept_before(path: Path, text: str) -> Path | None:
    """What `path` was made from when `text` was written to it, if that is still kept."""
    kept = [entry for entry in _kept(path.parent) if entry.name.endswith(_MARK + _digest(text))]
    return kept[0] if kept else None


def all_kept(directory: Path) -> list[Path]:
    """All that set-ups kept in `directory`, the newest first."""
    return _kept(directory)


def name_of(kept: Path) -> str:
    """The name that a kept file had."""
    return kept.name.partition(_MARK)[0]


def restore(path: Path, back: Found | None, before: Found, spent: list[Path]) -> None:
    """Undo what `replace` did: write `path` with its old content, or remove it, and what was kept for that.

    Raises:
        KitError: if that is not possible.
    """
    try:
        if back:
            _write(path, back.data, before)
        else:
            path.unlink()
        for kept in spent:
            kept.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise KitError(f"{path}: it cannot be written: {error.strerror}") from error


def _kept(directory: Path) -> list[Path]:
    with suppress(OSError):
        found = [entry for entry in directory.iterdir() if _MARK in entry.name and entry.is_file()]
        return sorted(found, key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    return []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _write(path: Path, data: bytes, like: Found) -> None:
    """Make a file of `data` with the mode, the owner and the attributes of another, then give it its name."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            own = os.fstat(descriptor)
            if (own.st_uid, own.st_gid) != (like.status.st_uid, like.status.st_gid):
                _give(descriptor, like)
            os.fchmod(descriptor, stat.S_IMODE(like.status.st_mode))
            _copy_attributes(like.path, descriptor)
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _give(descriptor: int, like: Found) -> None:
    try:
        os.fchown(descriptor, like.status.st_uid, like.status.st_gid)
    except PermissionError as error:
        text = f"{like.path}: its owner cannot be kept; run this as that user or root"
        raise KitError(text) from error


def _copy_attributes(source: Path, descriptor: int) -> None:
    """Access lists and labels, where the file system has them and lets us."""
    with suppress(OSError):
        for name in os.listxattr(source, follow_symlinks=False):
            with suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(source, name, follow_symlinks=False))


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
