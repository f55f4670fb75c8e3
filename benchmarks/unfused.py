"""The opponent: the per-pixel stage as published, one operation at a time over the whole picture.

Pixel-major features, and a pass through memory each for product, bias, leaky ReLU and gain. Slow and hungry on
purpose: it is what a straightforward implementation of the paper does.
"""

from __future__ import annotations

import math

import package  # noqa: F401
import torch
import torch.nn.functional as F
from comfyui_creps.creps_core import Generator
from comfyui_creps.creps_core.lines import COLUMNS, ROWS
from comfyui_creps.kernels import Layer, PixelStage
from torch import Tensor


def entangle(columns: Tensor, rows: Tensor, stage: PixelStage) -> Tensor:
    """[L, B, H, rank] and [L, B, W, rank] -> [C, H, W]."""
    height, width = columns.shape[2], rows.shape[2]
    columns, rows = columns * math.sqrt(0.5), rows * math.sqrt(0.5)

    def product(level: int) -> Tensor:
        return torch.einsum("chq,cwq->chw", columns[level], rows[level]).permute(1, 2, 0).reshape(height * width, -1)

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
    return image.t().reshape(-1, height, width)


def picture(generator: Generator, ws: Tensor, side: int) -> Tensor:
    """The whole frame of one latent, lines and modulation included, [1, C, side, side]."""
    synthesis = generator.synthesis
    positions = torch.linspace(0, 1, side, dtype=torch.float64)
    styles = synthesis.line_styles(ws)
    with torch.enable_grad():  # the plain formulation of the layers; nothing here requires gradients
        columns, rows = (synthesis.bilines(styles, positions, line)[0] for line in (COLUMNS, ROWS))
    return entangle(columns, rows, synthesis.pixel_stage(ws).sample(0))[None]
