"""What a run measures of its snapshots, and which one is the best by that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data import ImageDataset
    from .trainer import Trainer

PREFIX = "metric/"  # in `stats.jsonl`


@dataclass(frozen=True)
class Judge:
    """What is measured of the moving average at every snapshot.

    Attributes:
        metric: the name of the number that decides.
        lower: whether less of it is better.
        chooses: whether the generator for the loader is that of the best snapshot, instead of the last one.
        measure: numbers by their names; called in all processes at once, and what the first one returns counts.
    """

    metric: str
    lower: bool
    chooses: bool
    measure: Callable[[Trainer, ImageDataset], dict[str, float]]

    def best(self, stats: Sequence[Mapping[str, float]], among: set[int]) -> int | None:
        """The pictures shown at the best of some snapshots, by the lines of `stats.jsonl`; None: none was measured."""
        key = PREFIX + self.metric
        found = {line["shown"]: line[key] for line in stats if math.isfinite(line.get(key, math.nan))}
        candidates = [shown for shown in found if shown in among]
        if not candidates:
            return None
        return int((min if self.lower else max)(candidates, key=lambda shown: found[shown]))
