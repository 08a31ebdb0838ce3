"""What a job's author calls: log streaming put into a job or a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

from nvflare.apis.fl_constant import WorkspaceConstants
from nvflare.apis.job_def import SERVER_SITE_NAME
from nvflare.job_config.api import FedJob

from nvflare_logstream import JobLogReceiver, JobLogStreamer
from nvflare_logstream.errors import ArgumentError, LogStreamError
from nvflare_logstream.flare import runtime
from nvflare_logstream.names import DEFAULT_LOG_FILES, check_log_files

_PACKAGE = "nvflare_logstream"
_ALLOW_LIST = "class_allow_list"
_STOCK_PREFIX = "nvflare.app_common.logging."
_NO_CLIENTS = "a job that has clients: add their executors first, then call this"


def enable_log_streaming(
    job_or_recipe: Any, *, log_files: Sequence[str] | None = None, server: bool = True
) -> None:
    """Have a job bring its log streaming along: a streamer for every client, and a receiver for the server.

    Call it last, right before the job is exported or run: clients, `set_per_site_config` and
    `set_app_packages` come before. Called again, it adds what is missing by then, such as files, or clients
    that came meanwhile: files add up. The runtime's own log components make way for ours, which stream their
    files too.

    The package's source does not travel with the job: a site without the package fails the job, as does one
    whose class_allow_list lacks "nvflare_logstream." unless the job brings code of its own.

    Args:
        job_or_recipe: a `FedJob` or a recipe.
        log_files: names of the files in the job's log directory; default log.txt and error_log.txt.
        server: bring a receiver along, which does nothing where the server has one in its resources.json.
            With False the job's server config stays as it is.

    Raises:
        ArgumentError: if it is no job or has no clients yet, or if a name in `log_files` is not allowed.
        LogStreamError: if our components do not work under the runtime that is installed here.
    """
    if problem := getattr(JobLogStreamer, "problem", ""):
        raise LogStreamError(problem)
    job = runtime.job_of(job_or_recipe)
    if job is None:
        kind = type(job_or_recipe).__name__
        raise ArgumentError("job_or_recipe", kind, "a FedJob or a recipe of the runtime")
    files = DEFAULT_LOG_FILES if log_files is None else check_log_files("log_files", log_files)
    clients = [target for target in job._deploy_map if target != SERVER_SITE_NAME]
    if not clients:
        # One made here for all clients would take the place of those that the author adds for single ones.
        raise ArgumentError("job_or_recipe", job.name, _NO_CLIENTS)
    for target in clients:
        _put_streamer(job, target, files)
    if server:
        _put_receiver(job)
    if _PACKAGE not in job.job.app_packages:
        job.set_app_packages([*job.job.app_packages, _PACKAGE])
    job.simulator_run = MethodType(_simulator_run, job)


def _put_streamer(job: FedJob, target: str, files: Iterable[str]) -> None:
    """Have a client app stream `files` and what the runtime's own streamers in it do, each once."""
    stock = _stock(job, target, "JobLogStreamer")
    names = [part._log_file_name for part in stock.values()]
    wanted = [*(check_log_files("log_file_name", names) if names else ()), *files]
    _take_out(job, target, stock)
    streamers = [part for part in _components(job, target).values() if isinstance(part, JobLogStreamer)]
    streamed = {file for streamer in streamers for file in streamer.files}
    missing = [file for file in dict.fromkeys(wanted) if file not in streamed]
    if missing:
        job.to(JobLogStreamer(missing), target, id="log_streamer")


def _put_receiver(job: FedJob) -> None:
    """Have the server app receive logs, by one component of ours."""
    _take_out(job, SERVER_SITE_NAME, _stock(job, SERVER_SITE_NAME, "JobLogReceiver"))
    parts = _components(job, SERVER_SITE_NAME).values()
    if not any(isinstance(part, JobLogReceiver) for part in parts):
        job.to_server(JobLogReceiver(), id="log_receiver")


def _components(job: FedJob, target: str) -> dict[str, Any]:
    """The components of an app by their ids, as it keeps them; empty if there is no such app yet."""
    app = job._deploy_map.get(target)
    components: dict[str, Any] = app.app_config.components if app else {}
    return components


def _stock(job: FedJob, target: str, name: str) -> dict[str, Any]:
    """The runtime's own components of a class, by its name, in an app; by their ids."""
    return {cid: part for cid, part in _components(job, target).items() if _is_stock(part, name)}


def _is_stock(part: object, name: str) -> bool:
    bases = type(part).__mro__
    return any(base.__module__.startswith(_STOCK_PREFIX) and base.__name__ == name for base in bases)


def _take_out(job: FedJob, target: str, components: dict[str, Any]) -> None:
    for cid, part in components.items():
        app = job._deploy_map[target]
        del app.app_config.components[cid]
        app.app_config.handlers.remove(part)
        app._oid_to_cid.pop(id(part), None)


def _simulator_run(job: FedJob, workspace: str, *args: Any, **kwargs: Any) -> Any:
    """`FedJob.simulator_run`, in a workspace that admits the package's classes."""
    _admit(Path(workspace) / WorkspaceConstants.SITE_FOLDER_NAME)
    return type(job).simulator_run(job, workspace, *args, **kwargs)


def _admit(local: Path) -> None:
    """Let jobs without code of their own load our classes in a simulator's workspace.

    What its resources.json admits was written by somebody and stays as it is; the default is the runtime's.
    """
    usual = runtime.default_class_allow_list()
    own = local / WorkspaceConstants.RESOURCES_CONFIG
    path = own if own.exists() else local / WorkspaceConstants.DEFAULT_RESOURCES_CONFIG
    resources: dict[str, Any] = {"format_version": 2}
    if path.exists():
        try:
            resources = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return  # the runtime says what is wrong with it
    admitted = resources.get(_ALLOW_LIST, usual) if isinstance(resources, dict) else None
    if not usual or not isinstance(admitted, list) or f"{_PACKAGE}." in admitted:
        return
    if path == own and _ALLOW_LIST in resources:
        return
    local.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**resources, _ALLOW_LIST: [*admitted, f"{_PACKAGE}."]}, indent=2))
