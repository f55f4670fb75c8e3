"""The per-pixel stage of arXiv 2303.14157 (CREPS) as every backend receives it: decoders, image layer, pixel blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Layer(NamedTuple):
    """`y = weight @ x + bias`."""

    weight: Tensor  # [out, in] float32; [N, out, in] where it depends on the latent
    bias: Tensor  # [out] float32


class PixelBlock(NamedTuple):
    """A block modulated by the latent: two layers, and a residual of the image."""

    fc0: Layer
    fc1: Layer
    to_image: Layer


class StageShape(NamedTuple):
    """The shape of a stage, as far as backends depend on it."""

    channels: int
    image_channels: int


PUBLISHED = StageShape(32, 3)
"""Of the published models."""


@dataclass(frozen=True)
class PixelStage:
    """Everything between the bi-lines and the image.

    With B bi-line channels and L levels: `decoders` are L stacks of four layers B -> 2B -> 4B -> 2B -> B, one
    after each outer product; `image` maps the last feature to the image; `blocks` add residuals.
    """

    decoders: tuple[tuple[Layer, ...], ...]
    image: Layer
    blocks: tuple[PixelBlock, ...]

    @property
    def channels(self) -> int:
        """Width B of the pixel feature."""
        return self.image.weight.shape[-1]

    @property
    def image_channels(self) -> int:
        return self.image.weight.shape[-2]

    @property
    def shape(self) -> StageShape:
        return StageShape(self.channels, self.image_channels)

    def to(self, kind: torch.device | torch.dtype) -> PixelStage:
        """The stage on another device, or of another dtype."""

        def move(layer: Layer) -> Layer:
            return Layer(layer.weight.to(kind), layer.bias.to(kind))

        decoders = tuple(tuple(map(move, decoder)) for decoder in self.decoders)
        return PixelStage(decoders, move(self.image), tuple(PixelBlock(*map(move, block)) for block in self.blocks))

    def sample(self, i: int) -> PixelStage:
        """The stage of latent i of a batch, without batch axes."""

        def pick(layer: Layer) -> Layer:
            return Layer(layer.weight[i] if layer.weight.ndim == 3 else layer.weight, layer.bias)

        return PixelStage(self.decoders, self.image, tuple(PixelBlock(*map(pick, b)) for b in self.blocks))


class BlockScales(NamedTuple):
    """The styles of a latent as factors of the pixel blocks' weights: `outputs[:, None] * weight * inputs`.

    The layers are fc0, fc1 and to_image of block 0, then of block 1; a 1 follows the last one.
    """

    inputs: Tensor  # [all inputs + 1] float32
    outputs: Tensor  # [all outputs + 1] float32


class StageLatent(Protocol):
    """A latent as the per-pixel stage receives it."""

    @property
    def block_scales(self) -> BlockScales:
        """For backends that scale weights they hold already."""
        ...

    def pixel_stage(self) -> PixelStage:
        """The stage of this latent, without batch axes."""
        ...
