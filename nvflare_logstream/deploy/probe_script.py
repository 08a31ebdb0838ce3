"""What the doctor has a site's own Python run: which versions are there, and do our components load?

It runs by `python -c` and stands alone: there, this package may be missing, or be another release. It is
asked by JSON on stdin, answers by one line on stdout, and changes nothing.
"""

from __future__ import annotations

import importlib
import inspect
import json
import platform
import sys
from difflib import get_close_matches
from typing import Any

MARK = "nvflare_logstream-probe:"  # before the answer: what is imported may print lines of its own


class _Site:
    """As much of a workspace as the runtime's check of a class asks for."""

    def __init__(self, resources: str):
        self._resources = resources

    def get_resources_file_path(self) -> str:
        """Where the site's resources are."""
        return self._resources


def problem_of(path: str, args: dict[str, Any]) -> str:
    """Why a component cannot be made; empty if it can."""
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
        kind = getattr(module, name, None)
        if kind is None:
            meant = get_close_matches(name, getattr(module, "__all__", ()), 1)
            return "there is no such class" + (f"; did you mean {module_name}.{meant[0]}?" if meant else "")
        parameters = inspect.signature(kind).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        for argument in () if takes_any else args:
            if argument not in parameters:
                meant = get_close_matches(argument, parameters, 1)
                hint = f"did you mean {meant[0]}?" if meant else f"it has {', '.join(parameters)}"
                return f"{argument}: there is no such argument; {hint}"
        kind(**args)
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


def refusal_of(path: str, resources: str) -> str:
    """Why the runtime would not let a job load a class, by its own rule; empty if it would or has no rule."""
    try:
        rule = importlib.import_module("nvflare.app_common.widgets.component_path_authorizer")
    except ImportError:
        return ""
    try:
        rule.ComponentPathAuthorizer().authorize_component_config({"path": path}, workspace=_Site(resources))
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


def look(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to a question: `components` with path and args, `resources`, `job_class`."""
    answer: dict[str, Any] = {
        "python": platform.python_version(),
        "runtime": "",
        "package": "",
        "protocol": 0,
    }
    try:
        answer["runtime"] = importlib.import_module("nvflare").__version__
    except Exception as error:
        answer["runtime_problem"] = f"{type(error).__name__}: {error}"
        return answer
    try:
        answer["package"] = importlib.import_module("nvflare_logstream").__version__
        answer["protocol"] = importlib.import_module("nvflare_logstream.wire.message").PROTOCOL_VERSION
        runtime = importlib.import_module("nvflare_logstream.flare.runtime")
        unsupported = getattr(runtime, "unsupported", None)  # a release up to 0.1.0 has none
        answer["unsupported"] = unsupported() if unsupported else ""
    except Exception as error:
        answer["package_problem"] = f"{type(error).__name__}: {error}"
        return answer
    if not answer["unsupported"]:
        answer["components"] = [problem_of(entry["path"], entry["args"]) for entry in question["components"]]
        if question["resources"]:
            answer["refusal"] = refusal_of(question["job_class"], question["resources"])
    return answer


if __name__ == "__main__":
    print("\n" + MARK + json.dumps(look(json.load(sys.stdin))), flush=True)
