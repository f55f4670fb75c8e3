"""A generator's images compared with its training images and with held-out ones: distances, and copies."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from ...common.progress import Progress
from ..comparison import grid, labelled, opaque
from ..data import ImageDataset, open_dataset
from ..network import Generator
from .distance_table import DistanceRow, distance_table, format_distance_table, generate_images
from .nearest import NearestImages, find_nearest

log: logging.Logger = logging.getLogger("CREPS")

_SHEET_ROWS = 16  # nearest images on the sheet
_SHEET_SIDE = 128  # smaller images are enlarged to about this side
_SHEET_FONT = 14
_BATCH = 64

HALVES = "halves of the data set: without held-out pictures the training has seen both"


@dataclass(frozen=True)
class DistanceReport:
    """The table of distances.

    Attributes:
        rows: one for each side.
        halves: whether the held-out images are one half of the data, which the training has seen.
        enlarged: number of real images smaller than a side, by set ("training", "held_out") and side.
    """

    rows: list[DistanceRow]
    halves: bool = False
    enlarged: dict[str, dict[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        note = f"\n(training and held-out: {HALVES})" if self.halves else ""
        return format_distance_table(self.rows) + note

    def json_fields(self) -> dict[str, Any]:
        """Its fields of `metrics.json`."""
        return {"distances": [row.to_dict() for row in self.rows], **({"held_out": HALVES} if self.halves else {})}


@dataclass(frozen=True)
class HeldOutComparison:
    """A generator, its training images, and held-out images.

    Attributes:
        generator: on any device.
        data: folder or zip that it was trained on.
        held_out: folder or zip of similar images that it was not trained on; None: a random half of `data` stands for
            the training images, and the other half for these.
        crop: see `open_dataset`.
        seed: of all random choices.
        progress: called as progress(done, total) while a dataset is opened; an exception it raises stops the work.
    """

    generator: Generator
    data: Path
    held_out: Path | None
    crop: str = "center"
    seed: int = 0
    progress: Progress | None = None

    def distances(
        self,
        sides: Sequence[int],
        count: int,
        *,
        normalise: str = "reference",
        progress: Progress | None = None,
    ) -> DistanceReport:
        """The table of sliced Wasserstein distances.

        Args:
            sides: of the images, in pixels.
            count: images of each set, chosen at random; fewer where there are fewer.
            normalise: see `sliced_wasserstein`.
            progress: called as progress(done, total) with the number of generated images.
        """
        enlarged: dict[str, dict[int, int]] = {"training": {}, "held_out": {}}

        def images(kind: str, side: int) -> Iterator[Tensor]:
            path = self.data if kind == "training" or self.held_out is None else self.held_out
            log.info("%s at %d pixels", path, side)
            with closing(self._open(path, side, count if self.held_out else 2 * count)) as dataset:
                small = sum(number for note, number in dataset.report.notes.items() if "enlarged" in note)
                if small:
                    enlarged[kind][side] = small
                    log.warning("%d of them are smaller: enlarged ones lack the detail that is to be compared", small)
                yield from iterate(dataset, range(len(dataset)) if self.held_out else self._half(kind, len(dataset)))

        rows = distance_table(
            self.generator,
            partial(images, "training"),
            partial(images, "held_out"),
            sides,
            normalise=normalise,
            seed=self.seed,
            progress=progress,
        )
        return DistanceReport(rows, self.held_out is None, enlarged)

    def copies(self, count: int, side: int) -> tuple[dict[str, Any], np.ndarray]:
        """The nearest training images of generated and of held-out images.

        Args:
            count: images of each kind.
            side: of the images, in pixels.

        Returns:
            The result for JSON, and a sheet uint8 [H, W, 3].
        """
        assert self.held_out is not None
        with (
            closing(self._open(self.data, side, None)) as training,
            closing(self._open(self.held_out, side, count)) as held_out,
        ):
            return _find_copies(self.generator, training, held_out, count, side)

    def _open(self, path: Path, side: int, count: int | None) -> ImageDataset:
        """A folder or zip; at most `count` of its images, chosen at random."""
        return open_dataset(
            path,
            resolution=side,
            channels=self.generator.config.img_channels,
            crop=self.crop,
            aspect=":".join(map(str, self.generator.aspect)),
            max_pictures=count,
            seed=self.seed,
            progress=self.progress,
        )

    def _half(self, kind: str, count: int) -> list[int]:
        if count < 2:
            raise ValueError(f"{self.data}: holds one picture: a set cannot be split, give --held-out")
        order = np.random.default_rng(self.seed).permutation(count)
        return sorted((order[: count // 2] if kind == "training" else order[count // 2 :]).tolist())


def iterate(dataset: ImageDataset, indices: Sequence[int]) -> Iterator[Tensor]:
    """Batches of the images with these indices."""
    for start in range(0, len(indices), _BATCH):
        yield dataset.images(indices[start : start + _BATCH])


def _find_copies(
    generator: Generator, training: ImageDataset, held_out: ImageDataset, count: int, side: int
) -> tuple[dict[str, Any], np.ndarray]:
    generated = torch.cat(list(generate_images(generator, range(count), side)))
    fresh = held_out.images(range(len(held_out)))
    found = find_nearest(torch.cat([generated, fresh]), iterate(training, range(len(training))))
    of_generated, of_fresh = (NearestImages(*(x[part] for x in found)) for part in (slice(count), slice(count, None)))
    result = {
        "training": len(training),
        "distance": "mean squared difference of pictures of 0..1 reduced to 32 pixels",
        "generated": _nearest_to_dict("seed", range(count), of_generated, training),
        "held_out": _nearest_to_dict("picture", held_out.names, of_fresh, training),
    }
    if result["held_out"]["least"] == 0:
        log.warning("a held-out picture is among the training pictures: what is measured by it flatters the generator")
    cells: list[np.ndarray] = []
    for number in range(min(_SHEET_ROWS, len(generated), len(fresh))):
        cells += _sheet_cells(f"seed {number}", generated[number], of_generated, number, training)
        cells += _sheet_cells("held out", fresh[number], of_fresh, number, training)
    return result, grid(cells, 8 if len(cells) > 4 else 4, gap=8)


def _nearest_to_dict(
    key: str, names: Sequence[int] | Sequence[str], found: NearestImages, training: ImageDataset
) -> dict[str, Any]:
    matches = zip(names, found.position.tolist(), found.mirrored.tolist(), found.distance.tolist(), strict=True)
    return {
        "median": found.distance.median().item(),
        "least": found.distance.min().item(),
        "pictures": [
            {key: name, "nearest": training.names[index], "mirrored": mirrored, "distance": distance}
            for name, index, mirrored, distance in matches
        ],
    }


def _sheet_cells(
    title: str, image: Tensor, found: NearestImages, number: int, training: ImageDataset
) -> list[np.ndarray]:
    """An image and its nearest training image, with captions."""
    nearest = training.images([int(found.position[number])])[0]
    mirrored = bool(found.mirrored[number])
    note = f"{found.distance[number].item():.4f}{', mirrored' if mirrored else ''}"
    captions = (f"{title}\n", f"its nearest\n{note}")
    images = (image, nearest.flip(2) if mirrored else nearest)
    return [labelled(_enlarged(x), text, size=_SHEET_FONT) for x, text in zip(images, captions, strict=True)]


def _enlarged(image: Tensor) -> np.ndarray:
    """uint8 [C, S, S] as [side, side, 3], enlarged by an integer factor to about the sheet's side."""
    image = image.expand(3, -1, -1) if len(image) == 1 else image
    factor = max(1, _SHEET_SIDE // image.shape[1])
    return opaque(repeat(image, "c h w -> (h fy) (w fx) c", fy=factor, fx=factor).contiguous().numpy())


def describe_copies(copies: dict[str, Any]) -> str:
    """The result of `HeldOutComparison.copies` as text."""
    lines = [f"mean squared difference from the nearest of {copies['training']} training pictures"]
    for key, name in (("generated", "generated"), ("held_out", "held-out")):
        found = copies[key]
        lines.append(f"{len(found['pictures']):>5} {name}: median {found['median']:.4f}, least {found['least']:.4f}")
    return "\n".join(lines)
