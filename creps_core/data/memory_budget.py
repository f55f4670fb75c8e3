"""A limit on the memory that all decoding threads use together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .sources import UnusableFile

DECODE_BYTES = 1 << 30
"""The default limit, in bytes."""


class MemoryBudget:
    """Bytes that threads reserve and release. A request for more than is free blocks until others release theirs.

    A thread that holds a reservation must not make another one of the same budget: it could wait for itself.
    """

    limit: int
    free: int

    def __init__(self, limit: int = DECODE_BYTES):
        self.limit, self.free = limit, limit
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, count: int, purpose: str) -> Iterator[None]:
        """Hold `count` bytes inside the `with` block.

        Raises:
            UnusableFile: `purpose` needs more than the whole budget.
        """
        if count > self.limit:
            raise UnusableFile(
                f"{purpose} takes about {count / 1e9:.1f} GB to decode, more than {self.limit / 1e9:.1f} GB"
            )
        with self._changed:
            self._changed.wait_for(lambda: count <= self.free)
            self.free -= count
        try:
            yield
        finally:
            with self._changed:
                self.free += count
                self._changed.notify_all()
