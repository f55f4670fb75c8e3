"""A table of sliced Wasserstein distances of generated and of training images from held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...common.progress import Progress
from ..latents import sample
from ..network import Generator
from ..rendering import render
from .patch_statistics import IMAGE_BATCH, PATCHES, ImageBatches, PatchStatistics, describe
from .sliced_wasserstein import DIRECTIONS, REPEATS, Distances, sliced_wasserstein


@dataclass(frozen=True)
class DistanceRow:
    """The distances at one side.

    Attributes:
        side: of the images, in pixels.
        generated: distances of generated images from the held-out ones.
        training: of as many training images from the held-out ones: what a perfect generator would reach.
        count: number of generated images, and of training images.
        held_out: number of held-out images.
    """

    side: int
    generated: Distances
    training: Distances
    count: int
    held_out: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "side": self.side,
            "count": self.count,
            "held_out": self.held_out,
            "generated": self.generated.to_dict(),
            "training": self.training.to_dict(),
        }


def distance_table(
    generator: Generator,
    training: Callable[[int], ImageBatches],
    held_out: Callable[[int], ImageBatches],
    sides: Sequence[int],
    *,
    patches_per_image: int = PATCHES,
    directions: int = DIRECTIONS,
    repeats: int = REPEATS,
    normalise: str = "reference",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[DistanceRow]:
    """Generated against held-out images, beside training against held-out images, for each side.

    There are as many generated as training images, of the seeds 0, 1, ...: so both distances contain the same share of
    chance.

    Args:
        generator: on any device.
        training, held_out: return the images at a side.
        sides: of the images, in pixels.
        patches_per_image, directions, repeats, normalise, seed: see `describe` and `sliced_wasserstein`; the held-out
            images are the reference.
        progress: called as progress(done, total) with the number of generated images; an exception it raises stops the
            work.
    """

    def described(images: ImageBatches) -> PatchStatistics:
        return describe(images, patches_per_image=patches_per_image, seed=seed)

    def compared(reference: PatchStatistics, other: PatchStatistics) -> Distances:
        return sliced_wasserstein(
            reference, other, directions=directions, repeats=repeats, normalise=normalise, seed=seed
        )

    rows: list[DistanceRow] = []
    for number, side in enumerate(sides):
        reference = described(held_out(side))
        real = described(training(side))
        count, of_training = real.count, compared(reference, real)
        del real  # which is large

        def report(done: int, before: int = number * count, total: int = len(sides) * count) -> None:
            if progress is not None:
                progress(before + done, total)

        generated = described(generate_images(generator, range(count), side, progress=report))
        rows.append(DistanceRow(side, compared(reference, generated), of_training, count, reference.count))
        del generated, reference
    return rows


def generate_images(
    generator: Generator,
    seeds: Sequence[int],
    side: int,
    *,
    batch: int = IMAGE_BATCH,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:
    """Images of seeds, not truncated, in batches uint8 [n, C, side, side] on the CPU: the whole frame, as a square.

    Labels are drawn as by `sample`: as often as among the training images, where these frequencies are known.
    """
    for start in range(0, len(seeds), batch):
        ws = sample(generator, seeds[start : start + batch])
        out = torch.empty(len(ws), generator.config.img_channels, side, side, dtype=torch.uint8)
        yield render(generator, ws, height=side, width=side, out=out)
        if progress is not None:
            progress(start + len(ws))


def format_distance_table(rows: Sequence[DistanceRow]) -> str:
    """The table as text: for each side a line for the generated images, and one for the training images."""
    levels = sorted({level for row in rows for level in row.generated.levels}, reverse=True)
    head = f"{'side':>5}  {'pictures':<16}" + "".join(f"{level:>8}" for level in levels) + f"{'mean':>9}"
    lines = [
        f"sliced Wasserstein distances x 1000 from {rows[0].held_out} held-out pictures, by level of the pyramid",
        head,
    ]
    for row in rows:
        for name, found in ((f"{row.count} generated", row.generated), (f"{row.count} training", row.training)):
            cells = "".join(f"{found.levels[k]:8.1f}" if k in found.levels else " " * 8 for k in levels)
            lines.append(f"{row.side:>5}  {name:<16}{cells}{found.mean:9.1f}")
    return "\n".join(lines)
