"""The admin command `logstream_jobs`: which jobs have which logs.

It is authorised as the runtime's own `list_jobs`, by role, and shows jobs of the session's study only. Of
these it leaves out every job whose logs the user could not read with `logstream JOB_ID`, which a policy may
tie to who submitted the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nvflare.apis.job_def import JobMetaKey
from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.reg import CommandModule, CommandModuleSpec
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.fuel.sec.authz import AuthorizationService, AuthzContext, Person
from nvflare.private.fed.server.job_cmds import JobCommandModule

from nvflare_logstream.flare.admin_protocol import COMMAND, JOBS_COMMAND
from nvflare_logstream.flare.commands import command
from nvflare_logstream.flare.runtime import study_of_command, study_of_job
from nvflare_logstream.names import is_name
from nvflare_logstream.wire.job_list import ListedJob

_NAME = 200  # characters of a job's name that are shown

Answer = Callable[[object, Callable[[], Iterable[ListedJob]]], dict[str, Any]]


class JobListCommand(CommandModule):
    """The command `logstream_jobs`; the question travels in the command's properties.

    Args:
        answer: gives the reply to (question, what gives the jobs that the user may see).
    """

    def __init__(self, answer: Answer):
        super().__init__()
        self._answer = answer

    def get_spec(self) -> CommandModuleSpec:
        """What the command register needs to know."""
        jobs = command(
            JOBS_COMMAND,
            "list the jobs with the verdicts on their logs",
            self._jobs,
            JobCommandModule().command_authz_required,
        )
        return CommandModuleSpec(name=JOBS_COMMAND, cmd_specs=[jobs])

    def _jobs(self, conn: Connection) -> dict[str, Any]:
        return self._answer(conn.get_prop(ConnProps.CMD_PROPS), lambda: _visible_jobs(conn))


def _visible_jobs(conn: Connection) -> Iterator[ListedJob]:
    """The jobs of the session's study whose logs its user may read."""
    engine: Any = conn.app_ctx
    with engine.new_context() as fl_ctx:
        jobs = engine.job_def_manager.get_all_jobs(fl_ctx)
    study = study_of_command(conn)
    allowed: dict[tuple[str, ...], bool] = {}  # by who submitted the job
    for job in jobs or ():
        meta = job.meta
        job_id = meta.get(JobMetaKey.JOB_ID.value)
        if not is_name(job_id) or study_of_job(meta) != study:
            continue
        keys = (JobMetaKey.SUBMITTER_NAME, JobMetaKey.SUBMITTER_ORG, JobMetaKey.SUBMITTER_ROLE)
        submitter = tuple(str(meta.get(key.value) or "") for key in keys)
        if submitter not in allowed:
            allowed[submitter] = _may_read(conn, submitter)
        if allowed[submitter]:
            yield _listed(job_id, meta)


def _may_read(conn: Connection, submitter: tuple[str, ...]) -> bool:
    keys = (ConnProps.USER_NAME, ConnProps.USER_ORG, ConnProps.USER_ROLE)
    user = Person(*(conn.get_prop(key, "") for key in keys))
    authorized, _ = AuthorizationService.authorize(AuthzContext(COMMAND, user, Person(*submitter)))
    return bool(authorized)


def _listed(job_id: str, meta: dict[str, Any]) -> ListedJob:
    name, status = meta.get(JobMetaKey.JOB_NAME.value), meta.get(JobMetaKey.STATUS.value)
    try:
        submitted = max(0.0, float(meta.get(JobMetaKey.SUBMIT_TIME.value) or 0.0))
    except (TypeError, ValueError):
        submitted = 0.0
    return ListedJob(job_id, str(name or "")[:_NAME], str(status or "")[:_NAME], submitted)
