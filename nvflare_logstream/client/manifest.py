"""What an export says of itself: `manifest.json` in its directory.

Read back it is as little trusted as anything else: every field is checked, and refused with an error that names it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nvflare_logstream import __version__
from nvflare_logstream.client.disk import open_to_read, write_file, writing
from nvflare_logstream.client.model import Stream
from nvflare_logstream.errors import ArgumentError, ErrorCode, RetrievalError
from nvflare_logstream.names import check_name
from nvflare_logstream.streams import in_words

MANIFEST = "manifest.json"
FORMAT = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ExportedStream:
    """One log of one site at the time of the export.

    Attributes:
        path: the log's file below the export's directory; None where nothing of it could be had.
        bytes, lines: of the exported copy.
        sha256: of the exported copy; None without one, and while the export is under way.
        verdict, reason, outcome: as the server gave them.
        site_digest, digest_from: sha256 the site gave at its close, of its log from that byte on; "" before the close.
        losses: (byte, length or None, reason) of what the site could not read any more.
        utc_offset: the site's offset from UTC in seconds; skew: its clock minus the server's, in seconds.
    """

    site: str
    file: str
    path: str | None
    bytes: int
    lines: int
    sha256: str | None
    verdict: str
    reason: str
    outcome: str
    site_digest: str
    digest_from: int
    losses: tuple[tuple[int, int | None, str], ...]
    utc_offset: int
    skew: float

    @property
    def standing(self) -> str:
        """The verdict, with its reason if it has one."""
        return in_words(self.verdict, self.reason)

    @classmethod
    def of(cls, stream: Stream) -> ExportedStream:
        """Begin with what the server says of a stream."""
        same = (
            "site",
            "file",
            "bytes",
            "lines",
            "verdict",
            "reason",
            "outcome",
            "digest_from",
            "losses",
            "utc_offset",
            "skew",
        )
        path = f"{stream.site}/{stream.file}" if stream.available else None
        return cls(
            **{name: getattr(stream, name) for name in same},
            path=path,
            sha256=None,
            site_digest=stream.digest,
        )

    @classmethod
    def from_json(cls, where: str, values: object, finished: bool) -> ExportedStream:
        """Read one entry; `where` is its place in the manifest.

        Raises:
            ArgumentError: naming the field.
        """
        found = _Fields(where, values)
        for name in ("site", "file"):
            check_name(f"{where}.{name}", found.text(name))
        path, digest, losses = found.get("path"), found.get("sha256"), found.get("losses")
        if path not in (None, f"{found.text('site')}/{found.text('file')}"):
            raise ArgumentError(f"{where}.path", path, "null or SITE/FILE")
        if digest is None:
            if path is not None and finished:
                raise ArgumentError(f"{where}.sha256", digest, "a sha256 in hexadecimal, as there is a path")
        elif not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ArgumentError(f"{where}.sha256", digest, "null or a sha256 in hexadecimal")
        if not isinstance(losses, list) or not all(map(_is_loss, losses)):
            raise ArgumentError(f"{where}.losses", losses, "a list of [byte, length or null, reason]")
        same: dict[str, Any] = {
            name: found.text(name) for name in ("site", "file", "verdict", "reason", "outcome", "site_digest")
        }
        same |= {name: found.count(name) for name in ("bytes", "lines", "digest_from")}
        return cls(
            path=path,
            sha256=digest,
            losses=tuple((at, length, reason) for at, length, reason in losses),
            skew=found.number("skew"),
            utc_offset=int(found.number("utc_offset")),
            **same,
        )


@dataclass(frozen=True)
class Manifest:
    """What was exported of a job.

    Attributes:
        exported: the UTC time at which the export began, which is what its content is as of, such as "2026-04-28T10:00:00Z".
        finished: False from the export's beginning to its end.
        streams: every stream of the job, also those of which nothing could be had.
        package_version, format: of the writer, and of the manifest.
    """

    job_id: str
    job_status: str
    exported: str
    finished: bool
    streams: tuple[ExportedStream, ...]
    package_version: str = __version__
    format: int = FORMAT

    def save(self, dest: Path) -> None:
        """Write it into the export's directory.

        Raises:
            RetrievalError: if the disk does not take it.
        """
        with writing(dest / MANIFEST):
            write_file(dest / MANIFEST, json.dumps(self.as_json(), indent=2).encode() + b"\n")

    def as_json(self) -> dict[str, Any]:
        """The manifest as a JSON document, what it is first."""
        return {"format": self.format, "package_version": self.package_version, **asdict(self)}

    @classmethod
    def load(cls, dest: Path) -> Manifest:
        """Read it back.

        Raises:
            RetrievalError: INVALID_MANIFEST, naming the file and, where it can be read, the field.
        """
        path = dest / MANIFEST
        try:
            with open_to_read(path) as file:
                return cls._from_json(json.load(file))
        except OSError as error:
            reason = error.strerror or str(error)
        except ArgumentError as error:
            reason = str(error)
        except (ValueError, RecursionError) as error:
            reason = f"not JSON: {error}"
        raise RetrievalError(ErrorCode.INVALID_MANIFEST, f"{path}: {reason}")

    @classmethod
    def _from_json(cls, values: object) -> Manifest:
        found = _Fields("", values)
        if found.get("format") != FORMAT:
            raise ArgumentError("format", found.get("format"), f"this version reads {FORMAT}")
        finished, streams = found.get("finished"), found.get("streams")
        if not isinstance(finished, bool):
            raise ArgumentError("finished", finished, "true or false")
        if not isinstance(streams, list):
            raise ArgumentError("streams", streams, "a list")
        rows = tuple(
            ExportedStream.from_json(f"streams[{i}]", row, finished) for i, row in enumerate(streams)
        )
        texts: dict[str, Any] = {
            name: found.text(name) for name in ("job_id", "job_status", "exported", "package_version")
        }
        return cls(**texts, finished=finished, streams=rows)


def _is_loss(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    at, length, reason = value
    return isinstance(at, int) and isinstance(length, (int, type(None))) and isinstance(reason, str)


class _Fields:
    """The fields of a JSON object, checked as they are taken."""

    def __init__(self, where: str, values: object):
        if not isinstance(values, dict):
            raise ArgumentError(where or MANIFEST, values, "an object")
        self._values: dict[str, Any] = values
        self._prefix = f"{where}." if where else ""

    def get(self, name: str) -> Any:
        if name not in self._values:
            raise ArgumentError(self._prefix + name, None, "it must be there")
        return self._values[name]

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str):
            raise ArgumentError(self._prefix + name, value, "a text")
        return value

    def number(self, name: str) -> float:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ArgumentError(self._prefix + name, value, "a number")
        return value

    def count(self, name: str) -> int:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ArgumentError(self._prefix + name, value, "a whole number from 0 on")
        return value
