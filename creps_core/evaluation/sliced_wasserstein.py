"""The sliced Wasserstein distance between two sets of images, without a trained network.

From "Progressive Growing of GANs" (arXiv 1710.10196, section 5): patches from the levels of Laplacian pyramids,
projected on random directions. Each level is a band of frequencies, so the distances show at which size of detail two
sets differ; the lowest level is the image reduced to 16 pixels, with the palette. The paper normalizes each set by its
own mean and deviation per colour channel, which hides every difference that a shift or a scale can undo: another
palette at the lowest level, and most of a blur at the highest. So the default here normalizes both sets by those of the
reference; the paper's method is `normalise="own"`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .patch_statistics import PATCH_AREA, Moments, PatchStatistics

DIRECTIONS, REPEATS = 128, 4  # the paper's 512
NORMALISATIONS = ("reference", "own")
_DIRECTION_BATCH = 64
_BINS = 1 << 14
_MIN_DEVIATION = 1e-3  # of values of -1..1; rounding to 8 bits alone causes twice that
_SCALE = 1e3  # as the paper prints distances


@dataclass(frozen=True)
class Distances:
    """Distances between two sets of images.

    Attributes:
        levels: by side of the pyramid level, finest first; times 1000.
    """

    levels: dict[int, float]

    @property
    def mean(self) -> float:
        """Over the levels."""
        return sum(self.levels.values()) / len(self.levels)

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {**{str(side): value for side, value in self.levels.items()}, "mean": self.mean}


def sliced_wasserstein(
    reference: PatchStatistics,
    other: PatchStatistics,
    *,
    directions: int = DIRECTIONS,
    repeats: int = REPEATS,
    normalise: str = "reference",
    seed: int = 0,
) -> Distances:
    """Sliced Wasserstein distance of two sets, level by level, times 1000.

    It never quite reaches zero: two finite samples of the same distribution differ by chance, the more the smaller they
    are. So compare distances only between sets of the same sizes, and show the distance of real images beside that of
    the generated ones.

    Args:
        reference: the real images.
        other: the images to measure, possibly of another number.
        directions: number of random directions.
        repeats: number of sets of directions; the result is the mean.
        normalise: "reference": both sets by mean and deviation of the reference, so that a distance is in deviations of
            the real images, and a change of palette or contrast counts. "own": each set by its own, as in the paper.
        seed: of the directions.

    Raises:
        ValueError: the sets have different sides or channels, or an argument is outside its range.
    """
    if normalise not in NORMALISATIONS:
        raise ValueError(f"normalise must be one of {list(NORMALISATIONS)}, not {normalise!r}")
    if directions < 1 or repeats < 1:
        raise ValueError(f"directions and repeats must be at least 1, not {directions} and {repeats}")
    for name in ("levels", "channels"):
        ours, theirs = getattr(reference, name), getattr(other, name)
        if ours != theirs or not ours:
            raise ValueError(f"the sets have {name} {ours} and {theirs}: they must agree")
    random = torch.Generator().manual_seed(seed)
    distances: dict[int, float] = {}
    for level in reference.levels:
        a = reference.moments(level)
        b = a if normalise == "reference" else other.moments(level)
        projected_a, projected_b = (
            torch.empty(min(_DIRECTION_BATCH, directions), each.size(level)) for each in (reference, other)
        )
        total = 0.0
        for _ in range(repeats):
            for batch in random_directions(directions, reference.channels * PATCH_AREA, random).split(_DIRECTION_BATCH):
                _project(reference, level, batch, a, projected_a)
                _project(other, level, batch, b, projected_b)
                total += wasserstein(projected_a[: len(batch)], projected_b[: len(batch)]).sum().item()
        distances[level] = _SCALE * total / (directions * repeats)
    return Distances(distances)


def random_directions(count: int, dimensions: int, random: torch.Generator) -> Tensor:
    """Uniformly distributed unit vectors, float64 [count, dimensions]."""
    vectors = torch.randn(count, dimensions, generator=random, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """First Wasserstein (earth mover's) distances between one-dimensional samples.

    A distance is the area between the two distribution functions, evaluated at 16384 points: four times as fast as
    sorting half a million numbers, and equal to three digits.

    Args:
        a: [K, n] float32.
        b: [K, m] float32.

    Returns:
        [K] float64.
    """
    distances = torch.zeros(len(a), dtype=torch.float64)
    for row, samples in enumerate(zip(a, b, strict=True)):
        low = min(sample.min().item() for sample in samples)
        step = (max(sample.max().item() for sample in samples) - low) / _BINS
        if step > 0:
            of_a, of_b = (
                torch.bincount(((sample - low) / step).to(torch.int64), minlength=_BINS + 1).double() / len(sample)
                for sample in samples
            )
            distances[row] = (of_a - of_b).cumsum(0).abs().sum() * step
    return distances


def _project(statistics: PatchStatistics, level: int, directions: Tensor, moments: Moments, out: Tensor) -> None:
    """Project normalized descriptors on directions [K, C * 49], into the first K rows of `out`, float32 [:, n]."""
    matrix = directions / moments.deviation.clamp(min=_MIN_DEVIATION).repeat_interleave(PATCH_AREA)
    shift = (matrix @ moments.mean.repeat_interleave(PATCH_AREA)).float()[:, None]
    matrix = matrix.float()
    start = 0
    for chunk in statistics.patches(level):
        out[: len(matrix), start : start + len(chunk)] = matrix @ chunk.float().T - shift
        start += len(chunk)
