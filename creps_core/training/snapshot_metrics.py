"""What a run measures of its snapshots, and which snapshot is the best by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data import ImageDataset
    from .trainer import Trainer

METRIC_PREFIX = "metric/"
"""Of the names of metrics in `stats.jsonl`."""


@dataclass(frozen=True)
class SnapshotMetrics:
    """What is measured of the moving average at every snapshot.

    Attributes:
        metric: the name of the number by which snapshots are compared.
        lower_is_better: whether its smallest value is the best.
        publish_best: whether `generator.safetensors` is made of the best snapshot instead of the last one.
        measure: returns numbers by name. It is called in all processes at once, and the result of the first one counts.
    """

    metric: str
    lower_is_better: bool
    publish_best: bool
    measure: Callable[[Trainer, ImageDataset], dict[str, float]]

    def best(self, stats: Sequence[Mapping[str, float]], among: set[int]) -> int | None:
        """The `num_images` of the best snapshot.

        Args:
            stats: the lines of `stats.jsonl`.
            among: `num_images` of the snapshots to choose from.

        Returns:
            None: none of them was measured.
        """
        key = METRIC_PREFIX + self.metric
        found = {line["shown"]: line[key] for line in stats if math.isfinite(line.get(key, math.nan))}
        candidates = [num_images for num_images in found if num_images in among]
        if not candidates:
            return None
        return int((min if self.lower_is_better else max)(candidates, key=lambda num_images: found[num_images]))
