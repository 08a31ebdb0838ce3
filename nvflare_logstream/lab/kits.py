"""What a federation on this machine is made of: site set-ups, the provisioning project, and job folders."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nvflare_logstream.names import SERVER_SITE

ORG = "nvidia"
_STOCK_LOG_COMPONENTS = "nvflare.app_common.logging."
_BUILDERS = "nvflare.lighter.impl"
_BROADCAST = {
    "path": "nvflare.app_common.workflows.initialize_global_weights.InitializeGlobalWeights",
    "args": {},
}


@dataclass(frozen=True)
class SiteSetup:
    """What a site's `local/resources.json` holds beyond the provisioned default.

    Args:
        components: entries for "components"; one with the id of a provisioned component replaces it.
        remove_stock_log_components: take the runtime's own log streaming components out.
        extra: top-level keys to set, such as `{"allow_log_streaming": False}`.
        class_allow: entries to add to "class_allow_list".
    """

    components: Sequence[Mapping[str, Any]] = ()
    remove_stock_log_components: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    class_allow: tuple[str, ...] = ("nvflare_logstream.",)

    def apply(self, resources: Mapping[str, Any]) -> dict[str, Any]:
        """Return the provisioned `resources` with this set-up applied."""
        components = {
            component["id"]: component
            for component in resources["components"]
            if not (self.remove_stock_log_components and component["path"].startswith(_STOCK_LOG_COMPONENTS))
        }
        components.update({component["id"]: component for component in self.components})
        return {
            **resources,
            "components": list(components.values()),
            "class_allow_list": [*resources.get("class_allow_list", ()), *self.class_allow],
            **self.extra,
        }


DEFAULT_SETUP = SiteSetup()


def write_job(
    folder: Path,
    executor: str,
    executor_args: Mapping[str, Any] | None = None,
    *,
    custom: Path | None = None,
    workflow: Mapping[str, Any] | None = None,
    server_components: Iterable[Mapping[str, Any]] = (),
    client_components: Iterable[Mapping[str, Any]] = (),
    min_clients: int = 1,
    config_format: str = "json",
) -> Path:
    """Write a job that gives every client one task, named like its folder, and return the folder.

    Args:
        folder: the job folder to make.
        executor: class path of the client's executor. With the default workflow its result must be a DXO of
            kind WEIGHTS that is not empty.
        executor_args: arguments of the executor.
        custom: a Python file to copy into the job's `custom/`, which makes the job a BYOC one.
        workflow: `{"path": ..., "args": ...}` of a server workflow to use instead of the default.
        server_components: entries for "components" of the server's config.
        client_components: entries for "components" of the client's config.
        min_clients: how many clients the job needs to be started.
        config_format: suffix of the config files, "json", "conf" or "yml"; the text is JSON, which is valid
            in all.
    """
    app = folder / "app"
    server = {
        "format_version": 2,
        "workflows": [{"id": "workflow", **(workflow or _BROADCAST)}],
        "components": list(server_components),
    }
    client = {
        "format_version": 2,
        "executors": [{"tasks": ["*"], "executor": {"path": executor, "args": dict(executor_args or {})}}],
        "components": list(client_components),
    }
    meta = {
        "name": folder.name,
        "resource_spec": {},
        "min_clients": min_clients,
        "deploy_map": {"app": ["@ALL"]},
    }
    (app / "config").mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps(meta, indent=2))
    (app / "config" / f"config_fed_server.{config_format}").write_text(json.dumps(server, indent=2))
    (app / "config" / f"config_fed_client.{config_format}").write_text(json.dumps(client, indent=2))
    if custom is not None:
        (app / "custom").mkdir()
        shutil.copy(custom, app / "custom")
    return folder


def free_port() -> int:
    """A port of the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening_host() -> dict[str, Any]:
    """Where a relay listens; what is not set to another value here goes in the clear."""
    return {
        "scheme": "tcp",
        "default_host": "localhost",
        "port": free_port(),
        "connection_security": "mtls",
    }


def project_of(
    port: int,
    clients: Iterable[str],
    users: Mapping[str, str],
    relays: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The provisioning project: the server on `port`, clients, and admin users with their roles.

    A relay is given with the names of those that connect to it instead of to the server.
    """
    above = {name: {"connect_to": {"name": relay}} for relay, names in relays.items() for name in names}
    participants: list[dict[str, Any]] = [
        {"name": SERVER_SITE, "type": "server", "fed_learn_port": port, "default_host": "localhost"},
        *(
            {"name": name, "type": "relay", "listening_host": _listening_host(), **above.get(name, {})}
            for name in relays
        ),
        *({"name": name, "type": "client", **above.get(name, {})} for name in clients),
        *({"name": name, "type": "admin", "role": role} for name, role in users.items()),
    ]
    return {
        "api_version": 3,
        "name": "logstream",
        "participants": [{**participant, "org": ORG} for participant in participants],
        "builders": [
            {
                "path": f"{_BUILDERS}.workspace.WorkspaceBuilder",
                "args": {"template_file": ["master_template.yml"]},
            },
            {"path": f"{_BUILDERS}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
            {"path": f"{_BUILDERS}.cert.CertBuilder"},
            {"path": f"{_BUILDERS}.signature.SignatureBuilder"},
        ],
    }


def bind_to_loopback(config_file: Path) -> None:
    """Make the server of `fed_server.json` listen on the loopback address only."""
    # The server binds to the host of its target; provisioning writes its name there, which it takes for every
    # address.
    config = json.loads(config_file.read_text())
    if "overseer_agent" in config:
        return  # nvflare 2.7: only `lab.loopback` can, and a server with another host than here serves nobody
    service = config["servers"][0]["service"]
    service["target"] = f"localhost:{service['target'].rpartition(':')[2]}"
    config_file.write_text(json.dumps(config, indent=2))


def keep_stores_inside(resources: dict[str, Any], kit: Path) -> None:
    """Put the server's stores below its kit, and let many jobs run side by side."""
    # By default all federations of a machine share their stores in /tmp, and four jobs run at a time.
    resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(kit / "snapshot-storage")
    components = {component["id"]: component for component in resources["components"]}
    components["job_manager"]["args"]["uri_root"] = str(kit / "jobs-storage")
    components["job_scheduler"]["args"]["max_jobs"] = 32
