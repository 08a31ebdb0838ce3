"""Start-up kits as the runtime provisions them, for tests: their layout, and what counts of them."""

from __future__ import annotations

from pathlib import Path

STARTUP_FILES = {"server": "fed_server.json", "client": "fed_client.json", "relay": "fed_relay.json"}


def write_kit(root: Path, role: str = "client", resources: str | None = "{}", name: str = "") -> Path:
    """Make a kit of `role` at `root`, with `resources` as its default ones, and return `root`."""
    (root / "startup").mkdir(parents=True)
    (root / "local").mkdir()
    (root / "startup" / STARTUP_FILES.get(role, "fed_admin.json")).write_text('{"format_version": 2}')
    (root / "startup" / "sub_start.sh").write_text(
        f"exec python3 -u -m nvflare.private.fed.app -m x --set uid={name or root.name} org=o\n"
    )
    if role in ("client", "server") and resources is not None:
        (root / "local" / "resources.json.default").write_text(resources)
    return root


def write_federation(prod: Path) -> Path:
    """Make the kits of a server, two sites, a relay and an admin in `prod`, and return `prod`."""
    for name, role in [
        ("site-2", "client"),
        ("site-1", "client"),
        ("server", "server"),
        ("relay-1", "relay"),
        ("admin@nvidia.com", "admin"),
    ]:
        write_kit(prod / name, role)
    return prod


CLIENT_RESOURCES = """{
  "format_version": 2,
  "class_list_enforcement_mode": "enforce",
  "class_allow_list": [
  "nvflare.app_common.logging.job_log_streamer.JobLogStreamer",
  "nvflare.app_common.np.np_trainer.NPTrainer"
],
  "allow_log_streaming": true,
  "client": {
    "retry_timeout": 30
  },
  "components": [
    {
      "id": "resource_manager",
      "path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
      "args": {
        "num_of_gpus": 0
      }
    },
    {
        "id": "site_log_streamer",
        "path": "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer",
        "args": {
          "log_file_name": "error_log.txt"
        }
    }
  ]
}
"""
SERVER_RESOURCES = """{
    "format_version": 2,
    "class_allow_list": ["nvflare.app_common.np.np_trainer.NPTrainer"],
    "components": [
        {
            "id": "job_store",
            "path": "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
        },
        {
            "id": "log_receiver",
            "path": "nvflare.app_common.logging.job_log_receiver.JobLogReceiver",
            "args": {}
        }
    ]
}"""


def write_site(root: Path, resources: str = CLIENT_RESOURCES, own: bool = False) -> Path:
    """Make a site's kit with `resources` as its default, or as its `own`; return its `local/`."""
    local = write_kit(root, resources=CLIENT_RESOURCES if own else resources) / "local"
    if own:
        (local / "resources.json").write_text(resources, newline="")
    return local


def write_server(root: Path, resources: str = SERVER_RESOURCES) -> Path:
    """Make the server's kit, and return its `local/`."""
    return write_kit(root, "server", resources) / "local"
