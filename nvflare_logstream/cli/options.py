"""The options that the commands share, and the connection that they ask for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvflare_logstream.cli import terminal
from nvflare_logstream.cli.output import (
    CONNECTION,
    TIMEOUT,
    AnswerFormat,
    Format,
    exit_code_of,
    notice,
    print_json,
)
from nvflare_logstream.errors import RetrievalError
from nvflare_logstream.names import ALL_SITES, SERVER_SITE

if TYPE_CHECKING:  # the runtime takes half a second to load: only once the arguments are right
    from cryptography.x509 import Certificate

    from nvflare_logstream.client.client import LogClient
    from nvflare_logstream.client.signature import Signer

_KIT = "Start-up kit"
ALL_LINES = -1
_LEVEL_NAMES = {"WARN": "WARNING", "ERR": "ERROR", "CRIT": "CRITICAL", "FATAL": "CRITICAL"}


def whole_number(given: object) -> int:
    """Read the value of an option that counts something.

    Raises:
        typer.BadParameter: if it is no whole number from 0 on.
    """
    text = str(given)  # typer gives a default as the number that it is
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise typer.BadParameter(f"{text!r} is not allowed; a whole number from 0 on")
    return int(text)


def named_directory(given: object) -> Path:
    """Read the directory that a command changes.

    Raises:
        typer.BadParameter: if it is empty, as a shell's variable that is not set: it would be this directory.
    """
    if not str(given):
        raise typer.BadParameter("an empty name; for this directory, write .")
    return Path(str(given))


def tail_lines(given: object) -> int:
    """Read the value of --tail: a number of lines, or `ALL_LINES` for "all" and "-1".

    Raises:
        typer.BadParameter: if it is neither.
    """
    if str(given).lower() in ("all", str(ALL_LINES)):
        return ALL_LINES
    try:
        return whole_number(given)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{error.message}, or all") from None


def level(given: object) -> str:
    """Read the name of a level, in capitals or small letters, also a short or an older one."""
    name = str(given).upper()
    return _LEVEL_NAMES.get(name, name)


def seconds(given: object) -> float:
    """Read the value of an option that is a time span in seconds.

    Raises:
        typer.BadParameter: if it is no number from 0.1 to 3600.
    """
    try:
        value = float(str(given))
    except ValueError:
        value = float("nan")
    if not 0.1 <= value <= 3600:
        raise typer.BadParameter(f"{str(given)!r} is not allowed; a number of seconds from 0.1 to 3600")
    return value


def completed(what: str) -> Callable[[typer.Context, str], Iterable[tuple[str, str]]]:
    """What a shell is offered for an option: "jobs", "sites" or "files", as the server knows them."""

    def complete(ctx: typer.Context, incomplete: str) -> Iterable[tuple[str, str]]:
        from nvflare_logstream.cli import complete

        found: Iterable[tuple[str, str]] = getattr(complete, what)(ctx, incomplete)
        return found

    return complete


JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB_ID",
        help="A job's id, the beginning of one, or @latest.",
        autocompletion=completed("jobs"),
    ),
]
AnyJobArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[JOB_ID]",
        autocompletion=completed("jobs"),
        help="A job's id, the beginning of one, or @latest. Default: list all jobs.",
    ),
]
StudyOption = Annotated[
    str, typer.Option("--study", metavar="NAME", help="The study that the job was submitted to.")
]
KitIdOption = Annotated[
    str | None,
    typer.Option("--kit-id", metavar="ID", help="Use this registered start-up kit.", rich_help_panel=_KIT),
]
KitOption = Annotated[
    str | None,
    typer.Option(
        "--startup-kit",
        metavar="DIR",
        help="Use the admin start-up kit in this directory. "
        "Default: $NVFLARE_STARTUP_KIT_DIR, then the active kit.",
        rich_help_panel=_KIT,
    ),
]
IntervalOption = Annotated[
    float,
    typer.Option("--interval", metavar="SECONDS", parser=seconds, help="How often --watch refreshes."),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--connect-timeout",
        metavar="SECONDS",
        parser=seconds,
        help="How long to try to connect.",
        rich_help_panel=_KIT,
    ),
]
NoPagerOption = Annotated[
    bool, typer.Option("--no-pager", help="Print long text without $PAGER, also on a terminal.")
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="text for people, json or jsonl for programs.")
]
AnswerFormatOption = Annotated[
    AnswerFormat, typer.Option("--format", help="text for people, json for programs.")
]


def _print_schema(context: typer.Context, wanted: bool) -> None:
    """Answer --schema before anything is asked of the other arguments."""
    if wanted:
        from nvflare_logstream.cli.schema import schema_of

        print_json(schema_of(str(context.command.name)))
        raise typer.Exit


SchemaOption = Annotated[
    bool,
    typer.Option(
        "--schema", is_eager=True, callback=_print_schema, help="Print the command's schema as JSON and exit."
    ),
]


@dataclass(frozen=True)
class Access:
    """Who asks, and where: the options that every command has."""

    study: str
    kit_id: str | None
    startup_kit: str | None
    timeout: float

    def __post_init__(self) -> None:
        need(
            not (self.kit_id and self.startup_kit),
            "--kit-id and --startup-kit both name a start-up kit; use one of them",
        )

    def federation_root(self) -> Certificate | None:
        """The certificate of the start-up kit's federation; None where no kit was named and none is active.

        Raises:
            RetrievalError: STARTUP_KIT_MISSING, if a kit was named and has none.
        """
        from nvflare_logstream.flare.kit_keys import federation_root

        return federation_root(self.kit_id, self.startup_kit)

    def signer(self) -> Signer:
        """Signs with the key of the start-up kit.

        Raises:
            RetrievalError: STARTUP_KIT_MISSING, saying why it cannot be used.
        """
        from nvflare_logstream.flare.kit_keys import open_signer

        return open_signer(self.kit_id, self.startup_kit)

    @contextmanager
    def client(self) -> Iterator[LogClient]:
        """A logged-in client.

        Raises:
            RetrievalError: with a code and a hint, if there is no start-up kit, no connection, or the server
                says no.
        """
        terminal.take_over()  # the runtime writes of lost connections; we say it in our own words
        # Loading the runtime makes many objects that all stay: looking for garbage would cost a tenth more.
        gc.disable()
        try:
            from nvflare_logstream.flare.admin_session import open_client

            client = open_client(self.kit_id, self.startup_kit, self.study, self.timeout)
        finally:
            gc.freeze()
            gc.enable()
        try:
            yield client
        except KeyboardInterrupt:
            raise  # the process ends, and the connection with it: a logout would wait for a frozen server
        except RetrievalError as error:
            if exit_code_of(error) not in (CONNECTION, TIMEOUT):
                client.close()
            raise
        except BaseException:
            client.close()
            raise
        client.close()


def need_refreshable(watch: bool, form: str) -> None:
    """Refuse --watch where its output cannot be refreshed.

    Raises:
        typer.BadParameter: for a JSON envelope and for CSV.
    """
    need(
        not (watch and form in ("json", "csv")),
        f"--watch with --format {form}: one envelope cannot be refreshed; use jsonl",
    )


def names(typed: list[str] | None) -> tuple[str, ...]:
    """Names, each typed alone or with commas between."""
    return tuple(name.strip() for given in typed or () for name in given.split(","))


def site_names(typed: list[str] | None) -> tuple[str, ...]:
    """Names and patterns of sites as `names` gives them; "all" and "server" in capitals too.

    A site that is really called so in capitals is what the pattern "[A]LL" finds.
    """
    words = {ALL_SITES, SERVER_SITE}
    return tuple(name.lower() if name.lower() in words else name for name in names(typed))


def need(condition: bool, text: str) -> None:
    """Refuse options that do not go together.

    Raises:
        typer.BadParameter: with `text`, unless `condition`.
    """
    if not condition:
        raise typer.BadParameter(text)


def say_job(job_id: str, typed: str) -> None:
    """Tell which job was found, where the id was not typed in full."""
    if job_id != typed:
        notice(f"job {job_id}")
