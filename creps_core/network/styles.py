"""All layers of a synthesis with the styles of some latents, in few operations and differentiable: for training.

The same numbers as `Synthesis.line_styles` and `pixel_stage`, with a dozen operations for each layer: on a GPU those
cost more than their arithmetic, forwards and backwards.
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
from .layers import ModulatedLinear, ScaledLayer


class Applied(NamedTuple):
    """What `Styles.apply` makes of latents."""

    lines: LineStyles
    pixels: PixelStage


class Styles:
    """The layers of a synthesis; `apply` gives them with the styles of latents."""

    def __init__(self, synthesis: Synthesis):
        self.synthesis, config = synthesis, synthesis.config
        self._blocks = [
            [m for m in getattr(synthesis, f"b{level}").children() if isinstance(m, ModulatedLinear)]
            for level in config.levels
        ]
        # Beside each layer, which of ws it reads: the last of a level also starts the next.
        lines = [(m, max(2 * i - 1, 1) + k) for i, block in enumerate(self._blocks) for k, m in enumerate(block)]
        heads = [
            (getattr(block, name), config.num_ws - 1)
            for block in (synthesis.block0, synthesis.block1)
            for name in ("fc0", "fc1", "tores")
        ]
        self.layers: list[ModulatedLinear] = [m for m, _ in lines + heads]
        self._ws = [w for _, w in lines + heads]
        self._demodulated = [m for m in self.layers if m.demodulate]
        # Layers of the line network take the gain of their activation along; those of the pixels get it in the kernel.
        self._gains = [ACTIVATION_GAIN if m.demodulate and i < len(lines) else 1.0 for i, m in enumerate(self.layers)]
        self._decoders = [list(getattr(synthesis, f"decoder_{name}")) for name in (*config.biline_levels[1:], "last")]
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def apply(self, ws: Tensor) -> Applied:
        """Styles ws [N, num_ws, w_dim] of the dtype of the weights -> the layers.

        With ws that are one w, expanded (stride 0), all affine layers are one product.
        """
        styles = self._styles(ws)  # [N, all inputs]
        scale_in, scale_out = self._scales(styles)
        ins = scale_in.split([m.weight.shape[1] for m in self.layers], 1)
        outs = iter(scale_out.split([len(m.weight) for m in self._demodulated], 1))
        gained = [m.bias for m, gain in zip(self.layers, self._gains, strict=True) if gain != 1]
        # The others stay as they are: path lengths have no gradient for some, which is not one of zero to Adam.
        biases = iter(_products(gained, ACTIVATION_GAIN))
        scaled = [
            ScaledLayer(
                m.weight, m.bias if gain == 1 else next(biases), m.demodulate, x, next(outs) if m.demodulate else None,
                ws.dtype,
            )
            for m, gain, x in zip(self.layers, self._gains, ins, strict=True)
        ]  # fmt: skip
        levels, done = [], 0
        for block in self._blocks:
            levels.append(scaled[done : done + len(block)])
            done += len(block)
        heads = [Layer(each.weight_of_latents(), each.bias) for each in scaled[done:]]
        pixels = PixelStage(self._scaled_decoders(), Layer(*self.synthesis.decoder_img.scaled()), (
            PixelBlock(*heads[:3]), PixelBlock(*heads[3:]),
        ))  # fmt: skip
        return Applied(LineStyles(self.synthesis.b4.input.style(ws[:, 0]), levels, ws.dtype), pixels)

    def _styles(self, ws: Tensor) -> Tensor:
        affines = [m.affine for m in self.layers]
        if ws.stride(1) == 0 or ws.shape[1] == 1:
            weight, bias = torch.cat([a.weight for a in affines]), torch.cat([a.bias for a in affines])
            return F.linear(ws[:, 0] * affines[0].weight_gain, weight, bias)
        rows = (ws * affines[0].weight_gain).unbind(1)
        return torch.cat([F.linear(rows[w], a.weight, a.bias) for a, w in zip(affines, self._ws, strict=True)], 1)

    def _scales(self, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Of the inputs of all layers, and of the outputs of those that demodulate: [N, ...], gains included."""
        roots, of_in, of_out, gains = self._constants_for(styles)
        parts = styles.square().split([m.weight.shape[1] for m in self.layers], 1)
        weights = [m.weight for m in self._demodulated]
        squares = _products(weights, weights)
        lengths = (part for part, m in zip(parts, self.layers, strict=True) if m.demodulate)
        sums = torch.cat([length @ square.mT for length, square in zip(lengths, squares, strict=True)], 1)
        # Any positive number would do that is taken out here and put back there: half precision needs sums of about 1.
        views = styles.detach().split([m.weight.shape[1] for m in self.layers], 1)
        views = [v for v, m in zip(views, self.layers, strict=True) if m.demodulate]
        largest = torch._foreach_norm(views, math.inf)  # pyright: ignore[reportPrivateImportUsage]
        balance = torch.cat([torch.stack(largest) + 1e-8, gains.new_ones(1)])
        return styles * (roots / balance[of_in]), (sums + 1e-8).rsqrt() * (gains * balance[of_out])

    def _constants_for(self, like: Tensor) -> tuple[Tensor, ...]:
        """1 / sqrt(in) of every input; its layer among those that demodulate, or their number if it does not; the same
        for outputs of those that do; and their gains times sqrt(in)."""
        key = like.device, like.dtype
        if key not in self._constants:
            with torch.inference_mode(False):
                roots, of_in, of_out, gains, count = [], [], [], [], 0
                for m, gain in zip(self.layers, self._gains, strict=True):
                    outputs, inputs = m.weight.shape
                    roots += inputs * [1 / math.sqrt(inputs)]
                    of_in += inputs * [count if m.demodulate else len(self._demodulated)]
                    if m.demodulate:
                        of_out += outputs * [count]
                        gains += outputs * [gain * math.sqrt(inputs)]
                        count += 1
                self._constants[key] = (
                    torch.tensor(roots, dtype=torch.float64).to(like), torch.tensor(of_in, device=like.device),
                    torch.tensor(of_out, device=like.device), torch.tensor(gains, dtype=torch.float64).to(like),
                )  # fmt: skip
        return self._constants[key]

    def _scaled_decoders(self) -> tuple[tuple[Layer, ...], ...]:
        layers = [layer for decoder in self._decoders for layer in decoder]
        weights = _products([m.weight for m in layers], [m.weight_gain for m in layers])
        found = iter(zip(weights, [m.bias for m in layers], strict=True))
        return tuple(tuple(Layer(*next(found)) for _ in decoder) for decoder in self._decoders)


def _products(tensors: Sequence[Tensor], factors: Any) -> Sequence[Tensor]:
    """Each tensor times a number, its number, or its tensor, in one operation."""
    return torch._foreach_mul(list(tensors), factors)  # pyright: ignore[reportPrivateImportUsage]


def tensors_of(styles: LineStyles) -> list[Tensor]:
    """What the layers of lines are a function of, for `styles_of`."""
    found = [styles.input]
    for level in styles.levels:
        for layer in level:
            assert isinstance(layer, ScaledLayer)
            found += [layer.weight, layer.bias, layer.scale_in]
            found += [layer.scale_out] if layer.scale_out is not None else []
    return found


def styles_of(like: LineStyles, tensors: Sequence[Tensor]) -> LineStyles:
    """The same layers of other tensors."""
    rest = iter(tensors)
    first, levels = next(rest), []
    for level in like.levels:
        levels.append([layer.of(rest) for layer in level if isinstance(layer, ScaledLayer)])
    return LineStyles(first, levels, like.dtype)
