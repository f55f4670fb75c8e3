"""What every writer of image files has in common.

A writer takes the image in blocks of `BLOCK` rows and only ever appends. After each block, `size` bytes of the file and
the numbers of `state` are all that another writer needs to resume, and the file comes out identical, bit by bit.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from typing import Any

import numpy as np
import torch

BLOCK = 256
"""Rows of pixels that a writer takes at a time; also the side of a TIFF's tiles."""
ZLIB_LEVEL = 4  # 6 takes three times as long for files that are 14 % smaller


class ImageWriter(ABC):
    """Writes one image; a class per file format, see `writers.FILE_FORMATS`.

    Args:
        file: opened for reading and writing, unbuffered: a full disk then shows at once, and no buffer is left behind.
        height, width, channels: of the image; 1 (grey), 3 or 4 channels.
        bits: per channel, 8 or 16.
        text: stored in the file.
    """

    file: FileIO
    text: dict[str, str]
    height: int
    width: int
    channels: int
    rows: int
    size: int

    layout = ""
    """Changes when files that an earlier version began cannot be resumed."""

    def __init__(
        self, file: FileIO, height: int, width: int, channels: int, bits: int = 8, text: Mapping[str, str] | None = None
    ):
        self.file, self.text = file, dict(text or {})
        self.height, self.width, self.channels = height, width, channels
        self.dtype: np.dtype = np.dtype(f"u{bits // 8}")
        self.rows = 0
        self.size = 0
        """Bytes of the file that `rows` rows take."""
        self.parts: list[list[int]] = []
        """[end, CRC-32] of what `begin` and each block wrote, by which a later process checks that it is intact."""
        self._crc = 0
        self.finish_work: float = 0.0  # approximate work of `finish` as a share of the work of rendering
        self.pool: ThreadPoolExecutor = ThreadPoolExecutor(
            max(1, torch.get_num_threads()), "creps-write"
        )  # zlib releases the GIL

    @classmethod  # noqa: B027
    def require(cls) -> None:
        """Raises ImportError if a library that the format needs is missing."""

    @abstractmethod
    def begin(self) -> None:
        """Write what precedes the first row."""

    def restore(self, rows: int, size: int, parts: list[list[int]], state: Mapping[str, Any]) -> None:
        """Resume after `rows` rows: discard what the file has beyond `size` bytes.

        Raises:
            ValueError: these are not the rows and the state of such an image.
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
        """What `restore` needs besides the file, as JSON."""
        return {}

    def reset(self) -> None:
        """Undo `restore`: the file is empty."""
        self.rows, self.size, self.parts = 0, 0, []

    @abstractmethod
    def read_back(self) -> Iterator[np.ndarray]:
        """The blocks in the file, decoded; leaves the file at its end.

        Raises:
            ValueError: they cannot be decoded.
        """

    @abstractmethod
    def finish(self, after: Callable[[int], None]) -> None:
        """Append what follows the last row. If that reads all rows once more, `after(rows)` is called as it does."""

    def close(self) -> None:
        """Stop the threads. The file stays open."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    @classmethod
    @abstractmethod
    def max_bytes(cls, height: int, width: int, channels: int, bits: int) -> int:
        """Largest size of the file: that of pixels that do not compress at all."""

    def append(self, data: bytes) -> None:
        """Write all of `data`, which a single call of an unbuffered file may not do."""
        self._crc = zlib.crc32(data, self._crc)
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def _end_part(self, rows: int) -> None:
        """Record the checksum of what was appended since the last call."""
        self.rows, self.size = self.rows + rows, self.file.tell()
        self.parts.append([self.size, self._crc])
        self._crc = 0


def state_number(state: Mapping[str, Any], name: str) -> int:
    """A number of bytes, or a checksum, of a journal; raises ValueError if it is neither."""
    value = state.get(name)
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("its journal is damaged")
    return value


def deflate_bound(size: int) -> int:
    """Largest size of `size` bytes after compression by zlib."""
    return size + (size >> 12) + (size >> 14) + (size >> 25) + 13
