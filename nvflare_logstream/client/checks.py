"""Compares copies of logs: the server's with the sites' digests, an export's with its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nvflare_logstream.client.disk import files_below, sha256_of
from nvflare_logstream.client.manifest import CERTIFICATE, MANIFEST, SIGNATURE, ExportedStream, Manifest
from nvflare_logstream.errors import ErrorCode, RetrievalError
from nvflare_logstream.streams import State, Stream, Verdict
from nvflare_logstream.words import Word


class Result(Word):
    """What the check of one log found."""

    EQUAL = "equal"
    DIFFERS = "differs"
    NOT_CLOSED = "not closed"  # still streaming
    INCOMPLETE = "incomplete"  # partial, lost or never seen
    REFUSED = "refused"  # the site keeps the log back; the only other good result
    MISSING = "missing"  # the manifest has it, the export's directory does not
    UNEXPECTED = "unexpected"  # the export's directory has it, the manifest does not


# What the server may say of one log; any other error, such as a lost connection, ends the check.
OF_ONE_LOG = (
    ErrorCode.LOG_CHANGED,
    ErrorCode.LOG_NOT_FOUND,
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.INVALID_ARGS,  # of a log that is no longer as it was listed
    ErrorCode.INVALID_REPLY,
)
_GOOD = (Result.EQUAL, Result.REFUSED)


@dataclass(frozen=True)
class Finding:
    """What the check of one log found.

    Attributes:
        site: empty for a file that stands beside the sites' directories.
        file: the log's name, or the path of what the manifest does not have.
        detail: the result in plain words.
        standing: of an exported log, its verdict when it was exported, with the reason.
    """

    site: str
    file: str
    result: Result
    detail: str
    standing: str = ""

    @property
    def name(self) -> str:
        """Where the file is, or would be, in an export."""
        return f"{self.site}/{self.file}" if self.site else self.file

    @property
    def good(self) -> bool:
        """Whether all is as it should be; a site may keep a log back."""
        return self.result in _GOOD


def unlike_site(stream: Stream, copy: str, digest: Callable[[int], str]) -> str:
    """How a copy of a closed stream differs from what its site wrote.

    Args:
        stream: as the server, or a manifest, describes it.
        copy: what to call the copy.
        digest: gives the copy's sha256 (hex) from an offset on.

    Returns:
        It in words; empty if the copy is as the site's file, or if the site has not closed the stream.
    """
    if stream.state is not State.CLOSED or not stream.digest:
        return ""
    found = digest(stream.digest_from)
    if found == stream.digest:
        return ""
    return f"{_part(stream)}the site's file has sha256 {stream.digest}, {copy} {found}"


def _part(stream: Stream) -> str:
    """Which part of a stream its site's digest covers, where that is not all of it."""
    return f"from byte {stream.digest_from} on, " if stream.digest_from else ""


def unlike_whole(stream: Stream) -> tuple[Result, str] | None:
    """What keeps a stream from being all that its site wrote, whatever its bytes are; None for nothing.

    The same of a job's log and of an exported one: what is missing is missing in both.
    """
    if stream.verdict is Verdict.REFUSED:
        return Result.REFUSED, stream.verdict_reason
    if stream.verdict is Verdict.STREAMING:
        return Result.NOT_CLOSED, f"still streaming, {stream.end} bytes so far"
    return None if stream.verdict is Verdict.COMPLETE else (Result.INCOMPLETE, stream.standing)


def unlike_ended(stream: Stream) -> tuple[Result, str] | None:
    """As `unlike_whole`; a copy of a log that was still streaming is its beginning, and as such right."""
    return None if stream.verdict is Verdict.STREAMING else unlike_whole(stream)


def verify_streams(streams: Iterable[Stream], digest: Callable[[Stream, int], str]) -> list[Finding]:
    """Compare the server's copy of every closed stream with the sha256 that its site gave at the close.

    Args:
        streams: of one job.
        digest: gives the sha256 (hex) of the server's copy of a stream from an offset on, hashed now.

    Raises:
        RetrievalError: from `digest`, unless the error is about that log alone, which becomes a finding.
    """
    return [Finding(stream.site, stream.file, *_check_stream(stream, digest)) for stream in streams]


def _check_stream(stream: Stream, digest: Callable[[Stream, int], str]) -> tuple[Result, str]:
    unlike = unlike_whole(stream)
    if unlike and stream.state is not State.CLOSED:
        return unlike
    try:
        difference = unlike_site(stream, "the server's copy", lambda start: digest(stream, start))
    except RetrievalError as error:
        if error.code not in OF_ONE_LOG:
            raise
        return Result.INCOMPLETE, f"cannot be compared: {error}"
    if difference:
        return Result.DIFFERS, difference
    if unlike:
        return unlike
    if not stream.digest:
        return Result.INCOMPLETE, "the server has no sha256 of the site's file to compare with"
    both = f"{_part(stream)}the site's file and the server's copy have sha256 {stream.digest}"
    return Result.EQUAL, f"{stream.end} bytes; {both}"


def verify_export(dest: Path, manifest: Manifest | None = None) -> list[Finding]:
    """Compare the files of an export with its manifest, which is read unless it is given; needs no server.

    "equal" says that the file is what was exported; its detail has the verdict that the log had then.

    Raises:
        RetrievalError: INVALID_MANIFEST, naming the field, or EXPORT_UNFINISHED.
    """
    manifest = manifest or Manifest.load(dest)
    if not manifest.finished:
        text = (
            f"{dest / MANIFEST}: finished: the export was interrupted; run it again into the same directory"
        )
        raise RetrievalError(ErrorCode.EXPORT_UNFINISHED, text)
    logs = [
        Finding(entry.stream.site, entry.stream.file, *_check_entry(dest, entry), entry.stream.standing)
        for entry in manifest.streams
    ]
    return [*logs, *_unexpected(dest, manifest)]


def _unexpected(dest: Path, manifest: Manifest) -> Iterator[Finding]:
    """What stands in an export's directory and not in its manifest."""
    known = {MANIFEST, SIGNATURE, CERTIFICATE}
    for entry in manifest.streams:
        if entry.path:
            known |= {entry.path, entry.stream.site}  # a link in the place of the directory was found already
    for path, problem in sorted(files_below(dest)):
        if path not in known:
            *site, file = path.split("/", 1)
            detail = f"cannot be read: {problem}" if problem else "the manifest does not have it"
            yield Finding("".join(site), file, Result.UNEXPECTED, detail)


def _check_entry(dest: Path, entry: ExportedStream) -> tuple[Result, str]:
    stream = entry.stream
    if entry.path is None:
        return unlike_whole(stream) or (Result.INCOMPLETE, stream.standing)
    path, wanted = dest / entry.path, f"{stream.end} bytes with sha256 {entry.sha256}"
    try:
        for place in (path.parent, path):
            if place.is_symlink():
                return Result.DIFFERS, f"{place} is a symbolic link; exported were {wanted}"
        size, digest = sha256_of(path)
        difference = unlike_site(
            stream, "the exported copy", lambda start: sha256_of(path, start)[1] if start else digest
        )
    except FileNotFoundError:
        return Result.MISSING, f"exported were {wanted}"
    except OSError as error:
        return Result.DIFFERS, f"cannot be read: {error.strerror}; exported were {wanted}"
    if size != stream.end:
        return Result.DIFFERS, f"has {size} bytes, exported were {stream.end}"
    if digest != entry.sha256:
        return Result.DIFFERS, f"has sha256 {digest}, exported was {entry.sha256}"
    if difference:
        return Result.DIFFERS, f"matches its manifest, but {difference}"
    return unlike_ended(stream) or (Result.EQUAL, f"{wanted}; the log was {stream.standing}")
