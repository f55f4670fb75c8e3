"""Windows cut by torch equal those cut by Pillow."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core.data import ImageDataset, open_dataset, window_cutter
from comfyui_creps.creps_core.data.window_cutter import WindowCutter
from comfyui_creps.creps_core.training.patches import random_box
from picture_files import encoded

CPU = torch.device("cpu")


def noise(channels: int, sides: tuple[int, ...], resolution: int, mirror: bool = True) -> ImageDataset:
    """Images of several sizes: noise with saturated and with transparent parts, where filters ring."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        for number, side in enumerate(sides):
            values = rng.random((side, side, channels))
            values[::3] = values[::3].round()
            levels = (values * 255).round().astype(np.uint8)
            (Path(folder) / f"{number}.png").write_bytes(encoded(levels if channels > 1 else levels[..., 0]))
        dataset = open_dataset(folder, resolution=resolution, channels=channels, mirror=mirror, max_side=max(sides))
    assert [dataset.stored_side(index) for index in range(len(sides))] == list(sides)
    return dataset


def draw(source: ImageDataset, count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    indices = rng.integers(len(source), size=count).tolist()
    return indices, [random_box(rng, source.stored_side(i), source.resolution, 0.7) for i in indices]


@pytest.mark.parametrize("room", [0, 1 << 30], ids=["copied", "resident"])
@pytest.mark.parametrize("part", [1 << 18, 1 << 28], ids=["in parts", "at once"])
@pytest.mark.parametrize(
    ("channels", "sides", "resolution"),
    [(3, (96, 96, 96), 16), (1, (130, 61, 16, 97), 16), (4, (64, 50), 32), (3, (200,), 8)],
    ids=str,
)
def test_windows_are_those_of_pillow(channels, sides, resolution, room, part, monkeypatch):
    monkeypatch.setattr(window_cutter, "CHUNK_BYTES", part)
    source = noise(channels, sides, resolution)
    cutter = WindowCutter(source, CPU, room)
    assert cutter.resident == (room > 0)
    for seed in range(4):
        indices, windows = draw(source, 24, seed)
        plan = cutter.plan(indices, windows)
        assert (len(plan.chunks) > 1) == (part < 1 << 20)
        found, expected = cutter.cut(plan), source.images(indices, windows=windows)
        assert found.dtype == torch.uint8
        assert torch.equal(found, expected)


def test_unusual_windows():
    """Enlarged, at the edges, aligned with pixels, and offset by less than a pixel."""
    source = noise(3, (40, 33), 16)
    windows = [
        (0.1, 0.2, 0.2, 0.3),
        (0.9, 0.9, 1.0, 1.0),
        (0, 0, 1, 1),
        (0, 0, 0.4, 0.4),
        (1e-9, 0, 0.3, 0.3),
        (0, 0.7, 0.3, 1),
    ]
    indices = [0, 1, 2, 3, 1, 2]
    cutter = WindowCutter(source, CPU, 0)
    assert torch.equal(cutter.cut(cutter.plan(indices, windows)), source.images(indices, windows=windows))
    assert torch.equal(cutter.cut(cutter.plan(indices, None)), source.images(indices))


def test_sums_stay_whole_numbers_below_2_to_24():
    """At the largest reduction allowed; so float32 and TF32 add without rounding."""
    side, resolution = window_cutter.MAX_REDUCTION * 8, 8
    places = torch.tensor([[0, 1, 0, side, side]], dtype=torch.float64)
    weights = window_cutter._weights(places, resolution, side)
    assert torch.equal(weights, weights.round())
    assert weights.abs().max() <= 128
    assert 255 * weights.double().abs().sum(-1).max() < 2**24
    parts = weights.double().view(3, resolution, side)
    whole = parts[0] * 2**16 + parts[1] * 2**8 + parts[2]
    assert (whole.sum(-1) - 2**22).abs().max() <= side
    assert 255 * whole.abs().sum(-1).max() < 2**31


def test_bad_windows_are_refused():
    source = noise(3, (40,), 16)
    with pytest.raises(ValueError, match="a window must be"):
        WindowCutter(source, CPU, 0).plan([0], [(0.5, 0.0, 0.4, 1.0)])
    with pytest.raises(ValueError, match="must be square"):
        WindowCutter(source, CPU, 0).plan([0], [(0.0, 0.0, 0.4, 1.0)])
    with pytest.raises(IndexError):
        WindowCutter(source, CPU, 0).plan([9], None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("room", [0, 1 << 30], ids=["copied", "resident"])
def test_a_gpu_cuts_the_same_windows(room: int, tf32: bool, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    source = noise(3, (512, 300, 512), 64)
    cutter = WindowCutter(source, torch.device("cuda"), room)
    for seed in range(4):
        indices, windows = draw(source, 32, seed)
        assert torch.equal(cutter.cut(cutter.plan(indices, windows)).cpu(), source.images(indices, windows=windows))
