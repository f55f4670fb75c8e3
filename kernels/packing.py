"""The weights of the per-pixel stage as the Triton kernel reads them: blocks in the order of their use, padded.

The decoders do not depend on the latent and are packed once; the blocks after them wait for the scales that a latent
makes of its styles. For float32 every weight is split into an upper and a lower float16, which keeps 22 bits.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .reference import ACTIVATION_GAIN
from .stage import BlockScales, Layer, PixelBlock, PixelStage

MAX_CHANNELS = 64
"""The most bi-line channels that the kernel takes; it pads them to 16, 32 or 64."""
_WEIGHT_PEAK = 4096.0  # float32: weights are scaled to at most this, so sums stay far below float32's limit


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
    scale: Tensor  # [2] float32: products with the weights of the decoders, and of the rest, times this are true ones
    lower: int  # n
    channels: int  # B, padded
    image_channels: int  # padded
    dtype: torch.dtype  # of the products
    config: KernelConfig


def padded(channels: int) -> int:
    """What the kernel makes of a number of channels."""
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
        count, trunk = layout.weights, layout.trunk
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
        self._store(weights, self._layout.trunk)

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
    """Where the elements of a packed stage come from: indices into a zero, then all weights and biases by layer."""

    sources: Tensor  # [packed] int64; weights, then biases
    gains: Tensor  # [1 + elements]
    trunk: int  # number of packed weights of the decoders, which come first
    weights: int  # number of all packed weights
    inputs: Tensor  # [weights - trunk] int64, of the other weights: which scale of an input is theirs
    outputs: Tensor  # likewise of an output


@functools.lru_cache(maxsize=8)
def _layout(levels: int, channels: int, image_channels: int, parts: int, device: torch.device) -> _Layout:
    b, c = channels, image_channels
    trunk = [(2 * b, b), (4 * b, 2 * b), (2 * b, 4 * b), (b, 2 * b)] * levels
    head = [(c, b), (4 * b, b), (4 * b, 4 * b), (c, 4 * b), (2 * b, 4 * b), (2 * b, 2 * b), (c, 2 * b)]
    ones = (sum(fan_in for _, fan_in in head[1:]), sum(fan_out for fan_out, _ in head[1:]))
    weights, biases, gains, start = [], [], [torch.ones(1)], 1
    scales, places = [torch.tensor([ones])], (0, 0)  # of every element: which scale of an input, of an output
    for i, (fan_out, fan_in) in enumerate(trunk + head):
        middle = start + fan_out * fan_in
        end = middle + fan_out
        activated = fan_out != c  # B > image channels
        gains.append(torch.full((end - start,), ACTIVATION_GAIN if activated else 1.0))
        modulated = i > len(trunk)
        of_input = places[0] + torch.arange(fan_in) if modulated else torch.full((fan_in,), ones[0])
        of_output = places[1] + torch.arange(fan_out) if modulated else torch.full((fan_out,), ones[1])
        scales.append(torch.cartesian_prod(of_output, of_input).flip(1))
        scales.append(torch.tensor([ones]).expand(fan_out, 2))  # a bias depends on no latent
        places = (places[0] + fan_in, places[1] + fan_out) if modulated else places
        # Pad to [in, out] with the index of the zero.
        more_in = fan_in // b * (padded(b) - b)
        more_out = fan_out // b * (padded(b) - b) if activated else padded(c) - c
        weight = rearrange(torch.arange(start, middle), "(o i) -> o i", i=fan_in)
        weights.append(F.pad(weight, (0, more_in, 0, more_out)).mT)
        biases.append(F.pad(torch.arange(middle, end), (0, more_out)))
        start = end

    wide = 2 * padded(b)
    part = 2 * wide // parts
    slices = [slice(i, i + part) for i in range(0, 2 * wide, part)]
    blocks = []
    for i in range(0, len(trunk), 4):
        first, up, down, last = weights[i : i + 4]
        blocks += [first, *(block for s in slices for block in (up[:, s], down[s])), last]
    before = sum(block.numel() for block in blocks)
    image, fc0, fc1, to_image0, fc2, fc3, to_image1 = weights[len(trunk) :]
    blocks += [image, fc0[:, :wide], fc0[:, wide:]]
    blocks += [block for s in slices for block in (fc1[:wide, s], fc1[wide:, s], to_image0[s], fc2[s])]
    blocks += [block for s in slices[: parts // 2] for block in (fc3[:, s], to_image1[s])]
    sources = torch.cat([block.flatten() for block in (*blocks, *biases)])
    count = sum(block.numel() for block in blocks)
    inputs, outputs = torch.cat(scales)[sources[before:count]].unbind(1)
    return _Layout(
        sources.to(device), torch.cat(gains).to(device), before, count, inputs.contiguous().to(device),
        outputs.contiguous().to(device),
    )  # fmt: skip


def pack_line(line: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """[L, B, n, rank] -> [L, n, rank, channels]: what a sample needs lies together."""
    levels, given, samples, rank = line.shape
    packed = torch.empty(levels, samples, rank, channels, dtype=dtype, device=line.device)
    packed[..., :given] = rearrange(line, "level b n rank -> level n rank b")
    packed[..., given:] = 0
    return packed


def example(
    height: int, width: int, *, levels: int = 3, channels: int = 32, image_channels: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, PixelStage]:
    """Random columns, rows and weights, the same every time, for a picture of about -1..1; on the CPU."""
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
