"""The components of a resources file: the runtime's own that move logs, and ours that take their places."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

from nvflare_logstream.deploy.kits import Role

PACKAGE = "nvflare_logstream."
COMPONENTS = {
    Role.CLIENT: ("site_log_streamer", "SiteLogStreamer"),
    Role.SERVER: ("log_receiver", "JobLogReceiver"),
}
DISABLED = "disabled"  # in an entry: with true, the runtime makes no component of it
_MOST = 1e12  # of a number that counts; an int in JSON may have more digits than a float can hold
_STOCK_PREFIX = "nvflare.app_common.logging."


def class_of(entry: object) -> str:
    """The class that a component's entry names, in any of the runtime's spellings; empty if it names none."""
    if isinstance(entry, dict):
        for key in ("path", "class_path", "name"):
            if isinstance(entry.get(key), str):
                return str(entry[key]).strip()
    return ""


def is_stock(entry: object) -> bool:
    """Whether a component is one of the runtime's own that move logs."""
    return class_of(entry).startswith(_STOCK_PREFIX)


def is_ours(entry: object, role: Role) -> bool:
    """Whether a component is the one of this package that belongs to `role`."""
    name = class_of(entry)
    return name.startswith(PACKAGE) and name.rpartition(".")[2] == COMPONENTS[role][1]


def is_disabled(entry: dict[str, Any]) -> bool:
    """Whether the runtime passes an entry over."""
    return entry.get(DISABLED) is True


def is_number(value: object) -> TypeGuard[float]:
    """Whether an argument is a number that can be reckoned with; what else is wrong, its component says."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MOST < value < _MOST


def entry_of(role: Role, arguments: dict[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    """Our component's entry for `role`, under an id that is not `taken`."""
    name, class_name = COMPONENTS[role]
    return {"id": free_id(name, taken), "path": PACKAGE + class_name, "args": arguments}


def free_id(name: str, taken: Iterable[str]) -> str:
    """`name`, or with a number at its end if that id is taken."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found
