"""The baseline: the generator as published, one operation at a time over the whole image.

Pixel-major features, and one pass through memory each for product, bias, leaky ReLU and gain. Deliberately slow and
memory-hungry: what a straightforward implementation of the paper does.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from ...kernels import Layer, PixelStage
from ..network import Generator, ModulatedLinear


def unfused_pixels(columns: Tensor, rows: Tensor, stage: PixelStage) -> Tensor:
    """[L, B, H, rank] and [L, B, W, rank] -> [C, H, W]."""
    height = columns.shape[2]
    columns, rows = columns * math.sqrt(0.5), rows * math.sqrt(0.5)

    def product(level: int) -> Tensor:
        return rearrange(torch.einsum("chq,cwq->chw", columns[level], rows[level]), "c h w -> (h w) c").contiguous()

    def linear(x: Tensor, layer: Layer) -> Tensor:
        y = x @ layer.weight.t()
        return y + layer.bias

    def activate(x: Tensor) -> Tensor:
        x = F.leaky_relu(x, 0.2)
        return x * math.sqrt(2)

    feature = product(0)
    for level, decoder in enumerate(stage.decoders):
        if level > 0:
            feature = feature + product(level)
        for layer in decoder:
            feature = activate(linear(feature, layer))
    image = linear(feature, stage.image)
    for block in stage.blocks:
        for layer in (block.fc0, block.fc1):
            feature = activate(linear(feature, layer)).clamp(-256, 256)
        image = image + linear(feature, block.to_image).clamp(-256, 256)
    return rearrange(image, "(h w) c -> c h w", h=height).contiguous()


def unfused_lines(generator: Generator, ws: Tensor, positions: Tensor) -> list[Tensor]:
    """Both lines at once, [L, B, n, rank] each: modulated weights, features [channels, n * 16]."""
    synthesis, config = generator.synthesis, generator.config
    source, w = synthesis.b4.input, ws[0]
    phase = 2 * math.pi * positions.float()[:, None] * rearrange(source.freqs, "1 (c rank) -> c 1 rank", rank=8)
    phase = repeat(phase, "c n rank -> c n (line rank)", line=2)
    x = torch.cat([phase.sin(), (phase + math.pi / 2).sin()])
    style = rearrange(source.affine(w[:1]), "1 (c rank) -> c 1 rank", rank=16) * source.weight[0]
    x = rearrange(x * style / math.sqrt(len(x)), "c n rank -> c (n rank)")

    def linear(x: Tensor, layer: ModulatedLinear, w: Tensor) -> Tensor:
        style = layer.affine(w[None])
        weight = layer.weight * (style if layer.demodulate else style / math.sqrt(style.shape[1]))
        if layer.demodulate:
            weight = weight * (weight.square().sum(1, keepdim=True) + 1e-8).rsqrt()
        return weight @ x + layer.bias[:, None]

    bilines, total = [], 0
    for i, level in enumerate(config.levels):
        block = getattr(synthesis, f"b{level}")
        styles = w[max(2 * i - 1, 1) :]
        layers = [layer for layer in block.children() if isinstance(layer, ModulatedLinear)]
        for layer, style in zip(layers, styles, strict=False):
            y = linear(x, layer, style)
            if layer.demodulate:
                y = F.leaky_relu(y, 0.2)
                x = (y * math.sqrt(2)).clamp(-256, 256)
            else:
                total = total + y.clamp(-256, 256)
                bilines.append(total)
    both = rearrange(torch.stack(bilines), "level c (n line rank) -> line level c n rank", line=2, rank=8)
    return list(both)


def unfused_image(generator: Generator, ws: Tensor, side: int) -> Tensor:
    """The whole frame of one latent, lines and modulation included, [1, C, side, side]."""
    positions = torch.linspace(0, 1, side, dtype=torch.float64, device=ws.device)
    columns, rows = unfused_lines(generator, ws, positions)
    return unfused_pixels(columns, rows, generator.synthesis.pixel_stage(ws).sample(0))[None]
