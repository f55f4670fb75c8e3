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
    def reserve(self, count: int, purpose: str) -> Iterator[Reservation]:
        """Hold `count` bytes inside the `with` block.

        Raises:
            UnusableFile: `purpose` needs more than the whole budget.
        """
        self.check(count, purpose)
        with self._changed:
            self._changed.wait_for(lambda: count <= self.free)
            self.free -= count
        held = Reservation(self, count)
        try:
            yield held
        finally:
            with self._changed:
                self.free += held.count
                self._changed.notify_all()

    def check(self, count: int, purpose: str) -> None:
        """Raise UnusableFile if `purpose` needs more than the whole budget."""
        if count > self.limit:
            raise UnusableFile(
                f"{purpose} takes about {count / 1e9:.1f} GB to decode, more than {self.limit / 1e9:.1f} GB"
            )


class Reservation:
    """Bytes held of a budget."""

    def __init__(self, budget: MemoryBudget, count: int):
        self.count, self._budget = count, budget

    def grow(self, count: int, purpose: str) -> None:
        """Hold at least `count` bytes in all, without waiting: who waits while holding could wait for ever.

        Raises:
            BudgetTaken: others hold too much of the budget now.
            UnusableFile: `purpose` needs more than the whole budget.
        """
        self._budget.check(count, purpose)
        with self._budget._changed:
            more = max(0, count - self.count)
            if more > self._budget.free:
                raise BudgetTaken(count)
            self._budget.free -= more
            self.count += more


class BudgetTaken(Exception):
    """Others hold too much of the budget: release all, then reserve `needed` bytes at once."""

    def __init__(self, needed: int):
        super().__init__(needed)
        self.needed = needed
