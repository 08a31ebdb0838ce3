"""Compares an export with what the server has of the job now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nvflare_logstream.client.checks import (
    OF_ONE_LOG,
    Finding,
    Result,
    unlike_ended,
    unlike_site,
    unlike_whole,
    verify_export,
)
from nvflare_logstream.client.disk import sha256_of
from nvflare_logstream.client.manifest import ExportedStream, Manifest
from nvflare_logstream.client.model import JobStreams
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.streams import State, Stream


def compare_export(
    dest: Path, manifest: Manifest, job: JobStreams, digest: Callable[[Stream, int], str]
) -> list[Finding]:
    """Compare an export with its manifest, and then with what the server has of the job now.

    "equal" says that the file is the server's whole copy; its standing is that on the server.

    Args:
        dest: the export's directory.
        manifest: of it.
        job: the job's streams on the server.
        digest: gives the sha256 (hex) of the server's copy from an offset to the stream's end, hashed now.

    Raises:
        RetrievalError: as `verify_export`; INVALID_ARGS if it is an export of another job; from `digest`,
            unless the error is about that log alone, which becomes a finding.
    """
    if manifest.job_id != job.job_id:
        text = f"{dest} is an export of job {manifest.job_id}, not of {job.job_id}"
        raise RetrievalError(ErrorCode.INVALID_ARGS, text)
    findings = verify_export(dest, manifest)
    streams = job.by_name
    compared = []
    for entry, finding in zip(manifest.streams, findings, strict=False):
        stream = streams.pop((entry.stream.site, entry.stream.file), None)
        if finding.result not in (Result.DIFFERS, Result.MISSING):
            standing = stream.standing if stream else ""
            found = _compare_entry(dest, entry, stream, digest)
            finding = Finding(finding.site, finding.file, *found, standing)
        compared.append(finding)
    left_out = [Finding(stream.site, stream.file, *_left_out(stream)) for stream in streams.values()]
    return [*compared, *findings[len(manifest.streams) :], *left_out]


def _left_out(stream: Stream) -> tuple[Result, str]:
    """What is to be said of a log of the job that the manifest does not have."""
    missing = Result.MISSING, f"the server has {stream.end} bytes of it"
    return missing if stream.available else unlike_whole(stream) or missing


def _compare_entry(
    dest: Path, entry: ExportedStream, stream: Stream | None, digest: Callable[[Stream, int], str]
) -> tuple[Result, str]:
    """Compare a log that matches its manifest with the server's stream."""
    size = entry.stream.end
    if stream is None:
        return Result.DIFFERS, "the server has no such log"
    if entry.path is None:
        if stream.available:
            return Result.INCOMPLETE, f"was not exported; the server has {stream.end} bytes of it now"
        return unlike_whole(stream) or (Result.INCOMPLETE, stream.standing)
    if stream.end < size:
        return Result.DIFFERS, f"has {size} bytes, the server's copy {stream.end}"
    try:
        stored = digest(stream._replace(end=size), 0)
    except RetrievalError as error:
        if error.code not in OF_ONE_LOG:
            raise
        return Result.INCOMPLETE, f"cannot be compared: {error}"
    if stored != entry.sha256:
        return Result.DIFFERS, f"has sha256 {entry.sha256}, the same bytes on the server {stored}"
    if stream.end > size:
        return Result.INCOMPLETE, f"has the first {size} bytes of the {stream.end} that the server has now"
    path = dest / entry.path
    try:
        difference = unlike_site(
            stream, "both copies", lambda start: sha256_of(path, start)[1] if start else stored
        )
    except OSError as error:
        return Result.DIFFERS, f"cannot be read: {error.strerror}"
    if difference:
        return Result.DIFFERS, f"is what the server has, but {difference}"
    if entry.stream.state is State.CLOSED and entry.stream.verdict is not stream.verdict:
        return Result.DIFFERS, f"the manifest says {entry.stream.standing}, the server {stream.standing}"
    return unlike_ended(stream) or (
        Result.EQUAL,
        f"{size} bytes with sha256 {stored}; the log is {stream.standing}",
    )
