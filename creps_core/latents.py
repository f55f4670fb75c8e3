"""Seeds -> latents z -> style vectors ws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .generator import Generator

MAX_SEED = (1 << 64) - 1


def seed_to_z(seed: int, z_dim: int) -> Tensor:
    """The latent of a seed, [z_dim] float32, normally distributed.

    Below 2^32 it is `numpy.random.RandomState(seed).randn(z_dim)`, as in the authors' tools, so a seed means the
    same picture there and here. Larger seeds, up to 2^64 - 1, seed the same generator with the pair
    (low 32 bits, high 32 bits).

    Raises:
        ValueError: the seed is not a whole number from 0 to 2^64 - 1.
    """
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be a whole number from 0 to 2^64 - 1, not {seed!r}")
    key = seed if seed < 1 << 32 else [seed & 0xFFFFFFFF, seed >> 32]
    return torch.from_numpy(np.random.RandomState(key).randn(z_dim).astype(np.float32))


def one_hot(label: int, classes: int) -> Tensor:
    """The label vector of a class, [classes] float32.

    Raises:
        ValueError: there is no such class.
    """
    if not 0 <= label < classes:
        raise ValueError(f"label must be from 0 to {classes - 1} for this generator, not {label}")
    return torch.eye(classes)[label]


def sample(
    generator: Generator,
    seeds: Sequence[int],
    *,
    label: int | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
) -> Tensor:
    """Style vectors of some seeds, [len(seeds), num_ws, w_dim] float32 on the generator's device.

    Args:
        generator: the generator that will render them.
        seeds: see `seed_to_z`.
        label: class for a generator with classes, ignored by one without; None takes `seed % classes`.
        truncation_psi, truncation_cutoff: see `Mapping.forward`.

    Raises:
        ValueError: a seed or the label is out of range.
    """
    config, device = generator.config, generator.mapping.w_avg.device
    z = torch.stack([seed_to_z(seed, config.z_dim) for seed in seeds])
    c = None
    if config.c_dim:
        c = torch.stack([one_hot(s % config.c_dim if label is None else label, config.c_dim) for s in seeds])
        c = c.to(device)
    with torch.no_grad():
        return generator.mapping(z.to(device), c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
