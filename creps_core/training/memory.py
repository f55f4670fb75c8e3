"""Whether a training can fit into memory, before any of it is taken."""

from __future__ import annotations

import math

import torch

from ..checkpoints import shapes_of
from ..devices import free_memory
from ..errors import TrainingError
from ..network import DiscriminatorConfig, GeneratorConfig
from .recipe import Recipe


def least_memory(generator: GeneratorConfig, discriminator: DiscriminatorConfig, pictures: int) -> int:
    """Bytes that a training takes at the very least: what it takes is more, so what does not fit here cannot be.

    Networks, their gradients, moments and average; the pictures of a step, real and generated, and of the
    discriminator's features the two per level that every backward pass needs.

    Args:
        generator, discriminator: the networks.
        pictures: at a time: the micro-batch.
    """
    weights = 5 * _numbers(generator) + 4 * _numbers(discriminator)
    side = discriminator.img_resolution
    features = sum(2 * discriminator.channels(level) * level**2 for level in discriminator.levels)
    return 4 * (weights + pictures * (features + 2 * discriminator.img_channels * side**2))


def check_memory(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig,
    recipe: Recipe,
    processes: int,
    device: torch.device | str,
) -> None:
    """Refuse a training that cannot fit into the memory that is free.

    Args:
        generator, discriminator: the networks.
        recipe: batch and micro-batch.
        processes: that share a step, each on its own device.
        device: of this one.

    Raises:
        TrainingError: says what it takes, what is free, and what would fit.
    """
    batch = max(1, recipe.batch // processes)
    pictures = min(recipe.micro_batch or batch, batch)
    free = free_memory(torch.device(device))
    needed = least_memory(generator, discriminator, pictures)
    if free is None or needed <= free:
        return
    fitting = [n for n in range(1, batch + 1) if batch % n == 0 and least_memory(generator, discriminator, n) <= free]
    if fitting:
        advice = f"--micro-batch {fitting[-1]} may fit"
    else:
        side = discriminator.img_resolution
        while side > 8 and _smaller(generator, discriminator, side) > free:
            side //= 2
        advice = f"--resolution {side} with --micro-batch 1 may fit"
    raise TrainingError(
        f"a step at resolution {discriminator.img_resolution} with {pictures} pictures at a time takes at "
        f"least {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on {device}: {advice}"
    )


def _smaller(generator: GeneratorConfig, discriminator: DiscriminatorConfig, side: int) -> int:
    fields = discriminator.to_dict() | {"img_resolution": side}
    return least_memory(generator, DiscriminatorConfig.from_dict(fields), 1)


def _numbers(config: GeneratorConfig | DiscriminatorConfig) -> int:
    return sum(math.prod(shape) for shape in shapes_of(config).values())
