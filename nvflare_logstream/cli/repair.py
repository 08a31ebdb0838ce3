"""`nvflare-logstream repair`: make a damaged index of a server's log store anew."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvflare_logstream.cli.options import AnswerFormatOption, SchemaOption
from nvflare_logstream.cli.output import OK, REFUSED, AnswerFormat, print_envelope, say
from nvflare_logstream.errors import ErrorCode, RetrievalError, StoreError

if TYPE_CHECKING:
    from nvflare_logstream.store.repair import Repair

MUTATING = True
EXAMPLES = (
    "nvflare-logstream repair /srv/nvflare/server/logstream",
    "nvflare-logstream repair ./logstream --format json",
)


def repair(
    store_dir: Annotated[
        Path, typer.Argument(metavar="STORE_DIR", help="The store's directory, on the server's machine.")
    ],
    form: AnswerFormatOption = AnswerFormat.TEXT,
    schema: SchemaOption = False,
) -> None:
    """Make the index of a server's log store anew, from what can be read of it and from the stored logs.

    For a store whose index is damaged, so that the server receives no logs. Stop the server first. No log is
    changed, and the damaged index is kept under another name. A log of which only the file is left is partial
    until its site goes on with it; one that was complete stays so only if its bytes still have the sha256
    that its site gave. An index that is sound is left as it is, or gets the logs that it lacks.
    """
    from nvflare_logstream.store.repair import repair as repair_store

    try:
        done = repair_store(store_dir)
    except (StoreError, OSError) as error:
        hint = "Nothing was changed."
        raise RetrievalError(ErrorCode.STORE_NOT_REPAIRED, str(error), hint) from error
    if form is AnswerFormat.JSON:
        rows = [
            {**stream.key._asdict(), "bytes": stream.end, "verdict": stream.verdict, "from": origin}
            for stream, origin in done.rows
        ]
        kept_as = str(done.kept_as) if done.kept_as else None
        found = {"damage": done.damage, "kept_as": kept_as, "logs": rows, "failures": list(done.failures)}
        print_envelope(found, REFUSED if done.failures else OK)
    else:
        _show(store_dir, done)
    raise typer.Exit(REFUSED if done.failures else OK)


def _show(store_dir: Path, done: Repair) -> None:
    from nvflare_logstream.store.repair import Origin

    counts = Counter(origin for _, origin in done.rows)
    say(f"the index of {store_dir}: {done.damage or 'it is sound'}")
    for stream, origin in done.rows:
        if origin is not Origin.INDEX:
            say(f"{stream.key}: {stream.end:,} bytes, {stream.standing}")
    unproven, files = counts[Origin.UNPROVEN], counts[Origin.FILE]
    say(f"{counts[Origin.INDEX]} logs are as they were; {files} are known by their files alone")
    if unproven:
        say(f"of {unproven} logs that were complete nobody knows it any more")
    for failure in done.failures:
        say(f"cannot look at {failure}; run the command again when that can be read")
    if done.kept_as:
        say(f"the old index is kept as {done.kept_as}; the server can be started again")
