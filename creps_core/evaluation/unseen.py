"""A generator's pictures beside those that its training has seen and those that it has not: distances, and copies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from ..comparison import grid, labelled, opaque
from ..data import ImageDataset, open_dataset
from ..network import Generator
from .distance import Nearest, Row, distance_table, fakes, nearest

log = logging.getLogger("CREPS")

_SHOWN = 16  # on the sheet of nearest pictures
_SHEET_SIDE = 128  # smaller pictures are enlarged on it
_SHEET_TYPE = 14
_BATCH = 64

HALVES = "halves of the data set: without held-out pictures the training has seen both"


@dataclass(frozen=True)
class Unseen:
    """What there is to compare with.

    Attributes:
        generator: on any device.
        data: folder or zip that it was trained on.
        held_out: such pictures kept from it; None: one half of the data set stands for the training pictures, and the
            other for these.
        crop: as of `open_dataset`.
        seed: of all that is chosen at random.
    """

    generator: Generator
    data: Path
    held_out: Path | None
    crop: str = "center"
    seed: int = 0
    opening: Callable[[int, int], None] | None = None
    """Called as opening(done, total) while pictures are opened; what it raises stops that."""

    def open(self, path: Path, side: int, count: int | None) -> ImageDataset:
        """Pictures of a folder or zip, `count` of them at random."""
        return open_dataset(
            path,
            resolution=side,
            channels=self.generator.config.img_channels,
            crop=self.crop,
            aspect=":".join(map(str, self.generator.aspect)),
            max_pictures=count,
            seed=self.seed,
            progress=self.opening,
        )

    def distances(
        self,
        sides: Sequence[int],
        count: int,
        *,
        normalise: str = "reference",
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[list[Row], dict[str, dict[int, int]]]:
        """The sliced Wasserstein table, and how many pictures had to be enlarged, by kind and side."""
        enlarged: dict[str, dict[int, int]] = {"training": {}, "held_out": {}}

        def pictures(kind: str, side: int) -> Iterator[Tensor]:
            path = self.data if kind == "training" or self.held_out is None else self.held_out
            log.info("%s at %d pixels", path, side)
            with closing(self.open(path, side, count if self.held_out else 2 * count)) as chosen:
                many = sum(number for note, number in chosen.report.notes.items() if "enlarged" in note)
                if many:
                    enlarged[kind][side] = many
                    log.warning("%d of them are smaller: enlarged ones lack the detail that is to be compared", many)
                yield from batches(chosen, range(len(chosen)) if self.held_out else self._half(kind, len(chosen)))

        rows = distance_table(
            self.generator,
            partial(pictures, "training"),
            partial(pictures, "held_out"),
            sides,
            normalise=normalise,
            seed=self.seed,
            progress=progress,
        )
        return rows, enlarged

    def _half(self, kind: str, count: int) -> list[int]:
        if count < 2:
            raise ValueError(f"{self.data}: holds one picture: a set cannot be split, give --held-out")
        order = np.random.default_rng(self.seed).permutation(count)
        return sorted((order[: count // 2] if kind == "training" else order[count // 2 :]).tolist())

    def copies(self, count: int, side: int) -> tuple[dict[str, Any], np.ndarray]:
        """The nearest training pictures of generated and of held-out ones: for JSON, and as a sheet."""
        assert self.held_out is not None
        with (
            closing(self.open(self.data, side, None)) as training,
            closing(self.open(self.held_out, side, count)) as fresh,
        ):
            return _nearest(self.generator, training, fresh, count, side)


def table(rows: Sequence[Row]) -> str:
    """Distances as text: a line for the generated pictures of each side, and one for the training pictures."""
    levels = sorted({level for row in rows for level in row.fakes.levels}, reverse=True)
    head = f"{'side':>5}  {'pictures':<16}" + "".join(f"{level:>8}" for level in levels) + f"{'mean':>9}"
    lines = [
        f"sliced Wasserstein distances x 1000 from {rows[0].held_out} held-out pictures, by level of the pyramid",
        head,
    ]
    for row in rows:
        for name, found in ((f"{row.count} generated", row.fakes), (f"{row.count} training", row.reals)):
            cells = "".join(f"{found.levels[k]:8.1f}" if k in found.levels else " " * 8 for k in levels)
            lines.append(f"{row.side:>5}  {name:<16}{cells}{found.mean:9.1f}")
    return "\n".join(lines)


def row_to_dict(row: Row) -> dict[str, Any]:
    """For JSON."""
    return {
        "side": row.side,
        "count": row.count,
        "held_out": row.held_out,
        "generated": row.fakes.to_dict(),
        "training": row.reals.to_dict(),
    }


def batches(pictures: ImageDataset, indices: Sequence[int]) -> Iterator[Tensor]:
    """Pictures of a set by their numbers, some at a time."""
    for start in range(0, len(indices), _BATCH):
        yield pictures.images(indices[start : start + _BATCH])


def _nearest(
    generator: Generator, training: ImageDataset, fresh: ImageDataset, count: int, side: int
) -> tuple[dict[str, Any], np.ndarray]:
    """The nearest training pictures of generated and of held-out ones: for JSON, and as a sheet."""
    made, kept = torch.cat(list(fakes(generator, range(count), side))), fresh.images(range(len(fresh)))
    found = nearest(torch.cat([made, kept]), batches(training, range(len(training))))
    of_made, of_kept = (type(found)(*(field[part] for field in found)) for part in (slice(count), slice(count, None)))

    def described(names: Sequence[tuple[str, Any]], found: Nearest) -> dict[str, Any]:
        return {
            "median": found.distance.median().item(),
            "least": found.distance.min().item(),
            "pictures": [
                {key: name, "nearest": training.names[place], "mirrored": flipped, "distance": distance}
                for (key, name), place, flipped, distance in zip(
                    names, found.place.tolist(), found.mirrored.tolist(), found.distance.tolist(), strict=True
                )
            ],
        }

    def cells(pictures: Tensor, found: Nearest, titles: Sequence[str], number: int) -> list[np.ndarray]:
        twin = training.images([int(found.place[number])])[0]
        flipped = bool(found.mirrored[number])
        note = f"{found.distance[number].item():.4f}{', mirrored' if flipped else ''}"
        texts = (f"{titles[number]}\n", f"its nearest\n{note}")
        shown = (pictures[number], twin.flip(2) if flipped else twin)
        return [labelled(_shown(p), text, size=_SHEET_TYPE) for p, text in zip(shown, texts, strict=True)]

    pieces: list[np.ndarray] = []
    for number in range(min(_SHOWN, len(made), len(kept))):
        pieces += cells(made, of_made, [f"seed {seed}" for seed in range(count)], number)
        pieces += cells(kept, of_kept, ["held out"] * len(kept), number)
    result = {
        "training": len(training),
        "distance": "mean squared difference of pictures of 0..1 reduced to 32 pixels",
        "generated": described([("seed", seed) for seed in range(count)], of_made),
        "held_out": described([("picture", name) for name in fresh.names], of_kept),
    }
    if result["held_out"]["least"] == 0:
        log.warning("a held-out picture is among the training pictures: what is measured by it flatters the generator")
    return result, grid(pieces, 8 if len(pieces) > 4 else 4, gap=8)


def _shown(picture: Tensor) -> np.ndarray:
    """uint8 [C, S, S] as [side, side, 3], enlarged to about the side of the sheet's pictures."""
    picture = picture.expand(3, -1, -1) if len(picture) == 1 else picture
    factor = max(1, _SHEET_SIDE // picture.shape[1])
    return opaque(repeat(picture, "c h w -> (h fy) (w fx) c", fy=factor, fx=factor).contiguous().numpy())


def verdict(copies: dict[str, Any]) -> str:
    """How near the nearest pictures are, in words."""
    lines = [f"mean squared difference from the nearest of {copies['training']} training pictures"]
    for key, name in (("generated", "generated"), ("held_out", "held-out")):
        found = copies[key]
        lines.append(f"{len(found['pictures']):>5} {name}: median {found['median']:.4f}, least {found['least']:.4f}")
    return "\n".join(lines)
