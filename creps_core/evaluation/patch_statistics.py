"""Patches of the pyramid levels of a set of images: the descriptors that the sliced Wasserstein distance compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor

from .pyramid import laplacian_pyramid, level_sides

PATCH_SIDE = 7
PATCH_AREA = PATCH_SIDE**2
PATCHES = 128  # per image and level
IMAGE_BATCH = 64

ImageBatches = Tensor | Iterable[Tensor]
"""uint8 [N, C, side, side]: all at once, or an iterable of batches."""


class Moments(NamedTuple):
    """Mean and standard deviation of the descriptors of a level, by channel."""

    mean: Tensor  # [C] float64
    deviation: Tensor  # [C] float64


class PatchStatistics:
    """Descriptors of a set of images: patches of 7 x 7 pixels at random positions of every pyramid level.

    They are kept as float16: 38 KB per level of an image with three channels and 128 patches.
    """

    patches_per_image: int
    seed: int
    count: int

    def __init__(self, patches_per_image: int = PATCHES, seed: int = 0):
        """
        Args:
            patches_per_image: per image and level.
            seed: of the positions, which depend on nothing else, not even on the batch size.
        """
        if patches_per_image < 1:
            raise ValueError(f"patches_per_image must be at least 1, not {patches_per_image}")
        self.patches_per_image, self.seed = patches_per_image, seed
        self.count = 0
        """Number of images."""
        self._shape: tuple[int, int] | None = None
        self._levels: dict[int, _Level] = {}

    @property
    def levels(self) -> list[int]:
        """Sides of the levels, finest first."""
        return list(self._levels)

    @property
    def channels(self) -> int:
        """Of the images; 0 before the first one."""
        return self._shape[0] if self._shape else 0

    def add(self, images: Tensor) -> None:
        """Add images to the set, uint8 [N, C, side, side].

        Raises:
            ValueError: their shape or type differs from that of earlier ones, or they are smaller than 16 pixels.
        """
        check_images(images)
        shape = (images.shape[1], images.shape[2])
        if self._shape is None:
            self._shape = shape
            for number, side in enumerate(level_sides(shape[1])):
                self._levels[side] = _Level(torch.Generator().manual_seed(self.seed + number))
        elif shape != self._shape:
            raise ValueError(f"pictures of {shape} channels and pixels in a set of {self._shape}")
        for batch in images.split(IMAGE_BATCH):
            for values in laplacian_pyramid(batch.cpu().float() / 127.5 - 1):
                self._levels[values.shape[-1]].add(values, self.patches_per_image)
        self.count += len(images)

    def moments(self, level: int) -> Moments:
        """Mean and standard deviation of the descriptors of a level, by channel."""
        return self._levels[level].moments()

    def patches(self, level: int) -> Iterator[Tensor]:
        """The descriptors of a level in chunks, float16 [n, C * 49], channel by channel, not normalized."""
        return iter(self._levels[level].chunks)

    def size(self, level: int) -> int:
        """Number of descriptors of a level."""
        return self._levels[level].size


class _Level:
    """Descriptors of one level."""

    def __init__(self, random: torch.Generator):
        self.chunks: list[Tensor] = []
        self.size = 0
        self._random = random
        self._sums: Tensor | None = None  # [2, C], of the values and of their squares

    def add(self, values: Tensor, count: int) -> None:
        """Add `count` patches of each image [N, C, side, side]."""
        n, channels, side, _ = values.shape
        span = side - PATCH_SIDE + 1
        # One random number per position: so the stream does not depend on the batch size.
        position = torch.randint(span * span, (n, count), generator=self._random)
        corner = position // span * side + position % span
        inside = torch.arange(PATCH_SIDE)
        offsets = (inside[:, None] * side + inside).flatten()
        index = repeat(corner[:, :, None] + offsets, "n k area -> n c (k area)", c=channels)
        gathered = rearrange(values, "n c h w -> n c (h w)").gather(2, index)
        patches = rearrange(gathered, "n c (k area) -> n k c area", area=PATCH_AREA).half().contiguous()
        exact = patches.double()
        sums = torch.stack([exact.sum((0, 1, 3)), exact.square().sum((0, 1, 3))])
        self._sums = sums if self._sums is None else self._sums + sums
        self.chunks.append(rearrange(patches, "n k c area -> (n k) (c area)"))
        self.size += n * count

    def moments(self) -> Moments:
        assert self._sums is not None
        mean, square = self._sums / (self.size * PATCH_AREA)
        return Moments(mean, (square - mean.square()).clamp(min=0).sqrt())


def describe(images: ImageBatches, *, patches_per_image: int = PATCHES, seed: int = 0) -> PatchStatistics:
    """The statistics of a set of images.

    Raises:
        ValueError: there are none; see also `PatchStatistics.add`.
    """
    statistics = PatchStatistics(patches_per_image, seed)
    for batch in as_batches(images):
        statistics.add(batch)
    if not statistics.count:
        raise ValueError("a set without pictures is at no distance from anything; give at least one")
    return statistics


def as_batches(images: ImageBatches) -> Iterable[Tensor]:
    """An iterable of batches."""
    return [images] if isinstance(images, Tensor) else images


def check_images(images: Tensor) -> None:
    """Raises ValueError unless images are uint8 [N, C, side, side]."""
    if images.ndim != 4 or images.shape[2] != images.shape[3] or images.dtype != torch.uint8:
        raise ValueError(f"pictures must be uint8 [N, C, side, side], not {images.dtype} {list(images.shape)}")
