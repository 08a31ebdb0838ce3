"""The admin commands of the receiver: readers ask the server through the sessions they have.

`logstream` is authorised as the runtime's own job commands are: by job, study and role; the right is one of
the category "view". So is `logstream_server`, by role, as the runtime's `check_status server` is. It is about
the jobs and sites of all studies, so names are for project admins only, to whom the runtime shows all jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.reg import CommandModule, CommandModuleSpec
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.private.fed.server.job_cmds import JobCommandModule

from nvflare_logstream.flare import cell_channel
from nvflare_logstream.flare.admin_protocol import COMMAND, SERVER_COMMAND
from nvflare_logstream.flare.commands import command
from nvflare_logstream.server.following import Push

_PROJECT_ADMIN = "project_admin"  # the role that the runtime's own commands for project admins ask for

Answer = Callable[[str, object, Push | None], dict[str, Any]]
AnswerStatus = Callable[[object, bool], dict[str, Any]]


class LogCommands(CommandModule):
    """The commands `logstream JOB_ID` and `logstream_server`; the request travels in a command's properties.

    Args:
        answer: gives the reply to (job_id, request, what sends a message to who asks).
        answer_status: gives the reply to (question, whether names may be in it).
    """

    def __init__(self, answer: Answer, answer_status: AnswerStatus):
        super().__init__()
        self._answer, self._answer_status = answer, answer_status

    def get_spec(self) -> CommandModuleSpec:
        """What the command register needs to know."""
        may = JobCommandModule()
        logs = command(
            COMMAND,
            "read the job logs that the sites streamed",
            self._logs,
            may.authorize_job_id,
            argument="job_id",
        )
        status = command(
            SERVER_COMMAND,
            "tell how the receiver of job logs is doing",
            self._status,
            may.command_authz_required,
        )
        return CommandModuleSpec(name=COMMAND, cmd_specs=[logs, status])

    def _logs(self, conn: Connection) -> dict[str, Any]:
        request = conn.get_prop(ConnProps.REQUEST)
        # What is pushed goes to the cell whose command was authorised, and to no other.
        push = cell_channel.pusher(conn.app_ctx.get_cell(), request) if request else None
        job_id, asked = conn.get_prop(JobCommandModule.JOB_ID), conn.get_prop(ConnProps.CMD_PROPS)
        return self._answer(job_id, asked, push)

    def _status(self, conn: Connection) -> dict[str, Any]:
        named = conn.get_prop(ConnProps.USER_ROLE, "") == _PROJECT_ADMIN
        return self._answer_status(conn.get_prop(ConnProps.CMD_PROPS), named)
