"""The two kinds of layers: fully connected, and modulated by a style vector.

Parameters are stored as in the official checkpoints (unit scale, the gain applied at run time), which load name by
name. Weights follow their input to its device: ComfyUI may keep them elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE, clamp, fused_linear


def initial_normal(*shape: int, gain: float = 1.0, divisor: float = 1.0) -> Tensor:
    """Standard normal weights, times `gain`, over `divisor`; on the meta device no values.

    Random numbers and arithmetic on that device would import torch's compiler, which takes over a second.
    """
    weights = torch.empty(shape)
    return weights if weights.is_meta else weights.normal_().mul_(gain).div_(divisor)


class FullyConnected(nn.Module):
    """`y = x @ (weight * weight_gain)^T + bias * bias_gain` on the last axis, with equalised learning rate."""

    def __init__(self, in_features: int, out_features: int, *, lr_multiplier: float = 1, bias_init: float = 0):
        super().__init__()
        self.weight: nn.Parameter = nn.Parameter(initial_normal(out_features, in_features, divisor=lr_multiplier))
        self.bias: nn.Parameter = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain: float = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def scaled(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """The weight [out, in] and bias [out] with their gains applied."""
        return self.weight.to(device) * self.weight_gain, self.bias.to(device) * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        # The gain scales x: for few latents the weight is by far the larger tensor.
        weight, bias = self.weight.to(x.device), self.bias.to(x.device) * self.bias_gain
        return F.linear(x * self.weight_gain, weight, bias)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class Modulation(NamedTuple):
    """The scales of a layer for latents: `y = scale_out * (weight @ (scale_in * x)) + bias`."""

    scale_in: Tensor  # [N, in]
    scale_out: Tensor  # [N, out]


class StyledLayer(Protocol):
    """A layer with the styles of latents applied: features [N, P, in] -> [N, P, out].

    Layers that demodulate end in the leaky ReLU with its gain and the clamp, the branches to a bi-line in the clamp.
    """

    def __call__(self, x: Tensor) -> Tensor: ...


class ModulatedLinear(nn.Module):
    """A 1x1 layer whose weight is scaled per input feature by a style. Features come last.

    This is weight modulation of StyleGAN2 (arXiv 1912.04958, equation 1). With `demodulate` the scaled weights of each
    output are normalised to unit length (equation 3), which makes the layer independent of the style's magnitude;
    otherwise the style is divided by `sqrt(in_features)`.
    """

    def __init__(self, in_features: int, out_features: int, w_dim: int, *, demodulate: bool = True):
        super().__init__()
        self.weight: nn.Parameter = nn.Parameter(initial_normal(out_features, in_features))
        self.bias: nn.Parameter = nn.Parameter(torch.zeros(out_features))
        self.affine: FullyConnected = FullyConnected(w_dim, in_features, bias_init=1)
        self.demodulate = demodulate

    def modulation(self, w: Tensor) -> Modulation:
        """Styles [N, w_dim] -> the scales of this layer."""
        style = self.affine(w)
        weight = self.weight.to(w.device)
        root = math.sqrt(style.shape[1])
        if not self.demodulate:
            return Modulation(style / root, style.new_ones(len(style), len(weight)))
        demodulation = (style.square() @ weight.square().mT + 1e-8).rsqrt()
        # A factor may move between the scales: half precision needs sums of the magnitude of x.
        balance = root * style.detach().abs().amax(1, keepdim=True) + 1e-8
        return Modulation(style / balance, demodulation * balance)

    def modulated(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Styles [N, w_dim] -> the equivalent weight [N, out, in] and bias [out]."""
        scale_in, scale_out = self.modulation(w)
        weight = self.weight.to(w.device) * scale_in[:, None] * scale_out[..., None]
        return weight, self.bias.to(w.device)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Features [N, P, in] and styles [N, w_dim] -> [N, P, out], without an activation."""
        return self.styled(w)(x)

    def styled(self, w: Tensor, dtype: torch.dtype | None = None) -> StyledLayer:
        """The layer for latents w [N, w_dim], for any number of features in `dtype` (that of w if None)."""
        dtype = dtype or w.dtype
        if dtype.itemsize == 2 and len(w) == 1:
            weight, bias = self.modulated(w)
            if self.demodulate:
                weight, bias = weight * ACTIVATION_GAIN, bias * ACTIVATION_GAIN
            return PackedLayer(weight[0].to(dtype), bias.to(dtype), self.demodulate)
        scale_in, scale_out = self.modulation(w)
        weight, bias, gain = self.weight.to(w.device), self.bias.to(w.device), ACTIVATION_GAIN
        if not self.demodulate:
            return ScaledLayer(weight, bias, False, scale_in, None, dtype)
        return ScaledLayer(
            weight, bias * gain, True, scale_in, scale_out * gain, dtype
        )  # it commutes with the leaky ReLU

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}, demodulate={self.demodulate}"


@dataclass(frozen=True)
class ScaledLayer:
    """A `StyledLayer` that reads the weight in place: `y = scale_out * (weight @ (scale_in * x)) + bias`."""

    weight: Tensor  # [out, in]
    bias: Tensor  # [out], the gain of the activation folded in
    activated: bool
    scale_in: Tensor  # [N, in]
    scale_out: Tensor | None  # [N, out], the gain folded in; None: ones
    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        bias, differentiable = self.bias.to(x), torch.is_grad_enabled()
        if differentiable and x.shape[1] >= len(self.weight):
            # Scale the weight, one per latent: autograd would keep the larger features otherwise.
            y = torch.baddbmm(bias, x, self.weight_of_latents().to(x).mT)
            return clamp(F.leaky_relu(y, LEAKY_SLOPE) if self.activated else y, CLAMP)
        scale_in = self.scale_in.to(self.dtype).unsqueeze(1)
        y = F.linear(x * scale_in, self.weight.to(x))
        scale_out = None if self.scale_out is None else self.scale_out.to(y).unsqueeze(1)
        if differentiable:
            y = bias + y if scale_out is None else torch.addcmul(bias, y, scale_out)
            return clamp(F.leaky_relu(y, LEAKY_SLOPE) if self.activated else y, CLAMP)
        # In place: features are the largest tensors.
        y = y.add_(bias) if scale_out is None else torch.addcmul(bias, y, scale_out, out=y)
        return (F.leaky_relu_(y, LEAKY_SLOPE) if self.activated else y).clamp_(-CLAMP, CLAMP)

    def weight_of_latents(self) -> Tensor:
        """The weight with both scales folded in, [N, out, in]."""
        weight = self.weight * self.scale_in[:, None]
        return weight if self.scale_out is None else weight * self.scale_out[..., None]

    def of(self, tensors: Iterator[Tensor]) -> ScaledLayer:
        """The same layer with the next tensors of an iterator: weight, bias, and one or both scales."""
        weight, bias, scale_in = next(tensors), next(tensors), next(tensors)
        scale_out = None if self.scale_out is None else next(tensors)
        return ScaledLayer(weight, bias, self.activated, scale_in, scale_out, self.dtype)


@dataclass(frozen=True)
class PackedLayer:
    """A `StyledLayer` of one latent for half precision: one weight, so that a layer rounds each feature once."""

    weight: Tensor  # [out, in], gains folded in
    bias: Tensor  # [out]
    activated: bool

    def __call__(self, x: Tensor) -> Tensor:
        return fused_linear(x, self.weight, self.bias, self.activated).clamp_(-CLAMP, CLAMP)
