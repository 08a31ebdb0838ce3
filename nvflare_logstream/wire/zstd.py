"""Compression of a batch: zstd, from the standard library where it has it."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from nvflare_logstream.errors import WireError

_WINDOW_LOG = 23  # a block may ask for at most 8 MiB of history; level 1 itself uses half a MiB
_LEVEL = 1  # log text shrinks to a tenth at a few hundred MB/s; higher levels cost the training process more
_spare: list[zstd.ZstdCompressor] = []  # one that ended its block: to make one costs more than a small block


class Packer:
    """Compresses data as they come.

    Attributes:
        size: compressed bytes so far; it grows block by block.
    """

    def __init__(self) -> None:
        try:
            self._compressor = _spare.pop()
        except IndexError:
            self._compressor = zstd.ZstdCompressor(level=_LEVEL)
        self._parts: list[bytes] = []
        self.size = 0

    def put(self, data: bytes) -> None:
        """Add data."""
        self._keep(self._compressor.compress(data))

    def finish(self) -> bytes:
        """End the block and return it whole; nothing more is put in."""
        self._keep(self._compressor.flush())
        _spare[:] = [self._compressor]  # only here: in the middle of a block it is of no use to another
        del self._compressor
        return b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self.size += len(part)


class Unpacker:
    """Decompresses a block step by step, and never holds more than it is asked for.

    Args:
        block: the compressed bytes.
    """

    def __init__(self, block: bytes):
        self._decompressor = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        )
        self._input = block

    def take(self, length: int) -> bytes:
        """Return the next `length` bytes, fewer at the block's end.

        Raises:
            WireError: if the block is not valid zstd.
        """
        parts, missing = [], length
        while missing and not self._decompressor.eof:
            try:
                data = self._decompressor.decompress(self._input, max_length=missing)
            except zstd.ZstdError:
                raise WireError("data: not a valid zstd block") from None
            self._input = b""
            if not data and self._decompressor.needs_input:
                break
            parts.append(data)
            missing -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)
