"""Images with the common look of a dataset, and folders of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def scenes(count: int, seed: int, side: int = 32, shift: tuple[int, int, int] = (0, 0, 0)) -> Tensor:
    """Gradients with a soft edge at a random position: colours of one palette, detail at every size."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    angle, offset, width = (rng.uniform(*span, (count, 1, 1, 1)) for span in ((0, 7), (-0.3, 0.3), (0.01, 0.2)))
    across = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    light = 1 / (1 + np.exp(np.clip((offset - across) / width, -50, 50)))
    grain = rng.normal(0, 3, (count, 3, side, side))
    low, high = (np.reshape(c, (1, 3, 1, 1)) for c in ((40, 60, 90), (170, 150, 130)))
    images = low + (high - low) * light + grain + np.reshape(shift, (1, 3, 1, 1))
    return torch.from_numpy(images.round().clip(0, 255).astype(np.uint8))


def write(folder: Path, images: Tensor) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder
