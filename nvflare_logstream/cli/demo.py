"""`nvflare-logstream demo`: a real federation on this machine, and its job logs live in the terminal."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nvflare_logstream.names import DEFAULT_LOG_FILES, SERVER_SITE
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.store.index import Index
from nvflare_logstream.store.store import INDEX_FILE
from nvflare_logstream.streams import State, Stream, Verdict

if TYPE_CHECKING:  # the runtime takes a second to import: only when the demo really runs
    from nvflare_logstream.lab.federation import Federation

SITES = ("site-1", "site-2")
_COLOURS = dict(zip(SITES, ("cyan", "magenta"), strict=True))
_JOB_SECONDS = 180.0
_CLOSE_SECONDS = 30.0
_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXAMPLES = ("nvflare-logstream demo", "nvflare-logstream demo --keep")
_CONTEXT = re.compile(r" - \[identity=[^]]*\]")  # the runtime's context, the same on every line


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the federation's directory and say how to look around in it.")
    ] = False,
) -> None:
    """Run a small job on a real federation and watch its logs arrive.

    Starts one server and two sites as processes of their own (mutual TLS, loopback only) in a temporary directory, runs a job
    whose sites log steps, a warning and a traceback, shows their lines as the server receives them, and checks at the end that
    the server's copies are those of the sites, byte for byte. Exit code 0 only if every stream is complete.
    """
    console = Console(highlight=False)
    with _interruptible():
        root = Path(tempfile.mkdtemp(prefix="nvflare-logstream-demo-"))
        good = False
        try:
            good = _run(root, console)
        except KeyboardInterrupt:
            console.print("\ninterrupted: shutting down", style="yellow")
            raise typer.Exit(_INTERRUPTED) from None
        except (OSError, RuntimeError, TimeoutError) as error:
            console.print(f"[red]the demo failed:[/] {error}")
            if not keep:
                console.print("Run it again with --keep and look at each site's console.txt and log.txt.")
        finally:
            _ignore_interrupts()
            if keep:
                _explain(root, console)
            else:
                shutil.rmtree(root, ignore_errors=True)
    raise typer.Exit(0 if good else 1)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM and SIGHUP as Ctrl-C, and put everything back as it was."""

    def interrupt(number: int, frame: object) -> None:
        _ignore_interrupts()
        before.clear()  # nothing comes after shutting down that an impatient second Ctrl-C would be meant for
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_interrupts() -> None:
    """From here on only shutting down is left: it takes two seconds and must not be cut short."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _run(root: Path, console: Console) -> bool:
    """Run the federation and the job; True if every stream is complete and equal."""
    with console.status("loading the runtime"):
        from nvflare_logstream.lab.federation import Federation
        from nvflare_logstream.lab.kits import SiteSetup, write_job

    server = SiteSetup([{"id": "log_receiver", "path": "nvflare_logstream.JobLogReceiver"}])
    client = SiteSetup([{"id": "site_log_streamer", "path": "nvflare_logstream.SiteLogStreamer"}])
    with console.status("starting one server and two sites") as status:

        def progress(text: str) -> None:
            console.print(f"[green]✓[/] {text}")
            status.update("starting one server and two sites")

        federation = Federation(root, SITES, server=server, client=client, on_progress=progress)
        try:
            federation.start()
            with as_file(files("nvflare_logstream.lab") / "demo_job.py") as source:
                job = write_job(root / "demo", "demo_job.DemoTrainer", custom=source, min_clients=len(SITES))
            job_id = federation.submit(job)
            status.update("the job is being deployed")
            streams = _show_live(federation, job_id, console, status.stop)
            return _report(federation, streams, console)
        finally:
            _ignore_interrupts()
            federation.stop()


def _show_live(
    federation: Federation, job_id: str, console: Console, on_line: Callable[[], None]
) -> list[Stream]:
    """Print the lines of both sites as they reach the server, until every stream of the job is closed."""
    store = federation.server_dir / "logstream"
    tailers = {site: Tailer(store / job_id / site, "log.txt") for site in SITES}
    pending = dict.fromkeys(SITES, b"")
    index = Index(store / INDEX_FILE)
    deadline, closing = time.monotonic() + _JOB_SECONDS, float("inf")
    try:
        while True:
            streams = index.find(job_id)
            seen = {(info.key.site, info.key.file) for info in streams if info.state is State.CLOSED}
            wanted = {(site, file) for site in (*SITES, SERVER_SITE) for file in DEFAULT_LOG_FILES}
            for site, tailer in tailers.items():
                while chunk := tailer.read(1 << 16):
                    on_line()
                    *lines, pending[site] = (pending[site] + chunk.data).split(b"\n")
                    for line in lines:
                        console.print(_coloured(site, line.decode(errors="replace")), soft_wrap=True)
            now = time.monotonic()
            if federation.status(job_id).startswith("FINISHED"):
                closing = min(closing, now + _CLOSE_SECONDS)
            if wanted <= seen or now > min(deadline, closing):
                return streams
            time.sleep(0.05)
    finally:
        index.close()
        for tailer in tailers.values():
            tailer.close()


def _coloured(site: str, line: str) -> Text:
    style = "bold red" if " - ERROR - " in line else "yellow" if " - WARNING - " in line else ""
    return Text.assemble((f"{site} ", f"bold {_COLOURS[site]}"), (_CONTEXT.sub("", line), style))


def _report(federation: Federation, streams: list[Stream], console: Console) -> bool:
    """Print the table of streams; True if each is complete and the same at both ends."""
    table = Table(
        title="The job's streams, as the server holds them", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.pad_edge, table.padding = False, (0, 1)
    for name in ("site", "file", "bytes", "lines", "verdict", "sha256", "at the site"):
        table.add_column(name, justify="right" if name in ("bytes", "lines") else "left", no_wrap=True)
    all_good = bool(streams)
    for info in streams:
        stored = _digest(
            federation.server_dir / "logstream" / info.key.job_id / info.key.site / info.key.file
        )
        # The server's own originals are removed by the runtime when it archives the job; its digest was taken before.
        at_site = info.digest
        if info.key.site != SERVER_SITE:
            at_site = _digest(federation.job_log_dir(info.key.site, info.key.job_id) / info.key.file)
        good = info.verdict is Verdict.COMPLETE and stored == at_site
        all_good &= good
        table.add_row(
            Text(info.key.site, style=_COLOURS.get(info.key.site, "")),
            info.key.file,
            f"{info.end:,}",
            f"{info.lines:,}",
            Text(info.standing, style="green" if info.verdict is Verdict.COMPLETE else "red"),
            stored[:12],
            Text("the same", style="green") if good else Text("DIFFERS", style="bold red"),
        )
    console.print(table)
    if all_good:
        console.print(
            "[green]Every stream is complete: the server holds what the sites wrote, byte for byte.[/]"
        )
    else:
        console.print("[red]Not every stream is complete; the table says which and why.[/]")
    return all_good


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def _explain(root: Path, console: Console) -> None:
    server = next(root.glob("kits/*/prod_00/server"), root)
    console.print(f"\nThe federation is shut down, its directory is kept: {root}", soft_wrap=True)
    console.print(f"  the server's copies   ls -R {server / 'logstream'}", soft_wrap=True)
    console.print(f"  a site's own logs     ls {server.parent / SITES[0]}/*/log.txt", soft_wrap=True)
    console.print(
        f"  what is known of them sqlite3 {server / 'logstream' / INDEX_FILE} 'select * from streams'",
        soft_wrap=True,
    )
    console.print(f"  remove it             rm -r {root}", soft_wrap=True)
