"""`nvflare-logstream demo`: a real federation on this machine, and its job logs live in the terminal."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.options import SchemaOption
from nvflare_logstream.errors import LogStreamError

if TYPE_CHECKING:
    from rich.console import Console

SITES = ("site-1", "site-2")
_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MUTATING = True  # it starts processes, and writes to a directory of its own
EXAMPLES = ("nvflare-logstream demo", "nvflare-logstream demo --keep")


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the federation's directory and say how to look around in it.")
    ] = False,
    schema: SchemaOption = False,
) -> None:
    """Run a small job on a real federation and watch its logs arrive.

    Starts one server and two sites as processes of their own (mutual TLS, loopback only) in a temporary
    directory, runs a job whose sites log steps, a warning and a traceback, shows their lines as the server
    receives them, and checks at the end that the server's copies are those of the sites, byte for byte. Exit
    code 0 only if every stream is complete.
    """
    import tempfile

    from nvflare_logstream.cli.screen import Screen

    terminal.take_over()
    console = Screen()
    with _interruptible():
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until it is sure that the directory goes again
        root = Path(tempfile.mkdtemp(prefix="nvflare-logstream-demo-"))
        good = False
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            good = _run(root, console)
        except KeyboardInterrupt:
            console.print("\ninterrupted: shutting down", style="yellow")
            raise typer.Exit(_INTERRUPTED) from None
        except (OSError, RuntimeError, LogStreamError) as error:
            console.print(f"the demo failed: {error}", style="red")
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
    """Run the demo to its end; True if every stream is complete and the same at both ends."""
    with console.status("loading the runtime"):  # takes a second: only when the demo really runs
        from nvflare_logstream.lab.demo import Demo

    demo = Demo(root, SITES, console)
    try:
        return demo.run()
    finally:
        _ignore_interrupts()
        demo.stop()


def _explain(root: Path, console: Console) -> None:
    from nvflare_logstream.store.store import INDEX_FILE

    server = next(root.glob("kits/*/prod_00/server"), root)
    console.print(f"\nThe federation is shut down, its directory is kept: {root}", soft_wrap=True)
    console.print(f"  the server's copies   ls -R {server / 'logstream'}", soft_wrap=True)
    console.print(f"  a site's own logs     ls {server.parent / SITES[0]}/*/log.txt", soft_wrap=True)
    console.print(
        f"  what is known of them sqlite3 {server / 'logstream' / INDEX_FILE} 'select * from streams'",
        soft_wrap=True,
    )
    console.print(f"  remove it             rm -r {root}", soft_wrap=True)
