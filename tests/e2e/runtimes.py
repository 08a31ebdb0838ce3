"""Other versions of the runtime, each in a virtual environment beside this one's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nvflare

RUNTIMES = ("2.7.3", "2.8.3", "2.9.0")
_VARIABLE = "NVFLARE_PYTHONS"  # "2.7.3=/venv/bin/python,2.8.3=…": environments that are there already
_INSTALL_SECONDS = 180


def pythons_of(directory: Path) -> dict[str, str]:
    """By version of the runtime, the Python that has it; this one's is not among them.

    Environments are made below `directory`: the runtime alone is installed into each, and everything else
    comes from this environment, so that it takes seconds.
    """
    given = dict(pair.split("=", 1) for pair in os.environ.get(_VARIABLE, "").split(",") if pair)
    others = [version for version in RUNTIMES if version != nvflare.__version__]
    return {version: given.get(version) or _make(directory / version, version) for version in others}


def _make(venv: Path, version: str) -> str:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site_packages = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*install, f"nvflare=={version}"], check=True, timeout=_INSTALL_SECONDS)
    # Behind the environment's own packages, so that its runtime is the one that is found.
    beside = [path for path in sys.path if Path(path).name == "site-packages"]
    Path(site_packages, "beside.pth").write_text("".join(f"{path}\n" for path in beside))
    return str(python)
