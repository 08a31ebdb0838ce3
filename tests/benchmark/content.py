"""Log text like that of a training job, the same bytes for every set-up."""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

_BLOCK = 20_000_000  # bytes that do not repeat: far more than any compression window looks back
_BEGIN = 1_760_000_000.0
_STAMP = len("2025-10-09 08:53:20,000")


def write_content(path: Path, size: int) -> None:
    """Write `size` bytes of log lines, 140 bytes on average; times, counters and measures all differ."""
    block = _block(min(size, _BLOCK))
    with path.open("wb") as file:
        while (missing := size - file.tell()) > 0:
            file.write(block[:missing])


def write_log(path: Path, size: int, planted: Mapping[int, bytes] | None = None) -> tuple[int, str]:
    """Write a log of just over `size` bytes, forty lines a second, whose times never go back.

    Args:
        path: where.
        size: bytes.
        planted: what follows the time of further lines, by how many others lie between; multiples of 40.

    Returns:
        Its lines and its sha256.
    """
    # What follows the times repeats: to make up a gigabyte of it would take a minute.
    texts = [line[_STAMP:] for line in _block(min(size, _BLOCK)).splitlines(keepends=True)[:-1]]
    lines, second, hasher = 0, int(_BEGIN), hashlib.sha256()
    with path.open("wb") as file:
        while file.tell() < size:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second)).encode()
            data = b"".join(
                b"%s,%03d%s" % (stamp, 25 * number, texts[(lines + number) % len(texts)])
                for number in range(40)
            )
            for every, text in (planted or {}).items():
                if lines and lines % every == 0:
                    data += b"%s,999%s" % (stamp, text)
            file.write(data)
            hasher.update(data)
            lines, second = lines + 40, second + 1
    return lines, hasher.hexdigest()


def _block(size: int) -> bytes:
    dice = random.Random(1)
    run = uuid.UUID(int=dice.getrandbits(128))
    context = f"[identity=site-1, run={run}]"
    now, length, lines, step = _BEGIN, 0, [], 0
    while length < size:
        now += dice.expovariate(40)
        step += 1
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))},{int(now % 1 * 1000):03d}"
        kind = dice.random()
        if kind < 0.7:
            measures = f"loss={dice.random():.6f} accuracy={dice.random():.4f} lr={dice.random() / 1000:.3e}"
            text = f"Trainer - INFO - {context} - epoch {step // 2000} step {step} {measures}"
        elif kind < 0.85:
            batch, took = dice.randrange(10**6), dice.random() * 90
            text = f"DataLoader - INFO - {context} - batch {batch} read in {took:.1f} ms"
        elif kind < 0.97:
            result = uuid.UUID(int=dice.getrandbits(128))
            text = f"ClientRunner - INFO - {context} - sending result {result} to server"
        else:
            layer, scale = dice.randrange(96), dice.random()
            text = f"GradScaler - WARNING - {context} - overflow in layer {layer}, scale is {scale:.3f}"
        line = f"{stamp} - {text}\n"
        lines.append(line)
        length += len(line)
    return "".join(lines).encode()[:size]
