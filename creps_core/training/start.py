"""Where a training begins: new networks, a generator to fine-tune, or the networks of a snapshot."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ...common.errors import require
from ..checkpoints import read_checkpoint
from ..network import BANDWIDTH, Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from .discriminator_transfer import grow, transfer
from .refit import refit_discriminator, refit_generator


@dataclass(frozen=True)
class StartNetworks:
    """What a training begins with."""

    G: Generator
    G_ema: Generator
    D: Discriminator | None  # None: there is none to begin with


def new_generator(config: GeneratorConfig, seed: int, bandwidth: float = BANDWIDTH) -> Generator:
    """A generator with random weights.

    Args:
        config: its shape.
        seed: of the weights; torch's own generator is left as it was.
        bandwidth: standard deviation of the Fourier frequencies, in periods per picture. The authors' 10 suits rich
            photographs; smooth subjects and small networks learn faster with less.

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
    """The shape of a discriminator for a generator: half its widths, as in the authors' recipe."""
    return DiscriminatorConfig(
        resolution,
        config.img_channels,
        config.c_dim,
        channel_base=max(config.channel_base // 2, resolution),
        channel_max=max(config.channel_max // 2, 1),
    )


def discriminator_for(networks: StartNetworks, wanted: DiscriminatorConfig, seed: int) -> Discriminator:
    """The discriminator to train with: that of the networks, or a new one that takes over what fits."""
    found = networks.D
    if found is None:
        return new_discriminator(wanted, seed)
    ours = {name: getattr(wanted, name) for name in ("img_resolution", "img_channels", "c_dim")}
    config = dataclasses.replace(found.config, **ours, places=max(found.config.places, wanted.places))
    if config == found.config:
        return found
    if config.img_channels != found.config.img_channels:  # first, at the resolution that it knows
        recoloured = new_discriminator(dataclasses.replace(found.config, img_channels=config.img_channels), seed)
        transfer(found, recoloured)
        refit_discriminator(found, recoloured)
        found = recoloured
    discriminator = new_discriminator(config, seed)
    (grow if config.img_resolution > found.config.img_resolution else transfer)(found, discriminator)
    return discriminator


def refit(networks: StartNetworks, c_dim: int, channels: int, seed: int) -> StartNetworks:
    """The generators for other labels or channels; see `refit_generator`. `discriminator_for` makes the other one."""
    config = dataclasses.replace(networks.G.config, c_dim=c_dim, img_channels=channels)
    if config == networks.G.config:
        return networks
    G, G_ema = (refit_generator(old, config, new_generator(config, seed)) for old in (networks.G, networks.G_ema))
    return StartNetworks(G, G_ema, networks.D)


def networks_of(generator: Generator) -> StartNetworks:
    """A loaded generator, with the discriminator of the file that it was loaded from, if that still holds one."""
    if generator.origin and Path(generator.origin).is_file():
        return StartNetworks(generator, generator, load_networks(generator.origin).D)
    return StartNetworks(generator, generator, None)


def load_networks(path: str | os.PathLike[str]) -> StartNetworks:
    """The networks of an official snapshot or of a file of ours, which may hold a generator alone.

    Raises:
        CheckpointError: the file cannot be used.
    """
    checkpoint = read_checkpoint(path)
    average = checkpoint.generator()
    current = checkpoint.generator("G") if "G" in checkpoint.tensors else average
    return StartNetworks(current, average, checkpoint.discriminator())
