"""How a stream's ledger grows, and where it ends."""

from __future__ import annotations

from collections.abc import Iterable

from nvflare_logstream.streams import LEDGER_FULL, Loss

MAX_LOSSES = 1000  # entries a stream may have; the last one says that there were more


def new_entries(ledger: tuple[Loss, ...], losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """What `losses` add to a ledger: each once, and nothing to a full one; its last place is no note's."""
    entries: list[Loss] = []
    for loss in losses:
        room = MAX_LOSSES - len(ledger) - len(entries)
        if not room:
            break
        if loss not in ledger and loss not in entries and not (room == 1 and loss.is_note):
            entries.append(loss if room > 1 else Loss(loss.offset, None, LEDGER_FULL))
    return tuple(entries)
