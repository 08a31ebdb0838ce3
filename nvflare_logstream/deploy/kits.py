"""What stands in a directory that somebody names: one start-up kit, or those of a whole federation.

A start-up kit and a site's workspace look the same: the runtime puts its jobs beside `startup/` and `local/`.
The runtime's `nvflare poc prepare` and `nvflare provision` make `<workspace>/<project>/prod_NN/<kit>`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nvflare_logstream.errors import KitError
from nvflare_logstream.names import is_site
from nvflare_logstream.words import Word

RESOURCES = "resources.json"
# In the order in which the runtime looks for them (`ConfigFormat`), each in all of `local/`.
_RESOURCES_NAMES = tuple(
    f"resources.{ending}{default}"
    for default in ("", ".default")
    for ending in ("json", "conf", "yml", "yaml")
)
_EXTRA_PATTERNS = ("*__resources.json", "*__p_resources.json")  # what the parent process loads besides
_PROVISIONED = re.compile(r"prod_\d+")
_UID = re.compile(r"\suid=(\S+)")
_SCRIPT_BYTES = 1 << 16


class Role(Word):
    """Whose start-up kit it is."""

    CLIENT = "client"
    SERVER = "server"
    RELAY = "relay"
    ADMIN = "admin"
    UNKNOWN = "unknown"  # a kit of which nobody can say it


_ROLE_FILES = {
    "fed_server.json": Role.SERVER,
    "fed_client.json": Role.CLIENT,
    "fed_relay.json": Role.RELAY,
    "fed_admin.json": Role.ADMIN,
}
_UNPACK = "name that of a start-up kit, and unpack an archive first"
_LOOKED_FOR = "startup/fed_server.json, fed_client.json, fed_relay.json or fed_admin.json"


@dataclass(frozen=True)
class Place:
    """One start-up kit, or the workspace that a process runs in.

    Attributes:
        role: whose it is.
        name: the site's name as its start script gives it, else the directory's.
        root: the directory that holds `startup/` and `local/`; absolute.
        resources: the resources file that the runtime loads; None where there is none, as in the kits of
            admins and relays.
        problem: why it cannot be used as it is; empty if it can.
    """

    role: Role
    name: str
    root: Path
    resources: Path | None = None
    problem: str = ""

    @property
    def title(self) -> str:
        """Its name for people, with its role where the name does not say it."""
        return self.name if self.role in (self.name, Role.UNKNOWN) else f"{self.name} ({self.role})"

    @property
    def startup(self) -> Path:
        """The directory of the keys and start scripts."""
        return self.root / "startup"

    @property
    def local(self) -> Path:
        """The directory of the site's own settings."""
        return self.root / "local"

    @property
    def own_resources(self) -> Path:
        """Where the site's own resources file belongs, which counts more than the default one."""
        return self.local / RESOURCES

    @property
    def start_script(self) -> Path:
        """The script that runs Python; `start.sh` calls it. It need not exist."""
        return self.startup / ("fl_admin.sh" if self.role is Role.ADMIN else "sub_start.sh")

    @property
    def is_json(self) -> bool:
        """Whether `resources` is JSON: other formats cannot be edited here."""
        return self.resources is not None and ".json" in self.resources.suffixes

    def extra_resources(self) -> tuple[Path, ...]:
        """Further files whose components the runtime adds in the parent process."""
        found = (
            directory.glob(pattern) for directory in (self.startup, self.local) for pattern in _EXTRA_PATTERNS
        )
        return tuple(sorted({path for paths in found for path in paths}))


def find_places(directory: Path) -> tuple[Place, ...]:
    """Every start-up kit that `directory` stands for, the server's first, then by name.

    Of several kits, one that is damaged or cannot be read is among them, with its `problem`.

    Args:
        directory: a start-up kit, the workspace of a site or the server, a directory of them (`prod_00`), a
            project with one such directory, or a POC workspace with one such project.

    Raises:
        KitError: if it is none of these, nothing of it can be used, or it holds several provisionings to
            choose from.
    """
    directory = Path(directory).absolute()
    try:
        if not directory.is_dir():
            what = f"is not a directory; {_UNPACK}" if directory.exists() else "does not exist"
            raise KitError(f"{directory}: {what}")
        if place := _place(directory):
            places: tuple[Place, ...] = (place,)
        elif directory.name in ("startup", "local") and (place := _place(directory.parent)):
            places = (place,)
        else:
            places = _kits_below(directory)
    except OSError as error:
        raise KitError(_why(directory, error)) from error
    if all(place.problem for place in places):
        raise KitError("; ".join(place.problem for place in places))
    return places


def _kits_below(directory: Path) -> tuple[Place, ...]:
    places = _places_in(directory)
    if not all(place.problem for place in places):
        return places
    provisioned = _provisioned_in(directory) or [
        path for project in _directories(directory) for path in _provisioned_in(project)
    ]
    if not provisioned:
        if places:
            return places
        raise KitError(
            f"{directory}: neither a start-up kit ({_LOOKED_FOR}), nor a directory of kits, nor a project "
            "with a prod_NN directory, nor a POC workspace with such a project"
        )
    if provisioned[1:]:
        names = ", ".join(str(path.relative_to(directory)) for path in provisioned)
        raise KitError(f"{directory}: holds several provisionings ({names}); name one of them")
    if places := _places_in(provisioned[0]):
        return places
    raise KitError(f"{provisioned[0]}: holds no start-up kit ({_LOOKED_FOR})")


def _provisioned_in(directory: Path) -> list[Path]:
    return [path for path in _directories(directory) if _PROVISIONED.fullmatch(path.name)]


def _places_in(directory: Path) -> tuple[Place, ...]:
    places = [place for path in sorted(directory.iterdir()) if (place := _place_or_problem(path))]
    return tuple(sorted(places, key=lambda place: (place.role is not Role.SERVER, place.name)))


def _place_or_problem(root: Path) -> Place | None:
    """The kit in `root`, also one that is damaged or cannot be read; None if there is none."""
    startup = root / "startup"
    try:
        if place := _place(root):
            return place
        hidden = [path for path in (root, startup) if path.is_dir() and not _may_be_read(path)]
        if not (hidden or startup.is_dir()):
            return None
        problem = f"{startup}: it holds no {_LOOKED_FOR}; put the kit there anew"
        if hidden:
            problem = f"{hidden[0]}: this user may not look into it; run this as one who may"
    except OSError as error:
        problem = _why(root, error)
    return Place(Role.UNKNOWN, root.name, root, problem=problem)


def _may_be_read(directory: Path) -> bool:
    return os.access(directory, os.R_OK | os.X_OK)


def _why(path: Path, error: OSError) -> str:
    return f"{error.filename or path}: {error.strerror or error}"


def _directories(directory: Path) -> Iterable[Path]:
    """The directories in a directory that may be read; others are not ours to look at."""
    return sorted(path for path in directory.iterdir() if path.is_dir() and _may_be_read(path))


def _place(root: Path) -> Place | None:
    """The kit in `root`; None if there is none.

    Raises:
        OSError: if it cannot be read.
    """
    for name, role in _ROLE_FILES.items():
        if (root / "startup" / name).is_file():
            place = Place(role, root.name, root)
            has_resources = role in (Role.CLIENT, Role.SERVER)
            return Place(role, _name(place), root, _resources(place.local) if has_resources else None)
    return None


def _name(place: Place) -> str:
    """The site's name: the runtime takes it from the start script's arguments."""
    with suppress(OSError):  # without the script, the directory's name has to do
        if place.role in (Role.CLIENT, Role.RELAY) and place.start_script.is_file():
            with place.start_script.open(encoding="utf-8", errors="replace") as script:
                found = _UID.search(script.read(_SCRIPT_BYTES))
                if found and is_site(name := found[1].strip("'\"")):
                    return name
    return place.name


def _resources(local: Path) -> Path | None:
    """The resources file that the runtime loads.

    It wants one of two in `local/` itself, and then takes the first of all its formats in any directory
    below: so a `resources.json` that somebody put away in `local/old/` counts more than the default one.
    """
    if os.path.lexists(local / RESOURCES):  # whatever it is: who reads it says why it is no good
        return local / RESOURCES
    if not any((local / name).exists() for name in (RESOURCES, f"{RESOURCES}.default")):
        return None
    trees = list(os.walk(local))
    return next(
        (Path(tree, name) for name in _RESOURCES_NAMES for tree, _, files in trees if name in files), None
    )
