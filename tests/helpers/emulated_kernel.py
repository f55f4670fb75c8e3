"""A launch of the Triton kernel in plain torch, for tests without a GPU and without Triton's interpreter.

It reads the packed weights and lines that the kernel reads, which tests packing too; see `TritonBackend.launch`.
"""

from __future__ import annotations

import torch
from comfyui_creps.kernels import Layer, PixelBlock, PixelStage, reference
from comfyui_creps.kernels.packing import PackedWeights, _layout
from einops import rearrange
from torch import Tensor


def launch(columns: Tensor, rows: Tensor, stage: PackedWeights, out: Tensor, overflow: Tensor) -> None:
    """As `TritonBackend.launch`. The number of bi-line channels must need no padding: 16, 32 or 64."""
    levels, b, c = len(columns), columns.shape[-1], len(out)
    unpacked = unpack(stage, levels, b, c)
    lines = (rearrange(line.float(), "l n rank b -> l b n rank") for line in (columns * 2, rows))
    image = reference.entangle(*lines, unpacked)
    overflow.logical_or_(torch.isfinite(image).all().logical_not())
    if out.dtype == torch.uint8:
        image = (image * 127.5 + 128).clamp(0, 255)
    out.copy_(image)


def unpack(stage: PackedWeights, levels: int, b: int, c: int) -> PixelStage:
    """The stage that was packed, in float32."""
    layout = _layout(levels, b, c, stage.config.parts, stage.biases.device)
    weights = stage.blocks.float()
    if stage.dtype == torch.float32:
        weights = weights[: stage.lower] + weights[stage.lower :]
        weights = torch.cat(
            [weights[: layout.decoder_weights] * stage.scale[0], weights[layout.decoder_weights :] * stage.scale[1]]
        )
    flat = torch.zeros_like(layout.gains).index_copy(0, layout.sources, torch.cat([weights, stage.biases]))
    flat = flat / layout.gains
    start = 1

    def layer(fan_out: int, fan_in: int) -> Layer:
        nonlocal start
        middle = start + fan_out * fan_in
        weight, bias = rearrange(flat[start:middle], "(o i) -> o i", i=fan_in), flat[middle : middle + fan_out]
        start = middle + fan_out
        return Layer(weight, bias)

    def decoder() -> tuple[Layer, ...]:
        return layer(2 * b, b), layer(4 * b, 2 * b), layer(2 * b, 4 * b), layer(b, 2 * b)

    decoders, image = tuple(decoder() for _ in range(levels)), layer(c, b)
    blocks = (
        PixelBlock(layer(4 * b, b), layer(4 * b, 4 * b), layer(c, 4 * b)),
        PixelBlock(layer(2 * b, 4 * b), layer(2 * b, 2 * b), layer(c, 2 * b)),
    )
    return PixelStage(decoders, image, blocks)
