"""Scale consistency: whether the image is the same at every size.

Images of n x n and of (2n - 1) x (2n - 1) pixels have samples in common: every second sample of the larger one. A
generator that evaluates a function of the coordinates gives them equal values; one that scales feature maps, or infers
positions from padding, does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ...common.progress import Progress, partial_progress
from ..network import Generator
from ..rendering import render

_RANGE, _LEVELS = 2.0, 127.5  # range of values of an image, and 8-bit levels per unit


class Agreement(NamedTuple):
    """How far the common samples of two sizes agree."""

    size: int
    """Pixels per side of the smaller image."""
    larger: int
    """Pixels per side of the larger image."""
    largest: float
    """Largest difference of a value, in levels of an 8-bit image."""
    psnr: float
    """In dB, relative to the range of an image; infinite if the samples are equal."""


def sizes_up_to(largest: int, smallest: int = 16) -> list[int]:
    """Sizes n, 2n - 1, 4n - 3, ... from `smallest` to at most `largest`; at least two.

    Raises:
        ValueError: there are fewer than two.
    """
    sizes = [smallest]
    while smallest > 1 and 2 * sizes[-1] - 1 <= largest:
        sizes.append(2 * sizes[-1] - 1)
    if len(sizes) < 2:
        raise ValueError(
            f"raise largest to {2 * smallest - 1} or more, or lower smallest to {(largest + 1) // 2} or less: a size "
            f"is compared with the double of it less one, and from {smallest} up to {largest} there is none"
        )
    return sizes


def scale_consistency(
    generator: Generator,
    ws: Tensor,
    sizes: Sequence[int],
    *,
    precision: str = "auto",
    backend: str = "auto",
    progress: Progress | None = None,
    on_image: Callable[[int, Tensor], None] | None = None,
) -> list[Agreement]:
    """Compare each size with the next, and the first with the last.

    Args:
        generator, ws, precision, backend, progress: as for `render`; every latent is rendered.
        sizes: pixels per side, each 2n - 1 for the previous n; see `sizes_up_to`.
        on_image: called with every size and its image [1, C, size, size], latent by latent.

    Returns:
        For each pair of neighbours, then (with three sizes or more) for the first and the last: the largest difference
        over all latents, and the PSNR over all of them.

    Raises:
        ValueError: there are fewer than two sizes, or one is not 2n - 1 for the previous n.
    """
    sizes = list(sizes)
    neighbours = list(pairwise(sizes))
    if not neighbours or any(b != 2 * a - 1 for a, b in neighbours):
        raise ValueError(f"sizes must be two or more, each 2n - 1 of the one before, not {sizes}")
    pairs = neighbours if len(sizes) == 2 else [*neighbours, (sizes[0], sizes[-1])]
    differences: dict[tuple[int, int], list[Tensor]] = {pair: [] for pair in pairs}
    ends = list(accumulate(n * n for n in sizes))
    for i in range(len(ws)):
        images: dict[int, Tensor] = {}
        for n, end in zip(sizes, ends, strict=True):
            before = i * ends[-1] + end
            images[n] = render(
                generator,
                ws[i : i + 1],
                height=n,
                width=n,
                precision=precision,
                backend=backend,
                progress=partial_progress(progress, before - n * n, before, len(ws) * ends[-1]),
            )
            if on_image is not None:
                on_image(n, images[n])
            for pair in pairs:
                if pair[1] == n:
                    differences[pair].append(_difference(images[pair[0]], images[n]))
            images = {m: image for m, image in images.items() if m in (n, sizes[0])}
    agreements = []
    for (a, b), values in differences.items():
        largest, mean_square = torch.stack(values).unbind(1)
        agreements.append(Agreement(a, b, largest.max().item() * _LEVELS, _psnr(mean_square.mean().item())))
    return agreements


def _difference(small: Tensor, large: Tensor) -> Tensor:
    """Largest difference and mean squared difference of the common samples, [2] float64."""
    step = (large.shape[-1] - 1) // (small.shape[-1] - 1)
    difference = large[..., ::step, ::step].double() - small.double()
    return torch.stack([difference.abs().max(), difference.square().mean()]).cpu()


def consistency_report(agreements: Sequence[Agreement]) -> str:
    """The agreements as a text table."""
    lines = ["The same picture at every size? Samples that two sizes have in common:", ""]
    lines += [f"{'sizes':>16}   {'largest difference':>20}   {'PSNR':>9}"]
    for a in agreements:
        psnr = "identical" if math.isinf(a.psnr) else f"{a.psnr:6.1f} dB"
        lines.append(f"{a.size:>6} in {a.larger:>6}   {a.largest:>13.6f} levels   {psnr:>9}")
    worst = max(a.largest for a in agreements)
    verdict = "yes" if worst < 0.5 else "no"
    lines += ["", f"{verdict}: the largest difference is {worst:.6f} of 255 levels"]
    return "\n".join(lines)


def _psnr(mean_square: float) -> float:
    return 10 * math.log10(_RANGE**2 / mean_square) if mean_square else math.inf
