"""The per-pixel stage in bfloat16 on CPUs with matrix units (AMX) or AVX-512 bfloat16 instructions.

oneDNN takes activations as the left operand, so features are pixel-major here, [pixels, channels]. A layer is one call
that also adds the bias and applies the leaky ReLU to the float32 sums. The outer products of a level are one dense
product with a block-diagonal matrix as well: mostly zeros, yet several times faster than a batch of small products.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .backend import Backend
from .image import Tile, mean_of_samples, split_tiles, store_image
from .reference import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE
from .stage import PUBLISHED, Layer, PixelStage, StageShape
from .tiled import ClampBounds
from .workers import run_parallel

_SAMPLES = 16384  # per tile: oneDNN's calls cost some 15 microseconds each
_TILE_WIDTH = 512
_WORKER_BYTES = 24 << 20  # of a worker with such a tile, estimated; two workers and the lines take 91 MiB in all
_BUFFER_BYTES = 96 << 20


class OneDnnBackend(Backend):
    """See the module."""

    name = "onednn"

    def refuses(
        self, device: torch.device, dtype: torch.dtype, shape: StageShape = PUBLISHED, wait: bool = False
    ) -> str | None:
        return _unsupported(device, dtype)

    def prepare(self, stage: PixelStage, dtype: torch.dtype) -> OneDnnWeights:
        return OneDnnWeights(stage, dtype)

    def paint(
        self,
        columns: Tensor,
        rows: Tensor,
        weights: OneDnnWeights,
        out: Tensor,
        *,
        supersample: int,
        tile: tuple[int, int] | None,
        after_tile: Callable[[int], None],
    ) -> None:
        height, width = out.shape[-2:]
        workers = min(torch.get_num_threads(), _BUFFER_BYTES // _WORKER_BYTES)
        if tile is None:
            pixels = max(1, _SAMPLES // supersample**2)
            tile_width = min(width, _TILE_WIDTH, pixels)
            tile = (max(1, min(pixels // tile_width, -(-height // workers))), tile_width)
        tiles = list(split_tiles(height, width, tile))
        painter = _Painter(columns, rows, weights, out, supersample)
        run_parallel(painter.paint, tiles, min(workers, len(tiles)), after_tile)


def _unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why oneDNN's fused layer cannot be used there, or None."""
    if device.type != "cpu":
        return f"it is for the CPU, not for {device.type}"
    if dtype != torch.bfloat16:
        return f"it computes in bfloat16, not in {str(dtype).removeprefix('torch.')}"
    return fused_bfloat16_missing()


@functools.cache
def fused_bfloat16_missing() -> str | None:
    """What this machine or this torch lacks, or None; found by a trial call, since the operation is not public."""
    try:
        if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
            return "this CPU has neither AMX nor AVX-512 bfloat16 instructions"
        x, weight, bias = (torch.full(shape, -0.5, dtype=torch.bfloat16) for shape in ((2, 32), (32, 32), (32,)))
        found = _linear_pointwise(x, weight, bias, True)
    except Exception as error:  # other versions of torch may raise anything
        return f"this torch has no fused bfloat16 layer ({type(error).__name__}: {error})"
    wanted = F.leaky_relu(F.linear(x.float(), weight.float(), bias.float()), LEAKY_SLOPE)
    if not torch.allclose(found.float(), wanted, rtol=0.02):
        return "this torch's fused bfloat16 layer gives wrong numbers"
    return None


def fused_linear(x: Tensor, weight: Tensor, bias: Tensor, activate: bool = True) -> Tensor:
    """`leaky_relu(x @ weight^T + bias)`, [..., in] -> [..., out], on any device; no leaky ReLU if not `activate`."""
    if _unsupported(x.device, x.dtype) is None:
        return _linear_pointwise(x, weight, bias, activate)
    y = F.linear(x, weight, bias)
    return F.leaky_relu_(y, LEAKY_SLOPE) if activate else y


def _linear_pointwise(x: Tensor, weight: Tensor, bias: Tensor, activate: bool) -> Tensor:
    if activate:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "leaky_relu", [LEAKY_SLOPE], "")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class OneDnnWeights:
    """The stage of one latent: weights [out, in] and biases in bfloat16, activation gains folded in; clamp bounds."""

    def __init__(self, stage: PixelStage, dtype: torch.dtype):
        def fold(layer: Layer, gain: float = 1.0) -> tuple[Tensor, Tensor]:
            return (layer.weight * gain).to(dtype), (layer.bias * gain).to(dtype)

        self.decoders = [[fold(layer, ACTIVATION_GAIN) for layer in decoder] for decoder in stage.decoders]
        self.image = fold(stage.image)
        self.blocks = [
            ([fold(b.fc0, ACTIVATION_GAIN), fold(b.fc1, ACTIVATION_GAIN)], fold(b.to_image)) for b in stage.blocks
        ]
        self.bounds = ClampBounds(stage)


class _Painter:
    """Paints tiles; each thread keeps one set of block-diagonal matrices."""

    def __init__(self, columns: Tensor, rows: Tensor, stage: OneDnnWeights, out: Tensor, supersample: int):
        self.columns, self.rows = (columns * 0.5).bfloat16(), rows.bfloat16()
        self.stage, self.out, self.supersample = stage, out, supersample
        self.local = threading.local()

    def paint(self, tile: Tile) -> int:
        """Evaluate and store one tile; returns its number of pixels."""
        top, left, bottom, right = tile
        k = self.supersample
        matrices = self.block_diagonal(top * k, bottom * k)
        image = self.evaluate(matrices, self.rows[:, :, left * k : right * k], (bottom - top) * k)
        store_image(mean_of_samples(image, k), self.out[:, top:bottom, left:right])
        return tile.pixels

    def block_diagonal(self, top: int, bottom: int) -> list[Tensor]:
        """Per level [B * rank, height * B]: its product with a row's code is the features of that column of pixels.

        The zeros are written once per thread and height; neighbouring tiles of a row share the matrices.
        """
        levels, channels, _, rank = self.columns.shape
        height, local = bottom - top, self.local
        if getattr(local, "height", None) != height:
            shape = (channels, rank, height, channels)
            local.matrices = [torch.zeros(shape, dtype=torch.bfloat16) for _ in range(levels)]
            local.height, local.top = height, None
        if local.top != top:
            for matrix, columns in zip(local.matrices, self.columns[:, :, top:bottom], strict=True):
                matrix.diagonal(dim1=0, dim2=3).copy_(rearrange(columns, "b h rank -> rank h b"))
            local.top = top
        return [matrix.view(channels * rank, height * channels) for matrix in local.matrices]

    def evaluate(self, matrices: list[Tensor], rows: Tensor, height: int) -> Tensor:
        """[L, B, w, rank] -> [C, h, w] float32; pixels are ordered (x, y) in between."""
        codes = rearrange(rows, "level b w rank -> level w (b rank)")
        plane = codes[0] @ matrices[0]
        feature = plane.view(-1, rows.shape[1])
        for level, decoder in enumerate(self.stage.decoders):
            if level > 0:
                plane = feature.view(plane.shape)
                torch.addmm(plane, codes[level], matrices[level], out=plane)
            for weight, bias in decoder:
                feature = fused_linear(feature, weight, bias)
        image = _linear(feature, self.stage.image)
        clamps = self.stage.bounds.needed(feature.T)
        x = feature
        for layers, to_image in self.stage.blocks:
            for weight, bias in layers:
                x = fused_linear(x, weight, bias)
                if next(clamps):
                    x.clamp_(-CLAMP, CLAMP)
            image += _linear(x, to_image).clamp_(-CLAMP, CLAMP)
        return rearrange(image, "(w h) c -> c h w", h=height)


def _linear(x: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
    return fused_linear(x, *layer, activate=False).float()
