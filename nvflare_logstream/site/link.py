"""The sender's way to the receiver."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class Link:
    """Carries one request at a time; a subclass needs to define `send` only."""

    def send(self, payload: bytes) -> bytes:
        """Send a request and return the reply.

        Raises:
            LinkError: if there was no reply; the receiver may or may not have taken the request.
        """
        raise NotImplementedError

    def post(self, payload: bytes) -> Callable[[], bytes]:
        """Send a request and return at once, so that the next can be prepared meanwhile.

        Returns:
            A function that waits for the reply; it returns and raises what `send` does.
        """
        return partial(self.send, payload)

    def tell(self, payload: bytes) -> None:
        """Send a request to which no answer is wanted.

        Raises:
            LinkError: if it cannot be sent; nobody learns of what is lost later on the way.
        """
        self.send(payload)
