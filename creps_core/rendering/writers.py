"""Picture files that are written from top to bottom and can be gone on with after a stop: PNG and tiled TIFF.

A writer takes the picture in blocks of `BLOCK` rows and only ever appends. After each block, `size` bytes of the file
and the numbers of `state` are all that another writer needs to go on, and the file comes out the same, bit by bit.
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from itertools import pairwise
from typing import Any

import numpy as np
import torch

BLOCK = 256
"""Rows of pixels that a writer takes at a time; also the side of a TIFF's tiles."""
_LEVEL = 4  # of zlib: 6 takes three times as long for files that are 14 % smaller
_PNG_CHUNK = 1 << 20  # bytes compressed by themselves: a thread's piece of work


class Writer(ABC):
    """Writes one picture; use a class of `FORMATS`.

    Args:
        file: opened for reading and writing, unbuffered: a full disk then shows at once, and leaves no buffer behind.
        height, width, channels: of the picture; 1 (grey), 3 or 4 channels.
        bits: per channel, 8 or 16.
        text: kept in the file.
    """

    def __init__(
        self, file: FileIO, height: int, width: int, channels: int, bits: int = 8, text: Mapping[str, str] | None = None
    ):
        self.file, self.text = file, dict(text or {})
        self.height, self.width, self.channels = height, width, channels
        self.dtype = np.dtype(f"u{bits // 8}")
        self.rows = 0
        self.size = 0
        """What `rows` rows take of the file, in bytes."""
        self.parts: list[list[int]] = []
        """[end, CRC-32] of what `begin` and each block wrote: whoever goes on can see whether it is still there."""
        self._crc = 0
        self.finish_work = 0.0  # share of the work of rendering that `finish` is, about
        self.pool = ThreadPoolExecutor(max(1, torch.get_num_threads()), "creps-write")  # zlib releases Python's lock

    @classmethod  # noqa: B027
    def require(cls) -> None:
        """Raises ImportError if a library that the format needs is missing."""

    @abstractmethod
    def begin(self) -> None:
        """Write what precedes the first row."""

    def restore(self, rows: int, size: int, parts: list[list[int]], state: Mapping[str, Any]) -> None:
        """Go on after `rows` rows: drop what the file has beyond `size` bytes.

        Raises:
            ValueError: these are not the rows and the state of such a picture.
        """
        if not 0 < rows <= self.height or (rows % BLOCK and rows != self.height):
            raise ValueError(f"{rows} rows are not whole blocks")
        self.rows, self.size, self.parts = rows, size, parts
        self.file.truncate(size)
        self.file.seek(size)

    @abstractmethod
    def write(self, block: np.ndarray) -> None:
        """Append the next block, [BLOCK, width, channels], fewer rows at the bottom."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the file, as JSON."""
        return {}

    def reset(self) -> None:
        """Forget what `restore` took up: the file is empty."""
        self.rows, self.size, self.parts = 0, 0, []

    @abstractmethod
    def written(self) -> Iterator[np.ndarray]:
        """The blocks that are in the file, read back from it; leaves it at its end.

        Raises:
            ValueError: they cannot be decoded.
        """

    @abstractmethod
    def finish(self, after: Callable[[int], None]) -> None:
        """Append what follows the last row; `after(rows)` is called as rows are gone through once more, if they are."""

    def close(self) -> None:
        """Stop the threads. The file stays open."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    @classmethod
    @abstractmethod
    def most_bytes(cls, height: int, width: int, channels: int, bits: int) -> int:
        """What the file takes at worst: pixels that do not compress at all."""

    def append(self, data: bytes) -> None:
        """Write all of it, which one call of an unbuffered file need not do."""
        self._crc = zlib.crc32(data, self._crc)
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def _written(self, rows: int) -> None:
        self.rows, self.size = self.rows + rows, self.file.tell()
        self.parts.append([self.size, self._crc])
        self._crc = 0


class PngWriter(Writer):
    """PNG. The deflate stream is cut into pieces that know nothing of each other (full flush), so that threads compress
    them side by side and writing can go on after any of them; of the whole only the running checksum is needed.
    """

    checksum = 1
    first = 0
    """Where the first piece of pixels begins."""

    def begin(self) -> None:
        kind = {1: 0, 3: 2, 4: 6}[self.channels]  # grey, RGB, RGBA
        header = struct.pack(">IIBBBBB", self.width, self.height, 8 * self.dtype.itemsize, kind, 0, 0, 0)
        texts = b"".join(_png_text(key, value) for key, value in self.text.items())  # readers may look no further
        self.append(b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + texts + _png_chunk(b"IDAT", b"\x78\x9c"))
        self.first = self.file.tell()
        self._written(0)

    def restore(self, rows: int, size: int, parts: list[list[int]], state: Mapping[str, Any]) -> None:
        super().restore(rows, size, parts, state)
        self.checksum, self.first = _number(state, "checksum"), _number(state, "first")

    def state(self) -> dict[str, Any]:
        return {"checksum": self.checksum, "first": self.first}

    def written(self) -> Iterator[np.ndarray]:
        self.file.seek(self.first)
        whole, samples = 1, self.channels * self.dtype.itemsize
        for top in range(0, self.rows, BLOCK):
            block = np.empty((min(BLOCK, self.rows - top), self.width * samples), np.uint8)
            done = 0
            while done < len(block):
                data = self._piece()
                whole = zlib.adler32(data, whole)
                rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + block.shape[1])
                for row in rows:
                    if row[0] == 1:  # the difference to the left
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

    def _piece(self) -> bytes:
        """The next chunk of the file, decompressed."""
        head = self.file.read(8)
        if len(head or b"") < 8 or head[4:] != b"IDAT":
            raise ValueError("a piece of its data is missing")
        size = int.from_bytes(head[:4], "big")
        data = self.file.read(size + 4)
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[:size])
        except zlib.error as error:
            raise ValueError(f"its data are damaged ({error})") from error

    def write(self, block: np.ndarray) -> None:
        samples = np.ascontiguousarray(block, self.dtype.newbyteorder(">")).reshape(len(block), -1).view(np.uint8)
        rows = max(1, _PNG_CHUNK // samples.shape[1])
        tops = range(0, len(block), rows)
        for chunk, checksum, length in self.pool.map(lambda top: self._compress(samples, top, top + rows), tops):
            self.append(_png_chunk(b"IDAT", chunk))
            self.checksum = _joined_adler32(self.checksum, checksum, length)
        self._written(len(block))

    def _compress(self, samples: np.ndarray, top: int, bottom: int) -> tuple[bytes, int, int]:
        """A piece of the deflate stream from filtered rows; their checksum and length."""
        rows, step = samples[top:bottom], self.channels * self.dtype.itemsize
        left, up = rows.copy(), rows.copy()
        left[:, step:] -= rows[:, :-step]
        up[1:] -= rows[:-1]
        if top:
            up[0] -= samples[top - 1]
        # The usual guess: what has the smaller differences compresses better. A block's first row has none above.
        cost = [np.minimum(d, np.negative(d)).sum(1, dtype=np.int64) for d in (left, up)]
        use_up = cost[1] < cost[0]
        use_up[0] &= top > 0
        filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        filtered[:, 0] = 1 + use_up  # filter types: 1 left, 2 up
        filtered[:, 1:] = np.where(use_up[:, None], up, left)
        data = filtered.tobytes()
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        return compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH), zlib.adler32(data), len(data)

    def finish(self, after: Callable[[int], None]) -> None:
        last = zlib.compressobj(wbits=-zlib.MAX_WBITS).flush()
        self.append(_png_chunk(b"IDAT", last + struct.pack(">I", self.checksum)))
        self.append(_png_chunk(b"IEND", b""))

    @classmethod
    def most_bytes(cls, height: int, width: int, channels: int, bits: int) -> int:
        row = 1 + width * channels * bits // 8
        chunks = math.ceil(height / max(1, _PNG_CHUNK // row)) + height // BLOCK
        return _incompressible(height * row) + 64 * chunks


class TiffWriter(Writer):
    """Tiled, compressed BigTIFF with a pyramid of halved pictures as SubIFDs.

    The library tifffile writes the directories first, with empty tiles. The tiles are appended as they are made, and
    their places filled in at the end: no second copy of the data, and going on needs no more than their sizes. The
    pyramid is made in the end from the tiles in the file.
    """

    def __init__(
        self, file: FileIO, height: int, width: int, channels: int, bits: int = 8, text: Mapping[str, str] | None = None
    ):
        super().__init__(file, height, width, channels, bits, text)
        self.parts: list[list[int]] = []
        """[end, CRC-32] of what `begin` and each block wrote: whoever goes on can see whether it is still there."""
        self._crc = 0
        self.finish_work = 0.04 if max(height, width) > BLOCK else 0.0
        self.stored = self.dtype.newbyteorder("<")
        self.first = 0  # where the tiles begin
        self.sizes: list[int] = []  # of the tiles of the full picture

    @classmethod
    def require(cls) -> None:
        _tifffile()

    def begin(self) -> None:
        text = "\n".join(f"{key}: {value}" for key, value in self.text.items()).encode()
        levels = pyramid_sizes(self.height, self.width)
        with _tifffile().TiffWriter(self.file.name, bigtiff=True, byteorder="<") as tiff:
            for i, (height, width) in enumerate(levels):
                tiff.write(
                    iter([b""] * (math.ceil(height / BLOCK) * math.ceil(width / BLOCK))),
                    shape=(height, width, self.channels) if self.channels > 1 else (height, width),
                    dtype=self.stored,
                    tile=(BLOCK, BLOCK),
                    photometric="rgb" if self.channels > 1 else "minisblack",
                    extrasamples=["unassalpha"] if self.channels == 4 else None,
                    compression="zlib",
                    predictor=2,
                    subifds=0 if i else len(levels) - 1,
                    subfiletype=1 if i else 0,
                    description=None if i else text or None,
                    software="creps",
                    metadata=None,
                )
        self.file.seek(0)
        while data := self.file.read(_PNG_CHUNK):
            self._crc = zlib.crc32(data, self._crc)
        self.first = self.file.tell()
        self._written(0)

    def restore(self, rows: int, size: int, parts: list[list[int]], state: Mapping[str, Any]) -> None:
        super().restore(rows, size, parts, state)
        self.first, self.sizes = _number(state, "first"), state["sizes"]
        wanted = math.ceil(rows / BLOCK) * math.ceil(self.width / BLOCK)
        if not isinstance(self.sizes, list) or not all(type(n) is int and n > 0 for n in self.sizes):
            raise ValueError("its tiles are damaged")
        if len(self.sizes) != wanted or self.first + sum(self.sizes) != size:
            raise ValueError(f"it has {len(self.sizes)} tiles instead of {wanted}")

    def state(self) -> dict[str, Any]:
        return {"first": self.first, "sizes": self.sizes}

    def reset(self) -> None:
        super().reset()
        self.first, self.sizes = 0, []

    def written(self) -> Iterator[np.ndarray]:
        self.file.seek(self.first)
        across = math.ceil(self.width / BLOCK)
        for top in range(0, self.rows, BLOCK):
            sizes = self.sizes[top // BLOCK * across :][:across]
            data, ends = memoryview(self.file.read(sum(sizes))), np.cumsum([0, *sizes])
            try:
                tiles = [self._decompress(data[a:b]) for a, b in pairwise(ends)]
            except (zlib.error, ValueError) as error:
                raise ValueError(f"its tiles are damaged ({error})") from error
            yield np.concatenate(tiles, 1)[: min(BLOCK, self.rows - top), : self.width]
        self.file.seek(self.size)

    def write(self, block: np.ndarray) -> None:
        self.sizes += self._append_tiles(block)[1]
        self._written(len(block))

    def finish(self, after: Callable[[int], None]) -> None:
        first = [self.first, *(self.first + np.cumsum(self.sizes[:-1])).tolist()]
        places = [(first, self.sizes), *((level.offsets, level.sizes) for level in self._append_pyramid(after))]
        with _tifffile().TiffFile(self.file.name, mode="r+b") as tiff:
            page: Any = tiff.pages[0]
            directories: list[Any] = [page, *(page.pages or [])]
            for directory, (offsets, sizes) in zip(directories, places, strict=True):
                directory.tags["TileOffsets"].overwrite(offsets)
                directory.tags["TileByteCounts"].overwrite(sizes)

    @classmethod
    def most_bytes(cls, height: int, width: int, channels: int, bits: int) -> int:
        tiles = sum(math.ceil(h / BLOCK) * math.ceil(w / BLOCK) for h, w in pyramid_sizes(height, width))
        return tiles * (_incompressible(BLOCK * BLOCK * channels * bits // 8) + 32)

    def _append_tiles(self, block: np.ndarray) -> tuple[list[int], list[int]]:
        """Compress and append a row of tiles, filled up with the picture's edge; their offsets and sizes."""
        missing = (0, BLOCK - len(block)), (0, -block.shape[1] % BLOCK), (0, 0)
        block = np.pad(block, missing, mode="edge")
        tiles = list(self.pool.map(self._compress, np.split(block, block.shape[1] // BLOCK, 1)))
        sizes = [len(tile) for tile in tiles]
        start = self.file.seek(0, 2)
        self.append(b"".join(tiles))
        return [start, *(start + np.cumsum(sizes[:-1])).tolist()], sizes

    def _compress(self, tile: np.ndarray) -> bytes:
        differences = tile.astype(self.stored)  # predictor 2: to the left neighbour
        differences[:, 1:] -= tile[:, :-1]
        return zlib.compress(differences.tobytes(), _LEVEL)

    def _decompress(self, data: bytes | memoryview) -> np.ndarray:
        differences = np.frombuffer(zlib.decompress(data), self.stored).reshape(BLOCK, BLOCK, self.channels)
        return np.cumsum(differences, 1, dtype=self.dtype)

    def _append_pyramid(self, after: Callable[[int], None]) -> list[_Level]:
        levels = [_Level(*size, self.channels) for size in pyramid_sizes(self.height, self.width)[1:]]
        scale = 8 if self.dtype.itemsize == 1 else 0  # the halves are 16 bits, so that their rounding does not add up
        across, start = math.ceil(self.width / BLOCK), self.first
        for top in range(0, self.height if levels else 0, BLOCK):
            sizes = self.sizes[top // BLOCK * across :][:across]
            self.file.seek(start)
            data, ends = memoryview(self.file.read(sum(sizes))), np.cumsum([0, *sizes])
            start += int(ends[-1])
            tiles = (data[a:b] for a, b in pairwise(ends))
            halves = list(self.pool.map(lambda tile: _halve(self._decompress(tile), scale), tiles))
            rows = min(BLOCK, self.height - top)
            block = np.concatenate(halves, 1)[: (rows + 1) // 2, : levels[0].width]
            for level in levels:
                whole = level.add(block)
                if whole is None:
                    break
                pixels = ((whole.astype(np.uint32) + (1 << scale >> 1)) >> scale).astype(self.dtype)
                offsets, sizes = self._append_tiles(pixels)
                level.offsets += offsets
                level.sizes += sizes
                block = _halve(whole)
            after(rows)
        return levels


class _Level:
    """A level of a pyramid: collects rows until they make a row of tiles."""

    def __init__(self, height: int, width: int, channels: int):
        self.height, self.width = height, width
        self.rows, self.filled, self.done = np.empty((BLOCK, width, channels), np.uint16), 0, 0
        self.offsets: list[int] = []
        self.sizes: list[int] = []

    def add(self, block: np.ndarray) -> np.ndarray | None:
        """Add rows; the rows of a whole row of tiles when they are there."""
        self.rows[self.filled : self.filled + len(block)] = block
        self.filled += len(block)
        if self.filled < min(BLOCK, self.height - self.done):
            return None
        whole = self.rows[: self.filled]
        self.done, self.filled = self.done + self.filled, 0
        return whole


def pyramid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of the full picture and its pyramid: halved, rounded up, until it is a single tile."""
    sizes = [(height, width)]
    while max(sizes[-1]) > BLOCK:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def _halve(block: np.ndarray, scale: int = 0) -> np.ndarray:
    """2^scale * means of 2 x 2 pixels, [h, w, C] -> uint16 [ceil(h / 2), ceil(w / 2), C]; an odd edge is repeated."""
    if block.shape[0] % 2 or block.shape[1] % 2:
        block = np.pad(block, ((0, block.shape[0] % 2), (0, block.shape[1] % 2), (0, 0)), mode="edge")
    pairs = block[::2].astype(np.uint32) + block[1::2]
    return (((pairs[:, ::2] + pairs[:, 1::2] << scale) + 2) >> 2).astype(np.uint16)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _png_text(key: str, value: str) -> bytes:
    try:
        return _png_chunk(b"tEXt", f"{key}\0{value}".encode("latin-1"))
    except UnicodeEncodeError:
        return _png_chunk(b"iTXt", f"{key}\0\0\0\0\0{value}".encode())


def _joined_adler32(first: int, second: int, length: int) -> int:
    """The Adler-32 checksum of two pieces of data from those of each, and the length of the second."""
    base = 65521
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)
    return high % base << 16 | low % base


def _number(state: Mapping[str, Any], name: str) -> int:
    value = state.get(name)
    if type(value) is not int or value < 0:
        raise ValueError("its journal is damaged")
    return value


def _incompressible(size: int) -> int:
    """What zlib makes of so many random bytes, at most."""
    return size + (size >> 12) + (size >> 14) + (size >> 25) + 13


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            f'choose png, or install what writing TIFF needs: "{sys.executable}" -m pip install tifffile'
        ) from error
    return tifffile


FORMATS: dict[str, type[Writer]] = {".png": PngWriter, ".tif": TiffWriter, ".tiff": TiffWriter}
"""Writers by the ending of the file's name."""
