"""Laplacian pyramids (Burt and Adelson, 1983)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

LOWEST_SIDE = 16
"""Side of the lowest level, or a little more where the side of the images is not a power of two."""


def level_sides(side: int) -> list[int]:
    """Sides of the levels of a pyramid, from that of the images down to about 16. Raises ValueError: it is smaller."""
    if side < LOWEST_SIDE:
        raise ValueError(f"pictures must have at least {LOWEST_SIDE} pixels a side, not {side}")
    sides = [side]
    while (sides[-1] + 1) // 2 >= LOWEST_SIDE:
        sides.append((sides[-1] + 1) // 2)
    return sides


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Levels of the Laplacian pyramid of float [N, C, side, side], finest first.

    Each level is the difference between the image at its size and the next lower size, enlarged; the last level is the
    reduced image itself.
    """
    levels = []
    for side in level_sides(images.shape[-1])[:-1]:
        reduce, enlarge = resampling_matrices(side)
        lower = reduce @ images @ reduce.T
        levels.append(images - enlarge @ lower @ enlarge.T)
        images = lower
    return [*levels, images]


@lru_cache
def resampling_matrices(side: int) -> tuple[Tensor, Tensor]:
    """Matrices that halve the side and restore it, along one axis: a binomial filter of five taps, mirrored borders."""
    blur = torch.zeros(side, side)
    for offset, weight in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
        rows = torch.arange(side)
        columns = (rows + offset).abs()
        columns = torch.where(columns < side, columns, 2 * (side - 1) - columns)
        blur[rows, columns] += weight / 16
    return blur[::2].contiguous(), (2 * blur[:, ::2]).contiguous()
