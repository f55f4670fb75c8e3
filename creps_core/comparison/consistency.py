"""Is it the same picture at every size? As numbers.

A picture of n x n pixels and one of (2n - 1) x (2n - 1) have samples in common: every second one of the larger lies
where one of the smaller does. A generator that evaluates a function of the place gives them the same values; one that
scales feature maps, or learned its positions from the borders, does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..network import Generator
from ..rendering import Progress, render, share

_RANGE, _LEVELS = 2.0, 127.5  # of a picture, and 8-bit levels per unit


class Agreement(NamedTuple):
    """How the samples agree that two sizes have in common."""

    size: int
    """Pixels per side of the smaller picture."""
    larger: int
    """Of the larger one."""
    largest: float
    """Largest difference of a value, in levels of an 8-bit picture."""
    psnr: float
    """In dB, of the range of a picture; infinite where the samples are equal."""


def sizes_up_to(largest: int, smallest: int = 16) -> list[int]:
    """Sizes n, 2n - 1, 4n - 3... from the smallest up to the largest at most; at least two.

    Raises:
        ValueError: there are no two.
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
    look: Callable[[int, Tensor], None] | None = None,
) -> list[Agreement]:
    """Compare each size with the next, and the first with the last.

    Args:
        generator, ws, precision, backend, progress: as for `render`. Every latent is rendered.
        sizes: pixels per side, each 2n - 1 of the one before; see `sizes_up_to`.
        look: called with every size and its picture [1, C, size, size], latent by latent.

    Returns:
        For each pair of neighbours, then (with three sizes or more) for the first and the last: the worst value over
        the latents, and the PSNR of all of them.

    Raises:
        ValueError: the sizes do not have all samples of the smaller in common.
    """
    sizes = list(sizes)
    neighbours = list(pairwise(sizes))
    if not neighbours or any(b != 2 * a - 1 for a, b in neighbours):
        raise ValueError(f"sizes must be two or more, each 2n - 1 of the one before, not {sizes}")
    pairs = neighbours if len(sizes) == 2 else [*neighbours, (sizes[0], sizes[-1])]
    differences: dict[tuple[int, int], list[Tensor]] = {pair: [] for pair in pairs}
    ends = list(accumulate(n * n for n in sizes))
    for i in range(len(ws)):
        pictures: dict[int, Tensor] = {}
        for n, end in zip(sizes, ends, strict=True):
            before = i * ends[-1] + end
            pictures[n] = render(
                generator,
                ws[i : i + 1],
                height=n,
                width=n,
                precision=precision,
                backend=backend,
                progress=share(progress, before - n * n, before, len(ws) * ends[-1]),
            )
            if look is not None:
                look(n, pictures[n])
            for pair in pairs:
                if pair[1] == n:
                    differences[pair].append(_difference(pictures[pair[0]], pictures[n]))
            pictures = {m: picture for m, picture in pictures.items() if m in (n, sizes[0])}
    agreements = []
    for (a, b), values in differences.items():
        largest, mean_square = torch.stack(values).unbind(1)
        agreements.append(Agreement(a, b, largest.max().item() * _LEVELS, _psnr(mean_square.mean().item())))
    return agreements


def _difference(small: Tensor, large: Tensor) -> Tensor:
    """Of the shared samples: the largest difference and the mean square, [2] float64."""
    step = (large.shape[-1] - 1) // (small.shape[-1] - 1)
    difference = large[..., ::step, ::step].double() - small.double()
    return torch.stack([difference.abs().max(), difference.square().mean()]).cpu()


def consistency_report(agreements: Sequence[Agreement]) -> str:
    """A table for people."""
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
