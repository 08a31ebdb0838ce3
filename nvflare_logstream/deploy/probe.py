"""Asks a site's own Python what is installed there, and whether our components would load."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from nvflare_logstream.deploy import probe_script
from nvflare_logstream.deploy.interpreter import Interpreter
from nvflare_logstream.deploy.kits import Place
from nvflare_logstream.deploy.resources_read import Component, Resources

JOB_CLASS = "nvflare_logstream.JobLogStreamer"
_SECONDS = 60.0  # the runtime takes a second to load, and much longer from a cold network disk
_MOST = 400  # characters of a text


class Probe(NamedTuple):
    """What a place's Python has said.

    Attributes:
        problem: why it said nothing; all else is empty then.
        python, runtime, package, protocol: versions; empty or 0 where it has none.
        runtime_problem, package_problem: why it cannot be imported.
        unsupported: why the package does nothing under this runtime.
        components: our entries in the resources, each with what is wrong with it.
        refusal: why jobs may not load our streamer, by the runtime's own rule.
    """

    problem: str = ""
    python: str = ""
    runtime: str = ""
    package: str = ""
    protocol: int = 0
    runtime_problem: str = ""
    package_problem: str = ""
    unsupported: str = ""
    components: tuple[tuple[Component, str], ...] = ()
    refusal: str = ""


def probe(place: Place, resources: Resources, interpreter: Interpreter, seconds: float = _SECONDS) -> Probe:
    """Run the place's Python; whatever it does, this does not raise, and ends within `seconds`."""
    ours = [entry for entry in resources.components if entry.is_ours]
    question = {
        "components": [{"path": entry.path, "args": entry.args} for entry in ours],
        "resources": str(place.resources) if place.resources and place.is_json else "",
        "job_class": JOB_CLASS,
    }
    script = Path(probe_script.__file__).read_text(encoding="utf-8")
    try:
        run = subprocess.run(
            [interpreter.path, "-c", script],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=interpreter.environment,
            cwd="/",  # `-c` imports from there first
        )
    except subprocess.TimeoutExpired:
        return Probe(f"it did not answer within {seconds:g} s")
    except (OSError, ValueError) as error:
        return Probe(str(error))
    lines = [line for line in run.stdout.splitlines() if line.startswith(probe_script.MARK)]
    try:
        answer = json.loads(lines[-1].removeprefix(probe_script.MARK))
        return _read(answer, ours)
    except (IndexError, ValueError, TypeError, AttributeError):
        last = (run.stderr.strip().splitlines() or [f"it ended with code {run.returncode}"])[-1]
        return Probe(last[:_MOST])


def _read(answer: dict[str, Any], ours: list[Component]) -> Probe:
    texts = {
        name: str(answer.get(name) or "")[:_MOST]
        for name in ("python", "runtime", "package", "runtime_problem", "package_problem")
    }
    problems = [str(problem)[:_MOST] for problem in answer.get("components") or ()]
    return Probe(
        **texts,
        protocol=int(answer.get("protocol") or 0),
        unsupported=str(answer.get("unsupported") or "")[:_MOST],
        components=tuple(zip(ours, problems, strict=False)),
        refusal=str(answer.get("refusal") or "")[:_MOST],
    )
