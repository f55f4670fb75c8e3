"""Where a conversation gets its generators: what differs between the standalone server and ComfyUI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from ..latents import Directions
from ..network import Generator

Check = Callable[[], None]
"""Raises `Cancelled` when the work is not wanted any more."""
Tell = Callable[[dict[str, object]], None]
"""Sends a message to the page; from any thread."""


@dataclass(frozen=True)
class Lease:
    """A generator on its device, for one drawing."""

    generator: Generator
    directions: Directions | None = None
    """For walks of the kind `linked`."""
    busy: Callable[[], bool] = lambda: False
    """Whether something more important wants the device: then the drawing is to end, and may be tried again."""


class Host(Protocol):
    """Lends generators, by name, to one drawing at a time."""

    def sources(self) -> list[str]:
        """The names that a page may ask for."""
        ...

    def use(self, source: str, check: Check, tell: Tell) -> AbstractContextManager[Lease]:
        """The generator of that name, for one drawing. While it waits, it tells `{"waiting": True}`.

        Raises:
            ValueError: there is none of that name; or what loading it raises.
        """
        ...


class Generators:
    """A `Host` of its own: nobody else uses the device. Keeps the generator that was asked for last.

    Args:
        loaders: by name; each gives a generator on its device.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], Generator]]):
        self._loaders = dict(loaders)
        self._lock = threading.Lock()
        self._loaded: tuple[str, Generator] | None = None

    def sources(self) -> list[str]:
        return list(self._loaders)

    @contextmanager
    def use(self, source: str, check: Check, tell: Tell) -> Iterator[Lease]:
        if source not in self._loaders:
            raise ValueError(f"there is no generator {source[:80]!r}; there are {self.sources()}")
        with turn(self._lock, check):
            if self._loaded is None or self._loaded[0] != source:
                self._loaded = source, self._loaders[source]()
            yield Lease(self._loaded[1])

    def load(self, source: str) -> Generator:
        """Another copy, for work beside the drawing."""
        if source not in self._loaders:
            raise ValueError(f"there is no generator {source[:80]!r}; there are {self.sources()}")
        return self._loaders[source]()


@contextmanager
def turn(lock: threading.Lock, check: Check) -> Iterator[None]:
    """Hold the lock; give up waiting for it when `check` raises."""
    while not lock.acquire(timeout=0.05):
        check()
    try:
        yield
    finally:
        lock.release()
