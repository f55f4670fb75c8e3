"""How far a run is, and how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...common.duration import duration
from .trainer import Trainer

_SECONDS = 30  # over which the rate is measured


@dataclass(frozen=True)
class Status:
    """How far a run is, after a step.

    Attributes:
        num_images: training images shown so far.
        total: images to show.
        images_per_second: over the last half minute.
        seconds_left: at that rate.
        stats: the means of the last tick; {} before the first.
        trainer: after the step.
    """

    num_images: int
    total: int
    images_per_second: float
    seconds_left: float
    stats: dict[str, float]
    trainer: Trainer

    def __str__(self) -> str:
        names = [name for name in self.stats if name.startswith("loss/")]
        names += ["augment/p"] if self.stats.get("augment/p") else []
        losses = ", ".join(f"{name} {self.stats[name]:.3g}" for name in names)
        text = (
            f"{self.num_images:,} of {self.total:,} pictures, {self.images_per_second:.1f} per second, "
            f"{duration(self.seconds_left)} left"
        )
        return f"{text}; {losses}" if losses else text


class RunClock:
    """Measures the rate of a run over the last half minute."""

    def __init__(self, num_images: int):
        self.start: float = time.monotonic()
        self._marks = [(self.start, num_images)]

    def status(self, trainer: Trainer, stats: dict[str, float]) -> Status:
        """The status after a step."""
        now = time.monotonic()
        self._marks.append((now, trainer.num_images))
        while len(self._marks) > 2 and now - self._marks[0][0] > _SECONDS:
            self._marks.pop(0)
        seconds, images = now - self._marks[0][0], trainer.num_images - self._marks[0][1]
        rate = images / max(seconds, 1e-9)
        left = (trainer.recipe.total - trainer.num_images) / max(rate, 1e-9)
        return Status(trainer.num_images, trainer.recipe.total, rate, left, stats, trainer)
