"""A site's resources as the doctor reads them: whatever the files hold, it does not raise."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nvflare_logstream.deploy.components import PACKAGE, class_of, is_disabled, is_stock
from nvflare_logstream.deploy.kits import Place
from nvflare_logstream.deploy.reading import read_file

_MOST_BYTES = 16 << 20


class Component(NamedTuple):
    """One entry of a resources file.

    Attributes:
        file: the name of the file that it stands in.
        path: the dotted path of its class.
        entry: all of it.
    """

    file: str
    path: str
    entry: dict[str, Any]

    @property
    def class_name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def is_ours(self) -> bool:
        """Whether the class is one of this package."""
        return self.path.startswith(PACKAGE)

    @property
    def is_stock(self) -> bool:
        """Whether it is one of the runtime's own log components."""
        return is_stock(self.entry)

    @property
    def args(self) -> dict[str, Any]:
        """The arguments; empty where there are none that can be used."""
        args = self.entry.get("args")
        return args if isinstance(args, dict) else {}


@dataclass
class Resources:
    """What stands in a place's resources files.

    Attributes:
        values: the top level of the file that counts.
        components: the entries of all files that are not disabled.
        repeated: keys that stand twice in one object.
        problems: what cannot be read, in words.
    """

    values: dict[str, Any] = field(default_factory=dict)
    components: list[Component] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def ours(self, class_name: str) -> list[Component]:
        """The entries of one class of this package."""
        return [entry for entry in self.components if entry.is_ours and entry.class_name == class_name]


def read_resources(place: Place) -> Resources:
    """Read the file that counts, if it is JSON, and what the runtime adds to it in a parent process."""
    resources = Resources()
    if place.resources is not None and place.is_json:
        resources.values = _read(place.resources, resources)
    for path in place.extra_resources():
        _read(path, resources)
    return resources


def _read(path: Path, resources: Resources) -> dict[str, Any]:
    def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        resources.repeated += sorted({name for name in names if names.count(name) > 1})
        return dict(pairs)

    try:
        data = read_file(path, _MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"at most {_MOST_BYTES >> 20} MiB are allowed")
        values = json.loads(data.decode(), object_pairs_hook=unrepeated)
        if not isinstance(values, dict):
            raise ValueError("an object is wanted at the top level")
    except RecursionError:
        resources.problems.append(f"{path.name}: it is nested too deeply")
        return {}
    except (OSError, ValueError) as error:
        resources.problems.append(f"{path.name}: {getattr(error, 'strerror', None) or error}")
        return {}
    entries = values.get("components", [])
    if not isinstance(entries, list):
        resources.problems.append(f"{path.name}: components: a list is wanted")
        return values
    for entry in entries:
        if isinstance(entry, dict) and not is_disabled(entry):
            resources.components.append(Component(path.name, class_of(entry), entry))
    return values
