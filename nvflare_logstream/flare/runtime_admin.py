"""What differs between versions of the runtime on an admin's side: start-up kits and the login."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nvflare_logstream.flare.runtime import DEFAULT_STUDY

_KIT_VARIABLE = "NVFLARE_STARTUP_KIT_DIR"  # names the active kit, in every version
_ADMIN_FILE = ("startup", "fed_admin.json")


def startup_kit(kit_id: str | None, directory: str | None) -> str:
    """The directory of a start-up kit: of the one with that id, else the one named, else the active one.

    Raises:
        ValueError: what is wrong; its `hint`, where it has one, says what to do.
        OSError: if the runtime's own configuration cannot be read.
    """
    try:
        from nvflare.tool.kit import kit_config
    except ImportError:
        return _kit_before_2_8(kit_id, directory)
    if kit_id:
        return str(kit_config.resolve_startup_kit_dir_by_id(kit_id))
    if directory:
        return str(kit_config.validate_startup_kit(directory))
    return str(kit_config.resolve_startup_kit_dir())


def admin_kit(kit_id: str | None, directory: str | None) -> tuple[str, str]:
    """The user and the directory of an admin's start-up kit, found as by `startup_kit`.

    Raises:
        ValueError, OSError: as `startup_kit`.
    """
    try:
        from nvflare.tool.cli_session import resolve_admin_user_and_dir_for_args
    except ImportError:
        kit = _kit_before_2_8(kit_id, directory)
        try:
            return str(json.loads(Path(kit, *_ADMIN_FILE).read_text())["admin"]["username"]), kit
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{kit}: not the start-up kit of an admin: {error}") from error
    user, kit = resolve_admin_user_and_dir_for_args(SimpleNamespace(kit_id=kit_id, startup_kit=directory))
    return str(user), str(kit)


def _kit_before_2_8(kit_id: str | None, directory: str | None) -> str:
    if kit_id:
        raise ValueError("nvflare 2.7 knows no start-up kits by an id; name the directory with --startup-kit")
    if not (directory or os.environ.get(_KIT_VARIABLE)):
        from nvflare.utils.cli_utils import get_startup_kit_dir

        try:
            directory = get_startup_kit_dir()  # what `nvflare config` has set
        except ValueError as error:
            raise ValueError(f"no start-up kit is active ({error}); name one with --startup-kit") from error
    path = Path(directory or os.environ[_KIT_VARIABLE]).expanduser()
    places = [path, path.parent, *(file.parents[1] for file in path.glob(os.path.join("*", *_ADMIN_FILE)))]
    for place in places:
        if (place / "startup").is_dir():
            return str(place.resolve())
    raise ValueError(f"{path}: no start-up kit is there; name a directory that holds `startup`")


def open_session(new: Callable[..., Any], user: str, kit: str, timeout: float, study: str) -> Any:
    """Log in once with `new`, the runtime's function for it.

    Raises:
        ValueError: if the runtime has no such study.
        Exception: the runtime's own.
    """
    known = inspect.signature(new).parameters
    wanted = {"study": study, "auto_login_max_tries": 1}
    if "study" not in known and study != DEFAULT_STUDY:
        raise ValueError(f"study: {study!r} is not allowed; this version of nvflare has no studies")
    taken = {name: value for name, value in wanted.items() if name in known}
    return new(user, kit, timeout=timeout, **taken)
