"""Images of more than 8 bits per channel, reduced to 8. Pillow keeps only the upper byte of several 16-bit channels."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from .sources import UnusableFile

_WHITE_IS_ZERO, _PHOTOMETRIC, _MAX_SAMPLE = 0, 262, 281  # of TIFF
_PNG = b"\x89PNG\r\n\x1a\n"
_SWAPPED = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
_INFERRED_DEPTHS = (8, 10, 12)  # inferred from the values alone: no 16-bit image is that dark everywhere


def load_16_bit(image: Image.Image, reopen: Callable[[], Image.Image]) -> np.ndarray | None:
    """Load an image; if it has several channels of 16 bits, also recover the lower bytes that Pillow drops.

    Args:
        image: opened, not loaded.
        reopen: opens the same file once more.

    Returns:
        uint16 [height, width, 3 or 4]; None for all other images.
    """
    raw = _raw_mode(image)
    tiles = list(getattr(image, "tile", ()))
    image.load()
    if not raw or image.mode not in ("RGB", "RGBA"):
        return None
    swapped = raw[:-4] + _SWAPPED[raw[-4:]]
    with reopen() as lower:
        lower.tile = [_with_raw_mode(tile, raw, swapped) for tile in tiles]  # type: ignore[attr-defined]
        try:
            lower.load()
        except (ValueError, OSError):  # this version of Pillow cannot unpack the swapped layout
            return None
        if lower.mode != image.mode or lower.size != image.size:
            return None
        return np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)


def to_8_bit(image: Image.Image, deep: np.ndarray | None, data: bytes, notes: list[str]) -> Image.Image:
    """A loaded image with 8 bits per channel.

    Integers are scaled by the depth that the file states (sBIT, MaxSampleValue), else by the smallest of 8, 10 and 12
    bits that holds all values, by 14 bits if the largest value is near that limit, else by 16.

    Args:
        image: loaded.
        deep: result of `load_16_bit` for it.
        data: bytes of its file.
        notes: what was done to the image is appended.

    Raises:
        UnusableFile: values without an agreed meaning.
    """
    values = np.asarray(image) if deep is None and image.mode.startswith("I") else deep
    if values is not None:
        flat = _scaled(values, _stated_bits(image, data), notes)
    elif image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 255):  # NaN fails as well
            raise UnusableFile(f"floating-point values from {low:g} to {high:g}; only 0 to 1 and 0 to 255 are read")
        if high > 1:
            notes.append("floating-point values of 0 to 255")
        flat = np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    else:
        return image
    if image.format == "TIFF" and deep is None and _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        flat = 255 - flat  # Pillow inverts only 8-bit images
    result = Image.fromarray(flat)
    result.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return result


def _scaled(values: np.ndarray, stated: int, notes: list[str]) -> np.ndarray:
    """Integers [h, w] or [h, w, channels] as uint8."""
    low, high = int(values.min()), int(values[..., :3].max() if values.ndim > 2 else values.max())
    if low < 0 or high > 65535:
        raise UnusableFile(f"whole numbers from {low} to {high}; of more than 8 bits, only 0 to 65535 is read")
    bits = stated if high < 1 << stated else _inferred_bits(high)
    if bits < 16:
        notes.append(f"stored with more than their {bits} bits, scaled")
    white = np.full(values.shape[2:], (1 << bits) - 1, np.uint32)
    if values.shape[2:] == (4,) and values[..., 3].max() > white[3]:
        white[3] = 65535
    flat = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):  # in bands, to bound memory
        flat[top : top + 256] = (values[top : top + 256].astype(np.uint32) * 255 + white // 2) // white
    return flat


def _raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode of several 16-bit channels, such as RGB;16B; empty for other images."""
    for tile in getattr(image, "tile", ())[:1]:
        raw = tile[3][0] if isinstance(tile[3], tuple) else tile[3]
        if isinstance(raw, str) and raw[-4:] in _SWAPPED and raw[:-4] in ("RGB", "RGBA"):
            return raw
    return ""


def _with_raw_mode(tile: tuple, raw: str, swapped: str) -> tuple:
    args = (swapped, *tile[3][1:]) if isinstance(tile[3], tuple) else swapped if tile[3] == raw else tile[3]
    fields = (*tile[:3], args)
    return type(tile)._make(fields) if hasattr(tile, "_make") else fields  # type: ignore[attr-defined]


def _inferred_bits(high: int) -> int:
    for bits in _INFERRED_DEPTHS:
        if high < 1 << bits:
            return bits
    return 14 if 0.8 * (1 << 14) <= high < 1 << 14 else 16


def _stated_bits(image: Image.Image, data: bytes) -> int:
    """The depth that the file states, in bits; 0: none."""
    if image.format == "PNG":
        content = next((content for kind, content in _chunks(data) if kind == b"sBIT"), b"")
        bits = max(content[:3], default=0)
        return bits if 8 <= bits <= 16 else 0
    if image.format == "TIFF":
        value = _tag(image, _MAX_SAMPLE)
        value = max(value) if isinstance(value, tuple) and value else value
        if isinstance(value, int) and 255 <= value <= 65535:
            return math.ceil(math.log2(value + 1))
    return 0


def _tag(image: Image.Image, number: int) -> object:
    try:
        return getattr(image, "tag_v2", {}).get(number)
    except Exception:  # a damaged directory does not affect the pixels
        return None


def strip_metadata(data: bytes) -> bytes | None:
    """A PNG file without its text and colour profile chunks; None: it has none, or is no PNG."""
    if not data.startswith(_PNG):
        return None
    kept, offset, dropped = [data[:8]], 8, False
    for kind, content in _chunks(data):
        chunk = data[offset : offset + 12 + len(content)]
        offset += 12 + len(content)
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            dropped = True
        else:
            kept.append(chunk)
    return b"".join(kept) if dropped else None


def largest_chunk(data: bytes) -> int:
    """Bytes of the largest chunk of a PNG file, without its pixels."""
    offset, largest = len(_PNG), 0
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        if data[offset + 4 : offset + 8] not in (b"IDAT", b"fdAT"):
            largest = max(largest, min(length, len(data) - offset))
        offset += 12 + length
    return largest


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Types and contents of the chunks of a PNG file, up to the first incomplete one."""
    offset = len(_PNG)
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        if offset + 12 + length > len(data):
            return
        yield data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]
        offset += 12 + length
