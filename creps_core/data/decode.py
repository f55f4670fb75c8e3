"""Untrusted image files of any format, decoded to 8-bit squares within a memory budget."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from .bit_depth import load_16_bit, strip_metadata, to_8_bit
from .crop import CropSpec, crop_to_square
from .decoder_memory import decoding_memory, opening_memory
from .file_types import HEAD, describe_non_image, readable_formats
from .memory_budget import BudgetTaken, MemoryBudget, Reservation
from .sources import UnusableFile, raise_if_exhausted

MAX_PIXELS = 1 << 27
"""Of one image. `memory_budget.DECODE_BYTES` may allow fewer, by format (`decoder_memory`). Pillow's own limit is
178 956 970; it belongs to the whole program and is left alone."""
MAX_PASSES = 100
"""Scans of a progressive JPEG: each one goes over all pixels, and a few bytes are enough for one."""
EMPTY_FILE = "empty file"
NOT_READ = "not a picture that can be read, or cut off"
_budget = MemoryBudget()  # of files and pixels together
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


class NotAnImage(UnusableFile):
    """The file is in no image format that is recognised."""


def decode_image(read: Callable[[], bytes], size: int, spec: CropSpec) -> tuple[np.ndarray, list[str]]:
    """Decode the bytes of a file to a square.

    Args:
        read: returns the bytes.
        size: approximate number of bytes.
        spec: how to crop.

    Returns:
        uint8 [channels, side, side], and notes: what was done to the image that the user may want to know.

    Raises:
        UnusableFile: what is wrong with it; NotAnImage: it is in no known image format.
    """
    if size == 0:
        raise UnusableFile(EMPTY_FILE)
    needed = size
    while True:
        try:
            with _budget.reserve(needed, f"a file of {size} bytes") as held:
                data = read()
                if not data:
                    raise UnusableFile(EMPTY_FILE)
                try:
                    return _decode(data, spec, held, size)
                except _TooMuchMetadata:
                    pixels, notes = _decode(strip_metadata(data) or b"", spec, held, 2 * size)
                    return pixels, [*notes, "long texts or a long profile in the file, ignored"]
        except BudgetTaken as taken:
            data, needed = b"", taken.needed


class _TooMuchMetadata(Exception):
    """Text or profile chunks beyond the size that Pillow unpacks."""


def _decode(data: bytes, spec: CropSpec, held: Reservation, held_by_files: int) -> tuple[np.ndarray, list[str]]:
    """Decode an image in memory; the reservation grows by what that takes beyond the bytes of files."""
    opening = held_by_files + opening_memory(data)
    held.grow(opening, f"a file of {len(data)} bytes")
    file = _StrictFile(data)
    try:
        with Image.open(file, formats=readable_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnusableFile(f"{width} x {height} pixels, more than {MAX_PIXELS}")
            notes: list[str] = []
            _use_reduced_decoding(image, spec, data)
            memory = opening + decoding_memory(image, width * height, data) + spec.output_memory(*image.size)
            held.grow(memory, f"{width} x {height} pixels of {image.mode} to {spec.resolution}")
            return crop_to_square(_load(image, file, notes), spec, notes, (width, height)), notes
    except (UnusableFile, BudgetTaken):
        raise
    except UnidentifiedImageError:
        raise NotAnImage(describe_non_image(data[:HEAD]) or NOT_READ) from None
    except Image.DecompressionBombError as error:
        raise UnusableFile(f"too many pixels ({error})") from error
    except MemoryError:
        raise UnusableFile("not enough memory to decode it") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise_if_exhausted(error)
        if "MAX_TEXT" in str(error) and strip_metadata(data):
            raise _TooMuchMetadata from None
        raise UnusableFile(f"broken or cut off ({error or type(error).__name__})") from error


def _use_reduced_decoding(image: Image.Image, spec: CropSpec, data: bytes) -> None:
    """Decode at a fraction of the size where the format supports it, which is much cheaper. At least twice the stored
    side remains, for Lanczos to reduce."""
    extent = spec.extent(*image.size)
    side = spec.stored_side(extent)
    if image.format in ("JPEG", "MPO"):
        if image.info.get("progressive") and (passes := data.count(b"\xff\xda")) > MAX_PASSES:
            raise UnusableFile(f"a JPEG of {passes} passes, more than {MAX_PASSES}")
        if extent >= 4 * side:
            factor = next(factor for factor in (8, 4, 2) if extent >= 2 * factor * side)
            image.draft(None, (image.width // factor, image.height // factor))
    elif image.format == "JPEG2000" and extent >= 4 * side:
        image.reduce = max(n for n in (1, 2, 3) if extent >= 2 * side << n)  # type: ignore[method-assign]


class _StrictFile(BytesIO):
    """Raises where an image ends too early, even if the host program lets Pillow fill in what is missing.

    Pillow's LOAD_TRUNCATED_IMAGES is global, and other code in the program may rely on it.
    """

    strict = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.strict and not data and size:
            raise OSError("image file is truncated")
        return data


def _load(image: Image.Image, file: _StrictFile, notes: list[str]) -> Image.Image:
    """The first frame, decoded, upright, with 8 bits per channel."""
    if image.format in _ANIMATIONS and getattr(image, "is_animated", False):
        notes.append("animated, first frame")
    elif image.format == "TIFF" and getattr(getattr(image, "tag_v2", None), "next", 0):  # counting pages can take hours
        notes.append("several pages, first page")
    # Pillow turns TIFF files while loading, and then drops the tag. PNG may have its EXIF after the pixels.
    before = _orientation(image) if image.format == "TIFF" else 1
    # JPEG 2000 reads beyond the end of intact files too, and checks for truncation itself.
    file.strict = ImageFile.LOAD_TRUNCATED_IMAGES and image.format != "JPEG2000"
    try:
        deep = load_16_bit(image, lambda: Image.open(_StrictFile(file.getvalue()), formats=readable_formats()))
    finally:
        file.strict = False
    turn = _orientation(image)
    if before != 1 or turn != 1:
        notes.append("turned by EXIF")
    flat = to_8_bit(image, deep, file.getvalue(), notes)
    if turn == 1:
        return flat
    turned = flat.transpose(_TURNS[turn])
    turned.info = flat.info
    return turned


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in _TURNS else 1
    except Exception:  # damaged EXIF does not affect the pixels
        return 1
