"""Many sites at one server: the real receiver over a real store, and senders in this process.

A sender here is no thread and follows no file: it keeps the protocol (one request at a time, and not before
the receiver said), so that what is measured is the receiver. Several threads bring it what is due, as the
runtime's do: a request that waits for the disk keeps no other one waiting. What the runtime needs to carry a
message, about 1 ms of the server's CPU, comes on top. There are no stock components beside it.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from nvflare_logstream.flare.keeper import Keeper
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload import Close, Frame, RequestWriter
from nvflare_logstream.wire.upload_reply import Reply, decode_reply

from .cases import Sizes, Values

_LINES_PER_SECOND = 10
_THREADS = 8  # that bring requests; the runtime has more
_STREAM = StreamId("job", "log.txt")


class _Server:
    """The receiver, its store and their keeper, with the CPU time that they take."""

    def __init__(self, root: Path):
        self.store = LogStore(root)
        self._receiver = Receiver(self.store, lambda site, job_id: Admission())
        self._keeper = Keeper([self._commit])
        self._keeper.start()
        self._lock = threading.Lock()
        self._handling = self._committing = 0.0

    @property
    def cpu(self) -> float:
        """Seconds so far."""
        return self._handling + self._committing

    def handle(self, payload: bytes, site: str) -> Reply:
        began = time.thread_time()
        answer = self._receiver.handle(payload, Peer(site))
        with self._lock:
            self._handling += time.thread_time() - began
        reply = decode_reply(answer)
        assert not reply.error, reply.error
        return reply

    def _commit(self) -> None:
        began = time.thread_time()
        self.store.commit()
        self._committing += time.thread_time() - began

    def stop(self) -> None:
        self._keeper.stop()
        self.store.close()


class _Sender:
    """One site with one log, to which lines are written at a steady rate from `began` on."""

    def __init__(self, number: int, server: _Server, latencies: list[float]):
        self.site, self._server, self._latencies = f"site-{number}", server, latencies
        self._sent = self._lines = 0
        self._hasher = hashlib.sha256()
        self.first_line = 0.0

    def open(self) -> None:
        writer = RequestWriter(time.time(), 0)
        writer.open(_STREAM)
        self._server.handle(writer.encode(), self.site)

    def send(self, until: float) -> float:
        """Send all lines written until now, and say when to come again."""
        now = min(time.monotonic(), until)
        written = max(0, int((now - self.first_line) * _LINES_PER_SECOND) + 1)
        first, self._lines = self._lines, max(written, self._lines)
        data = b"".join(
            b"%s epoch 1 step %d loss=0.5\n" % (self.site.encode(), n) for n in range(first, written)
        )
        writer = RequestWriter(time.time(), 0)
        writer.frame(Frame(_STREAM, self._sent, data, b"%060d" % written))
        reply = self._server.handle(writer.encode(), self.site)
        self._hasher.update(data)
        self._sent += len(data)
        assert reply.streams[0].end == self._sent, reply
        done = time.monotonic()
        self._latencies += [done - self._written_at(number) for number in range(first, written)]
        return max(done + reply.not_before, self._written_at(self._lines))

    def _written_at(self, line: int) -> float:
        return self.first_line + line / _LINES_PER_SECOND

    def close(self) -> bool:
        writer = RequestWriter(time.time(), 0)
        writer.close(Close(_STREAM, self._sent, self._hasher.hexdigest(), 0, "exit code 0"))
        (row,) = self._server.handle(writer.encode(), self.site).streams
        return row.verdict is Verdict.COMPLETE


def thousand(root: Path, sizes: Sizes, setups: Sequence[str]) -> dict[str, Values]:
    """10, 100 and 1,000 sites at 10 lines/s each."""
    values: Values = {}
    for count in sizes.senders:
        found = _crowd(root / str(count), count, min(sizes.seconds, 20.0))
        values |= {f"{name}_{count}": value for name, value in found.items()}
    return {"ours": values}


CASES = {"thousand": thousand}


def _crowd(root: Path, count: int, seconds: float) -> Values:
    latencies: list[float] = []
    before, files, threads = _memory(), _open_files(), threading.active_count()
    server = _Server(root)
    senders = [_Sender(number, server, latencies) for number in range(count)]
    for sender in senders:
        sender.open()
    opened, began = server.cpu, time.monotonic()
    until = began + seconds
    for number, sender in enumerate(senders):
        sender.first_line = began + number / count / _LINES_PER_SECOND
    turns = [(sender.first_line, number) for number, sender in enumerate(senders)]
    heapq.heapify(turns)
    lock, most_files, most_threads = threading.Lock(), [0], [0]

    def bring_what_is_due() -> None:
        while True:
            with lock:
                if not turns:
                    return
                due, number = heapq.heappop(turns)
            if due >= until:
                continue
            time.sleep(max(0.0, due - time.monotonic()))
            again = senders[number].send(until)
            with lock:
                heapq.heappush(turns, (again, number))
            if not number:
                most_files.append(_open_files() - files)
                most_threads.append(threading.active_count() - threads - _THREADS)

    workers = [threading.Thread(target=bring_what_is_due) for _ in range(_THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cpu = (server.cpu - opened) / (time.monotonic() - began)
    memory = _memory() - before
    for sender in senders:
        sender.send(until)
    incomplete = sum(not sender.close() for sender in senders)
    server.stop()
    return {
        "cpu": cpu,
        "latency": statistics.median(latencies),
        "latency_p95": statistics.quantiles(latencies, n=20)[-1],
        "memory": memory,
        "files": max(most_files),
        "threads": max(most_threads),
        "incomplete": incomplete,
    }


def _memory() -> float:
    return float(psutil.Process().memory_info().rss / (1 << 20))


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
