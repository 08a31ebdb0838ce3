"""Shows stored logs where the runtime's own commands look for them: in a running job's run directory."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nvflare.apis.workspace import Workspace

from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamKey

_WARNING_SECONDS = 60.0  # between two warnings of a site
_logger = logging.getLogger(__name__)


class RunDirectories:
    """Gives stored files a second name, `<log root of the job>/<site>/<file>`.

    Args:
        store: holds the files.
        workspace: the server's, with the run directories of the jobs that run now.
        clock: gives the time in seconds, from any beginning.
    """

    def __init__(self, store: LogStore, workspace: Workspace, clock: Callable[[], float] = time.monotonic):
        self._store, self._workspace, self._clock = store, workspace, clock
        self._warned: dict[str, float] = {}  # when a site was warned of last

    def show(self, key: StreamKey) -> None:
        """Show a stream; does nothing for a job that has no run directory, or where the name is taken.

        Never raises: if it cannot be shown there, our own commands still show it.
        """
        if not Path(self._workspace.get_run_dir(key.job_id)).is_dir():
            return
        site = Path(self._workspace.get_log_root(key.job_id)) / key.site
        try:
            site.mkdir(exist_ok=True)
            # The job's own code can write here: a link in the place of the site's directory is not followed.
            directory = os.open(site, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _link(self._store.path(key), key.file, directory)
            finally:
                os.close(directory)
        except OSError as error:
            self._warn(key, error)

    def _warn(self, key: StreamKey, error: OSError) -> None:
        """A line a minute for each site: while it cannot be shown, the site may come each second."""
        now = self._clock()
        self._warned = {site: at for site, at in self._warned.items() if now - at < _WARNING_SECONDS}
        if key.site not in self._warned:
            self._warned[key.site] = now
            _logger.warning("%s: cannot show it to the runtime's own log commands: %s", key, error)


def _link(path: Path, name: str, directory: int) -> None:
    """Give a file a name in a directory, unless the name is taken."""
    with suppress(FileExistsError):
        try:
            os.link(path, name, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:  # another file system
            os.symlink(path, name, dir_fd=directory)
