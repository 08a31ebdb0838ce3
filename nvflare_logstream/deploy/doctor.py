"""Looks a federation's start-up kits over, each with all checks that are for its role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from nvflare_logstream.deploy.check_machine import check_disk, check_open_files, check_store
from nvflare_logstream.deploy.check_python import (
    check_allow_list,
    check_arguments,
    check_package,
    check_restart,
    check_together,
)
from nvflare_logstream.deploy.check_resources import (
    check_components,
    check_file,
    check_intervals,
    check_keys,
    check_policy,
    idle_timeout_of,
)
from nvflare_logstream.deploy.check_tls import check_certificates, check_connection
from nvflare_logstream.deploy.findings import Finding, Report, Severity
from nvflare_logstream.deploy.interpreter import Interpreter, find_interpreter
from nvflare_logstream.deploy.kits import Place, Role
from nvflare_logstream.deploy.probe import Probe, probe
from nvflare_logstream.deploy.resources_read import Resources, read_resources

Ask = Callable[[Place, Resources, Interpreter], Probe]


def diagnose(places: Iterable[Place], ask: Ask = probe) -> list[Finding]:
    """All findings about these places: those of each, then what two of them disagree about.

    Args:
        places: start-up kits or workspaces; those of admins and relays need nothing of this package.
        ask: runs a place's Python.
    """
    places = list(places)
    names = Counter(place.name for place in places)
    findings: list[Finding] = []
    probes: dict[str, Probe] = {}
    read = [(place, read_resources(place)) for place in places if place.role in (Role.CLIENT, Role.SERVER)]
    server = next((pair for pair in read if pair[0].role is Role.SERVER), None)
    idle_timeout = idle_timeout_of(server[1]) if server else None
    for place in places:
        if place.problem:
            findings.append(Finding(_shown(place, names), "kit", Severity.ERROR, place.problem))
    for place, resources in read:
        name = _shown(place, names)
        interpreter = find_interpreter(place)
        told = probes[name] = ask(place, resources, interpreter) if interpreter.path else Probe()
        reports = [check_package(place, interpreter, told), check_file(place, resources)]
        if place.is_json and not resources.problems:
            reports += _of_resources(place, resources, told, idle_timeout)
        reports += [check_restart(place, interpreter), *_of_machine(place, resources, interpreter)]
        findings += [finding._replace(place=name) for report in reports for finding in report.findings]
    together = check_together(probes, _shown(server[0], names) if server else "")
    return findings + [finding for report in together for finding in report.findings]


def _shown(place: Place, names: Counter[str]) -> str:
    """A place's name; of two with the same one, the directory tells which it is."""
    return place.name if names[place.name] == 1 else f"{place.name} ({place.root})"


def _of_resources(
    place: Place, resources: Resources, told: Probe, idle_timeout: float | None
) -> Iterator[Report]:
    yield check_components(place, resources)
    yield check_keys(place, resources)
    yield check_arguments(place, told)
    yield check_allow_list(place, told)
    if place.role is Role.CLIENT:
        yield check_policy(place, resources)
        yield check_intervals(place, resources, idle_timeout)


def _of_machine(place: Place, resources: Resources, interpreter: Interpreter) -> Iterator[Report]:
    if place.role is Role.SERVER:
        yield check_store(place, resources)
    yield check_disk(place, resources)
    yield check_open_files(place, interpreter)
    yield check_certificates(place)
    yield check_connection(place)
