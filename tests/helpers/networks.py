"""Small random generators for tests."""

from __future__ import annotations

import torch
from comfyui_creps.creps_core import Generator, GeneratorConfig

SMALL = {"z_dim": 16, "w_dim": 16, "channel_base": 1024, "channel_max": 32, "biline_channels": 8}


def make_generator(**fields) -> Generator:
    """A generator with random weights, the same for the same config."""
    torch.manual_seed(0)
    config = GeneratorConfig(**{"img_resolution": 32, **SMALL, **fields})
    generator = Generator(config, "random").eval().requires_grad_(False)
    generator.mapping.w_avg.normal_()
    return generator


def make_ws(generator: Generator, count: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return generator.mapping(torch.randn(count, generator.config.z_dim))


def make_relative(generator: Generator) -> Generator:
    """A generator of the same architecture, not far away."""
    other = make_generator(img_resolution=generator.config.img_resolution)
    torch.manual_seed(2)
    for parameter in other.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    other.name, other.fingerprint = "other", ""
    return other
