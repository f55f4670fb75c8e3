"""Pictures of a training as it goes: a sheet that grows by a row whenever it may."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ..network import Generator
from .run import sample_grid

SHARE = 0.02
"""Of the time, at most, that goes into pictures."""
SECONDS = 5.0
"""At least, from one row to the next."""
ROWS, COLUMNS = 8, 8


class Preview:
    """A sheet of the same seeds, a row for each look, the oldest on top. Full, it keeps every second row.

    Args:
        side: of the pictures, pixels along the longer side.
        clock: seconds.
    """

    def __init__(self, side: int, clock: Callable[[], float] = time.monotonic):
        self.side, self.clock = side, clock
        self._rows: list[np.ndarray] = []
        self._next = clock()

    def look(self, generator: Generator) -> np.ndarray | None:
        """The sheet with one more row, uint8 [height, width, 3 or 4]; None if it is too early for another."""
        start = self.clock()
        if start < self._next:
            return None
        if len(self._rows) == ROWS:
            self._rows = self._rows[::2]
        self._rows.append(sample_grid(generator, self.side, COLUMNS, 1))
        now = self.clock()
        self._next = now + max(SECONDS, (now - start) / SHARE)
        return np.concatenate(self._rows)
