"""How long a run will take, from a trial of one phase before its first step."""

from __future__ import annotations

import time

import torch

from ...common.duration import duration
from ...common.float32 import float32_products
from .phases import run_phase, split_inputs
from .trainer import Trainer

_PHASES = 2.0  # a step in units of Gmain, which the other phases make twice as long
_PATH_LENGTHS = 0.5  # those of path lengths, by how often they are taken
_LONG = 3 * 86400.0  # seconds after which a run is worth a hint


def estimate_step_seconds(trainer: Trainer) -> float:
    """Seconds that a step takes, about: `Gmain` of a few images is timed. The state stays as it is."""
    recipe, config = trainer.recipe, trainer.D.config
    phase, batch = trainer.phases["Gmain"], recipe.batch // trainer.process.world
    parts = max(1, batch // config.mbstd_group_size)
    parts = next(count for count in range(parts, 0, -1) if batch % count == 0)
    real = torch.zeros(batch, config.img_channels, config.img_resolution, config.img_resolution, dtype=torch.uint8)
    labels = torch.zeros(batch, config.c_dim)
    inputs = trainer.inputs.of_step(trainer.steps, [phase], real, labels, micro_batches=parts)
    rows = split_inputs(inputs[phase.name], parts)[0]
    start = time.monotonic()
    with float32_products(trainer.device, tf32=recipe.precision in ("auto", "tf32")):
        run_phase(phase, rows, list(trainer.optimizers["G"].parameters.values()))
    path_lengths = _PATH_LENGTHS if recipe.pl_weight and recipe.pl_interval else 0.0
    return (time.monotonic() - start) * parts * (_PHASES + path_lengths)


def time_note(trainer: Trainer, step_seconds: float) -> str:
    """A note for the user: what a step and the rest of the run take."""
    recipe = trainer.recipe
    images = max(0, recipe.total - trainer.num_images)
    whole = images / recipe.batch * step_seconds
    text = (
        f"{images:,} pictures will take about {duration(whole)}, by a trial: a step of {recipe.batch} takes about "
        f"{duration(step_seconds) if step_seconds >= 1 else f'{step_seconds:.2g} s'}"
    )
    if whole < _LONG:
        return text
    return f"{text}. --preset small for new networks, a lower --resolution or fewer --images make it shorter"
