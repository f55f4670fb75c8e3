"""Images as memory: tiles, order of axes, means over samples, and storing values as pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor


class Tile(NamedTuple):
    """A block of pixels that is computed at once."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def split_tiles(height: int, width: int, tile: tuple[int, int]) -> Iterator[Tile]:
    """Tiles of (height, width) pixels that cover an image, row by row; smaller at the right and bottom edges."""
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            yield Tile(top, left, min(top + tile[0], height), min(left + tile[1], width))


def mean_of_samples(image: Tensor, k: int) -> Tensor:
    """Mean over k x k samples per pixel, [C, h * k, w * k] -> [C, h, w]."""
    return image if k == 1 else reduce(image, "c (h ky) (w kx) -> c h w", "mean", ky=k, kx=k)


def store_image(image: Tensor, out: Tensor) -> None:
    """Write an image [C, h, w] of about -1..1 into `out`; see `PreparedStage.paint` for its dtypes.

    Raises:
        OverflowError: the image is not finite, because of low precision, or of weights or a latent out of range.
    """
    if not torch.isfinite(image).all():
        raise OverflowError(
            "the picture has values that are not finite; render with precision float32, and if it was that, the "
            "weights of the generator or the latent are beyond all use"
        )
    if out.dtype == torch.uint8:
        image = (image * 127.5 + 128).clamp_(0, 255)
    out.copy_(image)


def axis_order(image: Tensor) -> tuple[int, ...]:
    """The axes of an image, largest stride first."""
    return tuple(sorted(range(image.ndim), key=lambda axis: -image.stride(axis)))


def empty_like_image(image: Tensor, dtype: torch.dtype, device: torch.device, scale: int = 1) -> Tensor:
    """Uninitialised memory [C, height * scale, width * scale] with the axis order of `image` [C, height, width].

    A copy between two images of one axis order is one contiguous copy.
    """
    axes, (channels, height, width) = axis_order(image), image.shape
    shape = (channels, height * scale, width * scale)
    memory = torch.empty([shape[axis] for axis in axes], dtype=dtype, device=device)
    return memory.permute([axes.index(axis) for axis in range(3)])
