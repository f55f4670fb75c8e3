"""Endless batches of a data set, in an order that depends on nothing but the number of pictures seen."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...common.errors import require
from .dataset import WHOLE, Box, ImageDataset
from .windows import Cut, Windows


@dataclass(frozen=True)
class Batch:
    """Pictures to train on.

    Attributes:
        pictures: uint8 [N, channels, resolution, resolution].
        labels: float32 [N, c_dim].
        boxes: float64 [N, 4], which part of its picture's square each one shows: left, top, right, bottom, 0..1.
    """

    pictures: Tensor
    labels: Tensor
    boxes: Tensor


class Batches:
    """Endless shuffled batches, prepared by threads.

    What comes is a function of the number of pictures seen, and of nothing else: item number k, counted over all
    processes, is the picture at place k % len of the permutation of epoch k // len. So a run goes on exactly where it
    stopped, and several processes together see what one alone would.

    `waited` is how many seconds the caller has waited for a batch.

    Args:
        pictures: the data set.
        batch: pictures per batch of this process.
        seed: of the order and the boxes, 0 or more.
        start: pictures that all processes together have seen already.
        rank, world: number of this process, and of all; each has the same batch size.
        box: gives the part of a picture to show, from a generator of its own and the stored side; None: all of it. Is
            called by the threads.
        workers: threads.
        prefetch: batches that are prepared ahead.
        pin: put pictures where a GPU can fetch them without the caller waiting.
        windows: what cuts the pictures, on its device; None: Pillow does, in the threads.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(
        self,
        pictures: ImageDataset,
        batch: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        box: Callable[[np.random.Generator, int], Box] | None = None,
        workers: int = 2,
        prefetch: int = 3,
        pin: bool = False,
        windows: Windows | None = None,
    ):
        require(batch >= 1, f"batch must be 1 or more, not {batch}")
        require(seed >= 0, f"seed must be 0 or more, not {seed}")
        require(start >= 0, f"start must be 0 or more, not {start}")
        require(0 <= rank < world, f"rank must be from 0 to world - 1, not {rank} of {world}")
        require(workers >= 1 and prefetch >= 1, f"workers and prefetch must be 1 or more, not {workers}, {prefetch}")
        self.source, self.batch, self.seed, self.box = pictures, batch, seed, box
        self.pin, self.windows, self.waited = pin, windows, 0.0
        self._start, self._rank, self._world, self._prefetch = start, rank, world, prefetch
        self._step = 0
        self._waiting: deque[Future[tuple[Batch, Cut | None]]] = deque()
        self._orders: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, "creps-batch")
        self._closed = False

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises whatever went wrong in making it; called again, it tries the same one again."""
        if self._closed:
            raise ValueError("these batches are closed")
        while len(self._waiting) < self._prefetch:
            self._waiting.append(self._pool.submit(self._make, self._step + len(self._waiting)))
        start = time.perf_counter()
        try:
            batch, cut = self._waiting[0].result()
        except BaseException:
            self._drop()
            raise
        finally:
            self.waited += time.perf_counter() - start
        self._waiting.popleft()
        self._step += 1
        # At once, so that the threads work while the caller does.
        self._waiting.append(self._pool.submit(self._make, self._step + len(self._waiting)))
        if self.windows and cut:
            return replace(batch, pictures=self.windows.finish(cut))
        return batch

    def random_labels(self, k: int | np.random.Generator, count: int) -> Tensor:
        """Labels of pictures drawn at random, for generated ones: float32 [count, c_dim].

        Args:
            k: number of the draw, 0 or more, of which the labels are a function; or a generator to draw with.
            count: how many.
        """
        rng = k if isinstance(k, np.random.Generator) else np.random.default_rng([self.seed, 2, k])
        return self.source.labels(rng.integers(len(self.source), size=count).tolist())

    def close(self) -> None:
        """Stop the threads."""
        self._closed = True
        self._drop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop(self) -> None:
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def _make(self, step: int) -> tuple[Batch, Cut | None]:
        """A batch; without its pictures where the caller is to finish them, as a device's work is his."""
        # Every world-th item, so that the groups of the minibatch standard deviation are those of one process alone.
        first = self._start + step * self.batch * self._world
        items = range(first + self._rank, first + self.batch * self._world, self._world)
        length = len(self.source)
        indices = [int(self._order(item // length)[item % length]) for item in items]
        boxes = None if self.box is None else [self._box(*pair) for pair in zip(items, indices, strict=True)]
        cut = self.windows.prepare(indices, boxes) if self.windows else None
        pictures = torch.empty(0) if cut else self.source.pictures(indices, boxes=boxes)
        batch = Batch(
            pictures.pin_memory() if self.pin and not cut else pictures,
            self.source.labels(indices),
            torch.tensor([WHOLE] * self.batch if boxes is None else boxes, dtype=torch.float64),
        )
        return batch, cut

    def _box(self, item: int, index: int) -> Box:
        assert self.box is not None
        return self.box(np.random.default_rng([self.seed, 1, item]), self.source.side(index))

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock:
            order = self._orders.get(epoch)
            if order is None:
                order = np.random.default_rng([self.seed, epoch]).permutation(len(self.source))
                self._orders[epoch] = order
                while len(self._orders) > 4:  # threads work on neighbouring epochs
                    self._orders.popitem(last=False)
            return order
