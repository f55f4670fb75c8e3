"""Tiled BigTIFF files with a pyramid, written block by block."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO, FileIO
from itertools import pairwise
from typing import Any

import numpy as np

from .image_writer import BLOCK, ZLIB_LEVEL, ImageWriter, deflate_bound, state_number


class TiffWriter(ImageWriter):
    """Tiled, compressed BigTIFF with a pyramid: after the image, each halved one is a directory of its own, marked as
    reduced (NewSubfileType 1). Readers of slides and maps (OpenSlide, GDAL) find levels there, and not in SubIFDs.

    The library tifffile writes the directories first, with empty tiles. Tiles are appended as they are rendered, and
    their offsets filled in at the end: there is no second copy of the data, and resuming needs no more than the tiles'
    sizes. The pyramid is made at the end from the tiles in the file.
    """

    first: int

    layout = " 2"  # 0.2.0 had SubIFDs

    def __init__(
        self, file: FileIO, height: int, width: int, channels: int, bits: int = 8, text: Mapping[str, str] | None = None
    ):
        super().__init__(file, height, width, channels, bits, text)
        self.finish_work: float = 0.04 if max(height, width) > BLOCK else 0.0
        self.stored: np.dtype = self.dtype.newbyteorder("<")
        self.first = 0  # offset of the first tile
        self.sizes: list[int] = []  # of the tiles of the full image, in bytes

    @classmethod
    def require(cls) -> None:
        _tifffile()

    def begin(self) -> None:
        text = "\n".join(f"{key}: {value}" for key, value in self.text.items()).encode()
        levels = pyramid_sizes(self.height, self.width)
        head = BytesIO()
        with _tifffile().TiffWriter(head, bigtiff=True, byteorder="<") as tiff:
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
                    subfiletype=1 if i else 0,
                    description=None if i else text or None,
                    software="creps",
                    metadata=None,
                )
        self.append(head.getvalue())
        self.first = self.file.tell()
        self._end_part(0)

    def restore(self, rows: int, size: int, parts: list[list[int]], state: Mapping[str, Any]) -> None:
        super().restore(rows, size, parts, state)
        self.first, self.sizes = state_number(state, "first"), state.get("sizes", [])
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

    def read_back(self) -> Iterator[np.ndarray]:
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
        self._end_part(len(block))

    def finish(self, after: Callable[[int], None]) -> None:
        first = [self.first, *(self.first + np.cumsum(self.sizes[:-1])).tolist()]
        tiles = [(first, self.sizes), *((level.offsets, level.sizes) for level in self._append_pyramid(after))]
        self.file.seek(0)
        head = BytesIO(self.file.read(self.first))
        with _tifffile().TiffFile(head) as tiff:
            for directory, (offsets, sizes) in zip(tiff.pages, tiles, strict=True):
                directory.tags["TileOffsets"].overwrite(offsets)
                directory.tags["TileByteCounts"].overwrite(sizes)
        self.file.seek(0)
        self.append(head.getvalue())

    @classmethod
    def max_bytes(cls, height: int, width: int, channels: int, bits: int) -> int:
        tiles = sum(math.ceil(h / BLOCK) * math.ceil(w / BLOCK) for h, w in pyramid_sizes(height, width))
        return tiles * (deflate_bound(BLOCK * BLOCK * channels * bits // 8) + 32)

    def _append_tiles(self, block: np.ndarray) -> tuple[list[int], list[int]]:
        """Compress and append a row of tiles, padded by repeating the edge; returns their offsets and sizes."""
        missing = (0, BLOCK - len(block)), (0, -block.shape[1] % BLOCK), (0, 0)
        block = np.pad(block, missing, mode="edge")
        tiles = list(self.pool.map(self._compress, np.split(block, block.shape[1] // BLOCK, 1)))
        sizes = [len(tile) for tile in tiles]
        start = self.file.seek(0, 2)
        self.append(b"".join(tiles))
        return [start, *(start + np.cumsum(sizes[:-1])).tolist()], sizes

    def _compress(self, tile: np.ndarray) -> bytes:
        differences = tile.astype(self.stored)  # predictor 2: from the left neighbour
        differences[:, 1:] -= tile[:, :-1]
        return zlib.compress(differences.tobytes(), ZLIB_LEVEL)

    def _decompress(self, data: bytes | memoryview) -> np.ndarray:
        differences = np.frombuffer(self._inflate(data), self.stored).reshape(BLOCK, BLOCK, self.channels)
        return np.cumsum(differences, 1, dtype=self.dtype)

    def _inflate(self, data: bytes | memoryview) -> bytes:
        """Decompress a tile, at most its size."""
        return zlib.decompressobj().decompress(data, BLOCK * BLOCK * self.channels * self.dtype.itemsize + 1)

    def _append_pyramid(self, after: Callable[[int], None]) -> list[_PyramidLevel]:
        levels = [_PyramidLevel(*size, self.channels) for size in pyramid_sizes(self.height, self.width)[1:]]
        scale = 8 if self.dtype.itemsize == 1 else 0  # levels have 16 bits, so that rounding does not accumulate
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


class _PyramidLevel:
    """A level of a pyramid: collects rows until they fill a row of tiles."""

    def __init__(self, height: int, width: int, channels: int):
        self.height, self.width = height, width
        self.rows, self.filled, self.done = np.empty((BLOCK, width, channels), np.uint16), 0, 0
        self.offsets: list[int] = []
        self.sizes: list[int] = []

    def add(self, block: np.ndarray) -> np.ndarray | None:
        """Add rows; returns the rows of a row of tiles once it is full."""
        self.rows[self.filled : self.filled + len(block)] = block
        self.filled += len(block)
        if self.filled < min(BLOCK, self.height - self.done):
            return None
        whole = self.rows[: self.filled]
        self.done, self.filled = self.done + self.filled, 0
        return whole


def pyramid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of the full image and of its pyramid: halved, rounded up, down to a single tile."""
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


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            f'choose png, or install what writing TIFF needs: "{sys.executable}" -m pip install tifffile'
        ) from error
    return tifffile
