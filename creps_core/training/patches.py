"""Windows of pictures, so that pictures larger than the base resolution teach their detail (arXiv 2204.07156)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

WHOLE = (0.0, 0.0, 1.0, 1.0)


def random_box(rng: np.random.Generator, side: int, resolution: int, share: float) -> tuple[float, float, float, float]:
    """A square window of a picture, drawn at a random scale and place.

    Args:
        rng: of this picture.
        side: pixels of the picture.
        resolution: pixels of the window, so that no window is enlarged.
        share: probability of a window; otherwise it is the whole picture.

    Returns:
        left, top, right, bottom as fractions of the frame.
    """
    smallest = min(1.0, resolution / side)
    if smallest == 1.0 or rng.random() >= share:
        return WHOLE
    size = math.exp(rng.uniform(math.log(smallest), 0.0))  # every octave of scales alike
    left, top = rng.uniform(0, 1 - size, 2)
    return (float(left), float(top), float(left + size), float(top + size))


def box_positions(
    boxes: Tensor, side: int, resolution: int, samples: int = 1, jitter: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Where the generator has to be evaluated to draw windows.

    A generator's coordinates run from the centre of the first to the centre of the last pixel of its training
    picture; boxes, from edge to edge.

    Args:
        boxes: [N, 4] left, top, right, bottom, fractions of the frame.
        side: pixels of a window.
        resolution: `img_resolution` of the generator.
        samples: along a pixel.
        jitter: [2, N, side * samples] of 0..1, where in its part of the pixel each sample of rows and columns
            lies; None: in the middle.

    Returns:
        y and x, each [N, side * samples] float64.
    """
    place = torch.full((), 0.5, dtype=torch.float64) if jitter is None else jitter.double()
    down, across = ((torch.arange(side * samples, dtype=torch.float64) + place) / (side * samples)).expand(
        2, len(boxes), -1
    )
    left, top, right, bottom = boxes.double()[:, :, None].unbind(1)
    y, x = top + down * (bottom - top), left + across * (right - left)
    return tuple((edges * resolution - 0.5) / (resolution - 1) for edges in (y, x))  # type: ignore[return-value]


def window_code(boxes: Tensor) -> Tensor:
    """What a discriminator is told of windows [N, 4]: float32 [N, WINDOW_CODE], see `network.WINDOW_CODE`."""
    left, top, right, bottom = boxes.double().unbind(1)
    numbers = (-(right - left).log2(), -(bottom - top).log2(), left + right - 1, top + bottom - 1)
    return torch.stack(numbers, 1).float()
