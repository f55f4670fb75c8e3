"""Batches: their order, and errors in threads."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core.data import Batches, ImageDataset, from_images


def make(count: int = 7, mirror: bool = False) -> ImageDataset:
    """Images whose every value is their index."""
    values = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 8, 8, 3) / 255
    return from_images(values, resolution=8, mirror=mirror)


def numbers(batches: Batches, count: int) -> list[int]:
    return [int(value) for _ in range(count) for value in next(batches).images[:, 0, 0, 0]]


def test_order():
    dataset = make()
    with Batches(dataset, 3, seed=5) as batches:
        seen = numbers(batches, 14)
    expected = [int(i) for epoch in range(6) for i in np.random.default_rng([5, epoch]).permutation(7)]
    assert seen == expected
    with Batches(dataset, 50, seed=5) as batches:  # several epochs in one batch
        assert numbers(batches, 1)[:42] == expected
    with Batches(dataset, 3, seed=6) as batches:
        assert numbers(batches, 14) != expected
    with Batches(make(mirror=True), 14) as batches:
        assert sorted(numbers(batches, 1)) == sorted(2 * [*range(7)])


def test_a_resumed_run_sees_the_same_images():
    def window(rng: np.random.Generator, side: int) -> tuple[float, float, float, float]:
        assert side == 8
        left, top = rng.uniform(0, 0.5, 2)
        return left, top, left + 0.5, top + 0.5

    dataset = from_images(torch.rand(7, 8, 8, 3), resolution=8)
    with Batches(dataset, 4, seed=1, window=window) as batches:
        whole = [next(batches) for _ in range(12)]
    assert len({tuple(part.tolist()) for batch in whole for part in batch.windows}) == 48
    for workers, prefetch, seen in ((1, 1, 0), (4, 9, 5), (3, 2, 11)):
        with Batches(dataset, 4, seed=1, window=window, start=4 * seen, workers=workers, prefetch=prefetch) as batches:
            for expected in whole[seen:]:
                batch = next(batches)
                assert torch.equal(batch.images, expected.images)
                assert torch.equal(batch.windows, expected.windows)
                assert batch.windows.dtype == torch.float64
    # Another batch size, as after a change of settings.
    with Batches(dataset, 8, seed=1, window=window, start=8) as batches:
        assert torch.equal(next(batches).images, torch.cat([whole[2].images, whole[3].images]))


def test_processes_share_one_order():
    dataset = make()
    with Batches(dataset, 6, start=12) as batches:
        alone = [next(batches) for _ in range(5)]
    with contextlib.ExitStack() as stack:
        ranks = [stack.enter_context(Batches(dataset, 2, start=12, rank=rank, world=3)) for rank in range(3)]
        for expected in alone:  # every third image each
            together = torch.stack([next(batches).images for batches in ranks], 1).flatten(0, 1)
            assert torch.equal(together, expected.images)


def test_without_windows_whole_images_are_drawn():
    with Batches(make(), 2) as batches:
        batch = next(iter(batches))
        assert batch.windows.tolist() == [[0, 0, 1, 1]] * 2
        assert batch.labels.shape == (2, 0)


def test_errors_of_threads_surface():
    fail = threading.Event()

    def window(rng: np.random.Generator, side: int) -> tuple[float, float, float, float]:
        if fail.is_set():
            raise RuntimeError("out of order")
        return 0, 0, 1, 1

    dataset = make()
    with Batches(dataset, 3) as batches:
        expected = numbers(batches, 8)
    with Batches(dataset, 3, window=window) as batches:
        seen = numbers(batches, 2)
        fail.set()

        def drain() -> None:  # prefetched batches come first
            for _ in range(6):
                seen.extend(numbers(batches, 1))

        with pytest.raises(RuntimeError, match="out of order"):
            drain()
        fail.clear()
        seen += numbers(batches, 8 - len(seen) // 3)
    assert seen == expected
    with pytest.raises(ValueError, match="closed"):
        next(batches)
    with (
        Batches(dataset, 3, window=lambda rng, side: (0.0, 0.0, 2.0, 1.0)) as batches,
        pytest.raises(ValueError, match="a window must"),
    ):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("creps-batch")]


def test_arguments_of_batches():
    dataset = make()
    for options, match in (
        ({"batch": 0}, "batch must be 1"),
        ({"seed": -1}, "seed must be 0"),
        ({"start": -1}, "start must be 0"),
        ({"rank": 2, "world": 2}, "rank must be from 0 to world - 1, not 2 of 2"),
        ({"workers": 0}, "workers and prefetch"),
        ({"prefetch": 0}, "workers and prefetch"),
    ):
        with pytest.raises(ValueError, match=match):
            Batches(dataset, **{"batch": 2, **options})  # type: ignore


def test_waiting_is_counted():
    ready = threading.Event()

    def window(rng: np.random.Generator, side: int) -> tuple[float, float, float, float]:
        ready.wait()
        return 0.0, 0.0, 1.0, 1.0

    with Batches(make(), 2, window=window) as batches:
        assert batches.wait_seconds == 0
        threading.Timer(0.2, ready.set).start()
        next(batches)
        assert batches.wait_seconds > 0.1
