"""What differs between versions of the runtime; the other modules of this room ask here.

What an admin's side needs stands in `runtime_admin`, its own log streaming in `runtime_stock`. Seen with
nvflare 2.7.3, 2.8.3 and 2.9.0. Private names that are the same in all of them are used where they are needed.
A job's process imports this module too, so what only a parent needs is imported inside its function.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nvflare
from nvflare.apis.fl_constant import FLContextKey, RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.workspace import Workspace

from nvflare_logstream import __version__
from nvflare_logstream.wire.message import PROTOCOL_VERSION

VERSION: str = nvflare.__version__
SUPPORTED = ("2.7.3", "2.10")  # versions of the runtime: from the first on, below the second
# The command line of every job's process has a word with this in it, and the job's id as a word.
_JOB_PROCESS, _SERVER_JOB_PROCESS = "worker_process", "runner_process"
DEFAULT_STUDY = "default"
_HANDLE_SECONDS, _HANDLE_INTERVAL = 10.0, 0.005  # how long, and how often, a launched process is looked for


def unsupported(version: str = VERSION) -> str:
    """Why this package does nothing under a version of the runtime; empty if it is supported."""
    numbers = [tuple(map(int, re.findall(r"^\d+|(?<=\.)\d+", text))) for text in (version, *SUPPORTED)]
    if numbers[1] <= numbers[0] < numbers[2]:
        return ""
    oldest, below = SUPPORTED
    return f"nvflare {version} is not supported; install one from {oldest} on and below {below}"


def versions() -> str:
    """What runs here, for the line that each component says at its start."""
    return f"nvflare_logstream {__version__}, protocol {PROTOCOL_VERSION}, nvflare {VERSION}"


def job_id_of(fl_ctx: FLContext) -> str:
    """The id of the job that an event of a parent process is about; empty where the event names none.

    The server names it in the event's data since 2.9, the client in the job's meta; at JOB_COMPLETED the
    client also sets CURRENT_JOB_ID.
    """
    for key in (FLContextKey.EVENT_DATA, FLContextKey.JOB_META):
        source = fl_ctx.get_prop(key)
        if isinstance(source, dict) and source.get(JobMetaKey.JOB_ID.value):
            return str(source[JobMetaKey.JOB_ID.value])
    return str(fl_ctx.get_prop(FLContextKey.CURRENT_JOB_ID) or "")


def started_jobs(engine: Any, fl_ctx: FLContext) -> list[str]:
    """The ids of the jobs of which an event of the server says that they have started.

    Before 2.9 the event itself does not say which one it is about, and in 2.7 its context is shared with the
    events of other jobs: then all that run are given.
    """
    if isinstance(fl_ctx.get_prop(FLContextKey.EVENT_DATA), dict):
        return [job_id_of(fl_ctx)]
    return list(engine.run_processes)


def goes_on(engine: Any, job_id: str) -> bool:
    """Whether an aborted job is still under way at the server.

    Before 2.8 the runtime tells of an abort before the job ends; JOB_COMPLETED follows.
    """
    return job_id in engine.job_runner.running_jobs


def has_custom_code(fl_ctx: FLContext) -> bool:
    """Whether the job of an event brings code of its own: the runtime checks no class of such a job."""
    meta = fl_ctx.get_prop(FLContextKey.JOB_META)
    return isinstance(meta, dict) and bool(meta.get("byoc"))


def workspace_of(fl_ctx: FLContext) -> Workspace:
    """The workspace of a client's parent process, which not every event carries as an object."""
    workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
    if isinstance(workspace, Workspace):
        return workspace
    return Workspace(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT), site_name=fl_ctx.get_identity_name())


def class_refusal(workspace: Workspace, path: str) -> str:
    """Why the runtime would not let a job without custom code load the class at `path`; empty if it would.

    The rule is the runtime's own, since 2.8.3: its `ComponentPathAuthorizer` reads the site's resources and
    decides.
    """
    try:
        from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
    except ImportError:
        return ""  # a runtime without the rule
    try:
        ComponentPathAuthorizer().authorize_component_config({"path": path}, workspace=workspace)
    except Exception as error:
        # Its own refusal, or a policy it cannot read: either way the class would not load.
        return str(error) or type(error).__name__
    return ""


def default_class_allow_list() -> list[str]:
    """The classes that a site without a list of its own admits; empty if the runtime has no such rule."""
    try:
        from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
    except ImportError:
        return []
    return list(DEFAULT_CLASS_ALLOW_LIST)


def job_of(job_or_recipe: Any) -> Any:
    """The `FedJob` that somebody gave, or that of a recipe, with its client apps made; None for others.

    Since 2.9 a recipe makes its client apps as late as possible. Before, its job had a public name.
    """
    from nvflare.job_config.api import FedJob

    if isinstance(job_or_recipe, FedJob):
        return job_or_recipe
    prepare = getattr(job_or_recipe, "_ensure_client_apps_prepared", None)
    if prepare:
        prepare()
    jobs = (getattr(job_or_recipe, name, None) for name in ("_job", "job"))
    return next((job for job in jobs if isinstance(job, FedJob)), None)


def site_settings(engine: Any, site: str) -> dict[str, Any]:
    """Top-level keys of a site's resources.json, as the site sent them when it registered (since 2.8)."""
    client = engine.get_client_from_name(site)
    tell = getattr(client, "get_site_config", None)
    return (tell() if tell else None) or {}


def job_directory(engine: Any, job_id: str) -> Path | None:
    """The directory in which the server's job store has a job if it has it; None where it needs none.

    The runtime's own storage keeps each job in a directory below its root.
    """
    try:
        manager = engine.job_def_manager
        storage = engine.get_component(manager.job_store_id)
        uri, above = (os.path.join("/", path) for path in (manager.job_uri(job_id), storage.uri_root or "/"))
        return Path(storage.root_dir, os.path.relpath(uri, above))
    except Exception:  # a storage of another kind, or no name that it would take
        return None


def take_job_handle(engine: Any, job_id: str, take: Callable[[Any], None]) -> None:
    """Call `take` with the launcher's handle of a job's process that a client has just launched.

    Before 2.9 the runtime tells of the launch first and keeps the handle then: a thread looks out for it.
    """
    handle = job_handle(engine, job_id)
    if handle is not None:
        take(handle)
        return

    def look() -> None:
        deadline = time.monotonic() + _HANDLE_SECONDS
        while (found := job_handle(engine, job_id)) is None and time.monotonic() < deadline:
            time.sleep(_HANDLE_INTERVAL)
        if found is not None:
            take(found)

    with suppress(RuntimeError):  # no thread is left: nobody will know how the job ended
        threading.Thread(target=look, name="nvflare_logstream_launch", daemon=True).start()


def job_handle(engine: Any, job_id: str) -> Any:
    """The launcher's handle of a job's process; None if a client's engine has none (yet)."""
    processes = getattr(getattr(engine, "client_executor", None), "run_processes", {})
    return processes.get(job_id, {}).get(RunProcessKey.JOB_HANDLE)


def running_jobs(job_ids: Iterable[str]) -> set[str]:
    """Those of `job_ids` that have a client's process on this machine, also one whose parent has died."""
    return _running(job_ids, _JOB_PROCESS)


def running_server_jobs(job_ids: Iterable[str]) -> set[str]:
    """Those of `job_ids` that have a server's process on this machine, also one whose parent has died."""
    return _running(job_ids, _SERVER_JOB_PROCESS)


def _running(job_ids: Iterable[str], module: str) -> set[str]:
    import psutil

    wanted, running = set(job_ids), set[str]()
    for process in psutil.process_iter(["cmdline"]) if wanted else ():
        words = process.info["cmdline"] or []
        if any(module in word for word in words):
            running |= wanted.intersection(words)
    return running


def send_command(session: Any, command: str, properties: dict[str, Any], seconds: float) -> Any:
    """Send an admin command that the server has `seconds` to answer, and return the map in its reply.

    The public `Session.do_command` does not turn a refusal or a lost connection into an exception.

    Raises:
        Exception: the runtime's own, such as its NoConnection (also where no answer came in time).
    """
    session.set_timeout(seconds)
    return session._get_dict_data(session._do_command(command, enforce_meta=False, props=properties))


def study_of(session: Any) -> str:
    """The study in which a session looks for jobs."""
    return str(getattr(session, "_study", "default"))


def study_of_command(conn: Any) -> str:
    """The study of the session that sent an admin command; a runtime without studies has one for all."""
    from nvflare.fuel.hci.server.constants import ConnProps

    study = getattr(ConnProps, "ACTIVE_STUDY", None)
    return str((study and conn.get_prop(study, "")) or DEFAULT_STUDY)


def study_of_job(meta: dict[str, Any]) -> str:
    """The study that a job was submitted to, by its meta."""
    study = meta.get("study")
    return study if isinstance(study, str) and study else DEFAULT_STUDY


def close_session(session: Any) -> None:
    """Close an admin session; unlike `Session.close` this does not wait for a server that may be gone."""
    session.api.close()
