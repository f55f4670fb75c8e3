"""The modulated layers of a synthesis in the order of their styles: which style vector each reads, and where its
scales lie in memory that holds those of all layers. A pure value: it depends on shapes only.
"""

from __future__ import annotations

from typing import NamedTuple

from .generator import PixelBlockWeights, Synthesis
from .layers import ModulatedLinear


class LayerSlot(NamedTuple):
    """A layer, and its slices of vectors over all layers."""

    layer: ModulatedLinear
    w: int  # index of its style vector in ws [num_ws, w_dim]
    inputs: slice  # of a vector with an entry per input of every layer
    outputs: slice  # of a vector with an entry per output of every layer that demodulates; empty for others


class SynthesisLayout(NamedTuple):
    """All modulated layers; the slices of their slots follow each other in this order."""

    levels: tuple[tuple[LayerSlot, ...], ...]  # of the column/row network, `config.levels`
    blocks: tuple[LayerSlot, ...]  # fc0, fc1 and tores of block0, then of block1

    @property
    def lines(self) -> tuple[LayerSlot, ...]:
        """The layers of the column/row network."""
        return tuple(slot for level in self.levels for slot in level)

    @property
    def layers(self) -> tuple[LayerSlot, ...]:
        """All layers."""
        return self.lines + self.blocks

    @property
    def inputs(self) -> int:
        """Number of inputs of all layers."""
        return self.layers[-1].inputs.stop


def layout_of(synthesis: Synthesis) -> SynthesisLayout:
    """The layout of a synthesis. The last style vector of a level also starts the next; the blocks share the last."""
    inputs = outputs = 0

    def slot(layer: ModulatedLinear, w: int) -> LayerSlot:
        nonlocal inputs, outputs
        fan_out, fan_in = layer.weight.shape
        begin_in, begin_out = inputs, outputs
        inputs, outputs = inputs + fan_in, outputs + (fan_out if layer.demodulate else 0)
        return LayerSlot(layer, w, slice(begin_in, inputs), slice(begin_out, outputs))

    config = synthesis.config
    levels = []
    for i, level in enumerate(config.levels):
        layers = (m for m in getattr(synthesis, f"b{level}").children() if isinstance(m, ModulatedLinear))
        levels.append(tuple(slot(layer, max(2 * i - 1, 1) + k) for k, layer in enumerate(layers)))
    blocks = [slot(layer, config.num_ws - 1) for layer in _block_layers(synthesis.block0, synthesis.block1)]
    return SynthesisLayout(tuple(levels), tuple(blocks))


def _block_layers(*blocks: PixelBlockWeights) -> list[ModulatedLinear]:
    return [layer for block in blocks for layer in (block.fc0, block.fc1, block.tores)]
