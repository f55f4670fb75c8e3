"""The per-pixel stage in torch, a tile at a time: every device, no compiler, flat memory.

Features are channel-major, [channels + 1, pixels] with a last row of ones, so that a layer is one matrix product
with the bias as the weight's last column, written into a buffer that stays in cache, and a leaky ReLU in place.
The gain sqrt(2) of the activation is inside the weights: leaky ReLU commutes with a positive factor. On the CPU
each core works on its own tile with one thread, which beats several threads on one matrix product.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE
from .stage import Layer, PixelStage
from .workers import run_parallel

BUFFER_BYTES = 48 << 20
"""What the buffers of all workers may take together."""
_SAMPLES = 4096  # per tile: smaller tiles lose time to call overhead, larger ones fall out of the cache
_FEWEST_SAMPLES = 2048
_DEVICE_SAMPLES = 32768  # on a GPU, where larger products pay
_TILE_WIDTH = 512


def refuses(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run there: it always can."""
    return None


class Tile(NamedTuple):
    """A box of pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)


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
    """See `kernels.entangle`."""
    height, width = out.shape[-2:]
    workers = torch.get_num_threads() if columns.device.type == "cpu" else 1
    if tile is None:
        workers, tile = plan(height, width, prepared, supersample, columns.device, workers)
    tiles = list(split(height, width, tile))
    samples = min(tile[0], height) * min(tile[1], width) * supersample**2
    dtype = prepared.image.dtype
    painter = _Painter((columns * 0.5).to(dtype), rows.to(dtype).mT, prepared, out, supersample, samples)
    run_parallel(painter.paint, tiles, min(workers, len(tiles)), after_tile)


def plan(
    height: int,
    width: int,
    prepared: Prepared,
    supersample: int,
    device: torch.device,
    workers: int,
) -> tuple[int, tuple[int, int]]:
    """Number of workers and tile (height, width) in pixels that suit the machine and fit `BUFFER_BYTES`."""
    room = BUFFER_BYTES // prepared.bytes_per_sample
    if device.type == "cpu":
        workers = max(1, min(workers, room // _FEWEST_SAMPLES))
        samples = max(min(_SAMPLES, room // workers), 1)
    else:
        samples = max(min(_DEVICE_SAMPLES, room), 1)
    pixels = max(1, samples // supersample**2)
    tile_width = min(width, _TILE_WIDTH, pixels)
    tile_height = min(height, max(1, pixels // tile_width))
    # Small pictures: a tile for each worker.
    tile_height = min(tile_height, max(1, -(-height // workers)))
    return workers, (tile_height, tile_width)


def split(height: int, width: int, tile: tuple[int, int]) -> Iterator[Tile]:
    """The tiles of a picture, row by row; those at the right and bottom edge may be smaller."""
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            yield Tile(top, left, min(top + tile[0], height), min(left + tile[1], width))


class Prepared:
    """Weights [out, in + 1], bias last, activation gains inside, and what is known of the clamps."""

    def __init__(self, stage: PixelStage, dtype: torch.dtype):
        def fold(layer: Layer, gain: float = 1.0) -> Tensor:
            return (torch.cat([layer.weight, layer.bias[:, None]], 1) * gain).to(dtype)

        self.decoders = [[fold(layer, ACTIVATION_GAIN) for layer in decoder] for decoder in stage.decoders]
        self.image = fold(stage.image)
        self.blocks = [
            (fold(b.fc0, ACTIVATION_GAIN), fold(b.fc1, ACTIVATION_GAIN), fold(b.to_image)) for b in stage.blocks
        ]
        self.bounds = Bounds(stage)
        self.widest = 4 * stage.channels
        # The feature, two scratch buffers, their rows of ones, and the picture twice.
        features = stage.channels + 2 * self.widest + 3 + 2 * stage.image_channels
        self.bytes_per_sample = features * dtype.itemsize


class _Buffers:
    """Scratch memory of one worker: the pixel feature, and two buffers that layers write in turn."""

    def __init__(self, prepared: Prepared, samples: int):
        image, widest = prepared.image, prepared.widest
        self.feature = image.new_empty(image.shape[1] * samples)
        self.scratch = [image.new_empty((widest + 1) * samples) for _ in range(2)]

    @staticmethod
    def view(buffer: Tensor, features: int, samples: int) -> Tensor:
        """The beginning of a buffer as [features + 1, samples] with its row of ones."""
        x = buffer[: (features + 1) * samples].view(features + 1, samples)
        x[-1] = 1
        return x


class _Painter:
    """Paints tiles; keeps one set of buffers per thread."""

    def __init__(self, columns: Tensor, rows: Tensor, prepared: Prepared, out: Tensor, supersample: int, samples: int):
        self.columns, self.rows, self.stage, self.out = columns, rows, prepared, out
        self.supersample, self.samples = supersample, samples
        self.local = threading.local()

    def paint(self, tile: Tile) -> int:
        """Evaluate one tile and store it; returns its number of pixels."""
        top, left, bottom, right = tile
        k = self.supersample
        image = self.evaluate(self.columns[:, :, top * k : bottom * k], self.rows[..., left * k : right * k])
        store(average(image, k), self.out[:, top:bottom, left:right])
        return tile.pixels

    def evaluate(self, columns: Tensor, rows: Tensor) -> Tensor:
        """[L, B, h, rank] and [L, B, rank, w] -> [C, h, w] float32."""
        if not hasattr(self.local, "buffers"):
            self.local.buffers = _Buffers(self.stage, self.samples)
        buffers: _Buffers = self.local.buffers
        height, width = columns.shape[2], rows.shape[3]
        feature = buffers.view(buffers.feature, columns.shape[1], height * width)
        plane = feature[:-1].view(-1, height, width)
        torch.bmm(columns[0], rows[0], out=plane)
        for level, decoder in enumerate(self.stage.decoders):
            if level > 0:
                torch.baddbmm(plane, columns[level], rows[level], out=plane)
            x = self.layers(feature, decoder[:-1], buffers)
            torch.mm(decoder[-1], x, out=feature[:-1])
            F.leaky_relu_(feature[:-1], LEAKY_SLOPE)
        image = (self.stage.image @ feature).float()
        x = feature
        clamps = self.stage.bounds.needed(feature[:-1].T)
        for *weights, to_image in self.stage.blocks:
            for weight in weights:
                x = self.layers(x, [weight], buffers)
                if next(clamps):
                    x[:-1].clamp_(-CLAMP, CLAMP)
            image += (to_image @ x).float().clamp_(-CLAMP, CLAMP)
        return image.view(-1, height, width)

    @staticmethod
    def layers(x: Tensor, weights: Sequence[Tensor], buffers: _Buffers) -> Tensor:
        """Run layers with their activation, writing the two scratch buffers in turn."""
        for weight in weights:
            buffers.scratch.reverse()
            y = buffers.view(buffers.scratch[0], weight.shape[0], x.shape[1])
            torch.mm(weight, x, out=y[:-1])
            F.leaky_relu_(y[:-1], LEAKY_SLOPE)
            x = y
        return x


def average(image: Tensor, k: int) -> Tensor:
    """Mean over k x k samples, [C, h * k, w * k] -> [C, h, w]."""
    return image if k == 1 else image.unflatten(1, (-1, k)).unflatten(3, (-1, k)).mean((2, 4))


class Bounds:
    """Proves for a tile which clamps of the pixel blocks have nothing to do, as each is a pass through memory.

    A leaky ReLU does not lengthen a vector, so with features of length r a layer's outputs are at most
    `max row length * r + max |bias|`, and their length at most `spectral norm * r + |bias|`.
    """

    _SLACK = 1.02  # for the rounding of half precision

    def __init__(self, stage: PixelStage):
        self.layers = []
        for block in stage.blocks:
            for weight, bias in (block.fc0, block.fc1):
                largest = ACTIVATION_GAIN * weight.norm(dim=1).max(), ACTIVATION_GAIN * bias.abs().max()
                length = ACTIVATION_GAIN * torch.linalg.matrix_norm(weight, 2), ACTIVATION_GAIN * bias.norm()
                self.layers.append([float(v) for v in (*largest, *length)])

    def needed(self, feature: Tensor) -> Iterator[bool]:
        """Features [pixels, B] -> for each layer of the blocks in turn, whether its clamp may do something."""
        length = torch.linalg.vector_norm(feature, dim=1, dtype=torch.float32).max().item()
        for row, offset, spectral, bias in self.layers:
            clamps = not self._SLACK * (row * length + offset) < CLAMP  # also if it is not a number
            yield clamps
            length = self._SLACK * (spectral * length + bias)


def store(image: Tensor, out: Tensor) -> None:
    """Write a picture [C, h, w] of about -1..1 into `out`; see `kernels.entangle` for its dtypes.

    Raises:
        OverflowError: the picture is not finite, which low precision can cause.
    """
    if not torch.isfinite(image).all():
        raise OverflowError("the picture has values that are not finite; render with precision float32")
    if out.dtype == torch.uint8:
        image = (image * 127.5 + 128).clamp_(0, 255)
    out.copy_(image)
