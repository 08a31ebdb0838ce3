"""The admin command of the receiver: readers ask the server through the sessions they have.

Authorised as the runtime's own job commands are: by job, study and role; the right is one of the category
"view".
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

from nvflare_logstream.flare.admin_protocol import COMMAND


class LogCommands(CommandModule):
    """The command `logstream JOB_ID`; the request itself travels in the command's properties.

    Args:
        answer: gives the reply to (job_id, request).
    """

    def __init__(self, answer: Callable[[str, object], dict[str, Any]]):
        super().__init__()
        self._answer = answer

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
        return CommandModuleSpec(name=COMMAND, cmd_specs=[spec])

    def _handle(self, conn: Connection, args: list[str]) -> None:
        reply = self._answer(conn.get_prop(JobCommandModule.JOB_ID), conn.get_prop(ConnProps.CMD_PROPS))
        conn.append_dict(reply, meta=make_meta(MetaStatusValue.OK))


def register(answer: Callable[[str, object], dict[str, Any]]) -> None:
    """Add the command to this server; to be called from a component's constructor: later it is too late."""
    if COMMAND not in COMMAND_CATEGORIES:
        COMMAND_CATEGORIES[COMMAND] = "view"
        ServerCommandModules.register_cmd_module(LogCommands(answer))
