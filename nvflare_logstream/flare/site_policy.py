"""What the site's own `resources.json` says: may logs leave, and which component classes may a job load.

Fails closed: a file that cannot be read, or a value that is not plainly `true`, keeps the logs at the site.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nvflare.apis.workspace import Workspace

ALLOW_VARIABLE = "allow_log_streaming"
_STOCK_PREFIX = "nvflare.app_common.logging."
_ALLOW_LIST, _ENFORCEMENT = "class_allow_list", "class_list_enforcement_mode"


def read_resources(workspace: Workspace) -> dict[str, Any]:
    """The site's resources.json (or its default).

    Raises:
        ValueError, OSError: if it cannot be read.
    """
    path = workspace.get_resources_file_path()
    if not path:
        return {}
    resources = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(resources, dict):
        raise ValueError(f"{path}: an object is wanted at the top level")
    return resources


def refusal(workspace: Workspace) -> str:
    """Why no log may leave this site; empty if they may."""
    try:
        value = read_resources(workspace).get(ALLOW_VARIABLE, True)
    except (OSError, ValueError) as error:
        return f"the site's resources.json cannot be read: {error}"
    return "" if value is True else f"the site does not allow it ({ALLOW_VARIABLE} is {json.dumps(value)})"


def class_allowed(workspace: Workspace, path: str, byoc: bool) -> bool:
    """Whether the runtime will let a job at this site load the class at dotted `path`.

    The rule is the runtime's (`ComponentPathAuthorizer`, since 2.8.3): jobs with custom code are not checked; otherwise an entry
    that ends with a dot allows what begins with it, any other allows itself.
    """
    if byoc:
        return True
    try:
        from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
    except ImportError:
        return True  # a runtime without the rule
    try:
        ComponentPathAuthorizer().authorize_component_config({"path": path}, workspace=workspace)
    except (
        Exception
    ):  # the runtime's own refusal, or a policy it cannot read: either way the class would not load
        return False
    return True


def stock_components(workspace: Workspace) -> list[str]:
    """Paths of the runtime's own log streaming components in the site's resources, which would work beside ours."""
    try:
        components = read_resources(workspace).get("components") or []
    except (OSError, ValueError):
        return []
    paths = [
        str(entry.get("path") or entry.get("name") or "") for entry in components if isinstance(entry, dict)
    ]
    return [path for path in paths if path.startswith(_STOCK_PREFIX)]
