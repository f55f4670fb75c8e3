"""The per-pixel stage by the Triton kernel in `fused_kernel.py`, on CUDA GPUs: packing, launch and door.

`reference.py` is the specification. Products take float16 or bfloat16 operands and sum in float32. For float32
every operand is split into an upper and a lower float16, three products for one, which keeps 22 bits. Triton is
optional: it is imported when it is first needed.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from . import reference
from .reference import ACTIVATION_GAIN
from .stage import Layer, PixelBlock, PixelStage

log = logging.getLogger("CREPS")

SCRATCH_BYTES = 48 << 20
"""What the packed lines, and a picture on its way to another device or dtype, may take together."""
WIDEST = 64
"""The most bi-line channels that the kernel takes; it pads them to 16, 32 or 64."""
_STORED = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)  # what the kernel can write
_WEIGHT_PEAK = 4096.0  # float32: weights are scaled to at most this, so sums stay far below float32's limit
_BAND = 256  # rows of pixels per launch, at most


class Config(NamedTuple):
    """How the work is cut up and compiled."""

    tile: tuple[int, int]
    warps: int
    stages: int  # of the prefetch of a level's weights
    parts: int  # in which features of 4B channels are computed


def choose_config(capability: int, channels: int, exact: bool) -> Config:
    """The configuration for a GPU's major compute capability and a padded number of channels.

    Chosen by compiling for each architecture: at 32 channels registers hold everything (float32 on 8.x: all but a
    few bytes, outside the loop), and two programs of a half precision fit a multiprocessor. 64 channels spill.
    """
    parts = 8 if channels > 32 or (channels == 32 and capability >= 12) else 4
    if channels > 32:
        return Config((8, 8), 8, 1, parts)
    if exact and capability < 12:
        return Config((8, 16), 8, 1, parts)
    return Config((8, 8), 4, 2, parts)


# Packing


class Prepared(NamedTuple):
    """The weights of a latent as the kernel reads them."""

    weights: Tensor  # [n], the blocks [in, out] of all layers; [2n], upper and lower halves, for float32
    biases: Tensor  # [m] float32
    scale: Tensor  # [1] float32: a product with `weights` times this is one with the true weights
    lower: int  # n
    channels: int  # B, padded
    image_channels: int  # padded
    dtype: torch.dtype  # of the products
    config: Config


def prepare(stage: PixelStage, dtype: torch.dtype) -> Prepared:
    """Lay out the weights of a stage, with the activation gains inside, in a handful of launches.

    Raises:
        ValueError: more bi-line channels than `WIDEST`.
    """
    if stage.channels > WIDEST:
        raise ValueError(f"backend triton takes up to {WIDEST} biline_channels, not {stage.channels}; use tiled")
    device, channels, exact = stage.image.weight.device, _padded(stage.channels), dtype == torch.float32
    capability = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
    config = choose_config(capability, channels, exact)
    layout = _layout(len(stage.decoders), stage.channels, stage.image_channels, config.parts, device)
    layers = [layer for decoder in stage.decoders for layer in decoder]
    layers += [stage.image, *(layer for block in stage.blocks for layer in block)]
    flat = torch.cat([torch.zeros(1, device=device), *(part.flatten() for layer in layers for part in layer)])
    packed = (flat * layout.gains)[layout.sources]
    weights, biases = packed[: layout.weights], packed[layout.weights :]
    if exact:
        peak = weights.abs().max().clamp(1e-6, 1e30)
        scale = (peak / torch.frexp(peak).mantissa / _WEIGHT_PEAK).reshape(1)  # a power of two
        weights = weights / scale
        upper = weights.half()
        weights = torch.cat([upper, (weights - upper).half()])
    else:
        scale = torch.ones(1, device=device)
        weights = weights.to(dtype)
    image_channels = _padded(stage.image_channels)
    return Prepared(weights, biases, scale, layout.weights, channels, image_channels, dtype, config)


class _Layout(NamedTuple):
    """Where the elements of a packed stage come from: indices into a zero, then all weights and biases by layer."""

    sources: Tensor  # [packed] int64; weights, then biases
    gains: Tensor  # [1 + elements]
    weights: int  # number of packed weights


@functools.lru_cache(maxsize=8)
def _layout(levels: int, channels: int, image_channels: int, parts: int, device: torch.device) -> _Layout:
    b, c = channels, image_channels
    trunk = [(2 * b, b), (4 * b, 2 * b), (2 * b, 4 * b), (b, 2 * b)] * levels
    head = [(c, b), (4 * b, b), (4 * b, 4 * b), (c, 4 * b), (2 * b, 4 * b), (2 * b, 2 * b), (c, 2 * b)]
    weights, biases, gains, start = [], [], [torch.ones(1)], 1
    for fan_out, fan_in in trunk + head:
        middle = start + fan_out * fan_in
        end = middle + fan_out
        activated = fan_out != c  # B > image channels
        gains.append(torch.full((end - start,), ACTIVATION_GAIN if activated else 1.0))
        # Pad to [in, out] with the index of the zero.
        more_in = fan_in // b * (_padded(b) - b)
        more_out = fan_out // b * (_padded(b) - b) if activated else _padded(c) - c
        weight = torch.arange(start, middle).view(fan_out, fan_in)
        weights.append(F.pad(weight, (0, more_in, 0, more_out)).mT)
        biases.append(F.pad(torch.arange(middle, end), (0, more_out)))
        start = end

    wide = 2 * _padded(b)
    part = 2 * wide // parts
    slices = [slice(i, i + part) for i in range(0, 2 * wide, part)]
    blocks = []
    for i in range(0, len(trunk), 4):
        first, up, down, last = weights[i : i + 4]
        blocks += [first, *(block for s in slices for block in (up[:, s], down[s])), last]
    image, fc0, fc1, to_image0, fc2, fc3, to_image1 = weights[len(trunk) :]
    blocks += [image, fc0[:, :wide], fc0[:, wide:]]
    blocks += [block for s in slices for block in (fc1[:wide, s], fc1[wide:, s], to_image0[s], fc2[s])]
    blocks += [block for s in slices[: parts // 2] for block in (fc3[:, s], to_image1[s])]
    sources = torch.cat([block.flatten() for block in (*blocks, *biases)])
    count = sum(block.numel() for block in blocks)
    return _Layout(sources.to(device), torch.cat(gains).to(device), count)


def _padded(channels: int) -> int:
    return max(16, 1 << (channels - 1).bit_length())


def pack_line(line: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """[L, B, n, rank] -> [L, n, rank, channels]: what a sample needs lies together."""
    levels, given, samples, rank = line.shape
    packed = torch.empty(levels, samples, rank, channels, dtype=dtype, device=line.device)
    packed[..., :given] = rearrange(line, "level b n rank -> level n rank b")
    packed[..., given:] = 0
    return packed


# Launch


def launch(columns: Tensor, rows: Tensor, stage: Prepared, out: Tensor, supersample: int, overflow: Tensor) -> None:
    """Paint `out` [channels, height, width] from packed lines, without waiting; `overflow` [1] is set if it does."""
    from .fused_kernel import entangle_kernel

    kernel: Any = entangle_kernel  # type checkers do not know what @triton.jit makes of a function

    (channels, height, width), (levels, _, rank, b) = out.shape, columns.shape
    config = stage.config
    tile_h, tile_w = config.tile
    constants = {
        "CHANNELS": channels,
        "C": stage.image_channels,
        "B": b,
        "RANK": rank,
        "TILE_H": tile_h,
        "TILE_W": tile_w,
        "PARTS": config.parts,
        "SUPERSAMPLED": supersample > 1,
        "EXACT": stage.dtype == torch.float32,
    }
    _announce(out.device, out.dtype, stage.dtype, *constants.values())
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        grid = (-(-width // tile_w), -(-height // tile_h))
        kernel[grid](
            columns,
            rows,
            stage.weights,
            stage.biases,
            stage.scale,
            out,
            overflow,
            height,
            width,
            levels,
            stage.lower,
            supersample,
            *out.stride(),
            **constants,
            num_warps=config.warps,
            num_stages=config.stages,
            enable_fp_fusion=True,  # said aloud: the default depends on the version
        )


@functools.cache
def _announce(device: torch.device, *key: object) -> None:
    """Before the first launch of a configuration, which takes a while; Triton keeps the result on disk."""
    log.info("compiling the pixel kernel for %s: some seconds, once", device)


# Door


def entangle(
    columns: Tensor,
    rows: Tensor,
    prepared: Prepared,
    out: Tensor,
    *,
    supersample: int,
    tile: tuple[int, int] | None,
    after_tile: Callable[[int], None],
) -> None:
    """See `kernels.entangle`. A launch paints what `SCRATCH_BYTES` allow, or a `tile` if that is smaller.

    `after_tile` is called when a launch is queued; the GPU has finished when this returns.

    Raises:
        OverflowError: the picture is not finite.
    """
    device, channels, dtype = columns.device, prepared.channels, prepared.dtype
    height, width = out.shape[1:]
    stored = out.dtype if out.dtype in _STORED else torch.float32
    direct = out.device == device and out.dtype == stored
    overflow = torch.zeros(1, dtype=torch.int32, device=device)
    step_h, step_w = chunk(columns, prepared, out, supersample, tile)
    for top in range(0, height, step_h):
        piece = columns[:, :, top * supersample : (top + step_h) * supersample]
        packed_columns = pack_line(piece, channels, dtype).mul_(0.5)
        for left in range(0, width, step_w):
            piece = rows[:, :, left * supersample : (left + step_w) * supersample]
            packed_rows = pack_line(piece, channels, dtype)
            box = out[:, top : top + step_h, left : left + step_w]
            target = box if direct else torch.empty(box.shape, dtype=stored, device=device)
            launch(packed_columns, packed_rows, prepared, target, supersample, overflow)
            if not direct:
                box.copy_(target)
            after_tile(box[0].numel())
    if overflow.item():
        advice = "" if dtype == torch.float32 else "; render with precision float32"
        raise OverflowError(f"the picture has values that are not finite{advice}")


def chunk(
    columns: Tensor, prepared: Prepared, out: Tensor, supersample: int, tile: tuple[int, int] | None
) -> tuple[int, int]:
    """Height and width that a launch paints.

    `SCRATCH_BYTES` hold the packed columns, and twice, as one launch follows another, packed rows and a picture.
    """
    share = SCRATCH_BYTES // 5
    levels, _, _, rank = columns.shape
    samples = share // (levels * rank * prepared.channels * prepared.dtype.itemsize)
    step_h = max(1, min(_BAND, samples // supersample))
    step_w = max(1, min(samples // supersample, share // (step_h * len(out) * 4)))
    return (step_h, step_w) if tile is None else (min(step_h, tile[0]), min(step_w, tile[1]))


def refuses(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernel cannot run there. The first question about a GPU compiles and tries the kernel."""
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":  # for tests: slow
        return "the Triton interpreter has no bfloat16" if dtype == torch.bfloat16 else _missing()
    if device.type != "cuda":
        return f"it needs a CUDA GPU, not {device.type}"
    if torch.version.hip:
        return "it is not tested on ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"it needs compute capability 8.0 (Ampere) or later, not {capability[0]}.{capability[1]}"
    return _missing() or _probe(torch.cuda.current_device() if device.index is None else device.index, dtype)


@functools.cache
def _missing() -> str | None:
    try:
        import triton.language  # noqa: F401  # pyright: ignore[reportMissingImports]
    except Exception as error:  # a broken installation raises all sorts
        package = "triton-windows" if sys.platform == "win32" else "triton"
        return f"{package} is not installed or broken ({error})"
    return None


_TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}


@functools.cache
def _probe(index: int, dtype: torch.dtype) -> str | None:
    """Compile the kernel for a GPU, paint a small picture with it, and compare that with the specification."""
    device = torch.device("cuda", index)
    columns, rows, stage = example(11, 21)
    expected = reference.entangle(columns, rows, stage)
    out = torch.full(expected.shape, torch.nan, device=device)
    try:
        entangle(
            columns.to(device),
            rows.to(device),
            prepare(_to(stage, device), dtype),
            out,
            supersample=1,
            tile=None,
            after_tile=lambda pixels: None,
        )
    except Exception as error:  # no C compiler, a driver that is too old, out of memory, ...
        log.debug("the pixel kernel cannot run on %s", device, exc_info=True)
        return f"it failed on {torch.cuda.get_device_name(device)}: {type(error).__name__}: {error}"
    error = ((out.cpu() - expected).abs().max() / expected.abs().max()).item()
    if not error <= _TOLERANCES[dtype]:
        return f"it is wrong by {error:.1e} on {torch.cuda.get_device_name(device)}"
    return None


def example(
    height: int, width: int, *, levels: int = 3, channels: int = 32, image_channels: int = 3
) -> tuple[Tensor, Tensor, PixelStage]:
    """Random columns, rows and weights, the same every time, for a picture of about -1..1; on the CPU."""
    random = torch.Generator().manual_seed(0)

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


def _to(stage: PixelStage, device: torch.device) -> PixelStage:
    def move(layer: Layer) -> Layer:
        return Layer(layer.weight.to(device), layer.bias.to(device))

    return PixelStage(
        tuple(tuple(map(move, decoder)) for decoder in stage.decoders),
        move(stage.image),
        tuple(PixelBlock(*map(move, block)) for block in stage.blocks),
    )
