"""Checks of a site's or the server's resources: which components, what the site allows, misspelt keys."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from nvflare_logstream.deploy.components import COMPONENTS, is_number
from nvflare_logstream.deploy.findings import Report
from nvflare_logstream.deploy.kits import Place, Role
from nvflare_logstream.deploy.resources import ALLOW_KEY, LIST_KEY
from nvflare_logstream.deploy.resources_read import Resources
from nvflare_logstream.errors import show

_OUR_KEYS = (ALLOW_KEY, LIST_KEY, "class_list_enforcement_mode", "components")
_ENTRY_KEYS = ("id", "path", "class_path", "name", "args", "disabled", "config_type", "lazy_instantiate")
_ALIKE = 0.8  # of difflib's measure, from which on a key is taken for a misspelt one
_IDLE_TIMEOUT = 30.0  # seconds; the receiver's default
_LIVENESS = 10.0  # seconds; the streamer's default
_DEPTH = 20  # of objects that are searched for a key in the wrong place
_OUR_CLASSES = tuple(name for _, name in COMPONENTS.values())


def check_file(place: Place, resources: Resources) -> Report:
    """Whether the resources can be read."""
    report = Report(place.name, "resources")
    if place.resources is None:
        name = place.own_resources.name
        report.error(
            f"there is neither {name} nor {name}.default in {place.local}",
            "take them from the start-up kit that the federation's administrator sent",
        )
    elif not place.is_json:
        report.warning(
            f"{place.resources.name} is not JSON: what stands in it was not looked at",
            f"compare it by hand with what `nvflare-logstream setup {place.root}` says to paste",
        )
    for problem in resources.problems:
        report.error(f"{problem}: all job logs stay here", "correct the file")
    for name in dict.fromkeys(resources.repeated):
        report.error(f"{show(name)} stands twice in one object of the resources", "leave one of them")
    return report


def check_components(place: Place, resources: Resources) -> Report:
    """Whether our component is there, once, and the runtime's own is not beside it."""
    report = Report(place.name, "components")
    wanted = COMPONENTS[place.role][1]
    setup = f"`nvflare-logstream setup {place.root}` does it; then restart"
    ours = resources.ours(wanted)
    stock = [entry for entry in resources.components if entry.is_stock]
    for entry in stock:
        if ours:
            report.error(
                f"{entry.file} lists {entry.path} beside ours: both would do the same work",
                f"remove the runtime's own; {setup}",
            )
    if not ours:
        others = [entry for entry in resources.components if entry.class_name == wanted]
        instead = "".join(f"; {entry.file} lists {entry.path} instead" for entry in others[:1])
        report.error(f"no component is nvflare_logstream.{wanted}{instead}", f"add it; {setup}")
    elif ours[1:] and place.role is Role.SERVER:
        report.error(f"{len(ours)} entries are {wanted}: only one of them works", "leave one of them")
    elif not stock:
        report.ok(f"{wanted} is in {ours[0].file}")
    for entry in resources.components:
        if entry.is_ours and entry.class_name != wanted and entry.class_name in _OUR_CLASSES:
            report.error(f"{entry.file} lists {entry.path}, which has no work at a {place.role}", "remove it")
    return report


def check_policy(place: Place, resources: Resources) -> Report:
    """Whether the site lets its logs out."""
    report = Report(place.name, "policy")
    value = resources.values.get(ALLOW_KEY, True)
    if value is False:
        report.warning(
            f"no job log leaves this site: {ALLOW_KEY} is false",
            f"set {ALLOW_KEY} to true if that is not meant",
        )
    elif value is not True:
        report.error(
            f"{ALLOW_KEY} is {show(value)}, which counts as false: no job log leaves this site",
            f"write {ALLOW_KEY}: true or {ALLOW_KEY}: false, without quotes",
        )
    elif not resources.problems:
        report.ok("job logs may leave this site")
    return report


def check_keys(place: Place, resources: Resources) -> Report:
    """Whether a key is misspelt, or stands where it has no effect."""
    report = Report(place.name, "keys")
    for key in resources.values:
        if meant := _meant(key, _OUR_KEYS):
            report.error(f"{show(key)} in the resources has no effect", f"it is spelt {meant}")
    for where in _inside(resources.values, ALLOW_KEY):
        report.error(
            f"{ALLOW_KEY} inside {show(where)} has no effect", "move it to the top level of the file"
        )
    for component in resources.components:
        if not component.is_ours:
            continue
        for key in component.entry:
            if key not in _ENTRY_KEYS:
                meant = _meant(key, _ENTRY_KEYS, 0.5)
                advice = f"it is spelt {meant}" if meant else "arguments stand in args; remove it"
                report.error(f"{show(key)} in the entry of {component.path} has no effect", advice)
        if "args" in component.entry and not isinstance(component.entry["args"], dict):
            report.error(f"args of {component.path} is no object", 'write "args": {"name": value, …}')
    return report


def check_intervals(place: Place, resources: Resources, idle_timeout: float | None = None) -> Report:
    """Whether a site says that it is alive before the server takes it for silent.

    Args:
        place: a client.
        resources: its.
        idle_timeout: the server's, where it is known; else its default counts.
    """
    report = Report(place.name, "intervals")
    timeout = _IDLE_TIMEOUT if idle_timeout is None else idle_timeout
    own = [entry.args.get("liveness_interval", _LIVENESS) for entry in resources.ours("SiteLogStreamer")]
    liveness = min((value for value in own if is_number(value)), default=0.0)
    if timeout and liveness >= timeout:
        default = " (its default)" if idle_timeout is None else ""
        report.error(
            f"liveness_interval is {liveness:g} s: the server calls the site silent after an idle_timeout "
            f"of {timeout:g} s{default}",
            f"set liveness_interval below {timeout / 2:g}, or raise idle_timeout at the server",
        )
    return report


def idle_timeout_of(resources: Resources) -> float:
    """The server's idle_timeout in seconds."""
    values = (entry.args.get("idle_timeout", _IDLE_TIMEOUT) for entry in resources.ours("JobLogReceiver"))
    return next((float(value) for value in values if is_number(value)), _IDLE_TIMEOUT)


def _meant(key: str, known: Iterable[str], alike: float = _ALIKE) -> str:
    """The key that was meant; empty if `key` is one, or like none."""
    known = tuple(known)
    plain = key.lower().replace("-", "_").replace(" ", "_")
    return "" if key in known else next(iter(get_close_matches(plain, known, 1, alike)), "")


def _inside(values: dict[str, Any], wanted: str) -> list[str]:
    """The top-level keys under which `wanted` stands somewhere."""

    def holds(value: object, depth: int) -> bool:
        if isinstance(value, dict):
            return wanted in value or (depth > 0 and any(holds(inner, depth - 1) for inner in value.values()))
        return isinstance(value, list) and depth > 0 and any(holds(inner, depth - 1) for inner in value)

    return [key for key, value in values.items() if holds(value, _DEPTH)]
