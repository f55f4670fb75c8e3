"""The hyperparameters of a training run; the defaults are the authors' recipe (`train.py --cfg=creps`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ...common.errors import quoted
from .adversarial import ADVERSARIAL_LOSSES

AUGMENTS = ("ada", "fixed", "none")
TRAINING_PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
NON_FINITE = ("skip", "clean")
LOSSES = tuple(ADVERSARIAL_LOSSES)
_MOST = 1 << 48  # of floats: beyond any use, and far from overflow
_LARGEST_BATCH = 1 << 20
_MOST_SAMPLES = 4


FINE_TUNING = {"ada_images": 100_000.0}
"""Fields of a recipe that starts from a trained generator, whatever its length."""


@dataclass(frozen=True)
class Recipe:
    """How to train. Counts of images are over all processes."""

    batch: int = 32  # images per step
    micro_batch: int = 0  # images at a time in one process; 0: its whole share of the batch
    total: int = 25_000_000  # training images to show
    g_lr: float = 0.002
    d_lr: float = 0.002
    r1_gamma: float = 8.2  # the authors' for 512 pixels; grows with the square of the resolution, see `r1_gamma_for`
    r1_interval: int = 16  # steps; 0: never
    pl_weight: float = 2.0  # path-length regularisation
    pl_interval: int = 4  # steps; 0: never
    pl_batch_shrink: int = 2
    pl_decay: float = 0.01
    ema_images: float = 0.0  # half-life of the moving average in images; 0: batch * 10,000 / 32
    ema_rampup: float = 0.05  # half-life at most this share of num_images; 0: no ramp-up
    ema_least: float = 0.0  # with a ramp-up: half-life at least, in images; see `average_for`
    augment: str = "ada"  # ada: adapted to the discriminator's overfitting; fixed: `augment_p`; none
    augment_p: float = 0.0  # probability at the start
    ada_target: float = 0.6
    ada_interval: int = 4  # steps
    ada_images: float = 500_000  # images in which the probability may move by 1; 100,000 for fine-tuning
    freeze_d: int = 0  # number of first layers of the discriminator that are frozen (Freeze-D)
    patches: float = 0.0  # share of windows instead of whole images, for images larger than the resolution
    precision: str = "auto"  # auto: bfloat16 and TF32 on GPUs that have them, else float32
    non_finite: str = "skip"  # steps whose gradients are not finite; clean: as the authors (nan -> 0, inf -> 1e5)
    seed: int = 0
    samples: int = 1  # per pixel of generated images along an axis: 2 averages 2 x 2, at jittered positions
    loss: str = "nonsaturating"  # relativistic: logits relative to those of real images, R1 and R2 (arXiv 2501.05441)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (type(value) is not int or value >= 1 << 63):
                raise ValueError(f"{field.name} must be a whole number below 2^63, not {quoted(value)}")
            if field.type == "float" and (type(value) not in (int, float) or not 0 <= value <= _MOST):
                raise ValueError(f"{field.name} must be a number from 0 to {_MOST}, not {quoted(value)}")
        for name in ("batch", "total", "pl_batch_shrink", "ada_interval", "ada_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 1 <= self.samples <= _MOST_SAMPLES:
            raise ValueError(f"samples must be from 1 to {_MOST_SAMPLES}, not {self.samples}")
        if self.batch > _LARGEST_BATCH:
            raise ValueError(f"batch must be at most {_LARGEST_BATCH}, not {self.batch}")
        for name in ("micro_batch", "r1_interval", "pl_interval", "freeze_d", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        for name in ("augment_p", "patches", "pl_decay"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        for name, allowed in (
            ("augment", AUGMENTS),
            ("precision", TRAINING_PRECISIONS),
            ("non_finite", NON_FINITE),
            ("loss", LOSSES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {list(allowed)}, not {getattr(self, name)!r}")

    def half_life(self, num_images: int) -> float:
        """Half-life of the moving average, in images, after `num_images`."""
        half_life = self.ema_images or self.batch * 10_000 / 32
        if not self.ema_rampup:
            return half_life
        return min(half_life, max(num_images * self.ema_rampup, self.ema_least))

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, as stored in a snapshot."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Inverse of `to_dict`; raises ValueError if a field is unknown or out of range."""
        if not isinstance(values, dict):
            raise ValueError(f"a recipe is an object, not {quoted(values)}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown fields {unknown}; this version knows {sorted(known)}")
        return cls(**values)


def r1_gamma_for(resolution: int) -> float:
    """The authors' rule of thumb: 0.5 at 128 pixels, 2 at 256, 8 at 512, 32 at 1024."""
    return 0.5 * (resolution / 128) ** 2


def average_for(batch: int) -> dict[str, float]:
    """Fields of `Recipe`: how the published average follows the generator, in new runs and in fine-tuning.

    Its half-life is a tenth of the images shown so far, so it is about the average of power 6 (a width of 0.1 in
    `averages`): once a run is twice as long, what it had learnt before keeps a weight of 1 %. The least half-life, ten
    steps, keeps the average from following the first, noisy steps of a fine-tuning.
    """
    return {"ema_rampup": 0.1, "ema_least": 10.0 * batch}
