"""The networks that a training starts from: new ones, a generator to fine-tune, or those of a snapshot."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ...common.errors import require
from ..checkpoints import read_checkpoint
from ..network import BANDWIDTH, Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from .discriminator_transfer import transfer, transfer_to_larger
from .refit import refit_discriminator, refit_generator


@dataclass(frozen=True)
class StartNetworks:
    """The networks that a training starts from; D is None where there is no discriminator."""

    G: Generator
    G_ema: Generator
    D: Discriminator | None


def new_generator(config: GeneratorConfig, seed: int, bandwidth: float = BANDWIDTH) -> Generator:
    """A generator with random weights.

    Args:
        config: its shape.
        seed: of the weights; torch's default generator is not advanced.
        bandwidth: standard deviation of the Fourier frequencies, in periods per image. The authors' 10 suits
            detailed photographs; smooth subjects and small networks learn faster with less.

    Raises:
        ValueError: the bandwidth is not a number from 0 to 1e6.
    """
    require(0 <= bandwidth <= 1e6, f"bandwidth must be a number from 0 to 1e6, not {bandwidth}")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        generator = Generator(config, "new")
    generator.synthesis.b4.input.freqs.mul_(bandwidth / BANDWIDTH)
    return generator


def new_discriminator(config: DiscriminatorConfig, seed: int) -> Discriminator:
    """A discriminator with random weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed + 1)
        return Discriminator(config)


def discriminator_config_for(config: GeneratorConfig, resolution: int) -> DiscriminatorConfig:
    """The config of a discriminator for a generator: half its widths, as in the authors' recipe."""
    return DiscriminatorConfig(
        resolution,
        config.img_channels,
        config.c_dim,
        channel_base=max(config.channel_base // 2, resolution),
        channel_max=max(config.channel_max // 2, 1),
    )


def discriminator_for(networks: StartNetworks, target: DiscriminatorConfig, seed: int) -> Discriminator:
    """The discriminator to train with: that of the start, or a new one that takes over its weights as far as they fit.

    Args:
        networks: of the start.
        target: resolution, channels, c_dim and window conditioning to train with; its widths are for a new one only.
        seed: of new weights.
    """
    found = networks.D
    if found is None:
        return new_discriminator(target, seed)
    shape = {name: getattr(target, name) for name in ("img_resolution", "img_channels", "c_dim")}
    conditioning = max(found.config.window_conditioning, target.window_conditioning)
    config = dataclasses.replace(found.config, **shape, window_conditioning=conditioning)
    if config == found.config:
        return found
    if config.img_channels != found.config.img_channels:  # first, at its own resolution
        converted = new_discriminator(dataclasses.replace(found.config, img_channels=config.img_channels), seed)
        transfer(found, converted)
        refit_discriminator(found, converted)
        found = converted
    discriminator = new_discriminator(config, seed)
    move = transfer_to_larger if config.img_resolution > found.config.img_resolution else transfer
    move(found, discriminator)
    return discriminator


def refit(networks: StartNetworks, c_dim: int, channels: int, seed: int) -> StartNetworks:
    """The generators for other labels or channels, see `refit_generator`. The discriminator is left as it is."""
    config = dataclasses.replace(networks.G.config, c_dim=c_dim, img_channels=channels)
    if config == networks.G.config:
        return networks
    G, G_ema = (refit_generator(old, config, new_generator(config, seed)) for old in (networks.G, networks.G_ema))
    return StartNetworks(G, G_ema, networks.D)


def networks_of(generator: Generator) -> StartNetworks:
    """A loaded generator, with the discriminator in the file that it was loaded from, if there is one."""
    if generator.origin and Path(generator.origin).is_file():
        return StartNetworks(generator, generator, load_networks(generator.origin).D)
    return StartNetworks(generator, generator, None)


def load_networks(path: str | os.PathLike[str]) -> StartNetworks:
    """The networks in an official snapshot or in a file of ours, which may hold only a generator.

    Raises:
        CheckpointError: the file cannot be used.
    """
    checkpoint = read_checkpoint(path)
    average = checkpoint.generator()
    current = checkpoint.generator("G") if "G" in checkpoint.tensors else average
    return StartNetworks(current, average, checkpoint.discriminator())
