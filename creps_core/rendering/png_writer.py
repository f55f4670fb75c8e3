"""PNG files, written block by block."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .image_writer import BLOCK, ZLIB_LEVEL, ImageWriter, deflate_bound, state_number

_CHUNK = 1 << 20  # bytes that are compressed independently: the work of one thread


class PngWriter(ImageWriter):
    """PNG. The deflate stream is cut into independent chunks (full flush): threads compress them in parallel, and
    writing can resume after any of them with nothing but the running checksum.
    """

    checksum: int = 1
    first: int = 0
    """Offset of the first chunk of pixels."""

    def begin(self) -> None:
        kind = {1: 0, 3: 2, 4: 6}[self.channels]  # grey, RGB, RGBA
        header = struct.pack(">IIBBBBB", self.width, self.height, 8 * self.dtype.itemsize, kind, 0, 0, 0)
        # Before the pixels, where all readers find them.
        texts = b"".join(_png_text(key, value) for key, value in self.text.items())
        self.append(b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + texts + _png_chunk(b"IDAT", b"\x78\x9c"))
        self.first = self.file.tell()
        self._end_part(0)

    def restore(self, rows: int, size: int, parts: list[list[int]], state: Mapping[str, Any]) -> None:
        super().restore(rows, size, parts, state)
        self.checksum, self.first = state_number(state, "checksum"), state_number(state, "first")

    def state(self) -> dict[str, Any]:
        return {"checksum": self.checksum, "first": self.first}

    def read_back(self) -> Iterator[np.ndarray]:
        self.file.seek(self.first)
        whole, samples = 1, self.channels * self.dtype.itemsize
        for top in range(0, self.rows, BLOCK):
            block = np.empty((min(BLOCK, self.rows - top), self.width * samples), np.uint8)
            done = 0
            while done < len(block):
                data = self._next_chunk()
                whole = zlib.adler32(data, whole)
                rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + block.shape[1])
                for row in rows:
                    if row[0] == 1:  # filter type: difference from the left neighbour
                        pixels = row[1:].reshape(-1, samples)
                        np.cumsum(pixels, 0, np.uint8, out=block[done].reshape(-1, samples))
                    else:
                        np.add(row[1:], block[done - 1], out=block[done])
                    done += 1
            pixels = block.view(self.dtype.newbyteorder(">")).astype(self.dtype, copy=False)
            yield pixels.reshape(len(block), self.width, self.channels)
        if whole != self.checksum:
            raise ValueError("its pixels do not match their checksum")
        self.file.seek(self.size)

    def reset(self) -> None:
        super().reset()
        self.checksum, self.first = 1, 0

    def _next_chunk(self) -> bytes:
        """The next chunk of the file, decompressed."""
        head = self.file.read(8)
        if len(head or b"") < 8 or head[4:] != b"IDAT":
            raise ValueError("a chunk of its data is missing")
        size = int.from_bytes(head[:4], "big")
        data = self.file.read(size + 4)
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[:size])
        except zlib.error as error:
            raise ValueError(f"its data are damaged ({error})") from error

    def write(self, block: np.ndarray) -> None:
        samples = np.ascontiguousarray(block, self.dtype.newbyteorder(">")).reshape(len(block), -1).view(np.uint8)
        rows = max(1, _CHUNK // samples.shape[1])
        tops = range(0, len(block), rows)
        for chunk, checksum, length in self.pool.map(lambda top: self._compress(samples, top, top + rows), tops):
            self.append(_png_chunk(b"IDAT", chunk))
            self.checksum = _joined_adler32(self.checksum, checksum, length)
        self._end_part(len(block))

    def _compress(self, samples: np.ndarray, top: int, bottom: int) -> tuple[bytes, int, int]:
        """A chunk of the deflate stream from filtered rows, with their checksum and length."""
        rows, step = samples[top:bottom], self.channels * self.dtype.itemsize
        left, up = rows.copy(), rows.copy()
        left[:, step:] -= rows[:, :-step]
        up[1:] -= rows[:-1]
        if top:
            up[0] -= samples[top - 1]
        # The usual heuristic: smaller differences compress better. The first row of a block has no row above it.
        cost = [np.minimum(d, np.negative(d)).sum(1, dtype=np.int64) for d in (left, up)]
        use_up = cost[1] < cost[0]
        use_up[0] &= top > 0
        filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        filtered[:, 0] = 1 + use_up  # filter types: 1 left, 2 up
        filtered[:, 1:] = np.where(use_up[:, None], up, left)
        data = filtered.tobytes()
        compressor = zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        return compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH), zlib.adler32(data), len(data)

    def finish(self, after: Callable[[int], None]) -> None:
        last = zlib.compressobj(wbits=-zlib.MAX_WBITS).flush()
        self.append(_png_chunk(b"IDAT", last + struct.pack(">I", self.checksum)))
        self.append(_png_chunk(b"IEND", b""))

    @classmethod
    def max_bytes(cls, height: int, width: int, channels: int, bits: int) -> int:
        row = 1 + width * channels * bits // 8
        chunks = math.ceil(height / max(1, _CHUNK // row)) + height // BLOCK
        return deflate_bound(height * row) + 64 * chunks


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _png_text(key: str, value: str) -> bytes:
    try:
        return _png_chunk(b"tEXt", f"{key}\0{value}".encode("latin-1"))
    except UnicodeEncodeError:
        return _png_chunk(b"iTXt", f"{key}\0\0\0\0\0{value}".encode())


def _joined_adler32(first: int, second: int, length: int) -> int:
    """The Adler-32 checksum of two concatenated byte strings, from their checksums and the length of the second."""
    base = 65521
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)
    return high % base << 16 | low % base
