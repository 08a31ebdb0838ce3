"""The sender's way to the receiver."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class Link:
    """One request is under way at a time; a link needs to have `send` only."""

    def send(self, payload: bytes) -> bytes:
        """Send a request and return the reply.

        Raises:
            LinkError: if there was none; the request may or may not have been taken.
        """
        raise NotImplementedError

    def post(self, payload: bytes) -> Callable[[], bytes]:
        """Send a request and return at once, so that the next can be prepared meanwhile.

        Returns:
            A function that waits for the reply, as `send` does.
        """
        return partial(self.send, payload)
