"""The per-pixel stage in plain torch: the specification that every backend is tested against.

Written for reading, and differentiable twice. It holds whole feature maps: pass a tile at a time. All functions take
leading batch axes.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .stage import Layer, PixelBlock, PixelStage

LEAKY_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2)
CLAMP = 256.0


def entangle(columns: Tensor, rows: Tensor, stage: PixelStage) -> Tensor:
    """Bi-lines -> image.

    Args:
        columns: [..., L, B, height, rank], line 0.
        rows: [..., L, B, width, rank], line 1.
        stage: the weights.

    Returns:
        [..., image_channels, height, width], about -1..1.
    """
    products = rearrange(outer_product(columns, rows), "... h w -> ... (h w)")
    feature = products[..., 0, :, :]
    for level, decoder in enumerate(stage.decoders[:-1], start=1):
        feature = apply_decoder(feature, decoder) + products[..., level, :, :]
    feature = apply_decoder(feature, stage.decoders[-1])
    image = linear(feature, stage.image)
    for block in stage.blocks:
        feature, residual = pixel_block(feature, block)
        image = image + residual
    return rearrange(image, "... (h w) -> ... h w", h=columns.shape[-2])


def outer_product(columns: Tensor, rows: Tensor) -> Tensor:
    """[..., B, height, rank] and [..., B, width, rank] -> [..., B, height, width], halved (sqrt(1/2) per line)."""
    return 0.5 * columns @ rows.mT


def linear(x: Tensor, layer: Layer) -> Tensor:
    """[..., in, P] -> [..., out, P]."""
    return layer.weight @ x + layer.bias[:, None]


def apply_decoder(feature: Tensor, decoder: tuple[Layer, ...]) -> Tensor:
    """One decoder: four layers B -> 2B -> 4B -> 2B -> B, each with a leaky ReLU times sqrt(2)."""
    for layer in decoder:
        feature = leaky_relu(linear(feature, layer))
    return feature


def pixel_block(x: Tensor, block: PixelBlock) -> tuple[Tensor, Tensor]:
    """One modulated block: the feature after it, and its residual of the image."""
    x = leaky_relu(linear(x, block.fc0)).clamp(-CLAMP, CLAMP)
    x = leaky_relu(linear(x, block.fc1)).clamp(-CLAMP, CLAMP)
    return x, linear(x, block.to_image).clamp(-CLAMP, CLAMP)


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU (slope 0.2) times sqrt(2), which keeps the variance of its input."""
    return F.leaky_relu(x, LEAKY_SLOPE) * ACTIVATION_GAIN
