"""Checks of what a place's own Python has: versions, and whether our components load, also in jobs."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from nvflare_logstream.deploy.findings import Report
from nvflare_logstream.deploy.interpreter import Interpreter
from nvflare_logstream.deploy.kits import Place, Role
from nvflare_logstream.deploy.probe import Probe
from nvflare_logstream.deploy.resources import LIST_ENTRY, LIST_KEY

_CLOCK = 5.0  # seconds by which the system may be wrong about when a process was started


def check_package(place: Place, interpreter: Interpreter, probe: Probe) -> Report:
    """Whether the Python of the start script has the runtime and this package, in versions that fit."""
    report = Report(place.name, "package")
    python = interpreter.path
    if not python:
        report.error(
            f"{interpreter.named}, which {place.start_script.name} starts, is not on the PATH",
            "run the doctor in the environment in which the start script runs",
        )
    elif probe.problem:
        report.error(
            f"{python} cannot be asked what it has: {probe.problem}", f"try `{python} -c 'import nvflare'`"
        )
    elif probe.runtime_problem:
        report.error(
            f"{python} cannot import nvflare ({probe.runtime_problem})",
            "run the doctor in the environment in which the start script runs, or install nvflare there",
        )
    elif probe.package_problem:
        report.error(
            f"{python} cannot import nvflare_logstream ({probe.package_problem})",
            f"`{python} -m pip install nvflare-logstream`",
        )
    elif probe.unsupported:
        report.error(
            f"nvflare_logstream {probe.package} does nothing there: {probe.unsupported}",
            "change one of the two versions",
        )
    else:
        report.ok(versions_of(probe) + f", Python {probe.python} ({python})")
    if not interpreter.sure:
        report.warning(
            f"{place.start_script.name} prepares its environment in a way that cannot be followed here",
            "run the doctor while the site runs, or in that environment",
        )
    return report


def versions_of(probe: Probe) -> str:
    """The versions of package, protocol and runtime, in words."""
    return f"nvflare_logstream {probe.package}, protocol {probe.protocol}, nvflare {probe.runtime}"


def check_arguments(place: Place, probe: Probe) -> Report:
    """Whether our components can be made from their entries, as the site's own Python sees it."""
    report = Report(place.name, "arguments")
    for component, problem in probe.components:
        if problem:
            report.error(
                f"{component.path} in {component.file} cannot be made: {problem}",
                f"correct it: as it is, this {place.role} does not start",
            )
    return report


def check_allow_list(place: Place, probe: Probe) -> Report:
    """Whether the runtime lets jobs without custom code load our streamer, by its own rule."""
    report = Report(place.name, "allow_list")
    if place.role is not Role.CLIENT or not probe.package or probe.package_problem:
        return report
    if probe.refusal:
        report.error(
            f"jobs without custom code may not load our streamer: {probe.refusal}",
            f'add "{LIST_ENTRY}" to {LIST_KEY}: `nvflare-logstream setup {place.root}` does it',
        )
    return report


def check_restart(place: Place, interpreter: Interpreter) -> Report:
    """Whether the process that runs has read the resources as they are now."""
    report = Report(place.name, "restart")
    if interpreter.process is None or place.resources is None:
        return report
    try:
        if place.resources.stat().st_mtime > interpreter.process.create_time() + _CLOCK:
            report.warning(
                f"{place.resources.name} was changed after this {place.role} was started", "restart it"
            )
    except (OSError, psutil.Error):
        pass  # it has just ended
    return report


def check_together(probes: Mapping[str, Probe], server: str) -> list[Report]:
    """Whether the sites speak the server's protocol; `server` is the name of its place."""
    reports = []
    wanted = probes[server].protocol if server in probes else 0
    for name, probe in probes.items():
        if wanted and probe.protocol and probe.protocol != wanted:
            report = Report(name, "protocol")
            report.error(
                f"it speaks protocol {probe.protocol}, the server speaks {wanted}",
                "install the same release of nvflare_logstream at both",
            )
            reports.append(report)
    return reports
