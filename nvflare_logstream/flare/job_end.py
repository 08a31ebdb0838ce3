"""How a job's process ended, as the handle of whatever launched it tells.

Each launcher's own poll() reduces that to a few codes. What stands behind it says more: the process, the
pod's or the container's state, Slurm's accounting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare.apis.job_launcher_spec import JobReturnCode

from nvflare_logstream.site.endings import Ending

_ASK_SECONDS = 5.0
_NO_REASON = ("", "Completed", "Error", "COMPLETED", "FAILED")  # they say no more than the code
_REDUCED = {  # codes of a poll() that say how it ended, and not with which exit code
    int(JobReturnCode.EXECUTION_ERROR): "failed",
    int(JobReturnCode.ABORTED): "failed or aborted",
    int(JobReturnCode.UNKNOWN): "",
}


def describe_exit(handle: Any) -> str:
    """How a job's process ended, in words: "exit code 0", "signal 9", "exit code 137 (OOMKilled)"."""
    handle = getattr(handle, "_job_handle", handle)  # since 2.9 the runtime wraps the launcher's own handle
    names = [kind.__name__ for kind in type(handle).__mro__]
    tell = next((tell for name, tell in _TELLERS.items() if name in names), None)
    ending = Ending()
    if tell is not None:
        try:
            ending = tell(handle)
        except Exception:  # it asks a service that may be away, by means of another package
            ending = Ending()
    if ending.code is None:
        told = _by_poll(handle, reduced=tell is not None)
        ending = Ending(told.code, ending.reason or told.reason)
    return str(ending)


def _by_poll(handle: Any, reduced: bool) -> Ending:
    """What a handle says of itself, or the process behind it."""
    try:
        process = getattr(handle, "adapter", None) or getattr(handle, "process", None) or handle
        code = process.poll() if process is not None else None
    except Exception:  # a launcher of another kind: its handle may raise anything
        return Ending()
    if not isinstance(code, int):
        return Ending() if code is None else Ending(None, str(code))
    if (reduced and code in _REDUCED) or (process is handle and code == JobReturnCode.UNKNOWN):
        return Ending(None, _REDUCED[code])
    return Ending(code)


def _of_pod(handle: Any) -> Ending:
    try:
        pod = handle.api_instance.read_namespaced_pod(
            name=getattr(handle, "pod_name", handle.job_id),
            namespace=handle.namespace,
            _request_timeout=_ASK_SECONDS,
        )
    except Exception as error:
        gone = getattr(error, "status", None) == 404
        return Ending(None, "the pod was deleted" if gone else "")
    reason, code = str(pod.status.reason or ""), None
    wanted = (getattr(handle, "job_container", None) or {}).get("name")
    for container in pod.status.container_statuses or ():
        ended = container.state and container.state.terminated
        if ended and wanted in (None, container.name):
            code = ended.exit_code
            reason = reason or str(ended.reason or "")
    return Ending(code, "" if reason in _NO_REASON else reason)


def _of_container(handle: Any) -> Ending:
    """A container that was removed when it had ended says nothing."""
    state = handle.docker_client.containers.get(handle.container_id).attrs["State"]
    return Ending(state["ExitCode"], "OOMKilled" if state.get("OOMKilled") else str(state.get("Error") or ""))


def _of_slurm(handle: Any) -> Ending:
    found = handle.manager.adapter.accounting_by_id(handle.job_id, handle.job_name, timeout=_ASK_SECONDS)
    record = found.records[0]
    reason = "" if record.state in _NO_REASON else record.state
    return Ending(-record.exit_signal if record.exit_signal else record.exit_status, reason)


_TELLERS: dict[str, Callable[[Any], Ending]] = {
    "K8sJobHandle": _of_pod,
    "DockerJobHandle": _of_container,
    "SlurmJobHandle": _of_slurm,
}
