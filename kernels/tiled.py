"""The per-pixel stage in torch, a tile at a time: every device, no compiler, constant memory.

Features are channel-major, [1 + channels, pixels], with a first row of ones: a layer is one matrix product with the
bias as the weight's first column, written into a buffer that stays in cache, and a leaky ReLU in place. The gain
sqrt(2) of the activation is folded into the weights, since leaky ReLU commutes with a positive factor. On the CPU each
core works on a tile of its own with one thread, which beats several threads on one matrix product.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import Backend
from .image import Tile, mean_of_samples, split_tiles, store_image
from .reference import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE
from .stage import PUBLISHED, Layer, PixelStage, StageShape
from .workers import run_parallel

BUFFER_BYTES, DEVICE_BUFFER_BYTES = 48 << 20, 160 << 20
"""Most memory of the buffers of all workers together, on a CPU and on a GPU."""
_SAMPLES = 4096  # per tile: smaller ones lose time to call overhead, larger ones fall out of the cache
_MIN_SAMPLES = 2048
_DEVICE_SAMPLES = 262144  # on a GPU, where larger products are faster
_TILE_WIDTH = 512


class TiledBackend(Backend):
    """See the module."""

    name = "tiled"

    def refuses(
        self, device: torch.device, dtype: torch.dtype, shape: StageShape = PUBLISHED, wait: bool = False
    ) -> str | None:
        return None

    def prepare(self, stage: PixelStage, dtype: torch.dtype) -> TiledWeights:
        return TiledWeights(stage, dtype)

    def paint(
        self,
        columns: Tensor,
        rows: Tensor,
        weights: TiledWeights,
        out: Tensor,
        *,
        supersample: int,
        tile: tuple[int, int] | None,
        after_tile: Callable[[int], None],
    ) -> None:
        height, width = out.shape[-2:]
        workers = torch.get_num_threads() if columns.device.type == "cpu" else 1
        if tile is None:
            workers, tile = plan_tiles(height, width, weights, supersample, columns.device, workers)
        tiles = list(split_tiles(height, width, tile))
        samples = min(tile[0], height) * min(tile[1], width) * supersample**2
        dtype = weights.image.dtype
        painter = _Painter((columns * 0.5).to(dtype), rows.to(dtype).mT, weights, out, supersample, samples)
        run_parallel(painter.paint, tiles, min(workers, len(tiles)), after_tile)


def plan_tiles(
    height: int,
    width: int,
    weights: TiledWeights,
    supersample: int,
    device: torch.device,
    workers: int,
) -> tuple[int, tuple[int, int]]:
    """Number of workers, and (height, width) of a tile in pixels, that suit the machine and fit `BUFFER_BYTES`."""
    cpu = device.type == "cpu"
    room = (BUFFER_BYTES if cpu else DEVICE_BUFFER_BYTES) // weights.bytes_per_sample
    if cpu:
        workers = max(1, min(workers, room // _MIN_SAMPLES))
        samples = max(min(_SAMPLES, room // workers), 1)
    else:
        samples = max(min(_DEVICE_SAMPLES, room), 1)
    pixels = max(1, samples // supersample**2)
    tile_width = min(width, _TILE_WIDTH if cpu else width, pixels)
    tile_height = min(height, max(1, pixels // tile_width))
    # Small images: a tile for each worker.
    tile_height = min(tile_height, max(1, -(-height // workers)))
    return workers, (tile_height, tile_width)


class TiledWeights:
    """The stage of one latent: weights [out, 1 + in], bias first, activation gains folded in; clamp bounds."""

    def __init__(self, stage: PixelStage, dtype: torch.dtype):
        def fold(layer: Layer, gain: float = 1.0) -> Tensor:
            return (torch.cat([layer.bias[:, None], layer.weight], 1) * gain).to(dtype)

        self.decoders = [[fold(layer, ACTIVATION_GAIN) for layer in decoder] for decoder in stage.decoders]
        self.image = fold(stage.image)
        self.blocks = [
            (fold(b.fc0, ACTIVATION_GAIN), fold(b.fc1, ACTIVATION_GAIN), fold(b.to_image)) for b in stage.blocks
        ]
        self.bounds = ClampBounds(stage)
        self.widest = 4 * stage.channels
        # The feature, two scratch buffers, their rows of ones, and the image twice.
        features = stage.channels + 2 * self.widest + 3 + 2 * stage.image_channels
        self.bytes_per_sample = features * dtype.itemsize


class _BoundLayer(NamedTuple):
    """A layer of a tile, bound to the memory that it reads and writes."""

    weight: Tensor
    x: Tensor
    y: Tensor

    def __call__(self) -> Tensor:
        torch.mm(self.weight, self.x, out=self.y)
        return F.leaky_relu_(self.y, LEAKY_SLOPE)


class _Program:
    """The layers of a tile of `samples` samples, bound to the scratch memory of one worker.

    Built once per tile size: the workers share Python's lock, and a tile takes a hundred calls.
    """

    def __init__(self, stage: TiledWeights, samples: int, memory: Sequence[Tensor]):
        buffers = [flat[: flat.numel() // samples * samples].view(-1, samples) for flat in memory]
        for buffer in buffers:
            buffer[0] = 1
        home, *scratch = buffers
        self.feature = home[: stage.image.shape[1]]

        def chain(x: Tensor, weights: Sequence[Tensor], last: Tensor | None = None) -> Iterator[_BoundLayer]:
            """Layers that write to the two scratch buffers in turn; the last one writes to `last` if it is given."""
            for i, weight in enumerate(weights, start=1):
                scratch.reverse()
                y = scratch[0] if last is None or i < len(weights) else last
                yield _BoundLayer(weight, x, y[1 : len(weight) + 1])
                x = y[: len(weight) + 1]

        self.decoders = [list(chain(self.feature, decoder, home)) for decoder in stage.decoders]
        self.blocks: list[tuple[list[_BoundLayer], Tensor, Tensor]] = []
        x = self.feature
        for *weights, to_image in stage.blocks:
            layers = list(chain(x, weights))
            x = scratch[0][: len(weights[-1]) + 1]
            self.blocks.append((layers, to_image, x))


class _Painter:
    """Paints tiles; each thread keeps scratch memory and the program of its last tile size."""

    def __init__(self, columns: Tensor, rows: Tensor, stage: TiledWeights, out: Tensor, supersample: int, samples: int):
        self.columns, self.rows, self.stage, self.out = columns, rows, stage, out
        self.supersample, self.samples = supersample, samples
        self.local = threading.local()

    def paint(self, tile: Tile) -> int:
        """Evaluate and store one tile; returns its number of pixels."""
        top, left, bottom, right = tile
        k = self.supersample
        image = self.evaluate(self.columns[:, :, top * k : bottom * k], self.rows[..., left * k : right * k])
        store_image(mean_of_samples(image, k), self.out[:, top:bottom, left:right])
        return tile.pixels

    def program(self, samples: int) -> _Program:
        """This thread's program for tiles of `samples` samples."""
        local = self.local
        if not hasattr(local, "memory"):
            image, widest = self.stage.image, self.stage.widest + 1
            local.memory = [image.new_empty(rows * self.samples) for rows in (image.shape[1], widest, widest)]
        if getattr(local, "size", None) != samples:
            local.size, local.program = samples, _Program(self.stage, samples, local.memory)
        return local.program

    def evaluate(self, columns: Tensor, rows: Tensor) -> Tensor:
        """[L, B, h, rank] and [L, B, rank, w] -> [C, h, w] float32."""
        height, width = columns.shape[2], rows.shape[3]
        program = self.program(height * width)
        codes = program.feature[1:]
        plane = codes.view(-1, height, width)
        torch.bmm(columns[0], rows[0], out=plane)
        for level, decoder in enumerate(program.decoders):
            if level > 0:
                torch.baddbmm(plane, columns[level], rows[level], out=plane)
            for layer in decoder:
                layer()
        image = (self.stage.image @ program.feature).float()
        clamps = self.stage.bounds.needed(codes)
        for layers, to_image, x in program.blocks:
            for layer in layers:
                y = layer()
                if next(clamps):
                    y.clamp_(-CLAMP, CLAMP)
            image += (to_image @ x).float().clamp_(-CLAMP, CLAMP)
        return image.view(-1, height, width)


class ClampBounds:
    """Proves for a tile which clamps of the pixel blocks are idle: each is a pass through memory.

    A leaky ReLU does not lengthen a vector. So for features of length r the outputs of a layer are at most
    `max row length * r + max |bias|`, and their length is at most `spectral norm * r + |bias|`.
    """

    _SLACK = 1.02  # for the rounding of half precision

    def __init__(self, stage: PixelStage):
        self.layers = []
        for block in stage.blocks:
            for weight, bias in (block.fc0, block.fc1):
                largest = ACTIVATION_GAIN * weight.norm(dim=1).max(), ACTIVATION_GAIN * bias.abs().max()
                finite = bool(weight.isfinite().all())  # the decomposition raises otherwise; clamps are kept then
                spectral = torch.linalg.matrix_norm(weight, 2) if finite else torch.tensor(math.inf)
                length = ACTIVATION_GAIN * spectral, ACTIVATION_GAIN * bias.norm()
                self.layers.append([float(v) for v in (*largest, *length)])

    def needed(self, feature: Tensor) -> Iterator[bool]:
        """Features [B, pixels] -> for each layer of the blocks in turn, whether its clamp may have an effect."""
        if feature.device.type != "cpu":  # reading a value would wait for the device; clamping costs it less
            yield from [True] * len(self.layers)
            return
        length = math.sqrt(feature.float().square().sum(0).max().item())  # several times faster than torch's norm
        for row, offset, spectral, bias in self.layers:
            clamps = not self._SLACK * (row * length + offset) < CLAMP  # True for NaN
            yield clamps
            length = self._SLACK * (spectral * length + bias)
