"""Column and row encodings (bi-lines): why any size works.

A coordinate becomes Fourier features, which a network of 1x1 layers turns into a code of rank `RANK` per position and
level. Positions are independent of each other, so a line can be evaluated at any coordinates, in any order and in
chunks. Line 0, `columns`, runs along the height of an image; line 1, `rows`, along its width (arXiv 2303.14157,
section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from .config import RANK, GeneratorConfig
from .layers import FullyConnected, ModulatedLinear, StyledLayer, initial_normal

COLUMNS, ROWS = 0, 1
BANDWIDTH = 10.0
"""Standard deviation of the Fourier frequencies, in turns across the training image."""


class FourierInput(nn.Module):
    """Coordinates -> modulated Fourier features. The lines share the frequencies, but not the weights."""

    freqs: Tensor

    def __init__(self, channels: int, w_dim: int):
        super().__init__()
        self.channels = channels
        self.weight: nn.Parameter = nn.Parameter(initial_normal(1, channels, 1, 2 * RANK))
        self.affine: FullyConnected = FullyConnected(w_dim, channels * 2 * RANK, bias_init=1)
        self.register_buffer("freqs", initial_normal(1, channels // 2 * RANK, gain=BANDWIDTH))

    def features(self, positions: Tensor, like: Tensor) -> Tensor:
        """Sine (first half of the channels) and cosine of the phase, [..., n, RANK, channels], of `like`'s dtype.

        The phase reaches hundreds of radians: whole turns are subtracted in float64, which makes it exact to float32
        at any distance and zoom.
        """
        exact = torch.device("cpu") if like.device.type == "mps" else like.device  # MPS has no float64
        freqs = rearrange(self.freqs.to(exact, torch.float64), "1 (wave rank) -> rank wave", rank=RANK)
        turns = freqs * positions.to(exact, torch.float64)[..., None, None]
        phase = turns.sub_(turns.round()).mul_(2 * math.pi).to(like)
        return torch.cat([phase.sin(), phase.cos()], -1)

    def style(self, w: Tensor) -> Tensor:
        """Styles [N, w_dim] -> factor of every feature, [N, 2 * RANK, channels]."""
        affine = rearrange(self.affine(w), "n (c rank) -> n rank c", c=self.channels)
        weight = rearrange(self.weight.to(w.device), "1 c 1 rank -> rank c")
        return affine * weight / math.sqrt(self.channels)

    def forward(self, positions: Tensor, line: int, style: Tensor) -> Tensor:
        """Positions [n] (or [N, n]), line 0 or 1 and a `style` -> [N, n, RANK, channels]."""
        return self.features(positions, style) * style[:, None, line * RANK : (line + 1) * RANK]


class LineBlock(nn.Module):
    """One level of the column/row network: up to two modulated layers, and the branch to the bi-line.

    The first level starts from the Fourier features instead of a layer, and has no branch unless it is the only one.
    """

    input: FourierInput
    fc0: ModulatedLinear
    tores: ModulatedLinear

    def __init__(self, config: GeneratorConfig, level: int):
        super().__init__()
        width = config.channels(level)
        if level == config.levels[0]:
            self.input = FourierInput(width, config.w_dim)
        else:
            self.fc0 = ModulatedLinear(config.channels(level // 2), width, config.w_dim)
        self.fc1: ModulatedLinear = ModulatedLinear(width, width, config.w_dim)
        if level in config.biline_levels:
            self.tores = ModulatedLinear(width, config.biline_channels, config.w_dim, demodulate=False)

    def styled(self, ws: Tensor, dtype: torch.dtype | None = None) -> list[StyledLayer]:
        """The block's layers for latents, by their styles ws [N, layers, w_dim]."""
        layers = [module for module in self.children() if isinstance(module, ModulatedLinear)]
        return [layer.styled(ws[:, i], dtype) for i, layer in enumerate(layers)]

    def forward(self, x: Tensor, layers: Sequence[StyledLayer]) -> tuple[Tensor, Tensor | None]:
        """x [N, P, in] (the Fourier features at the first level) and the block's `styled` layers.

        Returns:
            The features [N, P, out], and what the block adds to the bi-line, [N, P, biline_channels] or None.
        """
        trunk, branch = (layers[:-1], layers[-1]) if hasattr(self, "tores") else (layers, None)
        for layer in trunk:
            x = layer(x)
        return x, None if branch is None else branch(x)
