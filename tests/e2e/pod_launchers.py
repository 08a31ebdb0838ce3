"""Launchers that treat a job's files as Kubernetes and Docker do, with processes instead of pods.

A pod's directory is one of its own, which the site's parent process never looks into. The runtime's own code
brings the job there and its results back, as it does for a real pod.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, JobConstants
from nvflare.apis.job_launcher_spec import JobLauncherSpec, JobProcessArgs, add_launcher
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher
from nvflare.app_opt.job_launcher.docker_launcher import ClientDockerJobLauncher
from nvflare.app_opt.job_launcher.k8s_launcher import ClientK8sJobLauncher, K8sJobHandle
from nvflare.app_opt.job_launcher.workspace_cell_transfer import (
    ENV_WORKSPACE_OWNER_FQCN,
    ENV_WORKSPACE_TRANSFER_TOKEN,
    WorkspaceTransferManager,
)
from nvflare.utils.job_launcher_utils import generate_client_command, get_credential_env
from nvflare.utils.process_utils import spawn_process


class NotThere(Exception):
    """The answer of a cluster or of Docker about what it does not have."""

    status = 404


class PodHandle(K8sJobHandle):
    """The handle of a pod; the cluster's API tells of the process."""

    def __init__(self, process):
        self._process = process
        self.api_instance, self.namespace = self, "flare"
        self.job_id = self.pod_name = "pod"
        self.job_container = {"name": "job"}

    def read_namespaced_pod(self, name, namespace, _request_timeout):
        code = self._process.poll()
        killed = code is not None and code < 0
        ended = SimpleNamespace(
            exit_code=128 - code if killed else code, reason="OOMKilled" if killed else ""
        )
        container = SimpleNamespace(name="job", state=SimpleNamespace(terminated=ended))
        return SimpleNamespace(status=SimpleNamespace(reason=None, container_statuses=[container]))

    def poll(self):
        return {None: None, 0: 0}.get(self._process.poll(), 9)

    def wait(self):
        self._process.wait()

    def terminate(self):
        self._process.terminate()


class PodLauncher(ClientK8sJobLauncher):
    """Runs each job in a directory of its own below `pods`."""

    def __init__(self, pods):
        JobLauncherSpec.__init__(self)
        self.pods = pods
        self.core_v1, self.namespace, self.config_file_path = self, "flare", None

    def read_namespaced_pod(self, name, namespace, _request_timeout):
        """What the cluster's API says: this site has one pod at a time while it is asked."""
        site = str(Path(self.pods) / name[name.index("site-") :][: len("site-1")])
        for process in psutil.process_iter(["cmdline"]):
            if site in (process.info["cmdline"] or ()):
                return SimpleNamespace(status=SimpleNamespace(phase="Running"))
        raise NotThere

    def launch_job(self, job_meta, fl_ctx):
        job_id, workspace = job_meta[JobConstants.JOB_ID], fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        pod = Path(self.pods) / fl_ctx.get_identity_name()
        shutil.copytree(Path(workspace.get_root_dir()) / "startup", pod / "startup", dirs_exist_ok=True)
        transfer = WorkspaceTransferManager.get_or_create(fl_ctx.get_engine().get_cell())
        arguments = dict(fl_ctx.get_prop(FLContextKey.JOB_PROCESS_ARGS))
        environment = {
            **os.environ,
            **get_credential_env(arguments),
            ENV_WORKSPACE_OWNER_FQCN: transfer.owner_fqcn,
            ENV_WORKSPACE_TRANSFER_TOKEN: transfer.add_job(job_id, workspace.get_root_dir()),
            "PYTHONPATH": os.pathsep.join(
                [*sys.path, str(pod / job_id / f"app_{workspace.site_name}" / "custom")]
            ),
        }
        arguments[JobProcessArgs.WORKSPACE] = ("-m", str(pod))
        arguments[JobProcessArgs.STARTUP_DIR] = ("-w", str(pod / "startup"))
        fl_ctx.set_prop(FLContextKey.JOB_PROCESS_ARGS, arguments, private=True, sticky=False)
        return PodHandle(spawn_process(shlex.split(generate_client_command(fl_ctx)), environment))


class ContainerLauncher(ClientDockerJobLauncher):
    """Runs a job where its directory is mounted; Docker's daemon knows the containers that run."""

    def __init__(self):
        JobLauncherSpec.__init__(self)
        self._processes = ClientProcessJobLauncher()
        self._docker_client = SimpleNamespace(containers=self)

    def get(self, name):
        """What Docker says of a container, by its name."""
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or ()
            if any(f"site-3-{word}" == name for word in words):
                return SimpleNamespace(status="running")
        raise NotThere

    def launch_job(self, job_meta, fl_ctx):
        return self._processes.launch_job(job_meta, fl_ctx)

    def handle_event(self, event_type, fl_ctx):
        if event_type == EventType.BEFORE_JOB_LAUNCH:
            add_launcher(self, fl_ctx)
