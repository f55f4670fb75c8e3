"""How much memory decoding may take, of all threads together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .sources import Unusable

DECODE_BYTES = 1 << 30
"""By default."""


class Budget:
    """Bytes that threads take and give back. Who asks for more than is left waits until others are done.

    A thread that has some asks for no more, so that nobody waits for himself.
    """

    def __init__(self, limit: int = DECODE_BYTES):
        self.limit, self.left = limit, limit
        self._changed = threading.Condition()

    @contextmanager
    def take(self, count: int, what: str) -> Iterator[None]:
        """Have so many bytes for a while.

        Raises:
            Unusable: `what` takes more than there is at all.
        """
        if count > self.limit:
            raise Unusable(f"{what} takes about {count / 1e9:.1f} GB to decode, more than {self.limit / 1e9:.1f} GB")
        with self._changed:
            self._changed.wait_for(lambda: count <= self.left)
            self.left -= count
        try:
            yield
        finally:
            with self._changed:
                self.left += count
                self._changed.notify_all()
