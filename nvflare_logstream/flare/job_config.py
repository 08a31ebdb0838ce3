"""The deployed client config of a job: finds our component in it, puts it in, takes it out, each atomically.

The runtime looks for config_fed_client with the endings .json, .conf, .yml, in this order, and takes the
first. A config in HOCON or YAML is therefore rewritten as a .json beside it, and the author's file is never
touched.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nvflare.fuel.utils.config_factory import ConfigFactory

from nvflare_logstream.errors import JobConfigError
from nvflare_logstream.names import is_name, is_pattern

STREAMER_PATH = "nvflare_logstream.JobLogStreamer"
STOCK_PATH = "nvflare.app_common.logging.job_log_streamer.JobLogStreamer"
# Any module of a package that imports a class gives it another path. A bare name is the runtime's own class.
_PACKAGE, _STOCK_PACKAGE, _CLASS = "nvflare_logstream", "nvflare", "JobLogStreamer"
_JOBS_OWN_ARGUMENTS = ("drain_timeout",)  # it is the job's end that waits so long
_COMPONENT_ID = "logstream_job_log_streamer"
CONFIG_FILE = "config_fed_client.json"  # in which a streamer that was put into a job stands


class JobConfig:
    """The client config deployed for one job.

    Args:
        directory: the deployed app's config directory.

    Raises:
        JobConfigError: if there is no config that can be read.
    """

    def __init__(self, directory: Path):
        self._target = Path(directory) / CONFIG_FILE
        try:
            config = ConfigFactory.load_config(CONFIG_FILE, [str(directory)])
            self._config: dict[str, Any] = config.to_dict() if config is not None else {}
        except Exception as error:  # each loader raises its own kinds
            raise JobConfigError(
                f"cannot read the job's client config: {type(error).__name__}: {error}"
            ) from error
        if config is None:
            raise JobConfigError(f"no client config in {directory}")
        if not isinstance(self._config, dict):
            raise JobConfigError("the job's client config is not an object")
        components = self._config.get("components")
        if components is not None and not isinstance(components, list):
            raise JobConfigError(f"components: {type(components).__name__} is not allowed; a list is wanted")

    @property
    def _components(self) -> list[Any]:
        return self._config.get("components") or []

    def _of_package(self, *packages: str) -> list[dict[str, Any]]:
        return [c for c in self._components if isinstance(c, dict) and _streamers_package(c) in packages]

    def streamers(self) -> list[dict[str, Any]]:
        """The entries of our own streamer that the job (or an earlier life of the site) put in."""
        return [c for c in self._of_package(_PACKAGE) if c.get("disabled") is not True]

    @property
    def log_files(self) -> tuple[str, ...]:
        """The files that our own streamers in the config send; what is no name or pattern is passed over."""
        given = [entry["args"] for entry in self.streamers() if _has_args(entry)]
        lists = [args.get("log_files") for args in given]
        files = [file for value in lists if isinstance(value, list) for file in value]
        files += [args.get("log_file_name") for args in given]
        return tuple(dict.fromkeys(file for file in files if is_name(file) or is_pattern(file)))

    def put_streamer(self, args: dict[str, Any]) -> None:
        """Add a streamer to the config; one that the job declares gets the site's arguments.

        The site decides what leaves it: of the job's own arguments only `drain_timeout` stays.

        Raises:
            JobConfigError: if the file cannot be written; the deployed config is then as it was.
        """
        declared = self.streamers()
        for entry in declared:
            given = entry.get("args") or {}
            if not isinstance(given, dict):
                raise JobConfigError(
                    f"args of {STREAMER_PATH}: {type(given).__name__} is not allowed; an object is wanted"
                )
            kept = {name: given[name] for name in _JOBS_OWN_ARGUMENTS if name in given}
            entry["args"] = {**kept, **args, "site_closes": True}
        if not declared:
            entry = {
                "id": self._free_id(_COMPONENT_ID),
                "path": STREAMER_PATH,
                "args": {**args, "site_closes": True},
            }
            self._config["components"] = [*self._components, entry]
        self._write()

    def put_stock(self, files: Iterable[str]) -> None:
        """Add the runtime's own streamers where the job has none, for a server without a receiver of ours.

        They know no patterns of names.

        Raises:
            JobConfigError: if the file cannot be written; the deployed config is then as it was.
        """
        if self._of_package(_STOCK_PACKAGE):
            return
        entries = [
            {
                "id": self._free_id(f"{_COMPONENT_ID}_{file}"),
                "path": STOCK_PATH,
                "args": {"log_file_name": file, "target_parent_server": True},
            }
            for file in files
            if not is_pattern(file)  # they know only names
        ]
        self._config["components"] = [*self._components, *entries]
        self._write()

    def _free_id(self, wanted: str) -> str:
        """An id that no component of the job has."""
        taken = [c.get("id") for c in self._components if isinstance(c, dict)]
        number, name = 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def strip_streamers(self) -> int:
        """Take out every log streamer, ours and the runtime's own; return how many there were.

        Raises:
            JobConfigError: if the file cannot be written; the deployed config is then as it was.
        """
        unwanted = self._of_package(_PACKAGE, _STOCK_PACKAGE)
        if unwanted:
            self._config["components"] = [
                c for c in self._components if not any(c is entry for entry in unwanted)
            ]
            self._write()
        return len(unwanted)

    def _write(self) -> None:
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self._target.parent, prefix=f".{CONFIG_FILE}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._config, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, self._target.stat().st_mode & 0o777 if self._target.exists() else 0o644)
            os.replace(temporary, self._target)
        except (OSError, TypeError, ValueError, RecursionError) as error:
            if temporary:
                with suppress(OSError):  # it may be gone, or the disk takes nothing at all
                    os.remove(temporary)
            raise JobConfigError(f"cannot rewrite the job's client config: {error}") from error


def _has_args(component: dict[str, Any]) -> bool:
    return isinstance(component.get("args"), dict)


def _streamers_package(component: dict[str, Any]) -> str:
    """The package of the log streamer that a component is; empty for all other components."""
    # The runtime takes the first of these fields that is there.
    path = next((component[name] for name in ("path", "class_path", "name") if name in component), None)
    parts = path.strip().split(".") if isinstance(path, str) else []
    if not parts or parts[-1] != _CLASS:
        return ""
    return parts[0] if len(parts) > 1 else _STOCK_PACKAGE
