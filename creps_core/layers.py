"""The two layers that everything is built of: fully connected, and modulated by a style vector.

Parameters are stored as the authors store them (unit scale, the gain applied at run time), so that official
checkpoints load name by name. Weights follow their input to its device: ComfyUI may keep them elsewhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FullyConnected(nn.Module):
    """`y = x @ (weight * weight_gain)^T + bias * bias_gain` on the last axis, with an equalised learning rate."""

    def __init__(self, in_features: int, out_features: int, *, lr_multiplier: float = 1, bias_init: float = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def scaled(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """The weight [out, in] and bias [out] with their gains applied."""
        return self.weight.to(device) * self.weight_gain, self.bias.to(device) * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(x, *self.scaled(x.device))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class Modulation(NamedTuple):
    """What a latent makes of a layer: `y = scale_out * (weight @ (scale_in * x)) + bias`."""

    scale_in: Tensor  # [N, in]
    scale_out: Tensor  # [N, out]


class ModulatedLinear(nn.Module):
    """A 1x1 layer whose weight is scaled per input feature by a style (StyleGAN2 modulation).

    With `demodulate` each output's weights are normalised to unit length, which makes the layer independent of
    the style's magnitude; without, the style is divided by `sqrt(in_features)` instead.
    """

    def __init__(self, in_features: int, out_features: int, w_dim: int, *, demodulate: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.affine = FullyConnected(w_dim, in_features, bias_init=1)
        self.demodulate = demodulate

    def modulation(self, w: Tensor) -> Modulation:
        """Styles [N, w_dim] -> the scales of this layer."""
        style = self.affine(w)
        weight = self.weight.to(w.device)
        root = math.sqrt(style.shape[1])
        if not self.demodulate:
            return Modulation(style / root, style.new_ones(len(style), len(weight)))
        demodulation = (style.square() @ weight.square().mT + 1e-8).rsqrt()
        # Both scales could stay as they are; half precision needs the sums in between to be of the size of x.
        balance = root * style.detach().abs().amax(1, keepdim=True) + 1e-8
        return Modulation(style / balance, demodulation * balance)

    def modulated(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Styles [N, w_dim] -> the equivalent weight [N, out, in] and bias [out]."""
        scale_in, scale_out = self.modulation(w)
        weight = self.weight.to(w.device) * scale_in[:, None] * scale_out[..., None]
        return weight, self.bias.to(w.device)

    def forward(self, x: Tensor, modulation: Modulation, gain: float = 1.0) -> Tensor:
        """Features [N, in, P] -> [N, out, P] times `gain`, in the dtype of x, before any activation.

        The features are scaled, not the weight: it is then used where it lies, without a copy per latent.
        """
        scale_in, scale_out = (scale.to(x.dtype).unsqueeze(-1) for scale in modulation)
        weight = self.weight.to(x).expand(len(x), -1, -1)
        y = torch.bmm(weight, x * scale_in)
        bias = (self.bias.to(x) * gain)[:, None]
        if torch.is_grad_enabled():
            return y * (scale_out * gain) + bias
        return torch.addcmul(bias, y, scale_out * gain, out=y)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}, demodulate={self.demodulate}"
