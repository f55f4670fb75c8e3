"""A synthesis network as few large operations, for devices where an operation costs more than its arithmetic.

The same numbers as `Synthesis.line_styles`, `bilines` and `pixel_stage` of one latent, by another route: the affine
layers of all styles are one matrix product, both lines go through the layers as one batch, and everything is written
into memory that stays in place, so that an image is a fixed series of operations that never reads a value on the host.
A CUDA graph can replay that.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...common.float32 import float32_products
from ...kernels import BlockScales, Layer, PixelBlock, PixelStage
from .fused_lines import LineNetwork
from .generator import PixelBlockWeights, Synthesis
from .layers import ModulatedLinear
from .layout import SynthesisLayout, layout_of


class FusedSynthesis:
    """The synthesis of one latent at a time: `with fused.latent(ws) as applied:`.

    Args:
        synthesis: its weights are read in place, or copied if they lie on another device; the affine layers are
            copied into one (34 MB for a 512 model of the published widths).
        device: where to work.
    """

    synthesis: Synthesis
    device: torch.device

    def __init__(self, synthesis: Synthesis, device: torch.device):
        self.synthesis, self.config, self.device = synthesis, synthesis.config, device
        self.lock = threading.RLock()
        """Guards the buffers: held by `latent`; to be held while a graph that writes them is replayed."""
        self._versions = _WeightVersions(synthesis)
        layout = layout_of(synthesis)
        with torch.inference_mode(False), torch.no_grad():  # memory that can be used in both modes
            self._affine = _AffineLayers(layout, self.config.num_ws, device)
            self._lines = LineNetwork(layout, synthesis.b4.input, self.config, self._affine.scales, device)
            self._blocks = _BlockDemodulation(layout, self._affine.scales, device)

    @property
    def current(self) -> bool:
        """Whether the weights are where they were, unchanged (changes in place of inference tensors go unnoticed)."""
        return self._versions.current

    @contextmanager
    def latent(self, ws: Tensor) -> Iterator[AppliedLatent]:
        """Apply a latent to the buffers, and hold them for the time of the block.

        Args:
            ws: [num_ws, w_dim] float32 on the device.
        """
        with self.lock, torch.no_grad():
            self._affine.apply(ws)
            self._lines.apply(ws)
            self._blocks.apply()
            yield AppliedLatent(self.synthesis, ws, self._lines, self._blocks.scales)

    def raw_stage(self) -> PixelStage:
        """The per-pixel stage without a latent: the blocks' weights as they are stored."""
        synthesis, names = self.synthesis, (*self.config.biline_levels[1:], "last")

        def raw(block: PixelBlockWeights) -> PixelBlock:
            layers = (block.fc0, block.fc1, block.tores)
            return PixelBlock(*(Layer(layer.weight.to(self.device), layer.bias.to(self.device)) for layer in layers))

        with torch.no_grad():
            return PixelStage(
                decoders=tuple(
                    tuple(Layer(*layer.scaled(self.device)) for layer in getattr(synthesis, f"decoder_{name}"))
                    for name in names
                ),
                image=Layer(*synthesis.decoder_img.scaled(self.device)),
                blocks=(raw(synthesis.block0), raw(synthesis.block1)),
            )


class AppliedLatent:
    """A latent in the buffers of a `FusedSynthesis`, within `latent`; also a `kernels.StageLatent`."""

    def __init__(self, synthesis: Synthesis, ws: Tensor, lines: LineNetwork, block_scales: BlockScales):
        self._synthesis, self._ws, self._lines, self._block_scales = synthesis, ws, lines, block_scales

    @property
    def block_scales(self) -> BlockScales:
        """Scales for the blocks' weights of `FusedSynthesis.raw_stage`; buffers, overwritten by the next latent."""
        return self._block_scales

    def pixel_stage(self) -> PixelStage:
        """The per-pixel stage of this latent."""
        return self._synthesis.pixel_stage(self._ws[None]).sample(0)

    @torch.no_grad()
    def lines(self, y: Tensor, x: Tensor, out: Tensor, dtype: torch.dtype, *, tf32: bool = False) -> None:
        """Evaluate both lines.

        Args:
            y, x: [ny] and [nx] positions, float64 on the device; either may be empty.
            out: [L, ny + nx, RANK, B or more] of any float dtype: the columns, halved, then the rows. Channels beyond B
                are left alone.
            dtype: of the matrix products.
            tf32: whether products of float32 may be computed in TF32.
        """
        with float32_products(self._lines.device, tf32):
            self._lines.evaluate(y, x, out, dtype)


class _AffineLayers:
    """The affine layers of all styles as one product, [num_ws, w_dim] -> the scales of the inputs of all layers."""

    def __init__(self, layout: SynthesisLayout, num_ws: int, device: torch.device):
        slots, total = layout.layers, layout.inputs
        gain = slots[0].layer.affine.weight_gain
        weight = torch.cat([slot.layer.affine.weight.to(device) for slot in slots]).mul_(gain)
        self._weight = weight.T
        self._bias = torch.cat([slot.layer.affine.bias.to(device) for slot in slots])
        # Every style vector makes scales for all layers; of those [num_ws, total] each layer reads the ones of its own.
        widths = [slot.layer.weight.shape[1] for slot in slots]
        rows = torch.cat([torch.full((n,), slot.w) for slot, n in zip(slots, widths, strict=True)])
        self._picked = (rows * total + torch.arange(total)).to(device)
        roots = [1.0 if slot.layer.demodulate else 1 / math.sqrt(n) for slot, n in zip(slots, widths, strict=True)]
        self._roots = torch.cat([torch.full((n,), root) for n, root in zip(widths, roots, strict=True)]).to(device)
        self._all = torch.empty(num_ws, total, device=device)
        self.scales = torch.ones(total + 1, device=device)
        """[all inputs + 1]; the last one stays 1."""

    def apply(self, ws: Tensor) -> None:
        """Write `scales` for a latent."""
        torch.addmm(self._bias, ws, self._weight, out=self._all)
        scales = self.scales[:-1]
        torch.index_select(self._all.view(-1), 0, self._picked, out=scales)
        scales.mul_(self._roots)


class _BlockDemodulation:
    """The scales of outputs of the pixel blocks: 1 / sqrt(eps + squares @ scales_in^2).

    `squares` [out, in] over all layers of the blocks is block-diagonal: the squared weights of the layers that
    demodulate, and 0 for the others, whose `eps` is 1.
    """

    def __init__(self, layout: SynthesisLayout, scales: Tensor, device: torch.device):
        layers = [slot.layer for slot in layout.blocks]
        self._squares = torch.block_diag(*(_squares(layer, device) for layer in layers))
        eps = [torch.full((len(layer.weight),), 1e-8 if layer.demodulate else 1.0) for layer in layers]
        self._eps = torch.cat(eps).to(device)
        outputs = torch.ones(len(self._eps) + 1, device=device)
        self.scales = BlockScales(scales[layout.blocks[0].inputs.start :], outputs)

    def apply(self) -> None:
        """Write `scales.outputs` from `scales.inputs`."""
        squares = self.scales.inputs[:-1].square()
        torch.addmv(self._eps, self._squares, squares, out=self.scales.outputs[:-1]).rsqrt_()


def _squares(layer: ModulatedLinear, device: torch.device) -> Tensor:
    weight = layer.weight.detach().to(device)
    return weight.square() if layer.demodulate else torch.zeros_like(weight)


class _WeightVersions:
    """Notices that weights of a module were changed, or replaced as by moving it."""

    def __init__(self, module: nn.Module):
        owners = [owner for m in module.modules() for owner in (m._parameters, m._buffers)]
        self._weights = [(owner, name) for owner in owners for name, weight in owner.items() if weight is not None]
        self._seen = self._versions()

    @property
    def current(self) -> bool:
        return self._seen == self._versions()

    def _versions(self) -> list[tuple[int, int]]:
        weights: list[Any] = [owner[name] for owner, name in self._weights]
        return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]
