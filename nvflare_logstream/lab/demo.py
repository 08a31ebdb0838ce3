"""What `nvflare-logstream demo` does: runs a job on a real federation, shows its logs and compares them.

It reads as every reader does, through a client over an admin session.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nvflare_logstream.client.client import LogClient
from nvflare_logstream.client.model import EventKind
from nvflare_logstream.client.query import LogQuery
from nvflare_logstream.flare.session_port import SessionPort
from nvflare_logstream.lab.federation import Federation
from nvflare_logstream.lab.kits import SiteSetup, write_job
from nvflare_logstream.names import DEFAULT_LOG_FILES, SERVER_SITE
from nvflare_logstream.streams import State, Stream, Verdict

_STARTING = "starting one server and two sites"
_COLOURS = ("cyan", "magenta")
_JOB_SECONDS = 180.0
_CLOSE_SECONDS = 30.0  # from the job's end until all its streams are closed
_LOOK_INTERVAL = 0.1  # seconds
_SERVER = SiteSetup([{"id": "log_receiver", "path": "nvflare_logstream.JobLogReceiver"}])
_CLIENT = SiteSetup([{"id": "site_log_streamer", "path": "nvflare_logstream.SiteLogStreamer"}])
_CONTEXT = re.compile(r" - \[identity=[^]]*\]")  # the runtime's context, the same on every line


class Demo:
    """One demo; whoever runs it has to call `stop` at its end.

    Args:
        root: an empty directory for the federation.
        sites: names of the client sites.
        console: where everything is printed.
    """

    def __init__(self, root: Path, sites: Sequence[str], console: Console):
        self._root, self._sites, self._console = root, tuple(sites), console
        self._colours = dict(zip(sites, _COLOURS, strict=False))
        self._status = console.status(_STARTING)
        self._federation = Federation(
            root, sites, server=_SERVER, client=_CLIENT, on_progress=self._on_progress
        )

    def stop(self) -> None:
        """End the federation's processes, within about two seconds."""
        self._federation.stop()

    def run(self) -> bool:
        """Run the federation and the job; True if every stream is complete and the same at both ends.

        Raises:
            RuntimeError: if a process of the federation ends by itself.
            TimeoutError: if the federation is not up in time.
            ConnectionError, RetrievalError: if the server does not answer.
        """
        with self._status:
            self._federation.start()
            with as_file(files("nvflare_logstream.lab") / "demo_job.py") as source:
                job = write_job(
                    self._root / "demo", "demo_job.DemoTrainer", custom=source, min_clients=len(self._sites)
                )
            job_id = self._federation.submit(job)
            self._status.update("the job is being deployed")
            client = LogClient(SessionPort(self._federation.session()))
            self._show_live(client, job_id)
            return self._report(client, job_id, self._closed_streams(client, job_id))

    def _on_progress(self, text: str) -> None:
        self._console.print(Text.assemble(("✓", "green"), f" {text}"))
        self._status.update(_STARTING)

    def _show_live(self, client: LogClient, job_id: str) -> None:
        """Print the lines of the sites as they reach the server, until the job is over."""
        deadline = time.monotonic() + _JOB_SECONDS
        for event in client.follow(job_id, LogQuery(sites=self._sites)):
            if event.kind is EventKind.TEXT:
                self._status.stop()
                # Whole lines; only the last of a closed log may lack its end.
                for line in event.text.removesuffix("\n").split("\n"):
                    self._console.print(self._coloured(event.site, line), soft_wrap=True)
            if time.monotonic() > deadline:
                return

    def _closed_streams(self, client: LogClient, job_id: str) -> Sequence[Stream]:
        """The job's streams, when all that are wanted are closed, or after some time as they are."""
        wanted = {(site, file) for site in (*self._sites, SERVER_SITE) for file in DEFAULT_LOG_FILES}
        deadline = time.monotonic() + _CLOSE_SECONDS
        while True:
            streams = client.streams(job_id)
            closed = {(stream.site, stream.file) for stream in streams if stream.state is State.CLOSED}
            if wanted <= closed or time.monotonic() > deadline:
                return streams
            time.sleep(_LOOK_INTERVAL)

    def _coloured(self, site: str, line: str) -> Text:
        style = "bold red" if " - ERROR - " in line else "yellow" if " - WARNING - " in line else ""
        return Text.assemble((f"{site} ", f"bold {self._colours[site]}"), (_CONTEXT.sub("", line), style))

    def _report(self, client: LogClient, job_id: str, streams: Sequence[Stream]) -> bool:
        """Print the table of streams; True if each is complete and the same at both ends."""
        table = Table(
            title="The job's streams, as the server holds them", title_justify="left", box=box.SIMPLE_HEAD
        )
        table.pad_edge, table.padding = False, (0, 1)
        for name in ("site", "file", "bytes", "lines", "verdict", "sha256", "at the site"):
            table.add_column(name, justify="right" if name in ("bytes", "lines") else "left", no_wrap=True)
        all_good = bool(streams)
        for stream in streams:
            stored = client.digest(job_id, stream) if stream.available else "missing"
            good = stream.verdict is Verdict.COMPLETE and stored == self._digest_at_site(stream)
            all_good &= good
            table.add_row(
                Text(stream.site, style=self._colours.get(stream.site, "")),
                stream.file,
                f"{stream.end:,}",
                f"{stream.lines:,}",
                Text(stream.standing, style="green" if stream.verdict is Verdict.COMPLETE else "red"),
                stored[:12],
                Text("the same", style="green") if good else Text("DIFFERS", style="bold red"),
            )
        self._console.print(table)
        if all_good:
            self._console.print(
                "Every stream is complete: the server holds what the sites wrote, byte for byte.",
                style="green",
            )
        else:
            self._console.print("Not every stream is complete; the table says which and why.", style="red")
        return all_good

    def _digest_at_site(self, stream: Stream) -> str:
        """sha256 (hex) of the site's own file."""
        if stream.site == SERVER_SITE:
            # The runtime removes the server's originals when it archives the job; their digest was taken
            # before.
            return stream.digest
        path = self._federation.job_log_dir(stream.site, stream.key.job_id) / stream.file
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
