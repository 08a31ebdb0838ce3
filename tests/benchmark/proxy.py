"""A long way on the loopback: a TCP proxy that holds back every byte for a while and limits nothing else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any


class DelayProxy:
    """Passes connections on to a local port; a context manager.

    Args:
        port: where to pass connections on to.
        delay: seconds that every byte is held back, in each direction.

    Attributes:
        port: where the proxy listens, on the loopback address.
    """

    def __init__(self, port: int, delay: float):
        self._target, self._delay = port, delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> DelayProxy:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _listen(self) -> int:
        server = await self._loop.create_server(self._accept, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    def _accept(self) -> _End:
        near, far = _End(self._loop, self._delay), _End(self._loop, self._delay)
        near.other, far.other = far, near
        near.task = self._loop.create_task(
            self._loop.create_connection(lambda: far, "127.0.0.1", self._target)
        )
        return near


class _End(asyncio.Protocol):
    """One end of a connection; what comes in here goes out at the other end, later."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float):
        self._loop, self._delay = loop, delay
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  # came before this end was connected
        self.other: _End = self
        self.task: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        for data in self._early:
            transport.write(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        self._loop.call_later(self._delay, self.other._send, bytes(data))

    def connection_lost(self, error: Exception | None) -> None:
        self._loop.call_later(self._delay, self.other._close)

    def _send(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
