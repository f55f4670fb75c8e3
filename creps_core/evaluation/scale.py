"""Scale consistency: whether a generator renders the same image at every size. Needs no weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...common.progress import Progress
from ..comparison import Agreement, Aliasing, scale_consistency, sizes_up_to
from ..latents import sample
from ..network import Generator

SMALLEST_SIZE, LARGEST_SIZE = 64, 8192


@dataclass(frozen=True)
class ScaleReport:
    """Agreement of a generator's images between sizes.

    Attributes:
        latents: number of latents.
        agreements: of neighbouring sizes n and 2n - 1, and of the first with the last; see `scale_consistency`.
        aliasing: by size, in dB; `Aliasing` has the formula.
        largest: the size that aliasing is measured against, in pixels.
    """

    latents: int
    agreements: list[Agreement]
    aliasing: dict[int, float]
    largest: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: None stands for it."""

        def finite(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return {
            "latents": self.latents,
            "agreements": [{**a._asdict(), "psnr": finite(a.psnr)} for a in self.agreements],
            "aliasing": {str(size): finite(value) for size, value in self.aliasing.items()},
            "aliasing_against": self.largest,
        }

    def json_fields(self) -> dict[str, Any]:
        """Its fields of `metrics.json`."""
        return {"scale": self.to_dict()}

    def __str__(self) -> str:
        lines = [
            f"scale consistency of {self.latents} latents: PSNR of the samples that two sizes have in common; and",
            f"aliasing: what of the detail of {self.largest} x {self.largest} is too fine for the smaller size and "
            "leaks into it, in dB of all detail (less is better)",
            f"{'size':>6} {'in':>6} {'consistency':>12} {'largest difference':>20} {'aliasing':>10}",
        ]
        for a in self.agreements:
            consistency = "identical" if math.isinf(a.psnr) else f"{a.psnr:.1f} dB"
            leak = self.aliasing.get(a.size) if a.larger < a.size * 2 else None
            leaks = "" if leak is None else "none" if math.isinf(leak) else f"{leak:.1f} dB"
            lines.append(f"{a.size:>6} {a.larger:>6} {consistency:>12} {a.largest:>13.4f} levels {leaks:>10}")
        return "\n".join(lines)


def measure_scale(
    generator: Generator,
    seeds: Sequence[int],
    *,
    smallest: int = SMALLEST_SIZE,
    largest: int = LARGEST_SIZE,
    precision: str = "auto",
    progress: Progress | None = None,
) -> ScaleReport:
    """Render seeds at sizes n, 2n - 1, ... up to the largest, and compare them.

    The images of the largest size are kept in memory: 0.8 GB at 8192, and as much again for their spectrum.

    Args:
        generator: on any device.
        seeds: of the latents.
        smallest, largest: pixels per side, 3 or more.
        precision, progress: see `render`.

    Raises:
        ValueError: there are no two sizes between them.
    """
    sizes = sizes_up_to(largest, smallest)
    aliasing = Aliasing(sizes)
    agreements = scale_consistency(
        generator, sample(generator, seeds), sizes, precision=precision, progress=progress, on_image=aliasing.add
    )
    return ScaleReport(len(seeds), agreements, aliasing.decibels(), sizes[-1])
