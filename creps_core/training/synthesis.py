"""The generator's forward pass for training: activations are computed again instead of kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...kernels.recompute import entangle, recompute
from ..network import COLUMNS, ROWS, Synthesis

LINE_FEATURES = 1 << 19  # positions of all latents together, times the network's width: more are evaluated in pieces


def synthesize(synthesis: Synthesis, ws: Tensor, y: Tensor, x: Tensor, *, line_positions: int | None = None) -> Tensor:
    """As `Synthesis.forward`, differentiable twice, with memory that does not grow with the picture.

    Args:
        synthesis: its parameters may want gradients.
        ws: [N, num_ws, w_dim].
        y: [height] or [N, height] positions of the rows of pixels, 0..1 across the training picture.
        x: [width] or [N, width] positions of the columns of pixels.
        line_positions: lines longer than so many positions (of all N together) are evaluated in pieces; by default
            `LINE_FEATURES` by the width of the network, 512 for one of 1024 channels.

    Returns:
        [N, img_channels, height, width], float32 or better, about -1..1.
    """
    config = synthesis.config
    limit = line_positions or LINE_FEATURES // max(config.channels(level) for level in config.levels)
    columns, rows = _line(synthesis, ws, y, COLUMNS, limit), _line(synthesis, ws, x, ROWS, limit)
    image = entangle(columns, rows, synthesis.pixel_stage(ws))
    return image if image.dtype == torch.float64 else image.float()


class _Line(nn.Module):
    """A line as a function of latents and parameters, for `functional_call`."""

    def __init__(self, synthesis: Synthesis):
        super().__init__()
        self.synthesis = synthesis

    def forward(self, ws: Tensor, positions: Tensor, line: int) -> Tensor:
        return self.synthesis.bilines(self.synthesis.line_styles(ws), positions, line)


def _line(synthesis: Synthesis, ws: Tensor, positions: Tensor, line: int, limit: int) -> Tensor:
    piece = max(1, limit // len(ws))
    module = _Line(synthesis)
    if positions.shape[-1] <= piece or not torch.is_grad_enabled():
        return module(ws, positions, line)
    parameters = {
        name: p for name, p in module.named_parameters() if name.startswith("synthesis.b") and "block" not in name
    }

    def evaluate(part: Tensor) -> Tensor:
        def function(ws: Tensor, *values: Tensor) -> Tensor:
            return functional_call(module, dict(zip(parameters, values, strict=True)), (ws, part, line))

        return recompute(function, ws, *parameters.values())

    return torch.cat([evaluate(part) for part in positions.split(piece, -1)], -2)
