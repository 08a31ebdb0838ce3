"""What an export says of itself: `manifest.json` in its directory.

A manifest may have been edited or damaged since it was written: every field is checked, and refused with an
error that names it. One of release 0.1.0 has no `state`, which is then derived from the verdict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from nvflare_logstream import __version__
from nvflare_logstream.client.disk import open_to_read, write_file, writing
from nvflare_logstream.errors import ErrorCode, RetrievalError, WireError
from nvflare_logstream.streams import Loss, State, Stream, StreamKey, Verdict
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import MAX_OFFSET

MANIFEST = "manifest.json"
SIGNATURE, CERTIFICATE = "manifest.sig", "manifest.crt"  # see `nvflare_logstream.client.signature`
EXPORTED = "%Y-%m-%dT%H:%M:%SZ"
FORMAT = 1
Sign = Callable[[bytes], tuple[bytes, bytes]]  # gives a signature, and the certificates in PEM

MAX_SIZE = 1 << 28  # bytes of a manifest that is read
_MAX_ENTRIES = 1 << 20  # of a list
_MAX_TEXT = 1 << 16  # characters
_MAX_SKEW = 1e11  # seconds
_MAX_UTC_OFFSET = 86400  # seconds
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A state from which the verdict follows again, for a manifest of release 0.1.0.
_STATES = {
    Verdict.STREAMING: State.OPEN,
    Verdict.COMPLETE: State.CLOSED,
    Verdict.PARTIAL: State.STOPPED,
    Verdict.REFUSED: State.REFUSED,
    Verdict.LOST: State.CLOSED,
    Verdict.NEVER_SEEN: State.EXPECTED,
}


@dataclass(frozen=True)
class ExportedStream:
    """One log of one site.

    Attributes:
        stream: what the server said of it when the export began; its `end` is the length of the exported copy
            in bytes.
        path: the log's file, relative to the export's directory; None where there was nothing to export.
        sha256: of the exported copy, in hex; None without one, and while the export is under way.
        damage: how the exported copy differs from what the site wrote, in words; empty where it does not, or
            where nobody can know.
    """

    stream: Stream
    path: str | None
    sha256: str | None
    damage: str = ""

    @classmethod
    def of(cls, stream: Stream) -> ExportedStream:
        """The entry of a stream that is not copied yet."""
        return cls(stream, f"{stream.site}/{stream.file}" if stream.available else None, None)

    def as_json(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        stream = self.stream
        return {
            "site": stream.site,
            "file": stream.file,
            "path": self.path,
            "bytes": stream.end,
            "lines": stream.lines,
            "sha256": self.sha256,
            "damage": self.damage,
            "verdict": str(stream.verdict),
            "reason": stream.verdict_reason,
            "outcome": stream.outcome,
            "site_digest": stream.digest,
            "digest_from": stream.digest_from,
            "losses": [[loss.offset, loss.length, loss.reason] for loss in stream.losses],
            "utc_offset": stream.utc_offset,
            "skew": stream.skew,
            "state": str(stream.state),
            "state_reason": stream.reason,
            "silent": stream.silent,
            "agreed": stream.agreed,
            "total": stream.total,
            "opened": stream.opened,
            "last_seen": stream.last_seen,
            "last_data": stream.last_data,
            "closed": stream.closed,
        }

    @classmethod
    def from_json(cls, job_id: str, fields: Fields, finished: bool) -> ExportedStream:
        """Read an entry of a manifest.

        Raises:
            WireError: naming the field.
        """
        stream = _stream(job_id, fields)
        path = fields.text("path", _MAX_TEXT, default=None)
        if path not in (None, f"{stream.site}/{stream.file}"):
            raise fields.bad("path", path, "null or SITE/FILE")
        if path is None and stream.end:
            raise fields.bad("path", path, f"SITE/FILE, as the log has {stream.end} bytes")
        sha256 = fields.text("sha256", _MAX_TEXT, default=None)
        if sha256 is None and path is not None and finished:
            raise fields.bad("sha256", sha256, "a sha256 in hexadecimal, as there is a path")
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise fields.bad("sha256", sha256, "null or a sha256 in hexadecimal")
        return cls(stream, path, sha256, fields.text("damage", _MAX_TEXT, default=""))


def _stream(job_id: str, fields: Fields) -> Stream:
    verdict = fields.word("verdict", Verdict)
    reason = fields.text("reason", _MAX_TEXT)
    losses = [_loss(fields, row) for row in fields.rows("losses", _MAX_ENTRIES)]
    stream = Stream(
        key=StreamKey(job_id, fields.site("site"), fields.name("file")),
        end=fields.number("bytes", MAX_OFFSET),
        lines=fields.number("lines", MAX_OFFSET),
        state=fields.word("state", State, default=_STATES[verdict]),
        reason=fields.text("state_reason", _MAX_TEXT, default=reason),
        silent=fields.flag("silent"),
        agreed=fields.flag("agreed") if fields.has("agreed") else verdict is Verdict.COMPLETE,
        total=fields.number("total", MAX_OFFSET, -1, default=-1),
        digest=fields.text("site_digest", _MAX_TEXT),
        digest_from=fields.number("digest_from", MAX_OFFSET),
        outcome=fields.text("outcome", _MAX_TEXT),
        opened=fields.time("opened", default=0.0),
        last_seen=fields.time("last_seen", default=0.0),
        last_data=fields.time("last_data", default=0.0),
        closed=fields.time("closed", default=0.0),
        utc_offset=fields.number("utc_offset", _MAX_UTC_OFFSET, -_MAX_UTC_OFFSET),
        skew=fields.real("skew", -_MAX_SKEW, _MAX_SKEW),
        losses=tuple(losses),
    )
    if stream.verdict is not verdict:
        raise fields.bad("verdict", verdict, f"the other fields make it {stream.verdict}")
    if verdict is Verdict.COMPLETE and not stream.digest:
        raise fields.bad("site_digest", stream.digest, "a complete log has the sha256 of its site's file")
    return stream


def _loss(fields: Fields, row: object) -> Loss:
    match row:
        case [offset, length, str(reason)] if _is_offset(offset) and (length is None or _is_offset(length)):
            return Loss(offset, length, reason)
    raise fields.bad("losses", row, "each is [byte, length or null, reason]")


def _is_offset(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_OFFSET


@dataclass(frozen=True)
class Manifest:
    """What was exported of a job.

    Attributes:
        job_status: in the runtime's words.
        exported: the UTC time at which the export began, such as "2026-04-28T10:00:00Z"; its content is as of
            then.
        finished: False from the export's beginning to its end.
        streams: every stream of the job, also those of which there was nothing to export.
        package_version: of the writer.
    """

    job_id: str
    job_status: str
    exported: str
    finished: bool
    streams: tuple[ExportedStream, ...]
    package_version: str = __version__

    def save(self, dest: Path, sign: Sign | None = None) -> None:
        """Write it into the export's directory.

        Args:
            dest: the directory.
            sign: signs what is written.

        Raises:
            RetrievalError: OUTPUT_DIR_NOT_WRITABLE.
        """
        files = {MANIFEST: json.dumps(self.as_json(), indent=2).encode() + b"\n"}
        if sign:
            signature, certificates = sign(files[MANIFEST])
            files = {CERTIFICATE: certificates, SIGNATURE: signature, **files}  # it is finished last
        for name, data in files.items():
            with writing(dest / name):
                write_file(dest / name, data)

    def as_json(self) -> dict[str, Any]:
        """The manifest as a JSON object."""
        return {
            "format": FORMAT,
            "package_version": self.package_version,
            "job_id": self.job_id,
            "job_status": self.job_status,
            "exported": self.exported,
            "finished": self.finished,
            "streams": [entry.as_json() for entry in self.streams],
        }

    @classmethod
    def load(cls, dest: Path) -> Manifest:
        """Read it back; raises as `read`."""
        return cls.read(dest)[0]

    @classmethod
    def read(cls, dest: Path) -> tuple[Manifest, bytes]:
        """Read it back, together with the bytes that a signature is about.

        Raises:
            RetrievalError: INVALID_MANIFEST, naming the file and, where it can be read, the field.
        """
        path = dest / MANIFEST
        try:
            with open_to_read(path) as file:
                data = file.read(MAX_SIZE + 1)
            if len(data) > MAX_SIZE:
                raise WireError(f"larger than {MAX_SIZE} bytes")
            return cls._from_json(Fields(json.loads(data), "")), data
        except OSError as error:
            reason = error.strerror or str(error)
        except WireError as error:
            reason = str(error)
        except RecursionError:
            reason = "nested too deeply"
        except ValueError as error:
            reason = f"not JSON: {error}"
        raise RetrievalError(ErrorCode.INVALID_MANIFEST, f"{path}: {reason}")

    @classmethod
    def _from_json(cls, fields: Fields) -> Manifest:
        version = fields.number("format", MAX_OFFSET)
        if version != FORMAT:
            raise fields.bad("format", version, f"this release reads {FORMAT}")
        for name in ("finished", "streams"):
            if not fields.has(name):
                raise fields.bad(name, None, "it must be there")
        job_id, finished = fields.name("job_id"), fields.flag("finished")
        entries, seen = [], set()
        for row in fields.maps("streams", _MAX_ENTRIES):
            entry = ExportedStream.from_json(job_id, row, finished)
            if entry.stream.key in seen:
                raise row.bad("file", entry.stream.file, f"{entry.stream.site} has it twice")
            seen.add(entry.stream.key)
            entries.append(entry)
        return cls(
            job_id=job_id,
            job_status=fields.text("job_status", _MAX_TEXT),
            exported=fields.text("exported"),
            finished=finished,
            streams=tuple(entries),
            package_version=fields.text("package_version", _MAX_TEXT),
        )
