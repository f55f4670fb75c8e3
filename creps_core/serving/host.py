"""Hosts lease generators to conversations: the standalone server's host is here, ComfyUI's in `nodes/live.py`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from ..latents import Directions
from ..network import Generator

Check = Callable[[], None]
"""Raises `Cancelled` when the result is not wanted any more."""
Notify = Callable[[dict[str, object]], None]
"""Sends a message to the page; thread-safe."""


@dataclass(frozen=True)
class Lease:
    """A generator on its device, for one frame."""

    generator: Generator
    directions: Directions | None = None
    """For walks of kind `linked`."""
    busy: Callable[[], bool] = lambda: False
    """Whether a higher-priority task needs the device: then stop drawing, and retry."""


class Host(Protocol):
    """Leases generators by name, one at a time."""

    def sources(self) -> list[str]:
        """Names of the generators."""
        ...

    def use(self, source: str, check: Check, notify: Notify) -> AbstractContextManager[Lease]:
        """Lease a generator for one frame. Sends `{"waiting": True}` while it waits.

        Raises:
            ValueError: the name is unknown. Errors of loading pass through.
        """
        ...


class Generators:
    """A `Host` with exclusive use of the device. Keeps the most recent generator loaded.

    Args:
        loaders: by name; each returns a generator on its device.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], Generator]]):
        self._loaders = dict(loaders)
        self._lock = threading.Lock()
        self._loaded: tuple[str, Generator] | None = None

    def sources(self) -> list[str]:
        return list(self._loaders)

    @contextmanager
    def use(self, source: str, check: Check, notify: Notify) -> Iterator[Lease]:
        if source not in self._loaders:
            raise ValueError(f"there is no generator {source[:80]!r}; there are {self.sources()}")
        with hold_lock(self._lock, check):
            if self._loaded is None or self._loaded[0] != source:
                self._loaded = source, self._loaders[source]()
            yield Lease(self._loaded[1])

    def load(self, source: str) -> Generator:
        """Load a separate copy, for work parallel to drawing."""
        if source not in self._loaders:
            raise ValueError(f"there is no generator {source[:80]!r}; there are {self.sources()}")
        return self._loaders[source]()


@contextmanager
def hold_lock(lock: threading.Lock, check: Check) -> Iterator[None]:
    """Hold the lock; `check` is called while waiting for it, and may raise to stop waiting."""
    while not lock.acquire(timeout=0.05):
        check()
    try:
        yield
    finally:
        lock.release()
