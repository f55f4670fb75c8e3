"""Windows of pictures, cut and resized on the device that trains, with the same bits as `ImageDataset.pictures`.

Pillow resizes with weights of 22 bits after the point, first along the rows, then along the columns, and rounds to 8
bits after either. Here the weights are parts of 8 bits, so that products and sums are whole numbers below 2^24: those
are exact in float32 and in TF32, in any order, on any device. So it makes no difference to a run which way its pictures
were cut.
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
from .dataset import WHOLE, Box, ImageDataset, checked
from .decode import LANCZOS, reach

PART_BYTES = 256 << 20
"""What the work on some windows may take; more are worked on one after the other, those of a size together."""
LARGEST_STEP = 80
"""Pixels of a picture for one of a window: beyond that sums could reach 2^24."""
_BITS = 22  # after the point, of Pillow's weights
_STRIDE = 64  # windows of about a size take the same memory


def cuts_on(pictures: ImageDataset, device: torch.device) -> bool:
    """Whether `Windows` is the way for these: on a CPU Pillow is faster, and other devices lack float64 or trial."""
    return device.type == "cuda" and pictures.largest_side <= LARGEST_STEP * pictures.resolution


class _Axis(NamedTuple):
    """A window along one axis of its picture, as it is shown: what Pillow would be given of it and cut."""

    low: int  # pixels from here
    high: int  # up to here, without it
    first: float  # of those pixels, where the window begins
    last: float  # and ends
    mirrored: bool  # the picture is stored the other way round


class _Wanted(NamedTuple):
    row: int  # of the picture
    side: int  # at which it is stored
    axes: tuple[_Axis, _Axis]  # along the width, along the height


@dataclass(frozen=True)
class _Piece:
    """Where a window is read: rows and columns from `top` and `left` of a stored picture."""

    row: int
    top: int
    left: int


@dataclass(frozen=True)
class _Part:
    """Windows that are worked on together."""

    side: int  # of what is read of each picture
    pieces: list[_Piece]
    pixels: Tensor | None  # uint8 [n, channels, side, side]; None: read from the device
    places: Tensor  # float64 [2 n, 5], of the columns, then of the rows; see `_weights`


@dataclass(frozen=True)
class Cut:
    """What `Windows.prepare` makes for `Windows.finish`."""

    parts: list[_Part]
    order: Tensor | None  # which of the windows, one part after the other, each one is; None: as they are


class Windows:
    """Cuts windows of pictures on a device.

    The pictures lie on the device if all of them are in memory and take no more than `room` bytes there; else what is
    needed of them is copied for each batch.

    Args:
        pictures: to cut from.
        device: where windows are wanted.
        room: bytes that pictures may take there.
    """

    def __init__(self, pictures: ImageDataset, device: torch.device, room: int):
        self.pictures, self.device = pictures, device
        self.resident = pictures.in_memory and pictures.stored_bytes <= room
        if self.resident:
            self._store, self._starts = _laid_out(pictures, device)

    def prepare(self, indices: Sequence[int], boxes: Sequence[Box] | None) -> Cut:
        """The host's part, for threads. Arguments and errors as `ImageDataset.pictures`, but boxes are square."""
        boxes = [WHOLE] * len(indices) if boxes is None else [checked(box) for box in boxes]
        for left, top, right, bottom in boxes:  # of others Pillow may resize the columns first
            require(
                abs((right - left) - (bottom - top)) < 1e-6, f"a box must be square, not {left, top, right, bottom}"
            )
        wanted = [self._wanted(index, box) for index, box in zip(indices, boxes, strict=True)]
        sides = [_up(max(axis.high - axis.low for axis in window.axes)) for window in wanted]
        order = list(range(len(wanted)))
        if len(wanted) > self._at_a_time(max(sides)):
            order.sort(key=sides.__getitem__, reverse=True)  # the larger, the fewer at a time
        parts, done = [], 0
        while done < len(order):
            chosen = order[done : done + self._at_a_time(max(sides[i] for i in order[done:]))]
            parts.append(self._part(max(sides[i] for i in chosen), [wanted[i] for i in chosen]))
            done += len(chosen)
        return Cut(parts, self._pinned(torch.tensor(order).argsort()) if len(parts) > 1 else None)

    def finish(self, cut: Cut) -> Tensor:
        """The windows, uint8 [N, channels, resolution, resolution] on the device, without waiting for it."""
        found = []
        for part in cut.parts:
            pixels = part.pixels
            if pixels is None:
                pixels = torch.stack([self._view(piece, part.side) for piece in part.pieces])
            pixels, places = (x.to(self.device, non_blocking=True) for x in (pixels, part.places))
            found.append(resize(pixels, places, self.pictures.resolution))
        windows = found[0] if len(found) == 1 else torch.cat(found)
        return windows if cut.order is None else windows[cut.order.to(self.device, non_blocking=True)]

    def _wanted(self, index: int, box: Box) -> _Wanted:
        row, flipped, side = self.pictures.place(index)
        axes = []
        for start, end, mirrored in ((box[0], box[2], flipped), (box[1], box[3], False)):
            low, high = reach(start * side, end * side, self.pictures.resolution, side)
            axes.append(_Axis(low, high, start * side - low, min(end * side, high) - low, mirrored))
        return _Wanted(row, side, (axes[0], axes[1]))

    def _part(self, side: int, wanted: list[_Wanted]) -> _Part:
        """The part of some windows, of whose pictures `side` columns and rows are read."""
        pieces, places = [], np.empty((2, len(wanted), 5))
        for n, window in enumerate(wanted):
            corner = []
            for axis, place in enumerate(window.axes):
                begin = window.side - place.high if place.mirrored else place.low
                begin = max(0, min(begin, window.side - side))
                corner.append(begin)
                zero, step = begin - place.low, 1
                if place.mirrored:
                    zero, step = window.side - 1 - begin - place.low, -1
                first, last = np.float32(place.first), np.float32(place.last)  # as Pillow is given them
                places[axis, n] = zero, step, first, last - first, place.high - place.low
            pieces.append(_Piece(window.row, corner[1], corner[0]))
        pixels = None if self.resident else self._copied(side, pieces)
        return _Part(side, pieces, pixels, self._pinned(torch.from_numpy(places.reshape(-1, 5))))

    def _copied(self, side: int, pieces: list[_Piece]) -> Tensor:
        pixels = np.zeros((len(pieces), self.pictures.channels, side, side), np.uint8)
        for out, piece in zip(pixels, pieces, strict=True):
            part = self.pictures.stored(piece.row)[:, piece.top : piece.top + side, piece.left : piece.left + side]
            out[:, : part.shape[1], : part.shape[2]] = part
        return self._pinned(torch.from_numpy(pixels))

    def _view(self, piece: _Piece, side: int) -> Tensor:
        """Of a picture on the device; columns and rows beyond its edge are others' pixels, whose weights are zero."""
        start, stored = self._starts[piece.row]
        shape, strides = (self.pictures.channels, side, side), (stored * stored, stored, 1)
        return self._store.as_strided(shape, strides, start + piece.top * stored + piece.left)

    def _at_a_time(self, side: int) -> int:
        channels, resolution = self.pictures.channels, self.pictures.resolution
        return max(1, PART_BYTES // (channels * side * (5 * side + 40 * resolution)))

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def _laid_out(pictures: ImageDataset, device: torch.device) -> tuple[Tensor, list[tuple[int, int]]]:
    """All stored pictures on a device, uint8 [bytes], and where each one begins there with its side."""
    sides = [pictures.stored(row).shape[1] for row in range(len(pictures.names))]
    starts = np.cumsum([0, *(pictures.channels * side**2 for side in sides)]).tolist()
    beyond = _up(max(sides)) * (max(sides) + 1)  # views may reach beyond the last one
    store = torch.zeros(starts[-1] + beyond, dtype=torch.uint8, device=device)
    for row in range(len(sides)):
        stored = torch.from_numpy(np.ascontiguousarray(pictures.stored(row)))
        store[starts[row] : starts[row + 1]] = stored.flatten().to(device)
    return store, list(zip(starts[:-1], sides, strict=True))


def _up(side: int) -> int:
    return -(-side // _STRIDE) * _STRIDE


def resize(pixels: Tensor, places: Tensor, resolution: int) -> Tensor:
    """What Pillow's `resize` with LANCZOS makes of parts of pictures.

    Args:
        pixels: uint8 [N, channels, height, width] with the parts inside.
        places: float64 [2 N, 5] along the width, then along the height, as of `_weights`.
        resolution: side of the result.

    Returns:
        uint8 [N, channels, resolution, resolution].
    """
    height, width = pixels.shape[-2:]
    assert height == width
    across, down = _weights(places, resolution, width).chunk(2)
    channels = pixels.shape[1]
    alpha = channels == 4
    rows = rearrange(_premultiplied(pixels) if alpha else pixels, "n c h w -> n (c h) w").float()
    rows = _combined(torch.bmm(rows, across.mT), 2)  # [N, (c h), resolution]
    columns = rearrange(rows, "n (c h) x -> n h (c x)", c=channels).float()
    windows = _combined(torch.bmm(down, columns), 1)  # [N, resolution, (c x)]
    windows = rearrange(windows, "n y (c x) -> n c y x", c=channels)
    return (_divided(windows) if alpha else windows).to(torch.uint8).contiguous()


def _weights(places: Tensor, resolution: int, count: int) -> Tensor:
    """Pillow's weights of pixels for windows.

    Args:
        places: float64 [N, 5]: the number, in the part of the picture that Pillow is given, of the first pixel that is
            read, and of the second less that, 1 or -1; where the window begins in that part, and its length; the
            length of the part.
        resolution: pixels of the windows.
        count: pixels that are read.

    Returns:
        float32 [N, 3 * resolution, count], whole numbers from -128 to 127: those of 2^16, then of 2^8, then of 1.
    """
    zero, step, start, length, size = places[:, :, None, None].unbind(1)  # each [N, 1, 1]
    numbers = torch.arange(max(count, resolution), dtype=torch.float64, device=places.device)
    scale = length / resolution
    stretch = scale.clamp(min=1)
    centre = start + (numbers[:resolution, None] + 0.5) * scale  # [N, resolution, 1]
    low = (centre - LANCZOS * stretch + 0.5).trunc().clamp(min=0)
    high = (centre + LANCZOS * stretch + 0.5).trunc().minimum(size)
    pixel = zero + step * numbers[:count]  # [N, 1, count]
    x = (pixel - centre + 0.5) * stretch.reciprocal()
    inside = (pixel >= low) & (pixel < high) & (x >= -LANCZOS) & (x < LANCZOS)
    weights = torch.sinc(x) * torch.sinc(x / LANCZOS) * inside
    weights = weights * (2.0**_BITS / weights.sum(-1, keepdim=True))
    whole = (weights + torch.copysign(weights.new_full((), 0.5), weights)).trunc()
    upper = ((whole + 128) * 2.0**-8).floor()
    top = ((upper + 128) * 2.0**-8).floor()
    return torch.cat((top, upper - 256 * top, whole - 256 * upper), 1).float()


def _combined(sums: Tensor, axis: int) -> Tensor:
    """Sums for the three parts of the weights, one after the other along an axis -> 0..255, int32."""
    top, upper, lower = sums.to(torch.int32).chunk(3, axis)
    return ((((top << 8) + upper) << 8) + (lower + (1 << (_BITS - 1)))).bitwise_right_shift_(_BITS).clamp_(0, 255)


def _premultiplied(pixels: Tensor) -> Tensor:
    """Colours times alpha, as Pillow's `RGBa` has them; of uint8 or others, int32."""
    pixels = pixels.to(torch.int32)
    product = pixels[:, :3] * pixels[:, 3:] + 128
    return torch.cat((((product >> 8) + product) >> 8, pixels[:, 3:]), 1)


def _divided(pixels: Tensor) -> Tensor:
    """Inverse of `_premultiplied`."""
    colours, alpha = pixels[:, :3], pixels[:, 3:]
    found = torch.div(255 * colours, alpha.clamp(min=1), rounding_mode="floor").clamp(max=255)
    return torch.cat((torch.where((alpha == 0) | (alpha == 255), colours, found), alpha), 1)
