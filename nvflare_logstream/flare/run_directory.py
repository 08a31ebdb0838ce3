"""Shows stored logs where the runtime's own commands look for them: in a running job's run directory."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from nvflare.apis.workspace import Workspace

from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey

_logger = logging.getLogger(__name__)


class RunDirectories:
    """Gives stored files a second name, `<log root of the job>/<site>/<file>`.

    Args:
        store: holds the files.
        workspace: the server's, with the run directories of the jobs that run now.
    """

    def __init__(self, store: LogStore, workspace: Workspace):
        self._store, self._workspace = store, workspace

    def show(self, key: StreamKey) -> None:
        """Show a stream; does nothing for a job that has no run directory, or where the name is taken.

        Never raises: if it cannot be shown there, our own commands still show it.
        """
        if not Path(self._workspace.get_run_dir(key.job_id)).is_dir():
            return
        target = Path(self._workspace.get_log_root(key.job_id)) / key.site / key.file
        if target.exists():
            return
        try:
            target.parent.mkdir(exist_ok=True)
            try:
                os.link(self._store.path(key), target)
            except OSError:  # another file system
                target.symlink_to(self._store.path(key))
        except OSError as error:
            _logger.warning("%s: cannot show it to the runtime's own log commands: %s", key, error)
