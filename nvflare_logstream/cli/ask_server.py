"""Asks the server what a shell may offer, in a process of its own; see `nvflare_logstream.cli.complete`."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from nvflare_logstream.cli.complete import FRESH, PATIENCE, cache_file
from nvflare_logstream.cli.options import Access
from nvflare_logstream.names import server_first
from nvflare_logstream.wire.job_list import JobQuestion

_ASKING = 20  # seconds after which it is no longer wanted


def ask(asked: dict[str, Any]) -> None:
    """Ask the server, and keep what it says; also that it says nothing, or it would be asked at each key."""
    path, found = cache_file(asked), {}
    with suppress(BaseException):
        found = _asked(asked)
    with suppress(OSError):
        for old in path.parent.glob("*"):
            if time.time() - old.stat().st_mtime > FRESH:
                old.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump({"jobs": [], "sites": [], "files": []} | found, file)
    os.replace(file.name, path)


def _asked(asked: dict[str, Any]) -> dict[str, Any]:
    access = Access(asked["study"] or "default", asked["kit_id"], asked["startup_kit"], PATIENCE)
    with access.client() as client:
        if asked["job"]:
            streams = client.streams(client.find_job(asked["job"]))
            sites = {stream.site: str(stream.verdict) for stream in streams}
            files = [(name, "") for name in sorted({stream.file for stream in streams})]
            return {"sites": _in_order(sites), "files": files}
        listed = client.jobs(JobQuestion(limit=100)).jobs
        sites = {site.site: "" for job in listed for site in job.sites}
        ids = [(job.job_id, f"{job.status} {job.name}") for job in listed]
        return {"jobs": ids, "sites": _in_order(sites)}


def _in_order(sites: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(sites.items(), key=lambda item: server_first(item[0]))


if __name__ == "__main__":
    signal.alarm(_ASKING)  # the default is to end the process, whatever it waits for
    ask(json.loads(sys.argv[1]))
    os._exit(0)  # the runtime's threads would keep it
