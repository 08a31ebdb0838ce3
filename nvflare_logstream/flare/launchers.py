"""Which launcher runs a job, what that means for its logs, and whether it still runs.

| launcher | the parent sees the job's files | our package is there |
| --- | --- | --- |
| process | yes | yes: the same Python |
| Docker | yes: the job's directory is mounted into its container | nobody knows: the job has its own image |
| Slurm | yes: on a shared file system | nobody knows: another Python, or an image |
| Kubernetes | no: a copy comes back at the end, or nothing does | nobody knows: the job has its own image |
| any other | taken for yes | nobody knows |

A component that cannot be imported would fail the job, so a streamer goes into its config only where the
package is there for certain, or the site says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobLauncherSpec, JobReturnCode

from nvflare_logstream.flare.runtime import job_handle, running_jobs, running_server_jobs
from nvflare_logstream.names import SERVER_SITE

_ASK_SECONDS = 5.0
_STARTED_HERE = "ProcessJobLauncher"
_ENDED = ("exited", "dead", "Succeeded", "Failed")  # what Docker and Kubernetes call it
# In these versions of the runtime that have it, pods get no directory of the site; older ones mount it.
_TRANSFER = "WorkspaceTransferManager"
_SLURM = "nvflare.app_opt.job_launcher.slurm"


class Launcher(NamedTuple):
    """What runs a site's jobs.

    Attributes:
        place: where a job runs, in words.
        sees_files: this process can read the job's log files while it runs.
        has_package: the job's Python is this one.
        component: the runtime's own; None where there is none.
        may_run_on: its handle takes a job for over, when nobody can be asked, that may still run.
        ask: asks whether a job runs, by its id and the site's name; None where nobody can say.
    """

    place: str
    sees_files: bool
    has_package: bool
    component: Any = None
    may_run_on: bool = False
    ask: Callable[[Any, str, str], bool | None] = lambda component, job_id, site: None

    @property
    def starts_here(self) -> bool:
        """Whether its jobs are processes of this machine for certain."""
        return self.ask is _ask_processes

    def is_running(self, engine: Any, job_id: str, site: str) -> bool | None:
        """Whether a job runs, also one that an earlier life of this process launched; None: nobody can say.

        The handle of its process is asked where there is one, then the launcher.
        """
        handle = job_handle(engine, job_id)
        try:
            if handle is not None:
                return bool(handle.poll() in (None, JobReturnCode.UNKNOWN))
            return self.ask(self.component, job_id, site)
        except Exception:  # it asks a service that may be away, by means of another package
            return None


def launcher_of(fl_ctx: FLContext) -> Launcher:
    """The launcher that runs the job of an event; at other events, the one that the site or server has.

    At BEFORE_JOB_LAUNCH those that can run the job add themselves to the context, before or after we are
    asked. Before 2.8 a site may have several, and the first to add itself runs the job. Where none has done
    so yet, the one counts of which least is known: a streamer that cannot be imported fails the job.
    """
    added = fl_ctx.get_prop(FLContextKey.JOB_LAUNCHER)
    for components in (added if isinstance(added, list) else (), _components(fl_ctx.get_engine())):
        found = [_known(entry) for entry in components if isinstance(entry, JobLauncherSpec)]
        if found:
            least = min(found, key=lambda launcher: (launcher.has_package, launcher.sees_files))
            return found[0] if components is added else least
    return HERE


def _components(engine: Any) -> Sequence[object]:
    """All components of a client's or a server's parent process."""
    handlers = getattr(getattr(engine, "run_manager", None), "handlers", ())
    return getattr(engine, "fl_components", None) or handlers


def _known(component: JobLauncherSpec) -> Launcher:
    for name, module in _runtimes_classes(component):
        if name == "DockerJobLauncher":
            return Launcher("a container", True, False, component, True, _ask_docker)
        if name == "SlurmJobLauncher":
            return Launcher("a Slurm allocation", True, False, component, ask=_ask_slurm)
        if name == "K8sJobLauncher":
            return Launcher("a pod", not hasattr(module, _TRANSFER), False, component, ask=_ask_kubernetes)
        if name == _STARTED_HERE:
            return HERE._replace(component=component)
    return Launcher("a place that only its launcher knows", True, False, component, ask=_ask_any)


def _runtimes_classes(component: object) -> Iterator[tuple[str, Any]]:
    """The names of a component's classes that are the runtime's own, and the modules that hold them."""
    for kind in type(component).__mro__:
        if kind.__module__.startswith("nvflare."):
            yield kind.__name__, sys.modules.get(kind.__module__)


def _ask_processes(component: Any, job_id: str, site: str) -> bool | None:
    running = running_server_jobs if site == SERVER_SITE else running_jobs
    return job_id in running([job_id])


def _ask_any(component: Any, job_id: str, site: str) -> bool | None:
    """A launcher of somebody else's: where there is no process here, there may be one elsewhere."""
    return _ask_processes(component, job_id, site) or None


def _ask_docker(component: Any, job_id: str, site: str) -> bool | None:
    module = sys.modules[_module_of(component, "DockerJobLauncher")]
    name, connect = f"{site}-{job_id}", getattr(component, "_get_docker_client", None)
    if connect:  # since 2.8
        name = module._sanitize_container_name(name)
    try:
        container = (connect or module.docker.from_env)().containers.get(name)
    except Exception as error:
        return _unless_not_found(error)
    if container.status == "created":  # about to be started, or left behind by a start that failed
        return None
    return container.status not in _ENDED


def _ask_slurm(component: Any, job_id: str, site: str) -> bool | None:
    """By the name and the mark that its allocation gets: the scheduler's own id went with the handle."""
    manager, client = (sys.modules[f"{_SLURM}.{name}"] for name in ("manager", "scheduler_client"))
    adapter = component.manager.adapter
    command = [
        adapter.executables["squeue"],
        "-h",
        f"--user={adapter.uid}",
        f"--name={manager._job_name(site, manager._job_key(job_id))}",
        f"--format={client.SQUEUE_FORMAT}",
    ]
    answer = adapter._run(command, _ASK_SECONDS)
    if not answer.available:
        return None
    marks = {mark: state for _, state, _, mark, _ in adapter._rows(answer, "squeue", 5)}
    state = marks.get(component.manager._marker(job_id))
    if state is None:
        return None if marks else False
    return not manager._is_terminal(client._parse_state(state))


def _ask_kubernetes(component: Any, job_id: str, site: str) -> bool | None:
    module = sys.modules[_module_of(component, "K8sJobLauncher")]
    name = module.job_pod_name(module.uuid4_to_rfc1123(job_id), site)
    api = component.core_v1 or _kubernetes(component.config_file_path)
    try:
        pod = api.read_namespaced_pod(name=name, namespace=component.namespace, _request_timeout=_ASK_SECONDS)
    except Exception as error:
        return _unless_not_found(error)
    return pod.status.phase not in _ENDED


def _kubernetes(config_file: str | None) -> Any:
    """The cluster's API: the launcher makes its own when it launches the first job."""
    from kubernetes import client, config  # type: ignore[import-not-found,unused-ignore]

    if config_file:
        config.load_kube_config(config_file)
    else:
        config.load_incluster_config()
    return client.CoreV1Api()


def _unless_not_found(error: Exception) -> bool | None:
    """Nothing runs that is not there; any other error says nothing."""
    missing = getattr(error, "status", None) == 404 or type(error).__name__ == "NotFound"
    return False if missing else None


def _module_of(component: object, name: str) -> str:
    return next(kind.__module__ for kind in type(component).__mro__ if kind.__name__ == name)


HERE = Launcher("a process of this machine", True, True, ask=_ask_processes)
