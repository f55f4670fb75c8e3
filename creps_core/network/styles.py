"""All layers of a synthesis with the styles of latents, differentiable and in few operations: for training.

The same numbers as `Synthesis.line_styles` and `pixel_stage`, which take a dozen operations per layer: on a GPU those
cost more than their arithmetic, forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import ACTIVATION_GAIN, Layer, PixelBlock, PixelStage
from .generator import LineStyles, Synthesis
from .layers import ModulatedLinear, ScaledLayer, StyledLayer
from .layout import layout_of


class AppliedStyles(NamedTuple):
    """The layers of a synthesis with the styles of latents."""

    lines: LineStyles
    pixels: PixelStage


class _ScaleConstants(NamedTuple):
    """What the scales need per input of all layers, and per output of the layers that demodulate."""

    roots: Tensor  # [inputs], 1 / sqrt(fan_in)
    input_balance: Tensor  # [inputs] int64: number of the layer among those that demodulate, or their count for others
    output_balance: Tensor  # [outputs] int64, likewise
    gains: Tensor  # [outputs], sqrt(fan_in), times the gain of the activation for line layers


class Styles:
    """The modulated layers of a synthesis; `apply` gives them the styles of latents."""

    synthesis: Synthesis

    def __init__(self, synthesis: Synthesis):
        self.synthesis = synthesis
        self._layout = layout_of(synthesis)
        slots, lines = self._layout.layers, len(self._layout.lines)
        self._input_sizes = [slot.layer.weight.shape[1] for slot in slots]
        self._demodulated = [slot.layer for slot in slots if slot.layer.demodulate]
        self._output_sizes = [len(layer.weight) for layer in self._demodulated]
        # Line layers have the gain of their activation folded in; those of the pixel blocks get it in the pixel stage.
        self._gains = [ACTIVATION_GAIN if slot.layer.demodulate and i < lines else 1.0 for i, slot in enumerate(slots)]
        names = (*synthesis.config.biline_levels[1:], "last")
        self._decoders = [list(getattr(synthesis, f"decoder_{name}")) for name in names]
        self._constants: dict[tuple[torch.device, torch.dtype], _ScaleConstants] = {}

    @property
    def layers(self) -> list[ModulatedLinear]:
        """All modulated layers: of the lines, then of the pixel blocks."""
        return [slot.layer for slot in self._layout.layers]

    def apply(self, ws: Tensor) -> AppliedStyles:
        """Styles ws [N, num_ws, w_dim] of the dtype of the weights -> the layers.

        If ws is one w, expanded (stride 0), all affine layers are one product.
        """
        layers = self.layers
        scale_in, scale_out = self._scales(self._styles(ws))
        ins = scale_in.split(self._input_sizes, 1)
        outs = iter(scale_out.split(self._output_sizes, 1))
        gained = [layer.bias for layer, gain in zip(layers, self._gains, strict=True) if gain != 1]
        # The other biases stay the same tensors: for some, path lengths have no gradient, which to Adam is not 0.
        biases = iter(_products(gained, ACTIVATION_GAIN))
        scaled = iter([
            ScaledLayer(
                layer.weight, layer.bias if gain == 1 else next(biases), layer.demodulate, x,
                next(outs) if layer.demodulate else None, ws.dtype,
            )
            for layer, gain, x in zip(layers, self._gains, ins, strict=True)
        ])  # fmt: skip
        levels: list[list[StyledLayer]] = [[next(scaled) for _ in level] for level in self._layout.levels]
        blocks = [Layer(layer.weight_of_latents(), layer.bias) for layer in scaled]
        pixels = PixelStage(
            self._scaled_decoders(),
            Layer(*self.synthesis.decoder_img.scaled()),
            (PixelBlock(*blocks[:3]), PixelBlock(*blocks[3:])),
        )
        return AppliedStyles(LineStyles(self.synthesis.b4.input.style(ws[:, 0]), levels, ws.dtype), pixels)

    def _styles(self, ws: Tensor) -> Tensor:
        """The styles of all layers, [N, all inputs]."""
        slots = self._layout.layers
        affines = [slot.layer.affine for slot in slots]
        if ws.stride(1) == 0 or ws.shape[1] == 1:
            weight, bias = torch.cat([a.weight for a in affines]), torch.cat([a.bias for a in affines])
            return F.linear(ws[:, 0] * affines[0].weight_gain, weight, bias)
        rows = (ws * affines[0].weight_gain).unbind(1)
        return torch.cat([F.linear(rows[slot.w], a.weight, a.bias) for a, slot in zip(affines, slots, strict=True)], 1)

    def _scales(self, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Scales of the inputs of all layers, and of the outputs of those that demodulate (StyleGAN2 demodulation),
        [N, ...] each, gains folded in.
        """
        constants = self._constants_for(styles)
        squared_styles = self._of_demodulated(styles.square())
        weights = [layer.weight for layer in self._demodulated]
        squares = _products(weights, weights)
        sums = torch.cat([style @ square.mT for style, square in zip(squared_styles, squares, strict=True)], 1)
        # A positive factor of a layer may move from its inputs to its outputs. Half precision needs sums of about 1.
        largest = torch._foreach_norm(  # pyright: ignore[reportPrivateImportUsage]
            self._of_demodulated(styles.detach()), math.inf
        )
        balance = torch.cat([torch.stack(largest) + 1e-8, constants.gains.new_ones(1)])
        scale_in = styles * (constants.roots / balance[constants.input_balance])
        return scale_in, (sums + 1e-8).rsqrt() * (constants.gains * balance[constants.output_balance])

    def _of_demodulated(self, values: Tensor) -> list[Tensor]:
        """[N, all inputs] -> by layer that demodulates, [N, in]."""
        parts = zip(values.split(self._input_sizes, 1), self.layers, strict=True)
        return [part for part, layer in parts if layer.demodulate]

    def _constants_for(self, like: Tensor) -> _ScaleConstants:
        key = like.device, like.dtype
        if key not in self._constants:
            with torch.inference_mode(False):
                self._constants[key] = self._make_constants(like)
        return self._constants[key]

    def _make_constants(self, like: Tensor) -> _ScaleConstants:
        roots, input_balance, output_balance, gains = [], [], [], []
        number = 0
        for layer, gain in zip(self.layers, self._gains, strict=True):
            fan_out, fan_in = layer.weight.shape
            roots += fan_in * [1 / math.sqrt(fan_in)]
            input_balance += fan_in * [number if layer.demodulate else len(self._demodulated)]
            if layer.demodulate:
                output_balance += fan_out * [number]
                gains += fan_out * [gain * math.sqrt(fan_in)]
                number += 1
        return _ScaleConstants(
            torch.tensor(roots, dtype=torch.float64).to(like),
            torch.tensor(input_balance, device=like.device),
            torch.tensor(output_balance, device=like.device),
            torch.tensor(gains, dtype=torch.float64).to(like),
        )

    def _scaled_decoders(self) -> tuple[tuple[Layer, ...], ...]:
        layers = [layer for decoder in self._decoders for layer in decoder]
        weights = _products([m.weight for m in layers], [m.weight_gain for m in layers])
        found = iter(zip(weights, [m.bias for m in layers], strict=True))
        return tuple(tuple(Layer(*next(found)) for _ in decoder) for decoder in self._decoders)


def _products(tensors: Sequence[Tensor], factors: Any) -> Sequence[Tensor]:
    """Each tensor times one factor for all, or times a number or tensor of its own, in one operation."""
    return torch._foreach_mul(list(tensors), factors)  # pyright: ignore[reportPrivateImportUsage]


def tensors_of(styles: LineStyles) -> list[Tensor]:
    """The tensors that the line layers are a function of, for `styles_of`."""
    found = [styles.input]
    for level in styles.levels:
        for layer in level:
            assert isinstance(layer, ScaledLayer)
            found += [layer.weight, layer.bias, layer.scale_in]
            found += [layer.scale_out] if layer.scale_out is not None else []
    return found


def styles_of(like: LineStyles, tensors: Sequence[Tensor]) -> LineStyles:
    """The same layers with other tensors, in the order of `tensors_of`."""
    rest = iter(tensors)
    first, levels = next(rest), []
    for level in like.levels:
        levels.append([layer.of(rest) for layer in level if isinstance(layer, ScaledLayer)])
    return LineStyles(first, levels, like.dtype)
