"""The losses that a reader has told, so that none is forgotten of which the receiver knows nothing."""

from __future__ import annotations

from collections.abc import Sequence

from nvflare_logstream.streams import Loss


class Told:
    """Losses are numbered from the stream's start; a cursor carries how many were told before its place.

    A loss may be known from what the reader saw once and cannot see again. So it is told again where the
    receiver went back behind it, or refused the request that carried it.
    """

    def __init__(self) -> None:
        self._losses: list[Loss] = []  # told, the last ones up to number `count`
        self._again: list[Loss] = []  # to be told again
        self.count = 0

    def tell(self, losses: Sequence[Loss]) -> None:
        """These were told."""
        self._losses += losses
        self.count += len(losses)

    def go_back(self, known: int) -> None:
        """The receiver knows of `known` losses: tell the others again."""
        unknown = min(max(self.count - known, 0), len(self._losses))
        kept = len(self._losses) - unknown
        self._again = list(dict.fromkeys((*self._losses[kept:], *self._again)))
        self._losses, self.count = self._losses[:kept], known

    def due(self, offset: int, found: Sequence[Loss], *, at_end: bool = False) -> list[Loss]:
        """What is to be told again now.

        Args:
            offset: the place in the stream that the reader has reached.
            found: losses that it has found anew.
            at_end: nothing follows, so that all are due.
        """
        if not self._again:  # nearly always, and at each look
            return []
        due = [loss for loss in self._again if at_end or loss.offset <= offset]
        self._again = [loss for loss in self._again if loss not in due]
        places = {
            loss.offset for loss in found
        }  # what was found anew there is the same loss, maybe in other words
        placed = [loss._replace(offset=min(loss.offset, offset)) for loss in due]
        return [loss for loss in placed if loss.offset not in places]
