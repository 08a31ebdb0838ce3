"""`--schema`: a command's arguments as JSON, in the form that the runtime's own commands print."""

from __future__ import annotations

import inspect
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.models import OptionInfo

from nvflare_logstream.cli import PROGRAM

_TYPES = {bool: "boolean", int: "integer", float: "number", Path: "path"}


def schema_of(name: str) -> dict[str, Any]:
    """Describe the command `name`, which is a function in the module of the same name."""
    module = import_module(f"nvflare_logstream.cli.{name}")
    command = getattr(module, name)
    parameters = inspect.signature(command, eval_str=True).parameters
    modes = _choices(parameters["form"].annotation) if "form" in parameters else ["text"]
    return {
        "command": f"{PROGRAM} {name}",
        "description": inspect.getdoc(command),
        "args": [_argument(parameter) for parameter in parameters.values()],
        "examples": list(module.EXAMPLES),
        "streaming": "jsonl" in modes,
        "output_modes": modes,
        "mutating": getattr(module, "MUTATING", False),
        "idempotent": getattr(module, "IDEMPOTENT", True),
        "retry_token": {"supported": False},
    }


def _argument(parameter: inspect.Parameter) -> dict[str, Any]:
    kind, info = get_args(parameter.annotation)
    # In an annotation, what typer keeps as the option's default is the first of its names.
    declared = (info.default, *(info.param_decls or ())) if isinstance(info, OptionInfo) else ()
    pairs = [name.split("/") for name in declared if isinstance(name, str)]
    names = [pair[0] for pair in pairs]
    kinds = [entry for entry in get_args(kind) or (kind,) if entry is not type(None)]
    required = parameter.default is inspect.Parameter.empty
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    entry: dict[str, Any] = {
        "name": next((name for name in names if name.startswith("--")), parameter.name),
        "type": _TYPES.get(kinds[0], "string") if isinstance(kinds[0], type) else "string",
        "required": required,
        "description": info.help or "",
        "default": None if required else default,
    }
    if choices := _choices(parameter.annotation):
        entry["choices"] = choices
    if len(names) > 1:
        entry["aliases"] = [name for name in names if name != entry["name"]]
    if negations := [pair[1] for pair in pairs if pair[1:]]:
        entry["negations"] = negations
    several = list in (get_origin(kind), get_origin(kinds[0]))
    if names and several:
        entry["repeatable"] = True  # one value each time: `nargs` is for several values of one option
    if not names and several:
        entry["nargs"] = "+" if required else "*"
    elif not names and not required:
        entry["nargs"] = "?"
    return entry


def _choices(annotation: Any) -> list[str]:
    kind = get_args(annotation)[0]
    return [member.value for member in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []
