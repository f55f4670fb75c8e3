"""Whether a training can fit into memory, before any of it is taken, and how it is cut up to fit.

What the tensors of a step take at their peak, counted on fake tensors for a batch of 32 and the
512 model: 18,173 and 18,430 MiB in Dmain and Dreg, nearly all of it activations of the
discriminator, of 2 bytes; 9,419 in Gmain, 4,676 in Greg. An H200 reserved 34,550 MiB for that: graphs, libraries and
gaps come on top.
"""

from __future__ import annotations

import math

import torch

from ...common.devices import free_memory
from ...common.errors import TrainingError
from ..checkpoints import shapes_of
from ..network import DiscriminatorConfig, GeneratorConfig
from .recipe import Recipe
from .synthesis import GPU_SHARE

_KEPT = 4.5  # activations that a phase of the discriminator keeps for one that `features` counts
_GPU_RESERVED, _CPU_RESERVED = (
    1.75,
    1.2,
)  # GPU: 34,550 MiB for 18,430 and weights, see above; CPU: measured
_CPU_WORK = 600 << 20  # of a CPU: Python, torch, a tile and a piece of lines


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


def expected_memory(
    generator: GeneratorConfig, discriminator: DiscriminatorConfig, pictures: int, itemsize: int, reserved: float
) -> int:
    """Bytes that a training takes at its peak, about, beside what `tile_sizes_for` plans for tiles and lines.

    Args:
        generator, discriminator: the networks.
        pictures: at a time.
        itemsize: bytes of an activation.
        reserved: what is reserved for one byte in use.
    """
    weights = 4 * (8 * _numbers(generator) + 5 * _numbers(discriminator))  # gradients twice, of a part and of all
    side = discriminator.img_resolution
    features = sum(2 * discriminator.channels(level) * level**2 for level in discriminator.levels)
    kept = itemsize * _KEPT * features + 8 * discriminator.img_channels * side**2
    return int(weights + reserved * pictures * kept)


def micro_batch_for(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig,
    batch: int,
    memory: int,
    device: torch.device | str,
    half: bool,
) -> int:
    """The micro-batch of a process that fits into so much memory; 0 if the whole batch does.

    Parts with whole groups of the minibatch standard deviation are preferred, since their gradients are those of the
    whole batch.

    Args:
        generator, discriminator: the networks.
        batch: of the process.
        memory: bytes that the training may take.
        device: where.
        half: whether activations have 2 bytes.

    Raises:
        TrainingError: not even one picture fits; says how much does.
    """
    gpu = torch.device(device).type == "cuda"
    room = memory * (1 - 2 * GPU_SHARE) if gpu else memory - _CPU_WORK
    reserved = _GPU_RESERVED if gpu else _CPU_RESERVED

    def needed(pictures: int) -> int:
        return expected_memory(generator, discriminator, pictures, 2 if half else 4, reserved)

    sizes = [size for size in range(batch, 0, -1) if batch % size == 0 and needed(size) <= room]
    if not sizes:
        least = needed(1) / (1 - 2 * GPU_SHARE) if gpu else needed(1) + _CPU_WORK
        raise TrainingError(
            f"--memory {memory / 1e9:.3g}G: one picture at a time takes about {least / 1e9:.1f} GB at resolution "
            f"{discriminator.img_resolution}; allow more, or train at a lower --resolution"
        )
    whole = [size for size in sizes if size % discriminator.mbstd_group_size == 0 or size == batch]
    chosen = (whole or sizes)[0]
    return 0 if chosen == batch else chosen


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
