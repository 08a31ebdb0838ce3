"""Makes the kits of a federation: certificates, start-up files, and each site's `local/`.

The kits of nvflare 2.7 and of 2.8 or later differ, and neither starts with the other's. So where a federation
runs several versions, each makes its own: `python -m nvflare_logstream.lab.provision` does so in a process.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from nvflare.lighter.prov_utils import prepare_builders
from nvflare.lighter.provision import prepare_project
from nvflare.lighter.provisioner import Provisioner

from nvflare_logstream.lab.kits import bind_to_loopback
from nvflare_logstream.names import SERVER_SITE

_SECONDS = 60  # that provisioning may take in a process of its own
_logger = logging.getLogger(__name__)


def make_kits(home: Path, project: dict[str, Any], pythons: Mapping[str, str]) -> dict[str, Path]:
    """Make the kits of a federation whose participants run several runtimes, and return where each is.

    Args:
        home: an empty directory.
        project: the provisioning project, from `kits.project_of`.
        pythons: by participant, the Python whose runtime it runs; empty for this one.

    Raises:
        RuntimeError: if a runtime cannot make them.
    """
    made = {python: provision(home, project, python) for python in sorted(set(pythons.values()))}
    return {name: made[python] / name for name, python in pythons.items()}


def provision(home: Path, project: dict[str, Any], python: str = "") -> Path:
    """Make the kits below `home`, and return the directory that holds them.

    Args:
        home: a directory that is empty, or holds what an earlier call made of the same project: then the
            certificates are of the same authority.
        project: the provisioning project, from `kits.project_of`.
        python: the Python whose runtime makes the kits; default this one.

    Raises:
        RuntimeError: if the runtime cannot make them.
    """
    if python:
        return _provision_by(python, home, project)
    context = Provisioner(str(home), prepare_builders(project)).provision(
        prepare_project(deepcopy(project)), logger=_logger
    )
    if context.get("build_error"):
        raise RuntimeError(f"provisioning failed: {context.get('errors')}")
    kits = Path(context["current_prod_dir"])
    bind_to_loopback(kits / SERVER_SITE / "startup" / "fed_server.json")
    return kits


def _provision_by(python: str, home: Path, project: dict[str, Any]) -> Path:
    package = str(Path(__file__).parents[2])
    result = subprocess.run(
        [python, "-m", __name__, str(home)],
        input=json.dumps(project),
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"provisioning with {python} failed: {result.stderr}")
    return Path(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(provision(Path(sys.argv[1]), json.load(sys.stdin)))
