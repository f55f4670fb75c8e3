"""Progress callbacks: `progress(done, total)`, called during work. An exception that one raises stops the work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]

_STEPS = 1 << 16  # of progress per unit of the whole work


class WorkCounter:
    """Adds up finished work for a progress callback. `total` may grow while work is planned."""

    def __init__(self, progress: Progress | None):
        self.progress, self.done, self.total = progress, 0, 0

    def add(self, work: int) -> None:
        """Count finished work, and report it."""
        self.done += work
        if self.progress is not None:
            self.progress(self.done, self.total)


def partial_progress(progress: Progress | None, begin: int, end: int, total: int) -> Progress | None:
    """A callback for a part of the work: maps the progress of the part to `begin`..`end` of `total`."""
    if progress is None:
        return None

    def report(done: int, of: int) -> None:
        progress(begin * _STEPS + done * (end - begin) * _STEPS // max(of, 1), total * _STEPS)

    return report
