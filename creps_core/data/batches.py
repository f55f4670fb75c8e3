"""Endless shuffled batches of a dataset. The order depends only on the number of images drawn so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...common.cache import LruCache
from ...common.errors import require
from .crop import WHOLE_IMAGE, CropWindow
from .dataset import ImageDataset
from .window_cutter import CutPlan, WindowCutter


@dataclass(frozen=True)
class Batch:
    """Images to train on.

    Attributes:
        images: uint8 [N, channels, resolution, resolution].
        labels: float32 [N, c_dim].
        windows: float64 [N, 4], the part of its square image that each one shows: left, top, right, bottom, 0..1.
    """

    images: Tensor
    labels: Tensor
    windows: Tensor


class Batches:
    """Endless shuffled batches, prepared by threads.

    Item k, counted over all processes, is the image at position k % len of the permutation of epoch k // len. So a
    resumed run sees the same images as one that was never stopped, and several processes together see what one process
    would.

    `wait_seconds` is the total time that the caller has waited for batches.

    Args:
        dataset: the images.
        batch: images per batch of this process.
        seed: of the order and the windows, 0 or more.
        start: images that all processes together have drawn already.
        rank, world: rank of this process, and number of processes; all use the same batch size.
        window: draws the part of an image to show, given a random generator of that item and the stored side in
            pixels; called by the threads. None: the whole image.
        workers: threads.
        prefetch: batches prepared ahead.
        pin: return images in pinned memory, so that copies to a GPU are asynchronous.
        cutter: cuts the windows on its device; None: Pillow does, in the threads.

    Raises:
        ValueError: an argument is outside its range.
    """

    dataset: ImageDataset
    batch: int
    seed: int
    pin: bool
    cutter: WindowCutter | None
    wait_seconds: float

    def __init__(
        self,
        dataset: ImageDataset,
        batch: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        window: Callable[[np.random.Generator, int], CropWindow] | None = None,
        workers: int = 2,
        prefetch: int = 3,
        pin: bool = False,
        cutter: WindowCutter | None = None,
    ):
        require(batch >= 1, f"batch must be 1 or more, not {batch}")
        require(seed >= 0, f"seed must be 0 or more, not {seed}")
        require(start >= 0, f"start must be 0 or more, not {start}")
        require(0 <= rank < world, f"rank must be from 0 to world - 1, not {rank} of {world}")
        require(workers >= 1 and prefetch >= 1, f"workers and prefetch must be 1 or more, not {workers}, {prefetch}")
        self.dataset, self.batch, self.seed, self.window = dataset, batch, seed, window
        self.pin, self.cutter, self.wait_seconds = pin, cutter, 0.0
        self._start, self._rank, self._world, self._prefetch = start, rank, world, prefetch
        self._step = 0
        self._pending: deque[Future[tuple[Batch, CutPlan | None]]] = deque()
        self._orders = LruCache[int, np.ndarray](4)  # threads work on neighbouring epochs
        self._pool = ThreadPoolExecutor(workers, "creps-batch")
        self._closed = False

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises whatever went wrong in a thread; the call after that retries the same batch."""
        if self._closed:
            raise ValueError("these batches are closed")
        while len(self._pending) < self._prefetch:
            self._submit()
        start = time.perf_counter()
        try:
            batch, plan = self._pending[0].result()
        except BaseException:
            self._discard_pending()
            raise
        finally:
            self.wait_seconds += time.perf_counter() - start
        self._pending.popleft()
        self._step += 1
        self._submit()  # now, so that the threads work while the caller does
        if self.cutter and plan:
            return replace(batch, images=self.cutter.cut(plan))
        return batch

    def close(self) -> None:
        """Stop the threads."""
        self._closed = True
        self._discard_pending()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self) -> None:
        self._pending.append(self._pool.submit(self._make, self._step + len(self._pending)))

    def _discard_pending(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()

    def _make(self, step: int) -> tuple[Batch, CutPlan | None]:
        """Make a batch in a thread; with a cutter without its images, which the caller's thread has to launch."""
        # Every world-th item, so that the groups of the minibatch standard deviation are those of a single process.
        first = self._start + step * self.batch * self._world
        items = range(first + self._rank, first + self.batch * self._world, self._world)
        length = len(self.dataset)
        indices = [int(self._order(item // length)[item % length]) for item in items]
        windows = None if self.window is None else [self._window(*pair) for pair in zip(items, indices, strict=True)]
        plan = self.cutter.plan(indices, windows) if self.cutter else None
        images = torch.empty(0) if plan else self.dataset.images(indices, windows=windows)
        batch = Batch(
            images.pin_memory() if self.pin and not plan else images,
            self.dataset.labels(indices),
            torch.tensor([WHOLE_IMAGE] * self.batch if windows is None else windows, dtype=torch.float64),
        )
        return batch, plan

    def _window(self, item: int, index: int) -> CropWindow:
        assert self.window is not None
        return self.window(np.random.default_rng([self.seed, 1, item]), self.dataset.stored_side(index))

    def _order(self, epoch: int) -> np.ndarray:
        def permute() -> np.ndarray:
            return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))

        return self._orders.get_or_make(epoch, permute)
