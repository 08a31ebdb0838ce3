"""How each site stands with the receiver: what it runs, when it was heard of, whether it is connected."""

from __future__ import annotations

from typing import NamedTuple

from nvflare_logstream.lines import in_one_line
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import MAX_OFFSET

MAX_STANDINGS = 1000  # sites in one answer
_MOST_SKEW = 1e11  # seconds


class Standing(NamedTuple):
    """One site.

    Attributes:
        heard: when something came from it last, in seconds since the epoch; 0 if never.
        open: how many of its streams are open; `silent` of them were not heard of for a while.
        connected: whether the runtime has it among its clients now.
        package, runtime, protocol: the versions that it runs, by its last word since the receiver started;
            empty and 0 where it has said none.
        stock: what came from it last, the runtime's own streamer sent.
        skew: its clock against the server's then, in seconds; positive if it is ahead.
    """

    site: str
    heard: float = 0.0
    open: int = 0
    silent: int = 0
    connected: bool = False
    package: str = ""
    runtime: str = ""
    protocol: int = 0
    skew: float = 0.0
    stock: bool = False


def decode_standing(row: Fields) -> Standing:
    """A site as it came to the reader; every text in it can be shown on a terminal, in one line.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    opened, silent = row.numbers(("open", "silent"), MAX_OFFSET)
    return Standing(
        in_one_line(row.text("site")),
        row.time("heard"),
        opened,
        silent,
        row.flag("connected"),
        row.version("package"),
        row.version("runtime"),
        row.number("protocol", 1 << 31),
        row.real("skew", -_MOST_SKEW, _MOST_SKEW, default=0.0),
        row.flag("stock"),
    )
