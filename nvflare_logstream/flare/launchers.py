"""Which launcher runs a job, what that means for its logs, and whether it still runs.

| launcher | the parent sees the job's files | our package is there |
| --- | --- | --- |
| process | yes | yes: the same Python |
| Docker | yes: the job's directory is mounted into its container | nobody knows: the job has its own image |
| Slurm | yes: on a shared file system | nobody knows: another Python, or an image |
| Kubernetes | no: a copy comes back at the end, or nothing does | nobody knows: the job has its own image |

Any other launcher is taken for one that starts processes here. A component that cannot be imported would fail
the job, so a streamer goes into its config only where the package is there for certain, or the site says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobLauncherSpec, JobReturnCode

from nvflare_logstream.flare.runtime import job_handle, running_jobs

_ASK_SECONDS = 5.0
_STARTED_HERE = "ProcessJobLauncher"
_ENDED = ("exited", "dead", "Succeeded", "Failed")  # what Docker and Kubernetes call it
# In these versions of the runtime that have it, pods get no directory of the site; older ones mount it.
_TRANSFER = "WorkspaceTransferManager"


class Launcher(NamedTuple):
    """What runs a site's jobs.

    Attributes:
        place: where a job runs, in words.
        sees_files: this process can read the job's log files while it runs.
        has_package: the job's Python is this one.
        component: the runtime's own; None where there is none.
        ask: asks whether a job runs, by its id and the site's name; None where nobody can say.
    """

    place: str
    sees_files: bool
    has_package: bool
    component: Any = None
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
    """The launcher that runs the job of an event; at other events, the one that the site has.

    At BEFORE_JOB_LAUNCH those that can run the job add themselves to the context, before or after we are
    asked. A site has one: the runtime refuses to launch with more (since 2.8).
    """
    added = fl_ctx.get_prop(FLContextKey.JOB_LAUNCHER)
    components = list(added) if isinstance(added, list) else []
    components += getattr(fl_ctx.get_engine(), "fl_components", ())
    component = next((entry for entry in components if isinstance(entry, JobLauncherSpec)), None)
    for name, module in _runtimes_classes(component):
        if name == "DockerJobLauncher":
            return Launcher("a container", True, False, component, _ask_docker)
        if name == "SlurmJobLauncher":
            return Launcher("a Slurm allocation", True, False, component)
        if name == "K8sJobLauncher":
            return Launcher("a pod", not hasattr(module, _TRANSFER), False, component, _ask_kubernetes)
        if name == _STARTED_HERE:
            return HERE._replace(component=component)
    return HERE if component is None else HERE._replace(component=component, ask=_ask_any)


def _runtimes_classes(component: object) -> Iterator[tuple[str, Any]]:
    """The names of a component's classes that are the runtime's own, and the modules that hold them."""
    for kind in type(component).__mro__:
        if kind.__module__.startswith("nvflare."):
            yield kind.__name__, sys.modules.get(kind.__module__)


def _ask_processes(component: Any, job_id: str, site: str) -> bool | None:
    return job_id in running_jobs([job_id])


def _ask_any(component: Any, job_id: str, site: str) -> bool | None:
    """A launcher of somebody else's: where there is no process here, there may be one elsewhere."""
    return _ask_processes(component, job_id, site) or None


def _ask_docker(component: Any, job_id: str, site: str) -> bool | None:
    module = sys.modules[_module_of(component, "DockerJobLauncher")]
    name = module._sanitize_container_name(f"{site}-{job_id}")
    try:
        container = component._get_docker_client().containers.get(name)
    except Exception as error:
        return _unless_not_found(error)
    return container.status not in _ENDED


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


HERE = Launcher("a process of this machine", True, True, None, _ask_processes)
