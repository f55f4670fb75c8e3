"""The generator's forward pass for training: activations are recomputed instead of kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import TILE_PIXELS, entangle_recomputed, recompute
from ..network import COLUMNS, ROWS, GeneratorConfig, LineStyles, Styles, Synthesis, styles_of, tensors_of

LINE_FEATURES = 1 << 19  # positions of all latents together, times the network's width
GPU_SHARE = 1 / 8
"""Share of a GPU's free memory for the activations of a tile, and again for those of a chunk of lines."""
_PIXEL_BYTES = 20 << 10  # that autograd keeps per pixel, at 32 channels and 7 levels
_LINE_BYTES = 1 << 10  # that autograd keeps per position and unit of the network's width
_LARGEST = 16  # times the sizes for a CPU: nothing gets faster beyond


@dataclass(frozen=True)
class TileSizes:
    """How much is computed at a time; the defaults suit a CPU's caches.

    Attributes:
        tile_pixels: pixels of a tile.
        line_features: positions of a chunk of lines, of all latents together, times the network's width.
    """

    tile_pixels: int = TILE_PIXELS
    line_features: int = LINE_FEATURES


def tile_sizes_for(device: torch.device, config: GeneratorConfig, memory: int | None = None) -> TileSizes:
    """The sizes that a GPU's free memory has room for, as powers of two, so that they depend little on it.

    Args:
        device: where to train.
        config: of the generator.
        memory: bytes that the training may take; None: all that is free.
    """
    if device.type != "cuda":
        return TileSizes()
    free = torch.cuda.mem_get_info(device)[0]
    free = min(free, memory or free) * GPU_SHARE
    pixel = _PIXEL_BYTES * config.biline_channels * (len(config.biline_levels) + 2) / (32 * 9)
    tile, features = (1 << int(math.log2(max(free / size, 1))) for size in (pixel, _LINE_BYTES))
    return TileSizes(min(max(tile, 1024), _LARGEST * TILE_PIXELS), min(max(features, 1 << 14), 4 * LINE_FEATURES))


def synthesize(
    synthesis: Synthesis,
    ws: Tensor,
    y: Tensor,
    x: Tensor,
    *,
    line_positions: int | None = None,
    tile_sizes: TileSizes | None = None,
    styles: Styles | None = None,
) -> Tensor:
    """`Synthesis.forward`, twice differentiable, with memory that does not grow with the image.

    Args:
        synthesis: its parameters may require gradients.
        ws: [N, num_ws, w_dim]; faster if it is one w, expanded.
        y: [height] or [N, height] positions of the rows of pixels, 0..1 across the training image.
        x: [width] or [N, width] positions of the columns of pixels.
        line_positions: longer lines (positions of all N together) are evaluated in chunks; by default `line_features`
            divided by the width of the network: on a CPU, 512 for one of 1024 channels.
        tile_sizes: how much is computed at a time; by default what suits a CPU.
        styles: of the synthesis, to reuse from call to call.

    Returns:
        [N, img_channels, height, width], float32 or better, about -1..1.
    """
    config = synthesis.config
    sizes = tile_sizes or TileSizes(line_features=LINE_FEATURES)
    limit = line_positions or sizes.line_features // max(config.channels(level) for level in config.levels)
    lines, stage = (styles or Styles(synthesis)).apply(ws)
    if y.shape[-1] + x.shape[-1] <= limit // len(ws):
        columns, rows = synthesis.both_bilines(lines, y, x)
    else:
        columns, rows = _bilines(synthesis, lines, y, COLUMNS, limit), _bilines(synthesis, lines, x, ROWS, limit)
    image = entangle_recomputed(columns, rows, stage, sizes.tile_pixels)
    return image if image.dtype == torch.float64 else image.float()


def _bilines(synthesis: Synthesis, styles: LineStyles, positions: Tensor, line: int, limit: int) -> Tensor:
    size = max(1, limit // len(styles.input))
    if positions.shape[-1] <= size or not torch.is_grad_enabled():
        return synthesis.bilines(styles, positions, line)

    def evaluate(chunk: Tensor) -> Tensor:
        def function(*tensors: Tensor) -> Tensor:
            return synthesis.bilines(styles_of(styles, tensors), chunk, line)

        return recompute(function, *tensors_of(styles))

    return torch.cat([evaluate(chunk) for chunk in positions.split(size, -1)], -2)
