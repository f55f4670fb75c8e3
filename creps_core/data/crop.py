"""Cropping: the square that is stored of each image, and windows of that square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import rearrange
from PIL import Image

from ...common.errors import require
from .colour import MODES, convert_channels
from .sources import UnusableFile

MIN_SIDE = 8
"""Pixels of the shorter side: smaller images are icons and counters, useless for training."""
CROPS = ("center", "resize")
MAX_ASPECT = 8
"""Largest ratio of the longer side to the shorter one."""
_BAND = 2048  # rows
LANCZOS_SUPPORT = 3  # pixels of the result on either side

CropWindow = tuple[float, float, float, float]
"""left, top, right, bottom as fractions of the square image"""
WHOLE_IMAGE: CropWindow = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class CropSpec:
    """How images become squares.

    Args:
        resolution: smallest side of the squares, at least MIN_SIDE.
        channels: 1 (grey), 3 or 4 (with alpha).
        crop: `center` takes the largest centred part of the aspect, `resize` the whole image.
        max_side: largest stored side of larger images; None: `resolution`.
        aspect: width and height of that part. It is stretched to a square whose side is the longer one.

    Raises:
        ValueError: a value is outside its range.
    """

    resolution: int
    channels: int = 3
    crop: str = "center"
    max_side: int | None = None
    aspect: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if min(self.aspect) < 1 or max(self.aspect) > MAX_ASPECT * min(self.aspect):
            raise ValueError(f"aspect must be width:height of at most {MAX_ASPECT}:1, not {self.aspect}")
        if self.resolution < MIN_SIDE:
            raise ValueError(f"resolution must be {MIN_SIDE} or more, not {self.resolution}")
        if self.channels not in MODES:
            raise ValueError(f"channels must be one of {list(MODES)}, not {self.channels}")
        if self.crop not in CROPS:
            raise ValueError(f"crop must be one of {list(CROPS)}, not {self.crop!r}")
        if self.max_side is not None and self.max_side < self.resolution:
            raise ValueError(
                f"max_side must be the resolution, {self.resolution}, or more, not {self.max_side}; "
                "leave it out to store pictures at the resolution"
            )

    def cropped_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the largest part of the aspect."""
        across, down = self.aspect
        if width * down > height * across:
            return max(1, round(height * across / down)), height
        return width, max(1, round(width * down / across))

    def extent(self, width: int, height: int) -> int:
        """Pixels along the longer side of that part: the resolution that an image really has."""
        return max(self.cropped_size(width, height))

    def stored_side(self, extent: int) -> int:
        """The side of the stored square of an image with this extent."""
        return max(self.resolution, min(extent, self.max_side or self.resolution))

    def output_memory(self, width: int, height: int) -> int:
        """Bytes that resizing an image of this size and storing the square take."""
        across, down = self.cropped_size(width, height) if self.crop == "center" else (width, height)
        side = self.stored_side(self.extent(width, height))
        if across == down == side:
            return self.channels * side * side
        pixel = 1 if self.channels == 1 else 4  # of Pillow
        return side * (down * pixel + side * (pixel + self.channels))


def crop_to_square(
    image: Image.Image, spec: CropSpec, notes: list[str], original_size: tuple[int, int] | None = None
) -> np.ndarray:
    """Crop a loaded image, stretch the crop to a square and convert it to the wanted channels.

    Args:
        image: of any mode with 8 bits.
        spec: how to crop.
        notes: what was done to the image is appended.
        original_size: width and height before `image` was reduced by the decoder; None: it was not.

    Returns:
        uint8 [channels, side, side].

    Raises:
        UnusableFile: the image is too small.
    """
    size = original_size or image.size
    if min(size) < MIN_SIDE:
        raise UnusableFile(f"{size[0]} x {size[1]} pixels; the shorter side must have at least {MIN_SIDE}")
    extent = spec.extent(*size)
    if extent < spec.resolution:
        notes.append(f"smaller than {spec.resolution} pixels, enlarged")
    if spec.crop == "center":
        width, height = spec.cropped_size(*image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        if image.size != (width, height):
            image = image.crop((left, top, left + width, top + height))
    image = convert_channels(image, spec.channels, notes)
    side = spec.stored_side(extent)
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    stored = np.empty((spec.channels, *reversed(image.size)), np.uint8)
    for top in range(0, image.height, _BAND):  # in bands, to bound memory
        bottom = min(top + _BAND, image.height)
        rows = image.crop((0, top, image.width, bottom)) if image.height > _BAND else image
        stored[:, top:bottom] = _channels_first(np.asarray(rows))
    return stored


def check_window(window: CropWindow) -> CropWindow:
    """The window as floats. Raises ValueError: it is empty or reaches beyond the image."""
    left, top, right, bottom = (float(edge) for edge in window)
    require(
        0 <= left < right <= 1 and 0 <= top < bottom <= 1,
        f"a window must be left, top, right, bottom from 0 to 1, left < right and top < bottom, not {tuple(window)}",
    )
    return left, top, right, bottom


def cut_window(stored: np.ndarray, window: CropWindow, resolution: int) -> np.ndarray:
    """A window of a stored image, resampled to the resolution.

    Args:
        stored: uint8 [channels, side, side].
        window: left, top, right, bottom as fractions of the side.
        resolution: side of the result in pixels.

    Returns:
        uint8 [channels, resolution, resolution], possibly a view.
    """
    side = stored.shape[1]
    left, top, right, bottom = (edge * side for edge in window)
    if right - left == bottom - top == resolution and left.is_integer() and top.is_integer():
        return stored[:, int(top) : int(bottom), int(left) : int(right)]
    # Copy only the pixels within the filter's support.
    x0, x1 = filter_support(left, right, resolution, side)
    y0, y1 = filter_support(top, bottom, resolution, side)
    region = np.ascontiguousarray(rearrange(stored[:, y0:y1, x0:x1], "c h w -> h w c"))
    image = Image.fromarray(region if len(stored) > 1 else region[..., 0])
    inside = (left - x0, top - y0, min(right - x0, x1 - x0), min(bottom - y0, y1 - y0))
    pixels = np.asarray(image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=inside))
    return _channels_first(pixels)


def filter_support(start: float, end: float, resolution: int, side: int) -> tuple[int, int]:
    """The range of pixels, of `side`, that the Lanczos filter reads for a window from `start` to `end`: half-open."""
    margin = LANCZOS_SUPPORT * max(1.0, (end - start) / resolution) + 1
    return max(0, int(start - margin)), min(side, int(end + margin) + 1)


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    """[h, w, channels], or [h, w] of a grey image -> [channels, h, w], a view."""
    return rearrange(pixels, "h w c -> c h w" if pixels.ndim == 3 else "h w -> 1 h w")
