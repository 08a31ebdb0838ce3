"""What a site's policy says now, for those who have to know it before each request.

Looking costs one stat. The file is read again only when it has changed, or may have changed unseen: a file
system's clock is coarse, so a file that was just written is read until it has been left alone for a while.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf

from nvflare.apis.fl_context import FLContext
from nvflare.apis.workspace import Workspace

from nvflare_logstream.flare import runtime
from nvflare_logstream.flare.kept_back import kept_file, why_kept
from nvflare_logstream.flare.site_policy import policy_files, read_policy
from nvflare_logstream.site.decision import Decision

_SETTLED = 2.0  # seconds after which another write bears another time, on any file system
_AGAIN = 1.0  # seconds until a policy that could not be read is read again though its file is as it was

_Mark = tuple[int, ...]


class PolicyWatch:
    """Says whether logs may leave a site, see `read_policy`; for one thread.

    A process in a container may see a copy of the policy, or none. What its site says meanwhile it learns
    from the server, which the site's parent process tells.

    Args:
        workspace: the site's workspace.
        clock: gives the time in seconds, from any beginning.
        job_id: a job whose own logs are meant: they stay too if another process of the site has heard a no.
    """

    def __init__(
        self, workspace: Workspace, clock: Callable[[], float] = time.monotonic, job_id: str | None = None
    ):
        self._workspace, self._clock, self._job_id = workspace, clock, job_id
        self._kept_file = "" if job_id is None else str(kept_file(workspace, job_id))
        self._decision = Decision(False, "nobody has asked yet", sure=False)
        self._paths: list[str] = []
        self._marks: list[_Mark] = []
        self._changed_at, self._read_at = -inf, -inf

    def __call__(self) -> Decision:
        """What the policy says now."""
        now = self._clock()
        if self._marks != [_mark_of(path) for path in self._paths] or not self._paths:
            self._changed_at = now
        elif self._read_at - self._changed_at >= _SETTLED and (
            self._decision.sure or now - self._read_at < _AGAIN
        ):
            return self._decision
        # In this order: what changes while it is read is seen the next time.
        paths = policy_files(self._workspace)
        if self._kept_file:
            paths.append(self._kept_file)
        marks = [_mark_of(path) for path in paths]
        if marks != self._marks:
            self._changed_at = now
        self._read_at, self._paths, self._marks = now, paths, marks
        kept = "" if self._job_id is None else why_kept(self._workspace, self._job_id)
        self._decision = Decision(False, kept) if kept else read_policy(self._workspace).logs
        return self._decision


def watch_policy(fl_ctx: FLContext | None) -> Callable[[], bool]:
    """What says whether logs of an event's job may leave the site now; no if that cannot be found out."""
    watch = None
    with suppress(Exception):  # the context names no workspace that can be used
        if fl_ctx is not None:
            job_id = runtime.job_id_of(fl_ctx) or fl_ctx.get_job_id() or None
            watch = PolicyWatch(runtime.workspace_of(fl_ctx), job_id=job_id)
    return lambda: watch is not None and watch().allowed


def _mark_of(path: str) -> _Mark:
    """Changes when what is at a path does; links are followed."""
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
