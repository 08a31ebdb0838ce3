"""What a site's `resources.json` decides: may logs leave, may a job load our class, what streams beside us.

The file is read afresh for each decision, since an admin may change it while the site runs; `PolicyWatch`
reads it for those who decide often. It fails closed: a file that cannot be read, or a value that is not
plainly `true`, keeps the logs at the site.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from nvflare.apis.fl_constant import WorkspaceConstants
from nvflare.apis.workspace import Workspace
from nvflare.fuel.utils.config_factory import ConfigFactory

from nvflare_logstream.flare import runtime
from nvflare_logstream.site.decision import Decision

ALLOW_VARIABLE = "allow_log_streaming"
_STOCK_PREFIX = "nvflare.app_common.logging."
_SHOWN_VALUE = 120  # characters; a reason travels to the server


class SitePolicy(NamedTuple):
    """What was decided when the site's resources were read.

    Attributes:
        logs: may logs leave the site?
        job_class: will the runtime let the job load the class that `read_policy` was asked about?
        stock_components: dotted paths of the runtime's own log streaming components that the site lists
            beside ours.
    """

    logs: Decision
    job_class: Decision
    stock_components: tuple[str, ...] = ()


def read_policy(workspace: Workspace, job_class: str = "") -> SitePolicy:
    """Read the site's resources.json (or its default) and decide; whatever the file holds, it does not raise.

    Args:
        workspace: the site's workspace.
        job_class: dotted path of a class that is to go into a job without custom code; the runtime checks no
            other.
    """
    try:
        path = _resources_file(workspace)
        resources = _loaded(path) if path else {}
        if not isinstance(resources, dict):
            raise ValueError(f"{path}: an object is wanted at the top level")
        logs = _may_logs_leave(resources, bool(path))
        stock = _stock_components(resources)
    except (OSError, ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        logs = Decision(False, f"the site's resources.json cannot be read: {why}", sure=False)
        stock = ()
    # The runtime's check leaves entries in the site's audit log, so it is asked only where it matters.
    return SitePolicy(logs, _may_job_load(workspace, job_class) if logs.allowed else logs, stock)


def _strictest(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the file; where it says twice whether logs may leave, a no counts."""
    values = dict(pairs)
    values.update(pair for pair in pairs if pair[0] == ALLOW_VARIABLE and pair[1] is not True)
    return values


def _resources_file(workspace: Workspace) -> Path | None:
    """The file that counts; None if there is none.

    The runtime looks for the same two, but takes one that it cannot look at for one that is not there.

    Raises:
        OSError: if it is not known whether there is one.
    """
    for name in (WorkspaceConstants.RESOURCES_CONFIG, WorkspaceConstants.DEFAULT_RESOURCES_CONFIG):
        path = Path(workspace.get_file_path_in_site_config(name))
        with suppress(FileNotFoundError):
            path.lstat()
            return path
    return None


def policy_files(workspace: Workspace) -> list[str]:
    """What has to stay as it is for `read_policy` to decide the same again: files, and directories.

    Where the default file counts, those are all directories in which the runtime looks for another one.
    """
    names = (WorkspaceConstants.RESOURCES_CONFIG, WorkspaceConstants.DEFAULT_RESOURCES_CONFIG)
    own, default = (workspace.get_file_path_in_site_config(name) for name in names)
    if os.path.lexists(own):
        return [own]
    stem, paths = Path(own).stem, [own, default]
    for directory, _, files in os.walk(Path(own).parent):
        paths += [directory, *(os.path.join(directory, file) for file in files if file.startswith(stem))]
    return paths


def _loaded(path: Path) -> Any:
    """What the runtime makes of the resources file.

    Instead of the default file it takes one in another format, or deeper in the directory, if there is one.

    Raises:
        OSError, ValueError, RecursionError: if it cannot be read.
    """
    is_default = path.name == WorkspaceConstants.DEFAULT_RESOURCES_CONFIG
    used = ConfigFactory.search_config_format(str(path))[1] if is_default else None
    if not used or ".json" in Path(used).suffixes:
        text = Path(used or path).read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_strictest)
    try:
        config = ConfigFactory.load_config(str(path))
        loaded = config.to_dict() if config else None
    except Exception as error:  # the parser's own; its text may show a part of the file, and would travel
        raise ValueError(f"{used}: {type(error).__name__}") from error
    if loaded is None:
        raise ValueError(f"{used}: the package that reads this format is not installed")
    return loaded


def _may_logs_leave(resources: dict[str, Any], is_file: bool) -> Decision:
    if ALLOW_VARIABLE not in resources:
        where = "in the site's resources.json" if is_file else "since the site has no resources.json"
        return Decision(True, f"{ALLOW_VARIABLE} is not set {where}, and nothing else forbids it")
    value = resources[ALLOW_VARIABLE]
    if value is True:
        return Decision(True, f"{ALLOW_VARIABLE} is true")
    text = json.dumps(value)
    shown = text if len(text) <= _SHOWN_VALUE else f"{text[:_SHOWN_VALUE]}…"
    return Decision(False, f"the site does not allow it ({ALLOW_VARIABLE} is {shown})")


def _may_job_load(workspace: Workspace, path: str) -> Decision:
    if not path:
        return Decision(True, "no class is to be checked")
    refusal = runtime.class_refusal(workspace, path)
    if refusal:
        package = path.partition(".")[0]
        return Decision(False, f'class_allow_list in resources.json lacks "{package}.": {refusal}')
    return Decision(True, f"the runtime admits {path}")


def _stock_components(resources: dict[str, Any]) -> tuple[str, ...]:
    components = resources.get("components")
    entries = (
        [entry for entry in components if isinstance(entry, dict)] if isinstance(components, list) else []
    )
    paths = [str(entry.get(key) or "").strip() for entry in entries for key in ("path", "class_path", "name")]
    return tuple(path for path in paths if path.startswith(_STOCK_PREFIX))
