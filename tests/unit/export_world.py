"""A real store behind a port in this process, for the tests of exports and checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.manifest import Manifest
from nvflare_logstream.client.port import read_reply
from nvflare_logstream.errors import ErrorCode, LostContactError
from nvflare_logstream.server.service import LogService
from nvflare_logstream.store.store import LogStore, Quotas
from nvflare_logstream.streams import Loss, StreamKey
from nvflare_logstream.testing import Clock
from nvflare_logstream.wire.queries import FetchRequest, ReplyT, Request
from nvflare_logstream.wire.upload import Close
from tests.unit.conftest import close_and_commit

JOB = "3f3212db-9849-4d5f-b867-a5e7a7558f42"
KEY = StreamKey(JOB, "site-1", "log.txt")
OTHER = StreamKey(JOB, "site-2", "log.txt")
TEXT = b"".join(b"line %d\n" % number for number in range(40))


class Federation:
    """A server's store, and a port to it that can be cut.

    Attributes:
        asked: every request; patience: the seconds that the server had for each.
        parts_left: fetches after which the connection breaks.
        change: what to make of a reply as it travels.
    """

    def __init__(self, root: Path, stream_quota: int = 1 << 30):
        self.clock = Clock()
        self.store = LogStore(root / "store", Quotas(stream=stream_quota), self.clock)
        self.service = LogService(self.store, 30.0, lambda job_id: "FINISHED:COMPLETED", self.clock)
        self.dest = root / "export"
        self.sleep: Callable[[float], None] = lambda seconds: None
        self.client = LogClient(self, sleep=lambda seconds: self.sleep(seconds))
        self.asked: list[Request[Any]] = []
        self.patience: list[float] = []
        self.parts_left = 1 << 30
        self.change: Callable[[Request[Any], dict[str, Any]], dict[str, Any]] = lambda request, reply: reply

    # What LogClient uses of a port.

    def ask(self, job_id: str, request: Request[ReplyT], seconds: float) -> ReplyT:
        self.asked.append(request)
        self.patience.append(seconds)
        if isinstance(request, FetchRequest):
            if not self.parts_left:
                raise LostContactError(ErrorCode.CONNECTION_FAILED, "cut")
            self.parts_left -= 1
        reply = self.answer(request.encode(), job_id)
        return read_reply(job_id, request, self.change(request, reply))

    def job_ids(self, prefix: str | None) -> list[str]:
        return [JOB] if JOB.startswith(prefix or "") else []

    def reconnect(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def answer(self, request: dict[str, Any], job_id: str = JOB) -> dict[str, Any]:
        """The server's reply, as both travel."""
        reply = self.service.answer(job_id, json.loads(json.dumps(request)))
        decoded: dict[str, Any] = json.loads(json.dumps(reply))
        return decoded

    # Filling and looking.

    def add(self, key: StreamKey, data: bytes, losses: tuple[Loss, ...] = ()) -> None:
        self.store.append(key, self.store.open(key, 3600, 0.5).end, data, b"cursor", losses)

    def end(self, key: StreamKey, content: bytes, digest_from: int = 0) -> None:
        digest = hashlib.sha256(content[digest_from:]).hexdigest()
        close_and_commit(self.store, key, Close(None, len(content), digest, digest_from, "exit code 0"))

    def export(self, **options: Any) -> Manifest:
        return self.client.export(JOB, self.dest, **options)

    def fetched(self) -> list[tuple[str, int]]:
        requests = [request for request in self.asked if isinstance(request, FetchRequest)]
        return [(request.site, request.offset) for request in requests]

    def content(self) -> dict[str, bytes]:
        files = [path for path in self.dest.rglob("*") if path.is_file() and path.name != "manifest.json"]
        return {str(path.relative_to(self.dest)): path.read_bytes() for path in files}
