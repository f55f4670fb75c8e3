"""All that is measured of a generator, in one call: for the command line and for the node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..network import Generator
from ..training import Process
from .distance import Row
from .measure import Finding, Progress, Wanted, measure, ready
from .metrics import KINDS, Metric
from .scale import LARGEST, Scale, scale
from .sets import Generated, PictureSet, Real
from .unseen import HALVES, Unseen, row_to_dict, table

DISTANCES = KINDS["swd"].count


@dataclass
class Evaluation:
    """What was found.

    Attributes:
        findings: numbers of torch-fidelity.
        refused: why there is none of the other metrics, by their names.
        rows: the table of sliced Wasserstein distances.
        halves: whether its held-out pictures are one half of the data set.
        enlarged: how many real pictures had to be enlarged for it.
        scale: scale consistency.
    """

    findings: list[Finding] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    halves: bool = False
    enlarged: dict[str, dict[int, int]] = field(default_factory=dict)
    scale: Scale | None = None

    def __str__(self) -> str:
        parts = [str(finding) for finding in self.findings]
        for reason in dict.fromkeys(self.refused.values()):
            names = ", ".join(name for name, why in self.refused.items() if why == reason)
            parts.append(f"{names}: not measured: {reason}")
        if self.rows:
            note = f"\n(training and held-out: {HALVES})" if self.halves else ""
            parts.append(table(self.rows) + note)
        if self.scale is not None:
            parts.append(str(self.scale))
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "metrics": [finding.to_dict() for finding in self.findings],
            "distances": [row_to_dict(row) for row in self.rows],
            **({"held_out": HALVES} if self.halves else {}),
            "scale": self.scale.to_dict() if self.scale is not None else None,
            "not_measured": self.refused,
        }


def evaluate(
    judged: PictureSet,
    real: Real | None,
    metrics: Sequence[Metric],
    *,
    wanted: Wanted,
    device: torch.device,
    folder: Path,
    cache: Path,
    held_out: Path | None = None,
    sides: Sequence[int] = (),
    normalise: str = "reference",
    largest: int = LARGEST,
    process: Process | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure all metrics that can be measured here.

    Where none of them that needs weights can be, the distances that need none stand in their place.

    Args:
        judged: `Generated`, or pictures of a folder, of which there are only torch-fidelity's numbers.
        real: what they are compared with.
        metrics: by `parse_metrics`.
        wanted: files of weights.
        device: for the library's networks.
        folder, cache, process: as of `measure`; with several processes distances and scale are the first one's.
        held_out: pictures for distances that the training has not seen.
        sides: of pictures for distances; (): that of the judged ones, at most 128.
        normalise: as of `sliced_wasserstein`.
        largest: size for scale consistency.
        progress: called as progress(what, done, total); what it raises stops the work, which goes on when called again.
    """
    found = Evaluation()
    usable, networks, found.refused = ready(metrics, wanted, device)
    generated = judged if isinstance(judged, Generated) else None
    kinds = {metric.kind: metric for metric in usable}
    for kind in ("swd", "scale", "ppl"):
        if generated is None and kind in kinds:
            found.refused[kinds.pop(kind).name] = "is measured of a generator, not of pictures"
    if real is None:
        for metric in [metric for metric in kinds.values() if metric.about.reals]:
            found.refused[kinds.pop(metric.kind).name] = "compares with real pictures, and there are none"
    usable = list(kinds.values())
    found.findings = measure(
        judged, real, usable, networks, folder=folder, cache=cache, process=process, progress=progress
    )
    if generated is None or (process is not None and not process.is_first):
        return found
    count = kinds["swd"].count if "swd" in kinds else None
    if count is None and found.refused and not found.findings and real is not None:
        count = min((metric.count for metric in metrics if metric.about.weights), default=DISTANCES)
        count = min(count, DISTANCES)
    if count is not None and real is not None:
        unseen = _unseen(generated, real, held_out, progress)
        spoken = None if progress is None else lambda done, total: progress("generated pictures", done, total)
        sides = sides or (min(generated.side, 128),)
        found.rows, found.enlarged = unseen.distances(sides, count, normalise=normalise, progress=spoken)
        found.halves = held_out is None
    if "scale" in kinds:
        seeds = range(generated.first, generated.first + kinds["scale"].count)
        found.scale = scale(
            generated.generator,
            seeds,
            largest=largest,
            precision=generated.precision,
            progress=None if progress is None else lambda done, total: progress("scale", 100 * done // total, 100),
        )
    return found


def _unseen(generated: Generated, real: Real, held_out: Path | None, progress: Progress | None) -> Unseen:
    opening = None if progress is None else lambda done, total: progress("opening pictures", done, total)
    return Unseen(generated.generator, real.path, held_out, real.facts["crop"], generated.first, opening)


def every_metric(count: int, latents: int = KINDS["scale"].count) -> list[Metric]:
    """All metrics there are, with so many pictures."""
    return [Metric(kind, latents if kind == "scale" else count) for kind in KINDS]


def generator_set(
    generator: Generator,
    real: Real | None,
    *,
    side: int | None = None,
    first: int = 0,
    precision: str = "auto",
) -> Generated:
    """The pictures of a generator, with labels as often as in the real pictures where it does not know how often.

    Args:
        generator, first, precision: as of `Generated`.
        real: what they will be compared with.
        side: of the pictures; None: what the generator was trained at.
    """
    labels = real.labels() if generator.config.c_dim and generator.labels is None and real is not None else None
    side = side or generator.config.img_resolution
    return Generated(generator, side=side, first=first, precision=precision, labels=labels)
