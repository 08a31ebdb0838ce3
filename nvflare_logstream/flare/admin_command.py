"""The admin commands of the receiver: readers ask the server through the sessions they have.

`logstream` is authorised as the runtime's own job commands are: by job, study and role; the right is one of
the category "view". So is `logstream_server`, by role, as the runtime's `check_status server` is. It is about
the jobs and sites of all studies, so names are for project admins only, to whom the runtime shows all jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.proto import MetaStatusValue, make_meta
from nvflare.fuel.hci.reg import CommandModule, CommandModuleSpec, CommandSpec
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.private.fed.server.job_cmds import JobCommandModule
from nvflare.private.fed.server.server_cmd_modules import ServerCommandModules
from nvflare.security.security import COMMAND_CATEGORIES

from nvflare_logstream.flare import cell_channel
from nvflare_logstream.flare.admin_protocol import COMMAND, SERVER_COMMAND
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
        spec = CommandSpec(
            name=COMMAND,
            description="read the job logs that the sites streamed",
            usage=f"{COMMAND} job_id",
            handler_func=self._handle,
            authz_func=JobCommandModule().authorize_job_id,
            visible=False,
        )
        status_spec = CommandSpec(
            name=SERVER_COMMAND,
            description="tell how the receiver of job logs is doing",
            usage=SERVER_COMMAND,
            handler_func=self._handle_status,
            authz_func=JobCommandModule().command_authz_required,
            visible=False,
        )
        return CommandModuleSpec(name=COMMAND, cmd_specs=[spec, status_spec])

    def _handle(self, conn: Connection, args: list[str]) -> None:
        request = conn.get_prop(ConnProps.REQUEST)
        # What is pushed goes to the cell whose command was authorised, and to no other.
        push = cell_channel.pusher(conn.app_ctx.get_cell(), request) if request else None
        job_id, asked = conn.get_prop(JobCommandModule.JOB_ID), conn.get_prop(ConnProps.CMD_PROPS)
        reply = self._answer(job_id, asked, push)
        conn.append_dict(reply, meta=make_meta(MetaStatusValue.OK))

    def _handle_status(self, conn: Connection, args: list[str]) -> None:
        named = conn.get_prop(ConnProps.USER_ROLE, "") == _PROJECT_ADMIN
        reply = self._answer_status(conn.get_prop(ConnProps.CMD_PROPS), named)
        conn.append_dict(reply, meta=make_meta(MetaStatusValue.OK))


def register(answer: Answer, answer_status: AnswerStatus) -> None:
    """Add the commands to this server; to be called from a component's constructor: later it is too late."""
    if COMMAND not in COMMAND_CATEGORIES:
        COMMAND_CATEGORIES[COMMAND] = COMMAND_CATEGORIES[SERVER_COMMAND] = "view"
        ServerCommandModules.register_cmd_module(LogCommands(answer, answer_status))
