"""The checked arguments of a `JobLogReceiver`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nvflare.apis.workspace import Workspace

from nvflare_logstream.store.store import LogStore, Quotas

STORE_DIRECTORY = "logstream"


@dataclass(frozen=True)
class ReceiverSettings:
    """Checked arguments of a receiver.

    Attributes:
        directory: the store's directory; None for `logstream` in the server's workspace.
        idle_timeout: seconds without a sign of life after which a site counts as silent (0: never).
        keep_seconds: how long after its last sign of life a job's logs are kept.
        quotas: most bytes that may be stored.
    """

    directory: Path | None = None
    idle_timeout: float = 30.0
    keep_seconds: float = 90 * 86400.0
    quotas: Quotas = field(default_factory=Quotas)

    def open_store(self, workspace: Workspace) -> LogStore:
        """Open the store, and make it if it is not there."""
        root = self.directory or Path(workspace.get_root_dir()) / STORE_DIRECTORY
        return LogStore(root, self.quotas)
