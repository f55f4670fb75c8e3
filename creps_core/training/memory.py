"""Estimate the memory of a training before it starts, and choose a micro-batch that fits.

Peak memory of the tensors of a step, counted on fake tensors for a batch of 32 and the 512 model: 18,173 and 18,430
MiB in Dmain and Dreg, nearly all of it activations of the discriminator, of 2 bytes; 9,419 in Gmain, 4,676 in Greg. An
H200 reserved 34,550 MiB for them: graphs, libraries and fragmentation add to it.
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

_KEPT = 4.5  # activations that a discriminator phase keeps per activation counted in `features`
# Memory reserved per byte in use: on a GPU from the figures above, on a CPU measured.
_GPU_RESERVED, _CPU_RESERVED = 1.75, 1.2
_CPU_WORK = 600 << 20  # bytes on a CPU for Python, torch, a tile and a chunk of lines


def least_memory(generator: GeneratorConfig, discriminator: DiscriminatorConfig, images: int) -> int:
    """A lower bound of the bytes that a training takes: if this does not fit, the training cannot.

    Networks, their gradients, moments and average; the real and generated images of a step; and the two features per
    level of the discriminator that every backward pass needs.

    Args:
        generator, discriminator: the networks.
        images: the micro-batch.
    """
    weights = 5 * _numbers(generator) + 4 * _numbers(discriminator)
    side = discriminator.img_resolution
    features = sum(2 * discriminator.channels(level) * level**2 for level in discriminator.levels)
    return 4 * (weights + images * (features + 2 * discriminator.img_channels * side**2))


def expected_memory(
    generator: GeneratorConfig, discriminator: DiscriminatorConfig, images: int, itemsize: int, reserved: float
) -> int:
    """The approximate peak of bytes that a training takes, besides the tiles and lines of `tile_sizes_for`.

    Args:
        generator, discriminator: the networks.
        images: the micro-batch.
        itemsize: bytes per activation.
        reserved: bytes reserved per byte in use.
    """
    weights = 4 * (
        8 * _numbers(generator) + 5 * _numbers(discriminator)
    )  # gradients twice, of a micro-batch and of all
    side = discriminator.img_resolution
    features = sum(2 * discriminator.channels(level) * level**2 for level in discriminator.levels)
    kept = itemsize * _KEPT * features + 8 * discriminator.img_channels * side**2
    return int(weights + reserved * images * kept)


def micro_batch_for(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig,
    batch: int,
    memory: int,
    device: torch.device | str,
    half: bool,
) -> int:
    """The largest micro-batch of a process that fits into `memory` bytes; 0 if the whole batch does.

    Micro-batches with whole groups of the minibatch standard deviation are preferred: their gradients are those of the
    whole batch.

    Args:
        generator, discriminator: the networks.
        batch: of the process.
        memory: bytes that the training may take.
        device: where to train.
        half: whether activations have 2 bytes instead of 4.

    Raises:
        TrainingError: a single image does not fit; says how much memory it needs.
    """
    gpu = torch.device(device).type == "cuda"
    room = memory * (1 - 2 * GPU_SHARE) if gpu else memory - _CPU_WORK
    reserved = _GPU_RESERVED if gpu else _CPU_RESERVED

    def needed(images: int) -> int:
        return expected_memory(generator, discriminator, images, 2 if half else 4, reserved)

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
    """Refuse a training that cannot fit into the free memory.

    Args:
        generator, discriminator: the networks.
        recipe: batch and micro-batch.
        processes: that share a step, each on its own device.
        device: of this one.

    Raises:
        TrainingError: says how much it needs, how much is free, and what would fit.
    """
    batch = max(1, recipe.batch // processes)
    images = min(recipe.micro_batch or batch, batch)
    free = free_memory(torch.device(device))
    needed = least_memory(generator, discriminator, images)
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
        f"a step at resolution {discriminator.img_resolution} with {images} pictures at a time takes at "
        f"least {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on {device}: {advice}"
    )


def _smaller(generator: GeneratorConfig, discriminator: DiscriminatorConfig, side: int) -> int:
    fields = discriminator.to_dict() | {"img_resolution": side}
    return least_memory(generator, DiscriminatorConfig.from_dict(fields), 1)


def _numbers(config: GeneratorConfig | DiscriminatorConfig) -> int:
    return sum(math.prod(shape) for shape in shapes_of(config).values())
