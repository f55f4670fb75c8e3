"""The most similar images of a set: whether a generator copies its training images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from .patch_statistics import IMAGE_BATCH, ImageBatches, as_batches, check_images

COMPARISON_SIDE = 32


class NearestImages(NamedTuple):
    """For N images, the most similar one of a set."""

    position: Tensor  # [N] int64: in the set
    mirrored: Tensor  # [N] bool: the image flipped left to right is nearer
    distance: Tensor  # [N] mean squared difference of images of 0..1 reduced to 32 pixels


def find_nearest(images: Tensor, candidates: ImageBatches, *, side: int = COMPARISON_SIDE) -> NearestImages:
    """The most similar candidates, each also compared flipped left to right.

    Args:
        images: uint8 [N, C, S, S].
        candidates: of the same size.
        side: to which all are reduced for the comparison.

    Raises:
        ValueError: the sizes differ, or one of the sets is empty.
    """
    check_images(images)
    if not len(images):
        raise ValueError("there are no pictures whose nearest to find")
    side = min(side, images.shape[-1])
    queries = torch.cat([_reduced(x, side) for x in (images, images.flip(3))])
    best = torch.full((len(queries),), torch.inf)
    position = torch.zeros(len(queries), dtype=torch.int64)
    compared = 0
    for batch in as_batches(candidates):
        if batch.shape[1:] != images.shape[1:]:
            raise ValueError(f"pictures of {list(images.shape[1:])} among those of {list(batch.shape[1:])}")
        for part in batch.split(IMAGE_BATCH):
            # Not by matrix products, whose rounding would give a copy a distance above zero.
            distances = torch.cdist(queries, _reduced(part, side), compute_mode="donot_use_mm_for_euclid_dist")
            found, number = distances.min(1)
            better = found < best
            best, position = torch.where(better, found, best), torch.where(better, number + compared, position)
            compared += len(part)
    if not compared:
        raise ValueError("there are no pictures to be near to")
    best, position = best.view(2, -1), position.view(2, -1)
    mirrored = best[1] < best[0]
    distance = torch.where(mirrored, best[1], best[0]).square() / queries.shape[1]
    return NearestImages(torch.where(mirrored, position[1], position[0]), mirrored, distance)


def _reduced(images: Tensor, side: int) -> Tensor:
    """Float [N, C * side * side], 0..1."""
    return adaptive_avg_pool2d(images.cpu().float() / 255, side).flatten(1)
