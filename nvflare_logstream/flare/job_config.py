"""The deployed client config of a job: finds our component in it, puts it in, takes it out, each atomically.

The runtime looks for config_fed_client with the endings .json, .conf, .yml, in this order, and takes the
first. A config in HOCON or YAML is therefore rewritten as a .json beside it, and the author's file is never
touched.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from nvflare.fuel.utils.config_factory import ConfigFactory

from nvflare_logstream.errors import JobConfigError

STREAMER_PATH = "nvflare_logstream.JobLogStreamer"
_STOCK_STREAMERS = ("nvflare.app_common.logging.job_log_streamer.JobLogStreamer", "JobLogStreamer")
_OURS = (STREAMER_PATH, "nvflare_logstream.flare.job_log_streamer.JobLogStreamer")
_COMPONENT_ID = "logstream_job_log_streamer"
_BASENAME = "config_fed_client.json"


class JobConfig:
    """The client config deployed for one job.

    Args:
        directory: the deployed app's config directory.

    Raises:
        JobConfigError: if there is no config that can be read.
    """

    def __init__(self, directory: Path):
        self._target = Path(directory) / _BASENAME
        try:
            config = ConfigFactory.load_config(_BASENAME, [str(directory)])
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

    def _having(self, paths: tuple[str, ...]) -> list[dict[str, Any]]:
        return [c for c in self._components if isinstance(c, dict) and _class_of(c) in paths]

    def streamers(self) -> list[dict[str, Any]]:
        """The entries of our own streamer that the job (or an earlier life of the site) put in."""
        return [c for c in self._having(_OURS) if c.get("disabled") is not True]

    def put_streamer(self, args: dict[str, Any]) -> None:
        """Add a streamer to the config; where the job declares one, that only gets `site_closes`.

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
            entry["args"] = {**given, "site_closes": True}
        if not declared:
            taken = [c.get("id") for c in self._components if isinstance(c, dict)]
            number, name = 1, _COMPONENT_ID
            while name in taken:
                number += 1
                name = f"{_COMPONENT_ID}_{number}"
            entry = {"id": name, "path": STREAMER_PATH, "args": {**args, "site_closes": True}}
            self._config["components"] = [*self._components, entry]
        self._write()

    def strip_streamers(self) -> int:
        """Take out every log streamer, ours and the runtime's own; return how many there were.

        Raises:
            JobConfigError: if the file cannot be written; the deployed config is then as it was.
        """
        unwanted = self._having(_OURS + _STOCK_STREAMERS)
        if unwanted:
            self._config["components"] = [
                c for c in self._components if not any(c is entry for entry in unwanted)
            ]
            self._write()
        return len(unwanted)

    def _write(self) -> None:
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self._target.parent, prefix=f".{_BASENAME}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._config, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, self._target.stat().st_mode & 0o777 if self._target.exists() else 0o644)
            os.replace(temporary, self._target)
        except (OSError, TypeError, ValueError, RecursionError) as error:
            if temporary and os.path.exists(temporary):
                os.remove(temporary)
            raise JobConfigError(f"cannot rewrite the job's client config: {error}") from error


def _class_of(component: dict[str, Any]) -> Any:
    """What the runtime takes for the component's class: the first of these fields that is there."""
    return next((component[name] for name in ("path", "class_path", "name") if name in component), None)
