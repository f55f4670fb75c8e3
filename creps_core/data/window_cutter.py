"""Windows of images, cut and resized on the device that trains, bit for bit as by `ImageDataset.images`.

Pillow resizes with fixed-point weights of 22 fractional bits, first along the rows, then along the columns, and rounds
to 8 bits after each pass. Here each weight is split into three integers of 8 bits, so that all products and sums are
integers below 2^24: exact in float32 and in TF32, in any order, on any device. So a run does not depend on where its
windows were cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...common.errors import require
from .crop import LANCZOS_SUPPORT, WHOLE_IMAGE, CropWindow, check_window, filter_support
from .dataset import ImageDataset

CHUNK_BYTES = 256 << 20
"""Memory limit of the work on some windows. More windows are processed in several chunks, grouped by size."""
MAX_REDUCTION = 80
"""Pixels of an image per pixel of its window: beyond that, sums could reach 2^24."""
_BITS = 22  # fractional bits of Pillow's weights
_STRIDE = 64  # sizes are rounded up to multiples of this, so that windows of similar size share allocations


def can_cut_on(dataset: ImageDataset, device: torch.device) -> bool:
    """Whether to use `WindowCutter`: on a CPU Pillow is faster; other devices lack float64 or are untested."""
    return device.type == "cuda" and dataset.largest_side <= MAX_REDUCTION * dataset.resolution


class _Axis(NamedTuple):
    """A window along one axis of its image, in the orientation in which it is shown: the crop that Pillow would get."""

    low: int  # first pixel of the crop
    high: int  # one past its last pixel
    first: float  # start of the window, relative to the crop
    last: float  # end of the window, relative to the crop
    mirrored: bool  # the image is stored flipped along this axis


class _Window(NamedTuple):
    row: int  # of the stored image
    side: int  # of the stored image
    axes: tuple[_Axis, _Axis]  # along the width, along the height


class _Region(NamedTuple):
    """The square of a stored image that is read for a window: from `top` and `left`."""

    row: int
    top: int
    left: int


@dataclass(frozen=True)
class _Chunk:
    """Windows that are processed together."""

    side: int  # of the regions
    regions: list[_Region]
    pixels: Tensor | None  # uint8 [n, channels, side, side]; None: read from the device
    axes: Tensor  # float64 [2 n, 5], first along the width, then along the height; see `_weights`


@dataclass(frozen=True)
class CutPlan:
    """Host-side preparation of a batch of windows, from `WindowCutter.plan` for `WindowCutter.cut`."""

    chunks: list[_Chunk]
    order: Tensor | None  # position of each window in the concatenated chunks; None: in order


class WindowCutter:
    """Cuts windows of images on a device.

    The images are kept on the device if all of them are in memory and take at most `capacity` bytes there; otherwise
    the pixels that each batch needs are copied.

    Args:
        dataset: to cut from.
        device: where windows are wanted.
        capacity: bytes that images may take on the device.
    """

    dataset: ImageDataset
    device: torch.device

    def __init__(self, dataset: ImageDataset, device: torch.device, capacity: int):
        self.dataset, self.device = dataset, device
        self.resident: bool = dataset.in_memory and dataset.stored_bytes <= capacity
        if self.resident:
            self._store, self._layout = _upload(dataset, device)

    def plan(self, indices: Sequence[int], windows: Sequence[CropWindow] | None) -> CutPlan:
        """The host's part, for threads. Arguments and errors as for `ImageDataset.images`; windows must be square."""
        checked = [WHOLE_IMAGE] * len(indices) if windows is None else [check_window(window) for window in windows]
        for left, top, right, bottom in checked:  # for others Pillow may resize the columns first
            require(
                abs((right - left) - (bottom - top)) < 1e-6, f"a window must be square, not {left, top, right, bottom}"
            )
        located = [self._locate(index, window) for index, window in zip(indices, checked, strict=True)]
        sides = [_round_up(max(axis.high - axis.low for axis in window.axes)) for window in located]
        order = list(range(len(located)))
        if len(located) > self._chunk_length(max(sides)):
            order.sort(key=sides.__getitem__, reverse=True)  # chunks of large windows hold fewer of them
        chunks, done = [], 0
        while done < len(order):
            chosen = order[done : done + self._chunk_length(max(sides[i] for i in order[done:]))]
            chunks.append(self._chunk(max(sides[i] for i in chosen), [located[i] for i in chosen]))
            done += len(chosen)
        return CutPlan(chunks, self._pin(torch.tensor(order).argsort()) if len(chunks) > 1 else None)

    def cut(self, plan: CutPlan) -> Tensor:
        """The windows, uint8 [N, channels, resolution, resolution] on the device, without synchronizing with it."""
        found = []
        for chunk in plan.chunks:
            pixels = chunk.pixels
            if pixels is None:
                pixels = torch.stack([self._view(region, chunk.side) for region in chunk.regions])
            pixels, axes = (x.to(self.device, non_blocking=True) for x in (pixels, chunk.axes))
            found.append(resize_lanczos(pixels, axes, self.dataset.resolution))
        windows = found[0] if len(found) == 1 else torch.cat(found)
        return windows if plan.order is None else windows[plan.order.to(self.device, non_blocking=True)]

    def _locate(self, index: int, window: CropWindow) -> _Window:
        row, flipped, side = self.dataset.locate(index)
        axes = []
        for start, end, mirrored in ((window[0], window[2], flipped), (window[1], window[3], False)):
            low, high = filter_support(start * side, end * side, self.dataset.resolution, side)
            axes.append(_Axis(low, high, start * side - low, min(end * side, high) - low, mirrored))
        return _Window(row, side, (axes[0], axes[1]))

    def _chunk(self, side: int, windows: list[_Window]) -> _Chunk:
        """A chunk that reads `side` columns and rows of each image."""
        regions, axes = [], np.empty((2, len(windows), 5))
        for n, window in enumerate(windows):
            corner = []
            for number, axis in enumerate(window.axes):
                begin = window.side - axis.high if axis.mirrored else axis.low
                begin = max(0, min(begin, window.side - side))
                corner.append(begin)
                zero, step = begin - axis.low, 1
                if axis.mirrored:
                    zero, step = window.side - 1 - begin - axis.low, -1
                first, last = np.float32(axis.first), np.float32(axis.last)  # Pillow's precision
                axes[number, n] = zero, step, first, last - first, axis.high - axis.low
            regions.append(_Region(window.row, corner[1], corner[0]))
        pixels = None if self.resident else self._copy(side, regions)
        return _Chunk(side, regions, pixels, self._pin(torch.from_numpy(axes.reshape(-1, 5))))

    def _copy(self, side: int, regions: list[_Region]) -> Tensor:
        pixels = np.zeros((len(regions), self.dataset.channels, side, side), np.uint8)
        for out, (row, top, left) in zip(pixels, regions, strict=True):
            region = self.dataset.stored(row)[:, top : top + side, left : left + side]
            out[:, : region.shape[1], : region.shape[2]] = region
        return self._pin(torch.from_numpy(pixels))

    def _view(self, region: _Region, side: int) -> Tensor:
        """A region of an image on the device. Beyond the image's edge it shows other pixels, whose weights are zero."""
        start, stored = self._layout[region.row]
        shape, strides = (self.dataset.channels, side, side), (stored * stored, stored, 1)
        return self._store.as_strided(shape, strides, start + region.top * stored + region.left)

    def _chunk_length(self, side: int) -> int:
        channels, resolution = self.dataset.channels, self.dataset.resolution
        return max(1, CHUNK_BYTES // (channels * side * (5 * side + 40 * resolution)))

    def _pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def _upload(dataset: ImageDataset, device: torch.device) -> tuple[Tensor, list[tuple[int, int]]]:
    """All stored images on a device, uint8 [bytes], with the offset and the side of each."""
    sides = [dataset.stored(row).shape[1] for row in range(len(dataset.names))]
    starts = np.cumsum([0, *(dataset.channels * side**2 for side in sides)]).tolist()
    padding = _round_up(max(sides)) * (max(sides) + 1)  # views may reach beyond the last image
    store = torch.zeros(starts[-1] + padding, dtype=torch.uint8, device=device)
    for row in range(len(sides)):
        stored = torch.from_numpy(np.ascontiguousarray(dataset.stored(row)))
        store[starts[row] : starts[row + 1]] = stored.flatten().to(device)
    return store, list(zip(starts[:-1], sides, strict=True))


def _round_up(side: int) -> int:
    return -(-side // _STRIDE) * _STRIDE


def resize_lanczos(pixels: Tensor, axes: Tensor, resolution: int) -> Tensor:
    """Windows of images as by Pillow's `resize` with LANCZOS.

    Args:
        pixels: uint8 [N, channels, side, side], regions that contain the windows.
        axes: float64 [2 N, 5], first along the width, then along the height; see `_weights`.
        resolution: side of the result in pixels.

    Returns:
        uint8 [N, channels, resolution, resolution].
    """
    height, width = pixels.shape[-2:]
    assert height == width
    across, down = _weights(axes, resolution, width).chunk(2)
    channels = pixels.shape[1]
    alpha = channels == 4
    rows = rearrange(_premultiply(pixels) if alpha else pixels, "n c h w -> n (c h) w").float()
    rows = _combine_digits(torch.bmm(rows, across.mT), 2)  # [N, (c h), resolution]
    columns = rearrange(rows, "n (c h) x -> n h (c x)", c=channels).float()
    windows = _combine_digits(torch.bmm(down, columns), 1)  # [N, resolution, (c x)]
    windows = rearrange(windows, "n y (c x) -> n c y x", c=channels)
    return (_unpremultiply(windows) if alpha else windows).to(torch.uint8).contiguous()


def _weights(axes: Tensor, resolution: int, count: int) -> Tensor:
    """Pillow's filter weights for windows along one axis.

    Args:
        axes: float64 [N, 5]. With positions in the crop that Pillow would get: position of the first pixel that is
            read; step to the second one, 1 or -1; start of the window; its length; length of the crop.
        resolution: pixels of a window.
        count: pixels that are read.

    Returns:
        float32 [N, 3 * resolution, count], integers from -128 to 127: the digits of 2^16, then of 2^8, then of 1.
    """
    zero, step, start, length, size = axes[:, :, None, None].unbind(1)  # each [N, 1, 1]
    numbers = torch.arange(max(count, resolution), dtype=torch.float64, device=axes.device)
    scale = length / resolution
    stretch = scale.clamp(min=1)
    centre = start + (numbers[:resolution, None] + 0.5) * scale  # [N, resolution, 1]
    low = (centre - LANCZOS_SUPPORT * stretch + 0.5).trunc().clamp(min=0)
    high = (centre + LANCZOS_SUPPORT * stretch + 0.5).trunc().minimum(size)
    pixel = zero + step * numbers[:count]  # [N, 1, count]
    x = (pixel - centre + 0.5) * stretch.reciprocal()
    inside = (pixel >= low) & (pixel < high) & (x >= -LANCZOS_SUPPORT) & (x < LANCZOS_SUPPORT)
    weights = torch.sinc(x) * torch.sinc(x / LANCZOS_SUPPORT) * inside
    weights = weights * (2.0**_BITS / weights.sum(-1, keepdim=True))
    whole = (weights + torch.copysign(weights.new_full((), 0.5), weights)).trunc()
    upper = ((whole + 128) * 2.0**-8).floor()
    top = ((upper + 128) * 2.0**-8).floor()
    return torch.cat((top, upper - 256 * top, whole - 256 * upper), 1).float()


def _combine_digits(sums: Tensor, axis: int) -> Tensor:
    """Sums over the three digits of the weights, concatenated along an axis -> 0..255, int32."""
    top, upper, lower = sums.to(torch.int32).chunk(3, axis)
    return ((((top << 8) + upper) << 8) + (lower + (1 << (_BITS - 1)))).bitwise_right_shift_(_BITS).clamp_(0, 255)


def _premultiply(pixels: Tensor) -> Tensor:
    """RGBA -> premultiplied RGBa with Pillow's rounding, int32."""
    pixels = pixels.to(torch.int32)
    product = pixels[:, :3] * pixels[:, 3:] + 128
    return torch.cat((((product >> 8) + product) >> 8, pixels[:, 3:]), 1)


def _unpremultiply(pixels: Tensor) -> Tensor:
    """Inverse of `_premultiply`."""
    colours, alpha = pixels[:, :3], pixels[:, 3:]
    found = torch.div(255 * colours, alpha.clamp(min=1), rounding_mode="floor").clamp(max=255)
    return torch.cat((torch.where((alpha == 0) | (alpha == 255), colours, found), alpha), 1)
