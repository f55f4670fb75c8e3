"""Pictures of any kind, from files nobody has looked at, as squares of 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from .budget import Budget
from .deep import eight_bits, load_deep, without_texts
from .kinds import HEAD, formats, what_else
from .sources import Unusable

MAX_PIXELS = 1 << 27
"""Of one picture; fewer where decoding takes more than `budget.DECODE_BYTES`: of transparent ones a third, say.
Pillow's limit, which belongs to the whole program and is left alone, is 178 956 970 unless that lowers it."""
MAX_PASSES = 100
"""Of a progressive JPEG: each goes over all pixels, and a few bytes make one."""
SMALLEST = 8
"""Pixels of the shorter side: smaller pictures are icons and counters, not pictures to learn from."""
CROPS = ("center", "resize")
MAX_ASPECT = 8
"""Of the longer side to the shorter one."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_budget, _file_budget = Budget(), Budget()  # pixels; bytes of files. Who has the one asks for the other, never back
_ANIMATIONS = {"GIF", "WEBP", "PNG", "AVIF"}
_ORIENTATION = 0x0112  # tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NO_CACHE = 0x40  # flag of LittleCMS: a transform remembers no pixel, so that threads can share it


EMPTY = "empty file"
LANCZOS = 3  # pixels, of the result, that this filter takes on either side
NOT_READ = "not a picture that can be read, or cut off"


class Unidentified(Unusable):
    """Not a picture at all, as far as can be seen."""


@dataclass(frozen=True)
class Frame:
    """How pictures are cut.

    Args:
        resolution: least side of the squares, at least SMALLEST.
        channels: 1 (grey), 3 or 4 (with alpha).
        crop: `center` cuts the largest part of the aspect out of the middle, `resize` takes the whole picture.
        max_side: largest side that is kept of larger pictures; None: `resolution`.
        aspect: width and height of the part; it is stretched to a square, whose side stands for the longer one.

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
        if self.resolution < SMALLEST:
            raise ValueError(f"resolution must be {SMALLEST} or more, not {self.resolution}")
        if self.channels not in MODES:
            raise ValueError(f"channels must be one of {list(MODES)}, not {self.channels}")
        if self.crop not in CROPS:
            raise ValueError(f"crop must be one of {list(CROPS)}, not {self.crop!r}")
        if self.max_side is not None and self.max_side < self.resolution:
            raise ValueError(
                f"max_side must be the resolution, {self.resolution}, or more, not {self.max_side}; "
                "leave it out to store pictures at the resolution"
            )

    def cut(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the largest part of the aspect."""
        across, down = self.aspect
        if width * down > height * across:
            return max(1, round(height * across / down)), height
        return width, max(1, round(width * down / across))

    def extent(self, width: int, height: int) -> int:
        """Pixels along the longer side of that part: what a picture has to give."""
        return max(self.cut(width, height))

    def side(self, extent: int) -> int:
        """The stored side of a picture of such an extent."""
        return max(self.resolution, min(extent, self.max_side or self.resolution))


def decode(read: Callable[[], bytes], size: int, frame: Frame) -> tuple[np.ndarray, list[str]]:
    """A picture from the bytes of its file, as a square.

    Args:
        read: gives the bytes.
        size: how many, about.
        frame: how to cut it.

    Returns:
        uint8 [channels, side, side], and what was done to it that the user may want to know.

    Raises:
        Unusable: what is wrong with it; Unidentified, if no format of a picture is recognised.
    """
    if size == 0:
        raise Unusable(EMPTY)
    with _file_budget.take(size, f"a file of {size} bytes"):
        data = read()
        if not data:
            raise Unusable(EMPTY)
        try:
            return _decoded(data, frame)
        except _TooMuchText:
            pixels, notes = _decoded(without_texts(data) or b"", frame)
            return pixels, [*notes, "long texts or a long profile in the file, ignored"]


class _TooMuchText(Exception):
    """More beside the pixels than Pillow unpacks."""


def _decoded(data: bytes, frame: Frame) -> tuple[np.ndarray, list[str]]:
    file = _File(data)
    try:
        with Image.open(file, formats=formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Unusable(f"{width} x {height} pixels, more than {MAX_PIXELS}")
            notes: list[str] = []
            _reduce(image, frame, data)
            with _budget.take(_memory(image, width * height), f"{width} x {height} pixels of {image.mode}"):
                return square(_loaded(image, file, frame, notes), frame, notes, (width, height)), notes
    except Unusable:
        raise
    except UnidentifiedImageError:
        raise Unidentified(what_else(data[:HEAD]) or NOT_READ) from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"too many pixels ({error})") from error
    except MemoryError:
        raise Unusable("not enough memory to decode it") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        if "MAX_TEXT" in str(error) and without_texts(data):
            raise _TooMuchText from None
        raise Unusable(f"broken or cut off ({error or type(error).__name__})") from error


def _reduce(image: Image.Image, frame: Frame, data: bytes) -> None:
    """Have a picture decoded at a fraction of its size where the format can: much cheaper. Twice the side is left, for
    the better filter to reduce."""
    extent = frame.extent(*image.size)
    if image.format in ("JPEG", "MPO"):
        if image.info.get("progressive") and (passes := data.count(b"\xff\xda")) > MAX_PASSES:
            raise Unusable(f"a JPEG of {passes} passes, more than {MAX_PASSES}")
        if extent >= 4 * frame.side(extent):
            step = next(step for step in (8, 4, 2) if extent >= 2 * step * frame.side(extent))
            image.draft(None, (image.width // step, image.height // step))
    elif image.format == "JPEG2000" and extent >= 4 * frame.side(extent):
        image.reduce = max(n for n in (1, 2, 3) if extent >= 2 * frame.side(extent) << n)  # type: ignore[method-assign]


def _memory(image: Image.Image, pixels: int) -> int:
    """Bytes that an opened picture takes while it is decoded and cut: copies of its pixels, as Pillow has them.

    Args:
        image: opened, to be decoded at `image.size`.
        pixels: of the file.
    """
    deep = image.mode.startswith(("I", "F")) or ";16" in str(getattr(image, "tile", ""))
    layers = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    bytes_each = 24 if deep else 20 if layers else 2 if image.mode in ("1", "L") else 8
    if image.info.get("icc_profile"):
        bytes_each += 8
    least = 6 * pixels if image.info.get("progressive") else 0  # the coefficients of all of it
    return image.width * image.height * bytes_each + least


def square(image: Image.Image, frame: Frame, notes: list[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """Cut a loaded picture, stretch the part to a square and give it the channels wanted.

    Args:
        image: of any mode of 8 bits.
        frame: how to cut it.
        notes: what was done is added.
        size: width and height of the picture that `image` is a smaller copy of; None: it is none.

    Returns:
        uint8 [channels, side, side].

    Raises:
        Unusable: too small.
    """
    size = size or image.size
    if min(size) < SMALLEST:
        raise Unusable(f"{size[0]} x {size[1]} pixels; the shorter side must have at least {SMALLEST}")
    extent = frame.extent(*size)
    if extent < frame.resolution:
        notes.append(f"smaller than {frame.resolution} pixels, enlarged")
    if frame.crop == "center":
        width, height = frame.cut(*image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        if image.size != (width, height):
            image = image.crop((left, top, left + width, top + height))
    image = _coloured(image, frame.channels, notes)
    side = frame.side(extent)
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return np.array(_planes(pixels), order="C")


def _planes(pixels: np.ndarray) -> np.ndarray:
    """[h, w, channels], or [h, w] of a grey picture -> [channels, h, w], a view."""
    return rearrange(pixels, "h w c -> c h w" if pixels.ndim == 3 else "h w -> 1 h w")


def cut(stored: np.ndarray, box: tuple[float, float, float, float], resolution: int) -> np.ndarray:
    """A part of a stored picture at another size.

    Args:
        stored: uint8 [channels, side, side].
        box: left, top, right, bottom as fractions of the side.
        resolution: side of the result.

    Returns:
        uint8 [channels, resolution, resolution], possibly a view.
    """
    side = stored.shape[1]
    left, top, right, bottom = (edge * side for edge in box)
    if right - left == bottom - top == resolution and left.is_integer() and top.is_integer():
        return stored[:, int(top) : int(bottom), int(left) : int(right)]
    # Only the part is copied, with the pixels around it that the filter needs.
    x0, x1 = reach(left, right, resolution, side)
    y0, y1 = reach(top, bottom, resolution, side)
    part = np.ascontiguousarray(rearrange(stored[:, y0:y1, x0:x1], "c h w -> h w c"))
    image = Image.fromarray(part if len(stored) > 1 else part[..., 0])
    inside = (left - x0, top - y0, min(right - x0, x1 - x0), min(bottom - y0, y1 - y0))
    pixels = np.asarray(image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=inside))
    return _planes(pixels)


def reach(start: float, end: float, resolution: int, side: int) -> tuple[int, int]:
    """The pixels, of `side`, that the filter needs for a window from `start` to `end`: from, and up to without it."""
    margin = LANCZOS * max(1.0, (end - start) / resolution) + 1
    return max(0, int(start - margin)), min(side, int(end + margin) + 1)


class _File(BytesIO):
    """Raises where a picture ends too early even if the program around has Pillow fill in what is missing.

    Pillow's LOAD_TRUNCATED_IMAGES holds for the whole program, where other parts may rely on it.
    """

    strict = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.strict and not data and size:
            raise OSError("image file is truncated")
        return data


def _loaded(image: Image.Image, file: _File, frame: Frame, notes: list[str]) -> Image.Image:
    """The first frame, decoded, the right way up."""
    if image.format in _ANIMATIONS and getattr(image, "is_animated", False):
        notes.append("animated, first frame")
    elif image.format == "TIFF" and getattr(getattr(image, "tag_v2", None), "next", 0):  # to count them takes all day
        notes.append("several pages, first page")
    # Pillow turns TIFF files itself, and then forgets that it did. PNG may have its EXIF behind the pixels.
    before = _orientation(image) if image.format == "TIFF" else 1
    # JPEG 2000 reads beyond the end of whole files too, and finds out by itself.
    file.strict = ImageFile.LOAD_TRUNCATED_IMAGES and image.format != "JPEG2000"
    try:
        deep = load_deep(image, lambda: Image.open(_File(file.getvalue()), formats=formats()))
    finally:
        file.strict = False
    turn = _orientation(image)
    if before != 1 or turn != 1:
        notes.append("turned by EXIF")
    flat = eight_bits(image, deep, file.getvalue(), notes)
    if turn == 1:
        return flat
    turned = flat.transpose(_TURNS[turn])
    turned.info = flat.info
    return turned


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in _TURNS else 1
    except Exception:  # damaged EXIF takes nothing away from the pixels
        return 1


def _coloured(image: Image.Image, channels: int, notes: list[str]) -> Image.Image:
    """8-bit picture of any mode as L, RGB or RGBA in the colours of sRGB."""
    profile = image.info.get("icc_profile")
    grey, alpha = image.mode in ("1", "L", "LA", "La"), None
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
        if alpha.getextrema()[0] == 255:
            alpha = None
    if profile:
        image = _to_srgb(image, profile, notes)
    if image.mode == "CMYK":
        notes.append("CMYK, converted to RGB")
    if grey and channels > 1:
        notes.append("grey, shown as colour")
    elif not grey and channels == 1:
        notes.append("colour, shown as grey")
    if channels == 4:
        image = _as(image, "RGBA") if alpha is None else _as(image, "RGB")
        if alpha is not None:
            image.putalpha(alpha)
        return image
    if alpha is not None:
        notes.append("transparent, laid on white")
        image = _as(image, "RGB")
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    return _as(image, MODES[channels])


def _as(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """L, RGB or CMYK by a colour profile as RGB; as it was, if it is sRGB already or the profile is no good."""
    if image.mode not in ("L", "RGB", "CMYK"):
        image = _as(image, "L" if image.mode == "1" else "RGB")
    try:
        transform = _transform(profile, image.mode)
        if transform is None:
            return image
        mode, apply = transform
        converted = ImageCms.applyTransform(_as(image, mode), apply)
    except Exception:  # also where Pillow comes without LittleCMS
        notes.append("colour profile ignored: damaged, or of another kind of picture")
        return image
    if converted is None:
        return image
    notes.append("colours converted to sRGB by the profile" if image.mode != "CMYK" else "CMYK, converted to RGB")
    return converted


@lru_cache(32)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """From a profile to sRGB: the mode that it takes, and the transform; None if there is nothing to do."""
    source: Any = ImageCms.ImageCmsProfile(BytesIO(profile))
    text = ImageCms.getProfileDescription(source).lower()
    if "srgb" in text and "linear" not in text and mode != "CMYK":
        return None
    space = source.profile.xcolor_space.strip()
    taken = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space, "")
    if taken != mode and (taken, mode) != ("RGB", "L"):
        raise ValueError(f"a profile for {space} in a picture of mode {mode}")
    target = ImageCms.createProfile("sRGB")
    build: Any = ImageCms.buildTransform  # whose flags have another type in each version
    return taken, build(source, target, taken, "RGB", ImageCms.Intent.PERCEPTUAL, _NO_CACHE)
