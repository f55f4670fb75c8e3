"""Sheets of images of a run: generated ones, training images, and the same seeds over the time of a training."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..comparison import grid
from ..data import ImageDataset
from ..latents import sample
from ..network import Generator
from ..rendering import frame_size, render

GRID = (8, 4)  # columns, rows
MOST_TIME = 0.02
"""Largest share of the time that a `SampleHistory` takes."""
LEAST_SECONDS = 5.0
"""Shortest time from one row of a `SampleHistory` to the next."""
_HISTORY = (8, 8)  # columns, rows


def sample_grid(generator: Generator, side: int, columns: int = GRID[0], rows: int = GRID[1]) -> np.ndarray:
    """Generate the images of the seeds 0, 1, ... as one sheet: uint8 [rows * height, columns * width, 3 or 4].

    Args:
        generator: labels are drawn as `sample` does.
        side: pixels of the longer side of an image.
        columns, rows: of the sheet.
    """
    height, width = frame_size(side, generator.aspect)
    with torch.no_grad():
        images = render(generator, sample(generator, range(columns * rows)), height=height, width=width)
    return _sheet(((images.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8), columns)


def training_grid(dataset: ImageDataset) -> np.ndarray:
    """The first training images at their aspect, as a sheet of up to `GRID` images, uint8 [height, width, 3 or 4]."""
    columns, rows = GRID
    images = dataset.images(range(min(columns * rows, len(dataset))))
    height, width = frame_size(images.shape[-1], dataset.aspect)
    if height != width:
        images = F.interpolate(images.float(), (height, width), mode="bilinear", antialias=True)
        images = images.round().to(torch.uint8)
    return _sheet(images, columns)


class SampleHistory:
    """A sheet of the same seeds with a row per update, the oldest on top. When it is full, every second row is kept."""

    side: int

    def __init__(self, side: int, clock: Callable[[], float] = time.monotonic):
        """Begin with an empty sheet.

        Args:
            side: pixels of the longer side of an image.
            clock: returns seconds.
        """
        self.side, self.clock = side, clock
        self._rows: list[np.ndarray] = []
        self._next = clock()

    def update(self, generator: Generator) -> np.ndarray | None:
        """The sheet with one more row, uint8 [height, width, 3 or 4]; None if it is too early for another row."""
        columns, rows = _HISTORY
        start = self.clock()
        if start < self._next:
            return None
        if len(self._rows) == rows:
            self._rows = self._rows[::2]
        self._rows.append(sample_grid(generator, self.side, columns, 1))
        now = self.clock()
        self._next = now + max(LEAST_SECONDS, (now - start) / MOST_TIME)
        return grid(self._rows, 1, gap=0)


def _sheet(images: Tensor, columns: int) -> np.ndarray:
    """Images uint8 [N, C, H, W] side by side, without gaps; grey ones become RGB."""
    pixels = images.movedim(1, 3)
    pixels = pixels.expand(-1, -1, -1, 3) if pixels.shape[3] == 1 else pixels
    return grid(list(pixels.numpy()), columns, gap=0)
