"""How far generated pictures are from real ones, as sets, and whether any of them is a copy. Needs no trained network.

The sliced Wasserstein distance is that of "Progressive Growing of GANs" (arXiv 1710.10196, section 5): small
neighbourhoods out of the levels of Laplacian pyramids, seen along random directions. Each level is a band of
frequencies, so the table says at which size of detail two sets differ; the lowest level is the picture reduced to 16
pixels, with the palette. The paper scales each set by its own mean and deviation per colour channel, which hides all
that a shift or a scale can undo: another palette at the lowest level, and most of a blur at the highest. So the default
here is to scale both by those of the reference; the paper's way is `normalise="own"`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..latents import sample
from ..network import Generator
from ..rendering import render

LOWEST = 16
"""Side of the lowest level, or a little more where the side of the pictures is no power of two."""
NEIGHBOURHOOD = 7
PATCHES = 128  # of a picture and level
DIRECTIONS, REPEATS = 128, 4  # the 512 of the paper
NORMALISATIONS = ("reference", "own")
NEAREST_SIDE = 32
_AREA = NEIGHBOURHOOD**2
_BATCH = 64  # pictures at a time
_AT_ONCE = 64  # directions at a time
_PLACES = 1 << 14
_LEAST_DEVIATION = 1e-3  # of values of -1..1: rounding to 8 bits alone makes twice that
_SCALE = 1e3  # as the paper prints them

PictureSet = Tensor | Iterable[Tensor]
"""uint8 [N, C, side, side]: all at once, or batches of them."""


class Moments(NamedTuple):
    """Of the descriptors of a level, by channel."""

    mean: Tensor  # [C] float64
    deviation: Tensor  # [C] float64


@dataclass(frozen=True)
class Distances:
    """Between two sets of pictures.

    Attributes:
        levels: by the side of the pyramid's level, finest first; times 1000.
    """

    levels: dict[int, float]

    @property
    def mean(self) -> float:
        """Over the levels."""
        return sum(self.levels.values()) / len(self.levels)

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {**{str(side): value for side, value in self.levels.items()}, "mean": self.mean}


class PatchStatistics:
    """Descriptors of a set of pictures: neighbourhoods of 7 x 7 pixels at random places of every pyramid level.

    They are kept as float16: 38 KB per level of a picture with three channels and 128 patches.
    """

    def __init__(self, patches_per_image: int = PATCHES, seed: int = 0):
        """
        Args:
            patches_per_image: of each picture and level.
            seed: of the places. They depend on nothing else, not even on how the pictures come in batches.
        """
        if patches_per_image < 1:
            raise ValueError(f"patches_per_image must be at least 1, not {patches_per_image}")
        self.patches_per_image, self.seed = patches_per_image, seed
        self.count = 0
        """Pictures seen."""
        self._shape: tuple[int, int] | None = None
        self._levels: dict[int, _Level] = {}

    @property
    def levels(self) -> list[int]:
        """Sides of the levels, finest first."""
        return list(self._levels)

    @property
    def channels(self) -> int:
        """Of the pictures; 0 before the first."""
        return self._shape[0] if self._shape else 0

    def add(self, pictures: Tensor) -> None:
        """More pictures of the set, uint8 [N, C, side, side].

        Raises:
            ValueError: they are of another kind or size, or smaller than 16 pixels.
        """
        _check_pictures(pictures)
        shape = (pictures.shape[1], pictures.shape[2])
        if self._shape is None:
            self._shape = shape
            for number, side in enumerate(level_sides(shape[1])):
                self._levels[side] = _Level(torch.Generator().manual_seed(self.seed + number))
        elif shape != self._shape:
            raise ValueError(f"pictures of {shape} channels and pixels in a set of {self._shape}")
        for part in pictures.split(_BATCH):
            for values in laplacian_pyramid(part.cpu().float() / 127.5 - 1):
                self._levels[values.shape[-1]].add(values, self.patches_per_image)
        self.count += len(pictures)

    def moments(self, level: int) -> Moments:
        """Mean and standard deviation of the descriptors of a level, by channel."""
        return self._levels[level].moments()

    def patches(self, level: int) -> Iterator[Tensor]:
        """The descriptors of a level in pieces, float16 [n, C * 49], channel after channel, not normalised."""
        return iter(self._levels[level].pieces)

    def size(self, level: int) -> int:
        """Descriptors of a level."""
        return self._levels[level].size


class _Level:
    """Descriptors of one level."""

    def __init__(self, random: torch.Generator):
        self.pieces: list[Tensor] = []
        self.size = 0
        self._random = random
        self._sums: Tensor | None = None  # [2, C] of the values and of their squares

    def add(self, values: Tensor, count: int) -> None:
        """`count` neighbourhoods of each picture [N, C, side, side]."""
        n, channels, side, _ = values.shape
        span = side - NEIGHBOURHOOD + 1
        # One number for each place: then the stream of random numbers is the same for any size of batches.
        place = torch.randint(span * span, (n, count), generator=self._random)
        corner = place // span * side + place % span
        inside = torch.arange(NEIGHBOURHOOD)
        offsets = (inside[:, None] * side + inside).flatten()
        index = repeat(corner[:, :, None] + offsets, "n k area -> n c (k area)", c=channels)
        found = rearrange(values, "n c h w -> n c (h w)").gather(2, index)
        piece = rearrange(found, "n c (k area) -> n k c area", area=_AREA).half().contiguous()
        exact = piece.double()
        sums = torch.stack([exact.sum((0, 1, 3)), exact.square().sum((0, 1, 3))])
        self._sums = sums if self._sums is None else self._sums + sums
        self.pieces.append(rearrange(piece, "n k c area -> (n k) (c area)"))
        self.size += n * count

    def moments(self) -> Moments:
        assert self._sums is not None
        mean, square = self._sums / (self.size * _AREA)
        return Moments(mean, (square - mean.square()).clamp(min=0).sqrt())


def describe(pictures: PictureSet, *, patches_per_image: int = PATCHES, seed: int = 0) -> PatchStatistics:
    """The statistics of a set of pictures.

    Raises:
        ValueError: there are none, or see `PatchStatistics.add`.
    """
    statistics = PatchStatistics(patches_per_image, seed)
    for batch in _batches(pictures):
        statistics.add(batch)
    if not statistics.count:
        raise ValueError("a set without pictures is at no distance from anything; give at least one")
    return statistics


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

    It never quite gets to zero: two finite sets of the same pictures' kind differ by chance, the more the fewer
    pictures there are. So compare distances only between sets of the same sizes, and show beside that of the
    generated pictures that of real ones.

    Args:
        reference: the real pictures.
        other: those to judge; there may be more or fewer of them.
        directions: along which the descriptors are compared.
        repeats: how often, with new directions; the result is the mean.
        normalise: "reference": both by the mean and deviation of the reference, so that a distance is in deviations
            of the real pictures, and a change of palette or contrast counts. "own": each by its own, as in the paper.
        seed: of the directions.

    Raises:
        ValueError: the sets are of different sides or channels, or an argument is outside its range.
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
    found: dict[int, float] = {}
    for level in reference.levels:
        a = reference.moments(level)
        b = a if normalise == "reference" else other.moments(level)
        seen_a, seen_b = (torch.empty(min(_AT_ONCE, directions), each.size(level)) for each in (reference, other))
        total = 0.0
        for _ in range(repeats):
            for some in random_directions(directions, reference.channels * _AREA, random).split(_AT_ONCE):
                _project(reference, level, some, a, seen_a)
                _project(other, level, some, b, seen_b)
                total += wasserstein(seen_a[: len(some)], seen_b[: len(some)]).sum().item()
        found[level] = _SCALE * total / (directions * repeats)
    return Distances(found)


def random_directions(count: int, dimensions: int, random: torch.Generator) -> Tensor:
    """Unit vectors in all directions alike, float64 [count, dimensions]."""
    vectors = torch.randn(count, dimensions, generator=random, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Wasserstein distances (the first, the earth mover's) between samples of numbers.

    A distance is the area between two distribution functions, which are taken at 16384 places: four times as fast as
    sorting half a million numbers, and the same to three digits.

    Args:
        a: [K, n] float32.
        b: [K, m] float32.

    Returns:
        [K] float64.
    """
    found = torch.zeros(len(a), dtype=torch.float64)
    for row, samples in enumerate(zip(a, b, strict=True)):
        low = min(sample.min().item() for sample in samples)
        step = (max(sample.max().item() for sample in samples) - low) / _PLACES
        if step > 0:
            of_a, of_b = (
                torch.bincount(((sample - low) / step).to(torch.int64), minlength=_PLACES + 1).double() / len(sample)
                for sample in samples
            )
            found[row] = (of_a - of_b).cumsum(0).abs().sum() * step
    return found


def _project(statistics: PatchStatistics, level: int, directions: Tensor, moments: Moments, out: Tensor) -> None:
    """Normalised descriptors along directions [K, C * 49], into the first K rows of `out`, float32 [:, n]."""
    matrix = directions / moments.deviation.clamp(min=_LEAST_DEVIATION).repeat_interleave(_AREA)
    shift = (matrix @ moments.mean.repeat_interleave(_AREA)).float()[:, None]
    matrix = matrix.float()
    start = 0
    for piece in statistics.patches(level):
        out[: len(matrix), start : start + len(piece)] = matrix @ piece.float().T - shift
        start += len(piece)


def level_sides(side: int) -> list[int]:
    """Sides of the levels of a pyramid, from that of the pictures down to about 16."""
    if side < LOWEST:
        raise ValueError(f"pictures must have at least {LOWEST} pixels a side, not {side}")
    sides = [side]
    while (sides[-1] + 1) // 2 >= LOWEST:
        sides.append((sides[-1] + 1) // 2)
    return sides


def laplacian_pyramid(pictures: Tensor) -> list[Tensor]:
    """Levels of the Laplacian pyramid (Burt, Adelson 1983) of [N, C, side, side], finest first.

    Each is what the next lower one, enlarged, lacks; the last is the reduced picture itself.
    """
    levels = []
    for side in level_sides(pictures.shape[-1])[:-1]:
        reduce, enlarge = _filters(side)
        lower = reduce @ pictures @ reduce.T
        levels.append(pictures - enlarge @ lower @ enlarge.T)
        pictures = lower
    return [*levels, pictures]


@lru_cache
def _filters(side: int) -> tuple[Tensor, Tensor]:
    """To half the side and back, along one axis: binomial of five taps, the border mirrored."""
    blur = torch.zeros(side, side)
    for offset, weight in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
        rows = torch.arange(side)
        place = (rows + offset).abs()
        place = torch.where(place < side, place, 2 * (side - 1) - place)
        blur[rows, place] += weight / 16
    return blur[::2].contiguous(), (2 * blur[:, ::2]).contiguous()


@dataclass(frozen=True)
class Row:
    """Of a table of distances: one side.

    Attributes:
        side: of the pictures.
        fakes: generated pictures, from the held-out ones.
        reals: as many training pictures, from the held-out ones: what a perfect generator would get.
        count, held_out: how many pictures there were, of either and held out.
    """

    side: int
    fakes: Distances
    reals: Distances
    count: int
    held_out: int


def distance_table(
    generator: Generator,
    reals: Callable[[int], PictureSet],
    held_out: Callable[[int], PictureSet],
    sides: Sequence[int],
    *,
    patches_per_image: int = PATCHES,
    directions: int = DIRECTIONS,
    repeats: int = REPEATS,
    normalise: str = "reference",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Generated against held-out pictures, beside training against held-out pictures, for each output side.

    There are as many generated as training pictures, of the seeds 0, 1, ...: then both distances hold the same share
    of chance.

    Args:
        generator: on any device.
        reals, held_out: give the pictures at a side.
        sides: of the pictures.
        progress: called as progress(done, total) with generated pictures; what it raises stops the work.
        others: as of `describe` and `sliced_wasserstein`; the held-out pictures are the reference.
    """

    def described(pictures: PictureSet) -> PatchStatistics:
        return describe(pictures, patches_per_image=patches_per_image, seed=seed)

    def compared(reference: PatchStatistics, other: PatchStatistics) -> Distances:
        return sliced_wasserstein(
            reference, other, directions=directions, repeats=repeats, normalise=normalise, seed=seed
        )

    rows: list[Row] = []
    for number, side in enumerate(sides):
        reference = described(held_out(side))
        real = described(reals(side))
        count, real_distances = real.count, compared(reference, real)
        del real  # which is large

        def step(done: int, before: int = number * count, total: int = len(sides) * count) -> None:
            if progress is not None:
                progress(before + done, total)

        fake = described(fakes(generator, range(count), side, progress=step))
        rows.append(Row(side, compared(reference, fake), real_distances, count, reference.count))
        del fake, reference
    return rows


def fakes(
    generator: Generator,
    seeds: Sequence[int],
    side: int,
    *,
    batch: int = _BATCH,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:
    """Pictures of seeds, not truncated, in batches uint8 [n, C, side, side] on the CPU: the whole frame, as a square.

    Labels are drawn as `sample` does: as often as among the training pictures, where these are known.
    """
    for start in range(0, len(seeds), batch):
        ws = sample(generator, seeds[start : start + batch])
        out = torch.empty(len(ws), generator.config.img_channels, side, side, dtype=torch.uint8)
        yield render(generator, ws, height=side, width=side, out=out)
        if progress is not None:
            progress(start + len(ws))


class Nearest(NamedTuple):
    """Of N pictures, the most similar of a set."""

    place: Tensor  # [N] int64: in the set
    mirrored: Tensor  # [N] bool: flipped left to right it is nearer
    distance: Tensor  # [N] mean squared difference, of pictures of 0..1 reduced to 32 pixels


def nearest(pictures: Tensor, among: PictureSet, *, side: int = NEAREST_SIDE) -> Nearest:
    """The most similar pictures of a set, which is also looked at flipped left to right.

    Args:
        pictures: uint8 [N, C, S, S].
        among: of the same size.
        side: to which all are reduced for the comparison.

    Raises:
        ValueError: the sizes differ, or there is nothing to compare with.
    """
    _check_pictures(pictures)
    if not len(pictures):
        raise ValueError("there are no pictures whose nearest to find")
    side = min(side, pictures.shape[-1])
    wanted = torch.cat([_reduced(p, side) for p in (pictures, pictures.flip(3))])
    best = torch.full((len(wanted),), torch.inf)
    place = torch.zeros(len(wanted), dtype=torch.int64)
    seen = 0
    for batch in _batches(among):
        if batch.shape[1:] != pictures.shape[1:]:
            raise ValueError(f"pictures of {list(pictures.shape[1:])} among those of {list(batch.shape[1:])}")
        for part in batch.split(_BATCH):
            # Not by way of matrix products, which would leave a copy at a distance.
            distances = torch.cdist(wanted, _reduced(part, side), compute_mode="donot_use_mm_for_euclid_dist")
            found, number = distances.min(1)
            better = found < best
            best, place = torch.where(better, found, best), torch.where(better, number + seen, place)
            seen += len(part)
    if not seen:
        raise ValueError("there are no pictures to be near to")
    best, place = best.view(2, -1), place.view(2, -1)
    mirrored = best[1] < best[0]
    distance = torch.where(mirrored, best[1], best[0]).square() / wanted.shape[1]
    return Nearest(torch.where(mirrored, place[1], place[0]), mirrored, distance)


def _reduced(pictures: Tensor, side: int) -> Tensor:
    return adaptive_avg_pool2d(pictures.cpu().float() / 255, side).flatten(1)


def _batches(pictures: PictureSet) -> Iterable[Tensor]:
    return [pictures] if isinstance(pictures, Tensor) else pictures


def _check_pictures(pictures: Tensor) -> None:
    if pictures.ndim != 4 or pictures.shape[2] != pictures.shape[3] or pictures.dtype != torch.uint8:
        raise ValueError(f"pictures must be uint8 [N, C, side, side], not {pictures.dtype} {list(pictures.shape)}")
