"""The measured networks: 512 models of the published shape, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ..network import Generator, GeneratorConfig

MODEL_SIDE = 512
"""The model's training size, which sets its number of levels."""


def random_generator(widths: str) -> Generator:
    """The generator of `channel_base/channel_max`, the same at every call; its weights need no gradients."""
    base, most = map(int, widths.split("/"))
    torch.manual_seed(0)
    return Generator(GeneratorConfig(MODEL_SIDE, channel_base=base, channel_max=most)).eval().requires_grad_(False)


def random_latent(generator: Generator, count: int = 1) -> Tensor:
    """Latents [count, num_ws, w_dim] on the generator's device, the same at every call."""
    torch.manual_seed(1)
    return generator.mapping(torch.randn(count, generator.config.z_dim).to(generator.mapping.w_avg.device))
