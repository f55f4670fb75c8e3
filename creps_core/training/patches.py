"""Windows: training crops at random scales, which teach the detail of large images (arXiv 2204.07156)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

WHOLE = (0.0, 0.0, 1.0, 1.0)


def random_box(rng: np.random.Generator, side: int, resolution: int, share: float) -> tuple[float, float, float, float]:
    """Draw a square window of an image at a random scale and position.

    Args:
        rng: random numbers of this image.
        side: pixels of the image.
        resolution: pixels of a training image; windows are at least as large, so that none is upsampled.
        share: probability of a window instead of the whole image.

    Returns:
        left, top, right, bottom as fractions of the image.
    """
    smallest = min(1.0, resolution / side)
    if smallest == 1.0 or rng.random() >= share:
        return WHOLE
    size = math.exp(rng.uniform(math.log(smallest), 0.0))  # uniform over octaves
    left, top = rng.uniform(0, 1 - size, 2)
    return (float(left), float(top), float(left + size), float(top + size))


def box_positions(
    boxes: Tensor, side: int, resolution: int, samples: int = 1, jitter: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Positions at which the generator renders windows.

    A generator's coordinates run from the centre of the first to the centre of the last pixel of its training image;
    those of boxes, from edge to edge.

    Args:
        boxes: [N, 4] windows: left, top, right, bottom, as fractions of the image.
        side: pixels of a window.
        resolution: `img_resolution` of the generator.
        samples: per pixel along an axis.
        jitter: [2, N, side * samples] in 0..1, the offset of each sample of rows and columns within its cell; None:
            0.5.

    Returns:
        y and x, each [N, side * samples] float64.
    """
    offset = torch.full((), 0.5, dtype=torch.float64) if jitter is None else jitter.double()
    down, across = ((torch.arange(side * samples, dtype=torch.float64) + offset) / (side * samples)).expand(
        2, len(boxes), -1
    )
    left, top, right, bottom = boxes.double()[:, :, None].unbind(1)
    y, x = top + down * (bottom - top), left + across * (right - left)
    return tuple((edges * resolution - 0.5) / (resolution - 1) for edges in (y, x))  # type: ignore[return-value]


def window_code(boxes: Tensor) -> Tensor:
    """The window conditioning of the discriminator for windows [N, 4]: float32 [N, WINDOW_CODE], see `network`."""
    left, top, right, bottom = boxes.double().unbind(1)
    numbers = (-(right - left).log2(), -(bottom - top).log2(), left + right - 1, top + bottom - 1)
    return torch.stack(numbers, 1).float()
