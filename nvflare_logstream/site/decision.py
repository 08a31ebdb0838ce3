"""What a site says when it is asked whether it allows something."""

from __future__ import annotations

from typing import NamedTuple


class Decision(NamedTuple):
    """Something is allowed or not, and why.

    Attributes:
        allowed: the decision.
        reason: why, in plain words; never empty.
        sure: the site has decided so; False if it is not known what it wants, which may be known later.
    """

    allowed: bool
    reason: str
    sure: bool = True


def always() -> Decision:
    """The answer where there is no site to ask."""
    return Decision(True, "nobody keeps these logs back")
