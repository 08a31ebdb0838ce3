"""Compares copies of logs: the server's with what the sites said at their close, an export's with its manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nvflare_logstream.client.disk import sha256_of
from nvflare_logstream.client.manifest import MANIFEST, ExportedStream, Manifest
from nvflare_logstream.client.model import Stream
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.streams import Verdict

EQUAL = "equal"
DIFFERS = "differs"
NOT_CLOSED = "not closed"
INCOMPLETE = "incomplete"
KEPT_BACK = "refused"
MISSING = "missing"
UNEXPECTED = "unexpected"
NOT_EXPORTED = "not exported"


@dataclass(frozen=True)
class Finding:
    """What comparing found of one log.

    Attributes:
        result: "equal", "differs", "not closed" (still streaming), "incomplete" (partial, lost or never seen) or "refused"
            (by the site); of an export also "missing" (a file of the manifest), "unexpected" (one that it does not have) and
            "not exported" (there was nothing to be had).
        detail: in plain words.
    """

    site: str
    file: str
    result: str
    detail: str

    @property
    def good(self) -> bool:
        """Whether all is as it should be; a site may keep a log back, and what was not there cannot be exported."""
        return self.result in (EQUAL, KEPT_BACK, NOT_EXPORTED)


def verify_streams(streams: Iterable[Stream], digest: Callable[[Stream, int], str]) -> list[Finding]:
    """Compare the server's copy of every closed stream with the sha256 that the site gave at the close.

    Args:
        streams: of one job.
        digest: gives the server's sha256 (hex) of a stream's bytes from a place on, hashed now.
    """
    return [Finding(stream.site, stream.file, *_compare(stream, digest)) for stream in streams]


def _compare(stream: Stream, digest: Callable[[Stream, int], str]) -> tuple[str, str]:
    verdict = stream.standing
    if stream.verdict == Verdict.REFUSED:
        return KEPT_BACK, stream.reason
    if stream.verdict == Verdict.STREAMING:
        return NOT_CLOSED, f"still streaming, {stream.bytes} bytes so far"
    if stream.state != "closed":
        return INCOMPLETE, verdict
    try:
        stored = digest(stream, stream.digest_from)
    except RetrievalError as error:
        return INCOMPLETE, f"cannot be compared: {error}"
    part = f"from byte {stream.digest_from} on, " if stream.digest_from else ""
    if stored != stream.digest:
        return DIFFERS, f"{part}the site's file has sha256 {stream.digest}, the server's copy {stored}"
    if stream.verdict != Verdict.COMPLETE:
        return INCOMPLETE, verdict
    return EQUAL, f"{stream.bytes} bytes; {part}the site's file and the server's copy have sha256 {stored}"


def verify_export(dest: Path) -> list[Finding]:
    """Compare the files of an export with its manifest; needs no server.

    "equal" says that the file is what was exported; its detail has the verdict that the log had then.

    Raises:
        RetrievalError: INVALID_MANIFEST, naming the field, or EXPORT_UNFINISHED.
    """
    manifest = Manifest.load(dest)
    if not manifest.finished:
        text = (
            f"{dest / MANIFEST}: finished: the export was interrupted; run it again into the same directory"
        )
        raise RetrievalError(ErrorCode.EXPORT_UNFINISHED, text)
    findings = [Finding(row.site, row.file, *_look(dest, row)) for row in manifest.streams]
    expected = {row.path for row in manifest.streams}
    for site in sorted({row.site for row in manifest.streams}):
        for file in sorted(_files(dest / site)):
            if f"{site}/{file}" not in expected:
                findings.append(Finding(site, file, UNEXPECTED, "the manifest does not have it"))
    return findings


def _look(dest: Path, row: ExportedStream) -> tuple[str, str]:
    if row.path is None:
        return (KEPT_BACK, row.reason) if row.verdict == Verdict.REFUSED else (NOT_EXPORTED, row.standing)
    path, wanted = dest / row.path, f"{row.bytes} bytes with sha256 {row.sha256}"
    for place in (path.parent, path):
        if place.is_symlink():
            return DIFFERS, f"{place} is a symbolic link; exported were {wanted}"
    try:
        size, digest = sha256_of(path)
    except FileNotFoundError:
        return MISSING, f"exported were {wanted}"
    except OSError as error:
        return DIFFERS, f"cannot be read: {error.strerror}; exported were {wanted}"
    if size != row.bytes:
        return DIFFERS, f"has {size} bytes, exported were {row.bytes}"
    if digest != row.sha256:
        return DIFFERS, f"has sha256 {digest}, exported was {row.sha256}"
    return EQUAL, f"{wanted}; the log was {row.standing}"


def _files(directory: Path) -> Iterator[str]:
    """All that is below a directory and is not one, by its path from there; links are not followed."""
    if directory.is_symlink():
        return
    for place, names, files in os.walk(directory):
        links = [name for name in names if (Path(place) / name).is_symlink()]
        for name in files + links:
            yield str((Path(place) / name).relative_to(directory))
