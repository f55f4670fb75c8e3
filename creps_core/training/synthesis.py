"""The generator's forward pass for training: activations are computed again instead of kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels.recompute import TILE_PIXELS, entangle, recompute
from ..network import COLUMNS, ROWS, GeneratorConfig, LineStyles, Styles, Synthesis, styles_of, tensors_of

LINE_FEATURES = 1 << 19  # positions of all latents together, times the network's width: more are evaluated in pieces
GPU_SHARE = 1 / 8
"""Of the free memory of a GPU, for the activations of a tile, and again for those of a piece of lines."""
_PIXEL_BYTES = 20 << 10  # that autograd keeps of a pixel, of 32 channels and 7 levels
_LINE_BYTES = 1 << 10  # of a position, by the network's width
_LARGEST = 16  # times the sizes for a CPU: beyond that nothing gets faster


@dataclass(frozen=True)
class Pieces:
    """How much is worked on at a time; the defaults suit a CPU's caches."""

    tile_pixels: int = TILE_PIXELS
    line_features: int = LINE_FEATURES


def pieces_for(device: torch.device, config: GeneratorConfig, memory: int | None = None) -> Pieces:
    """As much as a GPU's free memory has room for, as powers of two, so that a little more or less changes nothing.

    Args:
        device: where to work.
        config: of the generator.
        memory: bytes that the training may take; None: what is free.
    """
    if device.type != "cuda":
        return Pieces()
    free = torch.cuda.mem_get_info(device)[0]
    free = min(free, memory or free) * GPU_SHARE
    pixel = _PIXEL_BYTES * config.biline_channels * (len(config.biline_levels) + 2) / (32 * 9)
    tile, features = (1 << int(math.log2(max(free / size, 1))) for size in (pixel, _LINE_BYTES))
    return Pieces(min(max(tile, 1024), _LARGEST * TILE_PIXELS), min(max(features, 1 << 14), 4 * LINE_FEATURES))


def synthesize(
    synthesis: Synthesis,
    ws: Tensor,
    y: Tensor,
    x: Tensor,
    *,
    line_positions: int | None = None,
    pieces: Pieces | None = None,
    layers: Styles | None = None,
) -> Tensor:
    """As `Synthesis.forward`, differentiable twice, with memory that does not grow with the picture.

    Args:
        synthesis: its parameters may want gradients.
        ws: [N, num_ws, w_dim]; faster if it is one w, expanded.
        y: [height] or [N, height] positions of the rows of pixels, 0..1 across the training picture.
        x: [width] or [N, width] positions of the columns of pixels.
        line_positions: lines longer than so many positions (of all N together) are evaluated in pieces; by default
            `line_features` of the pieces by the width of the network: on a CPU, 512 for one of 1024 channels.
        pieces: how much is worked on at a time, by default what suits a CPU.
        layers: of the synthesis, kept from one call to the next.

    Returns:
        [N, img_channels, height, width], float32 or better, about -1..1.
    """
    config = synthesis.config
    pieces = pieces or Pieces(line_features=LINE_FEATURES)
    limit = line_positions or pieces.line_features // max(config.channels(level) for level in config.levels)
    styles, stage = (layers or Styles(synthesis)).apply(ws)
    if y.shape[-1] + x.shape[-1] <= limit // len(ws):
        columns, rows = synthesis.both_bilines(styles, y, x)
    else:
        columns, rows = _line(synthesis, styles, y, COLUMNS, limit), _line(synthesis, styles, x, ROWS, limit)
    image = entangle(columns, rows, stage, pieces.tile_pixels)
    return image if image.dtype == torch.float64 else image.float()


def _line(synthesis: Synthesis, styles: LineStyles, positions: Tensor, line: int, limit: int) -> Tensor:
    piece = max(1, limit // len(styles.input))
    if positions.shape[-1] <= piece or not torch.is_grad_enabled():
        return synthesis.bilines(styles, positions, line)

    def evaluate(part: Tensor) -> Tensor:
        def function(*tensors: Tensor) -> Tensor:
            return synthesis.bilines(styles_of(styles, tensors), part, line)

        return recompute(function, *tensors_of(styles))

    return torch.cat([evaluate(part) for part in positions.split(piece, -1)], -2)
