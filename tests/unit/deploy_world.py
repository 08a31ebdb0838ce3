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
