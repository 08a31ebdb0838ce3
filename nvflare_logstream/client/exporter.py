"""Copies a job's logs to the reader's disk, byte for byte, with a manifest that has their verdicts.

Layout: `DEST/<site>/<file>`, `DEST/manifest.json`, and its signature. Rules:

* An export covers the bytes that the streams had when it began; of a running job it is a prefix of each log.
* A log is written as `<file>.part`, compared with the server's sha256 of the same bytes, synced, and only
  then gets its name.
* A log that its site has closed is compared with the site's own sha256 too. A copy that was damaged on the
  server is exported as it is, and the manifest says so: it is never called complete.
* An interrupted export is continued from the files that it left. They are not trusted: if a log's sha256 does
  not agree in the end, that log is fetched anew.
* Nothing is written through a symbolic link, and no file is removed but those that an export writes.

Logs are copied in the order of their names, so that the log "x" has its final name before a log that is
really called "x.part" is written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nvflare_logstream.client.checks import unlike_site
from nvflare_logstream.client.disk import (
    PART,
    is_regular,
    make_directory,
    open_new,
    open_to_append,
    rename_synced,
    sha256_of,
    write_all,
    writing,
)
from nvflare_logstream.client.manifest import (
    CERTIFICATE,
    EXPORTED,
    MANIFEST,
    SIGNATURE,
    ExportedStream,
    Manifest,
    Sign,
)
from nvflare_logstream.client.model import JobStreams
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.streams import Stream

Fetch = Callable[[Stream, int], Iterator[bytes]]  # stored bytes of a stream, from an offset to `stream.end`
Digest = Callable[[Stream, int], str]  # the server's sha256 (hex) of the same bytes
Progress = Callable[[int, int, Stream], None]  # bytes copied so far, bytes in all, the stream being copied


def export_job(
    job: JobStreams,
    dest: Path,
    fetch: Fetch,
    digest: Digest,
    force: bool = False,
    on_progress: Progress | None = None,
    sign: Sign | None = None,
) -> Manifest:
    """Export the streams of a job into `dest`, or continue an export of this job that was interrupted there.

    Args:
        job: the job's status and streams; of each stream, the bytes up to its `end` are exported.
        dest: a directory that is new, empty, or an unfinished export of this job.
        fetch: gives a stream's bytes; what it or `digest` raises passes through, and the export can be
            continued.
        digest: gives the server's sha256 of them.
        force: take any directory; files of an earlier export in it are removed, others stay.
        on_progress: called after each part of a log.
        sign: signs the manifest; without it there is no signature.

    Raises:
        RetrievalError: OUTPUT_DIR_EXISTS; OUTPUT_DIR_NOT_WRITABLE; LOG_CHANGED if the server's copy is not
            what it sent; INVALID_REPLY if it gave a name that a file here cannot have.
    """
    streams = _in_order(job.streams)
    resume = _prepare(dest, job.job_id, force)
    began = time.strftime(EXPORTED, time.gmtime())
    manifest = Manifest(job.job_id, job.status, began, False, tuple(map(ExportedStream.of, streams)))
    manifest.save(dest)
    for name in (SIGNATURE, CERTIFICATE):  # of an earlier manifest
        with writing(dest / name):
            (dest / name).unlink(missing_ok=True)
    copier = _Copier(dest, resume, fetch, digest, on_progress, sum(stream.end for stream in streams))
    entries = tuple(copier.copy(entry) if entry.path else entry for entry in manifest.streams)
    manifest = replace(manifest, finished=True, streams=entries)
    manifest.save(dest, sign)
    return manifest


def _in_order(streams: Iterable[Stream]) -> list[Stream]:
    """The streams in the order of their names, which become paths here."""
    by_name: dict[tuple[str, str], Stream] = {}
    for stream in streams:
        name = (stream.site, stream.file)
        if stream.site.removesuffix(PART) in (MANIFEST, SIGNATURE, CERTIFICATE) or name in by_name:
            text = f"the server gave a name that is taken: {stream.site}/{stream.file}"
            raise RetrievalError(ErrorCode.INVALID_REPLY, text)
        by_name[name] = stream
    return [by_name[name] for name in sorted(by_name)]


def _prepare(dest: Path, job_id: str, force: bool) -> bool:
    """Make the directory ready; returns whether there is an export to continue."""
    with writing(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            dest.mkdir(mode=0o700)
        if not dest.is_dir():
            text = f"{dest} is there and not a directory; choose another name"
            raise RetrievalError(ErrorCode.OUTPUT_DIR_EXISTS, text)
        names = set(os.listdir(dest))
    if names <= {MANIFEST + PART}:
        return False
    try:
        earlier = Manifest.load(dest)
    except RetrievalError:
        earlier = None
    if earlier and not earlier.finished and earlier.job_id == job_id:
        return True
    if not force:
        what = f"{dest} is not empty and not an unfinished export of job {job_id}"
        advice = "choose another directory, or force the export to write into it"
        raise RetrievalError(ErrorCode.OUTPUT_DIR_EXISTS, f"{what}; {advice}")
    if earlier:
        _remove(dest, earlier)
    return False


def _remove(dest: Path, earlier: Manifest) -> None:
    """Remove the files of an earlier export; its manifest stays until the new one replaces it."""
    for entry in earlier.streams:
        site, file = entry.stream.site, entry.stream.file
        directory = dest / site
        if entry.path is None or directory.is_symlink():
            continue
        with writing(directory):
            for name in (file, file + PART):
                with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    (directory / name).unlink()
        with suppress(OSError):  # other files are in it
            directory.rmdir()


class _Copier:
    """Copies logs into an export's directory.

    With `resume`, files that are there may be the beginnings of logs.
    """

    def __init__(
        self, dest: Path, resume: bool, fetch: Fetch, digest: Digest, on_progress: Progress | None, total: int
    ):
        self._dest, self._resume, self._fetch, self._digest = dest, resume, fetch, digest
        self._on_progress, self._total, self._done = on_progress, total, 0

    def copy(self, entry: ExportedStream) -> ExportedStream:
        """Copy one log; its entry says then what came."""
        stream = entry.stream
        final = self._dest / stream.site / stream.file
        part = final.with_name(stream.file + PART)
        with writing(final.parent):
            make_directory(final.parent)
        start = self._recover(stream, final, part) if self._resume else 0
        copied, stored = self._complete(stream, part, start), self._digest(stream, 0)
        if copied != stored and start:
            copied = self._complete(stream, part, 0)
        if copied != stored:
            name = f"{stream.site}/{stream.file}"
            text = f"{name}: the copy that came has sha256 {copied}, the server's {stored}"
            raise RetrievalError(ErrorCode.LOG_CHANGED, f"{text}; it changed meanwhile, run the export again")
        with writing(final):
            rename_synced(part, final)
            damage = unlike_site(
                stream, "the server's copy", lambda start: sha256_of(final, start)[1] if start else copied
            )
        self._done += stream.end
        if damage:
            stream = stream._replace(agreed=False, reason=damage)
        return replace(entry, stream=stream, sha256=copied, damage=damage)

    def _recover(self, stream: Stream, final: Path, part: Path) -> int:
        """Make what is here of a log its part, also a copy that was complete before the log grew.

        Returns the part's length in bytes; 0 if it is to be fetched anew.
        """
        with writing(part):
            if is_regular(final):
                os.replace(final, part)
            size = part.lstat().st_size if is_regular(part) else 0
        return size if size <= stream.end else 0

    def _complete(self, stream: Stream, part: Path, start: int) -> str:
        """Fetch the log from `start` on, and return the sha256 of the whole file, read back from the disk."""
        with writing(part):
            fd = open_to_append(part) if start else open_new(part)
        try:
            self._report(start, stream)
            offset = start
            for data in self._fetch(stream, start):
                offset += len(data)
                if offset > stream.end:
                    text = f"{stream.site}/{stream.file}: more came than the server said"
                    raise RetrievalError(ErrorCode.LOG_CHANGED, text)
                with writing(part):
                    write_all(fd, data)
                self._report(offset, stream)
            with writing(part):
                os.fsync(fd)
        finally:
            os.close(fd)
        with writing(part):
            return sha256_of(part)[1]

    def _report(self, offset: int, stream: Stream) -> None:
        if self._on_progress and offset:
            self._on_progress(self._done + offset, self._total, stream)
