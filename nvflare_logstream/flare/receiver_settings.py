"""The checked arguments of a `JobLogReceiver`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nvflare.apis.workspace import Workspace

from nvflare_logstream.store.store import LogStore, Quotas

STORE_DIRECTORY = "logstream"
_KEEP_SECONDS = 90 * 86400.0


@dataclass(frozen=True)
class ReceiverSettings:
    """Checked arguments of a receiver.

    Attributes:
        directory: the store's directory, inside of the server's workspace unless it is absolute; None for
            `logstream` there.
        idle_timeout: seconds without a sign of life after which a site counts as silent (0: never).
        keep_seconds: how long after its last sign of life a job's logs are kept.
        quotas: most bytes that may be stored.
    """

    directory: Path | None = None
    idle_timeout: float = 30.0
    keep_seconds: float = _KEEP_SECONDS
    quotas: Quotas = field(default_factory=Quotas)

    def within_job(self, run_directory: Path) -> tuple[ReceiverSettings, list[str]]:
        """What a receiver that came with a job may have of this: a job is a tenant, not the operator.

        Args:
            run_directory: the job's; its receiver may keep a store inside of it, or in the usual place.

        Returns:
            The settings, and in plain words what was not taken over.
        """
        directory, problems = self.directory and run_directory / self.directory, []
        if directory and not directory.resolve().is_relative_to(run_directory.resolve()):
            problems.append(
                f"dest_dir: {directory} is not used: a receiver that comes with a job may write into the "
                f"job's directory {run_directory} only; the logs go to {STORE_DIRECTORY} in the workspace"
            )
            directory = None
        asked, most = asdict(self.quotas), asdict(Quotas())
        quotas = {name: min(asked[name], most[name]) for name in most}
        quotas["free_share"] = max(asked["free_share"], most["free_share"])
        over = ", ".join(name for name in most if quotas[name] != asked[name])
        if over:
            problems.append(
                f"quotas of {over}: a receiver that comes with a job may have the server's at most; "
                "they are used instead"
            )
        settings = replace(self, directory=directory, keep_seconds=_KEEP_SECONDS, quotas=Quotas(**quotas))
        return settings, problems

    def open_store(self, workspace: Workspace) -> LogStore:
        """Open the store, and make it if it is not there."""
        root = Path(workspace.get_root_dir()) / (self.directory or STORE_DIRECTORY)
        return LogStore(root, self.quotas)
