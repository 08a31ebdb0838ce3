"""What our admin commands have in common: how each looks to the runtime, and how it is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.proto import MetaStatusValue, make_meta
from nvflare.fuel.hci.reg import CommandModule, CommandSpec
from nvflare.private.fed.server.server_cmd_modules import ServerCommandModules
from nvflare.security.security import COMMAND_CATEGORIES

_RIGHT = "view"  # the runtime's category of commands that change nothing


def command(
    name: str,
    description: str,
    answer: Callable[[Connection], dict[str, Any]],
    authorize: Callable[..., Any],
    argument: str = "",
) -> CommandSpec:
    """A command for programs, which the runtime's console does not list.

    Args:
        name: what is typed.
        description: what it does, in a few words.
        answer: gives the reply to what came over a connection.
        authorize: the runtime's check whether the user may.
        argument: the name of the argument, if the command has one.
    """

    def handle(conn: Connection, args: list[str]) -> None:
        conn.append_dict(answer(conn), meta=make_meta(MetaStatusValue.OK))

    return CommandSpec(
        name=name,
        description=description,
        usage=f"{name} {argument}".rstrip(),
        handler_func=handle,
        authz_func=authorize,
        visible=False,
    )


def register(module: CommandModule) -> None:
    """Add a module's commands to this server; call it in a component's constructor: later is too late."""
    names = [spec.name for spec in module.get_spec().cmd_specs]
    if names[0] not in COMMAND_CATEGORIES:
        COMMAND_CATEGORIES.update(dict.fromkeys(names, _RIGHT))
        ServerCommandModules.register_cmd_module(module)
