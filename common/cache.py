"""Caches: the user's cache folder on disk, and a bounded cache in memory."""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def cache_folder() -> Path:
    """The folder for files that can be computed again: `CREPS_CACHE`, or `creps` in the user's cache folder."""
    if given := os.environ.get("CREPS_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "creps"


class LruCache(Generic[K, V]):
    """A cache that evicts the least recently used values. Safe to use from several threads.

    Args:
        limit: largest total size of the values; one that is larger by itself is not kept.
        size_of: size of a value; by default each counts 1.
    """

    limit: float
    size: float

    def __init__(self, limit: float, size_of: Callable[[V], float] = lambda value: 1):
        self.limit, self.size = limit, 0.0
        self.evicted = False
        """Whether a value was ever dropped for lack of room."""
        self._size_of = size_of
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: K, default: Any = None) -> V | Any:
        """The value of a key, or the default."""
        with self._lock:
            if key not in self._values:
                return default
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: K, value: V) -> V:
        """Store a value unless the key has one already, which another thread may just have stored; returns it."""
        with self._lock:
            if key in self._values:
                return self.get(key)
            self._values[key] = value
            self.size += self._size_of(value)
            self._evict(self.limit)
            return value

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key, made if it is missing. Threads that ask for one key at once may all make it."""
        with self._lock:
            if key in self._values:
                return self.get(key)
        return self.put(key, make())

    def make_room(self, size: float = 1) -> None:
        """Evict values until one of this size fits: before it is made, where both would need too much memory."""
        with self._lock:
            self._evict(self.limit - size)

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._values.clear()
            self.size = 0.0

    def values(self) -> Iterator[V]:
        """The values, least recently used first."""
        with self._lock:
            return iter(list(self._values.values()))

    def __len__(self) -> int:
        return len(self._values)

    def _evict(self, limit: float) -> None:
        while self._values and self.size > limit:
            self.evicted: bool = True
            _, oldest = self._values.popitem(last=False)
            self.size -= self._size_of(oldest)
