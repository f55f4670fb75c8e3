"""The weights of the per-pixel stage as the Triton kernel reads them: blocks in the order of their use, padded.

The decoders do not depend on the latent and are packed once; the pixel blocks are packed once and scaled for each
latent. For float32 every weight is split into an upper and a lower float16, which keeps 22 bits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .reference import ACTIVATION_GAIN
from .stage import BlockScales, Layer, PixelBlock, PixelStage

MAX_CHANNELS = 64
"""Most bi-line channels that the kernel takes; it pads them to 16, 32 or 64."""
_WEIGHT_PEAK = 4096.0  # float32: weights are scaled to at most this, which keeps sums far below float32's limit


class KernelConfig(NamedTuple):
    """A configuration of the kernel: how the work is divided and compiled."""

    tile: tuple[int, int]
    warps: int
    stages: int  # of software pipelining: prefetch of a level's weights
    parts: int  # features of 4B channels are computed in this many slices of channels


class PackedWeights(NamedTuple):
    """The weights of a latent as the kernel reads them."""

    blocks: Tensor  # [n], the blocks [in, out] of all layers; [2n], upper and lower halves, for float32
    biases: Tensor  # [m] float32
    scale: Tensor  # [2] float32, factors of products with the stored weights of the decoders, and of the rest
    lower: int  # n
    channels: int  # B, padded
    image_channels: int  # padded
    dtype: torch.dtype  # of the products
    config: KernelConfig


def padded(channels: int) -> int:
    """The number of channels that the kernel computes for `channels`: 16, 32 or 64."""
    return max(16, 1 << (channels - 1).bit_length())


def pack(stage: PixelStage, dtype: torch.dtype, config: KernelConfig) -> PackedWeights:
    """Lay out the weights of a stage of one latent, with the activation gains inside.

    Raises:
        ValueError: more bi-line channels than `MAX_CHANNELS`.
    """
    packed = PackedStage(stage, dtype, config)
    packed.apply(None)
    return packed.weights


class PackedStage:
    """A packed stage whose blocks are scaled by one latent after the other; `weights` holds the result.

    Args:
        stage: of one latent, or with weights before modulation.
        dtype, config: of the kernel.
    """

    def __init__(self, stage: PixelStage, dtype: torch.dtype, config: KernelConfig):
        if stage.channels > MAX_CHANNELS:
            raise ValueError(
                f"backend triton takes up to {MAX_CHANNELS} biline_channels, not {stage.channels}; use tiled"
            )
        device, exact = stage.image.weight.device, dtype == torch.float32
        layout = _layout(len(stage.decoders), stage.channels, stage.image_channels, config.parts, device)
        layers = [layer for decoder in stage.decoders for layer in decoder]
        layers += [stage.image, *(layer for block in stage.blocks for layer in block)]
        flat = torch.cat([torch.zeros(1, device=device), *(part.flatten() for layer in layers for part in layer)])
        packed = (flat * layout.gains)[layout.sources]
        count, trunk = layout.weights, layout.decoder_weights
        self._constants = packed[trunk:count]
        self._layout, self._exact = layout, exact
        weights = torch.empty(2 * count if exact else count, dtype=torch.float16 if exact else dtype, device=device)
        biases = packed[count:].clone()
        self.weights = PackedWeights(
            weights, biases, torch.ones(2, device=device), count, padded(stage.channels), padded(stage.image_channels),
            dtype, config,
        )  # fmt: skip
        self._store(packed[:trunk], 0)

    def apply(self, scales: BlockScales | None) -> None:
        """Write the blocks' weights, scaled by a latent, into `weights`; None: as they were given."""
        weights = self._constants
        if scales is not None:
            weights = weights * scales.inputs.index_select(0, self._layout.inputs)
            weights.mul_(scales.outputs.index_select(0, self._layout.outputs))
        self._store(weights, self._layout.decoder_weights)

    def _store(self, weights: Tensor, start: int) -> None:
        stored, end = self.weights.blocks, start + len(weights)
        if not self._exact:
            stored[start:end] = weights
            return
        peak = torch.linalg.vector_norm(weights, torch.inf).clamp_(1e-6, 1e30)
        scale = peak / torch.frexp(peak).mantissa / _WEIGHT_PEAK  # a power of two
        self.weights.scale[int(start > 0)] = scale
        weights = weights / scale
        upper = stored[start:end]
        upper.copy_(weights)
        lower = self.weights.lower
        torch.sub(weights, upper, out=stored[lower + start : lower + end])


class _Layout(NamedTuple):
    """Where the elements of a packed stage come from.

    The elements of a stage are a zero, then by layer its weight [out, in] and its bias.
    """

    sources: Tensor  # [packed] int64, indices of elements: first of all weights, then of all biases
    gains: Tensor  # [elements], of the activations
    decoder_weights: int  # number of packed weights of the decoders, which come first
    weights: int  # number of all packed weights
    inputs: Tensor  # [weights - decoder_weights] int64: index into `BlockScales.inputs` of each of the other weights
    outputs: Tensor  # likewise into `BlockScales.outputs`


class _LayerShape(NamedTuple):
    """A layer of a stage before packing."""

    fan_out: int
    fan_in: int
    activated: bool  # ends in the leaky ReLU
    modulated: bool  # has block scales


class _LayerElements(NamedTuple):
    """A layer as indices of elements, and what is known of each of its elements."""

    weight: Tensor  # [in, out], padded with 0, the index of the zero
    bias: Tensor  # [out], likewise
    gains: Tensor  # [out * in + out]
    inputs: Tensor  # likewise, indices into `BlockScales.inputs`
    outputs: Tensor  # likewise, indices into `BlockScales.outputs`


@functools.lru_cache(maxsize=8)
def _layout(levels: int, channels: int, image_channels: int, parts: int, device: torch.device) -> _Layout:
    shapes = _layer_shapes(levels, channels, image_channels)
    layers = list(_elements(shapes, channels, image_channels))
    width = 2 * padded(channels)
    size = 2 * width // parts
    slices = [slice(i, i + size) for i in range(0, 2 * width, size)]
    decoders, (image, *blocks) = layers[: 4 * levels], layers[4 * levels :]
    packed = [block for i in range(levels) for block in _decoder_order(decoders[4 * i : 4 * i + 4], slices)]
    decoder_weights = sum(block.numel() for block in packed)
    packed += _block_order(image, blocks, slices, width)
    weights = sum(block.numel() for block in packed)
    sources = torch.cat([part.flatten() for part in (*packed, *(layer.bias for layer in layers))])
    modulated, unscaled = sources[decoder_weights:weights], _unscaled(shapes)
    inputs = torch.cat([torch.tensor([unscaled[0]]), *(layer.inputs for layer in layers)])[modulated]
    outputs = torch.cat([torch.tensor([unscaled[1]]), *(layer.outputs for layer in layers)])[modulated]
    gains = torch.cat([torch.ones(1), *(layer.gains for layer in layers)])
    return _Layout(
        sources.to(device), gains.to(device), decoder_weights, weights, inputs.to(device), outputs.to(device)
    )


def _layer_shapes(levels: int, b: int, c: int) -> list[_LayerShape]:
    """The layers of a stage with b bi-line channels and c image channels, in the order of their use."""
    decoder = [_LayerShape(fan_out, fan_in, True, False) for fan_out, fan_in in (
        (2 * b, b), (4 * b, 2 * b), (2 * b, 4 * b), (b, 2 * b),
    )]  # fmt: skip
    shapes = [*(levels * decoder), _LayerShape(c, b, False, False)]
    for fan_in, width in ((b, 4 * b), (4 * b, 2 * b)):
        shapes += [
            _LayerShape(width, fan_in, True, True),
            _LayerShape(width, width, True, True),
            _LayerShape(c, width, False, True),
        ]
    return shapes


def _unscaled(shapes: list[_LayerShape]) -> tuple[int, int]:
    """Indices of the 1 that follows the last scale of an input, of an output: for what no latent changes."""
    modulated = [shape for shape in shapes if shape.modulated]
    return sum(shape.fan_in for shape in modulated), sum(shape.fan_out for shape in modulated)


def _elements(shapes: list[_LayerShape], b: int, c: int) -> Iterator[_LayerElements]:
    """Each layer's elements, padded to what the kernel computes."""
    no_input, no_output = _unscaled(shapes)
    start, first_input, first_output = 1, 0, 0
    for fan_out, fan_in, activated, scaled in shapes:
        middle, end = start + fan_out * fan_in, start + fan_out * (fan_in + 1)
        more_in = fan_in // b * (padded(b) - b)
        more_out = fan_out // b * (padded(b) - b) if activated else padded(c) - c
        weight = rearrange(torch.arange(start, middle), "(o i) -> o i", i=fan_in)
        of_input, of_output = torch.full((fan_in,), no_input), torch.full((fan_out,), no_output)
        if scaled:
            of_input, of_output = first_input + torch.arange(fan_in), first_output + torch.arange(fan_out)
            first_input, first_output = first_input + fan_in, first_output + fan_out
        yield _LayerElements(
            F.pad(weight, (0, more_in, 0, more_out)).mT,
            F.pad(torch.arange(middle, end), (0, more_out)),
            torch.full((end - start,), ACTIVATION_GAIN if activated else 1.0),
            torch.cat([of_input.repeat(fan_out), torch.full((fan_out,), no_input)]),
            torch.cat([of_output.repeat_interleave(fan_in), torch.full((fan_out,), no_output)]),
        )
        start = end


def _decoder_order(layers: list[_LayerElements], slices: list[slice]) -> list[Tensor]:
    """The blocks of a decoder, B -> 2B -> 4B -> 2B -> B, its 4B features a slice at a time."""
    first, up, down, last = (layer.weight for layer in layers)
    return [first, *(block for s in slices for block in (up[:, s], down[s])), last]


def _block_order(image: _LayerElements, layers: list[_LayerElements], slices: list[slice], width: int) -> list[Tensor]:
    """The blocks of the image layer and both pixel blocks, their 4B features a slice at a time."""
    fc0, fc1, to_image0, fc2, fc3, to_image1 = (layer.weight for layer in layers)
    blocks = [image.weight, fc0[:, :width], fc0[:, width:]]
    blocks += [block for s in slices for block in (fc1[:width, s], fc1[width:, s], to_image0[s], fc2[s])]
    blocks += [block for s in slices[: len(slices) // 2] for block in (fc3[:, s], to_image1[s])]
    return blocks


def pack_line(line: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """[L, B, n, rank] -> [L, n, rank, channels], padded with 0: the code of a sample is contiguous."""
    levels, given, samples, rank = line.shape
    packed = torch.empty(levels, samples, rank, channels, dtype=dtype, device=line.device)
    packed[..., :given] = rearrange(line, "level b n rank -> level n rank b")
    packed[..., given:] = 0
    return packed


def example(
    height: int, width: int, *, levels: int = 3, channels: int = 32, image_channels: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, PixelStage]:
    """Random columns [L, B, height, 8], rows [L, B, width, 8] and a stage, on the CPU, for an image of about -1..1."""
    random = torch.Generator().manual_seed(seed)

    def layer(fan_in: int, fan_out: int) -> Layer:
        weight = torch.randn(fan_out, fan_in, generator=random) / fan_in**0.5
        bias = torch.randn(fan_out, generator=random) / 10
        return Layer(weight / 5, bias) if fan_out == image_channels else Layer(weight, bias)

    b, c = channels, image_channels
    decoders = tuple(
        (layer(b, 2 * b), layer(2 * b, 4 * b), layer(4 * b, 2 * b), layer(2 * b, b)) for _ in range(levels)
    )
    blocks = (
        PixelBlock(layer(b, 4 * b), layer(4 * b, 4 * b), layer(4 * b, c)),
        PixelBlock(layer(4 * b, 2 * b), layer(2 * b, 2 * b), layer(2 * b, c)),
    )
    columns, rows = (torch.randn(levels, b, n, 8, generator=random) / 2 for n in (height, width))
    return columns, rows, PixelStage(decoders, layer(b, c), blocks)
