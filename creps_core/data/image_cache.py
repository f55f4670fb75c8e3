"""A cache of decoded images with a limit in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np


class ImageCache:
    """Least-recently-used cache of arrays by name, at most `limit` bytes. Safe to use from several threads."""

    def __init__(self, limit: float):
        self.limit, self.bytes = limit, 0
        self.complete = True
        """Nothing was ever evicted."""
        self._arrays: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> np.ndarray | None:
        """The array stored under a name, or None."""
        with self._lock:
            array = self._arrays.get(name)
            if array is not None and not self.complete:
                self._arrays.move_to_end(name)
            return array

    def put(self, name: str, array: np.ndarray) -> None:
        """Store an array, evicting the least recently used ones if necessary."""
        with self._lock:
            if name in self._arrays:  # another thread was faster
                return
            self._arrays[name] = array
            self.bytes += array.nbytes
            while self.bytes > self.limit:
                self.complete = False
                _, oldest = self._arrays.popitem(last=False)
                self.bytes -= oldest.nbytes
