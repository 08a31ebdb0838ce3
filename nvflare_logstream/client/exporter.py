"""Brings a job's logs to the reader's disk, as the bytes they are, with a manifest that says what each of them is worth.

Layout: `DEST/<site>/<file>` and `DEST/manifest.json`. Rules:

* An export covers the bytes that the streams had when it began; of a running job it is a prefix of each log.
* A log is written as `<file>.part`, compared with the server's sha256 of the same bytes, synced, and only then gets its name.
* What an interrupted export left behind is gone on with, and not trusted: where the whole does not agree, it is fetched anew.
* Nothing is written through a symbolic link, and no file is removed but those that an export writes.

Streams are brought in the order of their names, so that a log that is really called "x.part" comes after, and never under, the
beginning of "x".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nvflare_logstream.client.disk import (
    PART,
    is_regular,
    make_directory,
    open_anew,
    open_at_end,
    rename_synced,
    sha256_of,
    write_all,
    writing,
)
from nvflare_logstream.client.manifest import MANIFEST, ExportedStream, Manifest
from nvflare_logstream.client.model import JobStreams, Stream
from nvflare_logstream.errors import ErrorCode, RetrievalError

Fetch = Callable[
    [Stream, int], Iterator[bytes]
]  # the bytes of a stream from a place on, as far as `stream.bytes`
Digest = Callable[[Stream, int], str]  # the server's sha256 (hex) of the same bytes
Progress = Callable[[int, int, Stream], None]  # bytes that are here, bytes in all, the stream they belong to


def export_job(
    job: str,
    joined: JobStreams,
    dest: Path,
    fetch: Fetch,
    digest: Digest,
    force: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Export the streams of a job into `dest`; an export of this job that was interrupted there is gone on with.

    Args:
        job: the job's id.
        joined: its status and its streams, with the bytes to export of each.
        dest: a directory that is new, empty, or an unfinished export of this job.
        fetch: gives a stream's bytes; what it or `digest` raises passes through, and the export can be gone on with.
        digest: gives the server's sha256 of them.
        force: take any directory; files of an earlier export in it are removed, others stay.
        on_progress: told after each part that has come.

    Raises:
        RetrievalError: OUTPUT_DIR_EXISTS, OUTPUT_DIR_NOT_WRITABLE, LOG_CHANGED if the server's copy is not what it sent, or
            INVALID_REPLY if it gave a name that cannot be one of a file.
    """
    streams = _checked(joined.streams)
    resume = _prepare(dest, job, force)
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    manifest = Manifest(job, joined.status, began, False, tuple(map(ExportedStream.of, streams)))
    manifest.save(dest)
    copies = _Copies(dest, resume, fetch, digest, on_progress, sum(stream.bytes for stream in streams))
    rows = []
    for stream, row in zip(streams, manifest.streams, strict=True):
        rows.append(replace(row, sha256=copies.copy(stream)) if row.path else row)
    manifest = replace(manifest, finished=True, streams=tuple(rows))
    manifest.save(dest)
    return manifest


def _checked(streams: Iterable[Stream]) -> list[Stream]:
    """The streams in order of their names, which become paths here."""
    found = {}
    for stream in streams:
        key = (stream.site, stream.file)
        if stream.site in (MANIFEST, MANIFEST + PART) or key in found:
            raise RetrievalError(
                ErrorCode.INVALID_REPLY, f"the server gave a name that is taken: {stream.site}/{stream.file}"
            )
        found[key] = stream
    return [found[key] for key in sorted(found)]


def _prepare(dest: Path, job: str, force: bool) -> bool:
    """Make the directory ready; returns whether there is an export to go on with."""
    with writing(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            dest.mkdir(mode=0o700)
        if not dest.is_dir():
            raise RetrievalError(
                ErrorCode.OUTPUT_DIR_EXISTS, f"{dest} is there and not a directory; choose another name"
            )
        names = set(os.listdir(dest))
    if names <= {MANIFEST + PART}:
        return False
    try:
        old = Manifest.load(dest)
    except RetrievalError:
        old = None
    if old and not old.finished and old.job_id == job:
        return True
    if not force:
        what = f"{dest} is not empty and not an unfinished export of job {job}"
        raise RetrievalError(
            ErrorCode.OUTPUT_DIR_EXISTS,
            f"{what}; choose another directory, or force the export to write into it",
        )
    if old:
        _remove(dest, old)
    return False


def _remove(dest: Path, old: Manifest) -> None:
    """Remove the files of an earlier export; its manifest stays until the new one takes its place."""
    for row in old.streams:
        directory = dest / row.site
        if row.path is None or directory.is_symlink():
            continue
        with writing(directory):
            for name in (row.file, row.file + PART):
                with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    (directory / name).unlink()
        with suppress(OSError):  # there are files of others in it
            directory.rmdir()


class _Copies:
    """Copies logs into an export's directory; with `resume`, files that are there may be the beginnings of logs."""

    def __init__(
        self, dest: Path, resume: bool, fetch: Fetch, digest: Digest, on_progress: Progress | None, total: int
    ):
        self._dest, self._resume, self._fetch, self._digest = dest, resume, fetch, digest
        self._on_progress, self._total, self._done = on_progress, total, 0

    def copy(self, stream: Stream) -> str:
        """Bring one log here and return its sha256."""
        final = self._dest / stream.site / stream.file
        part = final.with_name(stream.file + PART)
        with writing(final.parent):
            make_directory(final.parent)
        start = self._take_up(stream, final, part) if self._resume else 0
        here, there = self._complete(stream, part, start), self._digest(stream, 0)
        if here != there and start:
            here = self._complete(stream, part, 0)
        if here != there:
            what = f"{stream.site}/{stream.file}: the copy that came has sha256 {here}, the server's {there}"
            raise RetrievalError(ErrorCode.LOG_CHANGED, f"{what}; it changed meanwhile, run the export again")
        with writing(final):
            rename_synced(part, final)
        self._done += stream.bytes
        return here

    def _take_up(self, stream: Stream, final: Path, part: Path) -> int:
        """Make what is here of a log its part, also where it was complete before it grew; returns its length."""
        with writing(part):
            if is_regular(final):
                os.replace(final, part)
            size = part.lstat().st_size if is_regular(part) else 0
        return size if size <= stream.bytes else 0

    def _complete(self, stream: Stream, part: Path, start: int) -> str:
        """Fetch what is missing from `start` on, and return the sha256 of the file as it is then on disk."""
        with writing(part):
            fd = open_at_end(part) if start else open_anew(part)
        try:
            self._tell(start, stream)
            at = start
            for data in self._fetch(stream, start):
                at += len(data)
                if at > stream.bytes:
                    raise RetrievalError(
                        ErrorCode.LOG_CHANGED, f"{stream.site}/{stream.file}: more came than the server said"
                    )
                with writing(part):
                    write_all(fd, data)
                self._tell(at, stream)
            with writing(part):
                os.fsync(fd)
        finally:
            os.close(fd)
        with writing(part):
            return sha256_of(part)[1]

    def _tell(self, at: int, stream: Stream) -> None:
        if self._on_progress and at:
            self._on_progress(self._done + at, self._total, stream)
