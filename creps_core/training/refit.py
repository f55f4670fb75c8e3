"""Convert trained networks to other labels or channels, keeping their weights as far as they fit."""

from __future__ import annotations

import torch
from torch import Tensor

from ..network import Discriminator, FullyConnected, Generator, GeneratorConfig
from .discriminator_transfer import transfer

_LUMA = (0.299, 0.587, 0.114)
_LABEL_SHARE = 0.5  # initial variance of a new label in the mapping, relative to that of z


def refit_generator(source: Generator, config: GeneratorConfig, target: Generator) -> Generator:
    """A generator like `source` with another c_dim or img_channels.

    The embedding of new labels is random: the mapping learns a hundred times slower than the rest, so that labels which
    start at zero would have no effect. The effect of z stays. A new alpha channel starts opaque.

    Args:
        source: of a config that is otherwise the same.
        config: of the result.
        target: a generator of this config with random weights; becomes the result.
    """
    transfer(source, target)
    with torch.no_grad():
        if source.config.c_dim != config.c_dim:
            _refit_mapping(source, target)
        if source.config.img_channels != config.img_channels:
            matrix = channel_matrix(source.config.img_channels, config.img_channels)
            old, new = source.synthesis, target.synthesis
            for ours, theirs in (
                (new.decoder_img, old.decoder_img),
                (new.block0.tores, old.block0.tores),
                (new.block1.tores, old.block1.tores),
            ):
                ours.weight.copy_(matrix @ theirs.weight)
                ours.bias.copy_(matrix @ theirs.bias)
            if config.img_channels == 4 and source.config.img_channels != 4:
                new.decoder_img.bias[3] = 1
    target.with_training_metadata_of(source)
    if source.config.c_dim != config.c_dim:
        target.labels = None
    return target.train(source.training)


def _refit_mapping(source: Generator, target: Generator) -> None:
    """Convert the first layer of the mapping, whose inputs are z followed by the embedded label."""
    z_dim = source.config.z_dim
    old: FullyConnected = source.mapping.fc0  # type: ignore[assignment]
    new: FullyConnected = target.mapping.fc0  # type: ignore[assignment]
    if source.config.c_dim and target.config.c_dim:
        return  # the layer has been copied; only the embedding is new
    if not z_dim or not target.config.z_dim:
        return
    ratio = old.weight_gain / new.weight_gain
    if target.config.c_dim:
        label = new.weight[:, z_dim:]
        spread = old.weight.std() * ratio * (z_dim / label.shape[1]) ** 0.5
        label.mul_(_LABEL_SHARE**0.5 * spread / label.std())
    else:  # the effect of an average label becomes part of the bias
        c = torch.full((1, source.config.c_dim), 1 / source.config.c_dim)
        if source.labels is not None:
            c = source.labels.mean(source.config.c_dim)[None]
        embedded = source.mapping.embedded(c.to(old.weight))[0]
        new.bias.add_(old.weight[:, z_dim:] @ embedded * old.weight_gain / new.bias_gain)
    new.weight[:, :z_dim] = old.weight[:, :z_dim] * ratio


def refit_discriminator(source: Discriminator, target: Discriminator) -> None:
    """Convert the first layer of `source` to the channels of `target`, where both have the same resolution and width.

    The weights of a new alpha channel are zero.
    """
    ours, theirs = source.config, target.config
    if ours.img_channels == theirs.img_channels or ours.img_resolution != theirs.img_resolution:
        return
    old, new = (getattr(d, f"b{d.config.img_resolution}").fromrgb for d in (source, target))
    matrix = channel_matrix(theirs.img_channels, ours.img_channels)
    if new.weight.shape[0] != old.weight.shape[0]:
        return
    with torch.no_grad():
        weight = torch.einsum("oihw,ij->ojhw", old.weight, matrix)
        new.weight.copy_(weight * (old.weight_gain / new.weight_gain))
        new.bias.copy_(old.bias)


def channel_matrix(source: int, target: int) -> Tensor:
    """The matrix [target, source] that maps colours between numbers of channels; alpha becomes 0 or is dropped."""
    if source == target:
        return torch.eye(source)
    matrix = torch.zeros(target, source)
    if 1 not in (source, target):
        matrix[:3, :3] = torch.eye(3)
    elif source == 1:
        matrix[:3] = 1
    else:
        matrix[0, :3] = torch.tensor(_LUMA)
    return matrix
